"""The processes that train one run together, as `torchrun` starts them.

Each rank has a copy of the network and reads its share of every batch; what they find is averaged.
Small words between them (a signal came, a rank failed) go over gloo on the CPU, also where tensors
travel over NCCL: no rank ever waits for its GPU to learn of them. One process is `ALONE`, for which
every method returns at once. torch is imported when there is more than one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from hdkd_cli.errors import ArtifactError, HdkdError, OtherRankFailed, SettingsError, UsageError
from hdkd_cli.wording import first_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """One of the processes that train a run. All methods but the properties are collective: every
    rank calls them, in the same order.

    Attributes:
        rank: Place of this process, from 0.
        size: How many there are.
        local_rank: Place of this process on its machine, from 0.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and stderr."""
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """Sum over the ranks, in place; bit for bit the same on all of them."""
        if self.size > 1:
            import torch.distributed as dist

            with self._contact():
                dist.all_reduce(tensor)
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """Average over the ranks, in place; bit for bit the same on all of them."""
        return self.total(tensor).div_(self.size) if self.size > 1 else tensor

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Give every rank the first one's values, in place."""
        if self.size == 1:
            return
        import torch.distributed as dist

        with self._contact():
            for tensor in tensors:
                whole = tensor.detach().contiguous()
                dist.broadcast(whole, 0)
                tensor.detach().copy_(whole)

    def text(self, text: str) -> str:
        """The first rank's text (not empty), on every rank."""
        if self.size == 1:
            return text
        import torch

        content = torch.tensor(list(text.encode()), dtype=torch.uint8)
        length = torch.tensor(len(content))
        self.broadcast([length])
        content = content if self.first else content.new_empty(int(length))
        self.broadcast([content])
        return bytes(content.tolist()).decode()

    def largest(self, number: int) -> int:
        """The largest of all ranks' numbers."""
        if self.size == 1:
            return number
        import torch
        import torch.distributed as dist

        numbers = torch.tensor(number)
        with self._contact():
            dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return int(numbers)

    def together(self, work: Callable[[], T]) -> T:
        """Do ``work``, which is not collective, on every rank, and go on only if all succeed.

        Of several ranks that fail, often for the same reason, only the first reports it.

        Raises:
            HdkdError, OSError: this rank's problem.
            OtherRankFailed: that of another one.
        """
        problem: HdkdError | OSError | None = None
        try:
            result = work()
        except HdkdError as error:
            problem, code = error, error.exit_code
        except OSError as error:
            problem, code = error, ArtifactError.exit_code
        # the first rank that failed has the largest number, and its exit code is in the low byte
        failed = self.largest((self.size - self.rank) << 8 | code if problem else 0)
        if not failed:
            return result
        if problem and failed >> 8 == self.size - self.rank:
            raise problem
        raise OtherRankFailed(failed & 0xFF)

    def in_turn(self, work: Callable[[], T]) -> T:
        """As ``together``, but the first rank of each machine goes ahead: the others then find what
        it downloaded and decoded."""
        done: list[T] = []

        def do() -> None:
            done.append(work())

        leads = self.local_rank == 0
        self.together(do if leads else _nothing)
        self.together(_nothing if leads else do)
        return done[0]

    def own_device(self, device: torch.device) -> torch.device:
        """The device of this rank where the run's is ``device``: each rank has a GPU of its own.

        Raises:
            SettingsError: there are too few, or one in particular was asked for.
        """
        if self.size == 1 or device.type == "cpu":
            return device
        import torch

        if device.type != "cuda" or device.index is not None:
            raise SettingsError(f"training.device {device}: {self.size} ranks train on cpu or cuda")
        if self.local_rank >= torch.cuda.device_count():
            raise SettingsError(
                f"this machine has {torch.cuda.device_count()} usable CUDA devices, too few for "
                "torchrun's --nproc-per-node: each rank needs one of its own, or --device cpu"
            )
        torch.cuda.set_device(self.local_rank)
        return torch.device("cuda", self.local_rank)

    @contextmanager
    def _contact(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as problem:  # base of torch's own errors and all that gloo raises
            raise HdkdError(
                f"rank {self.rank} lost contact with the other ranks ({first_line(problem)})"
            ) from problem


def _nothing() -> None:
    """What a rank does while another one works."""


ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks torchrun's environment tells of, connected while the block lasts.

    Raises:
        UsageError: the environment is incomplete.
        HdkdError: the other ranks cannot be reached.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield ALONE
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, size = next(rendezvous("env://"))
        # torchrun's store outlives a restart, with the addresses of processes that are gone
        start = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')} of {size}"
        store = dist.PrefixStore(start, store)  # type: ignore[attr-defined]
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=store,
            rank=rank,
            world_size=size,
        )
        local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    except ValueError as problem:
        raise UsageError(
            f"WORLD_SIZE is set, but the rest of torchrun's environment is not ({problem})",
            hint="start with `torchrun … -m hdkd_cli train …`, or unset WORLD_SIZE",
        ) from None
    except RuntimeError as problem:
        raise HdkdError(f"the other ranks cannot be reached ({problem})") from None
    try:
        ranks = Ranks(rank, size, local_rank)
        yield ranks
        ranks.largest(0)  # no rank closes its connections while another still uses them
    finally:
        # One after another, the last rank first: gloo's threads may abort the process when a
        # connection is closed from both ends at once. A rank that died is not waited for long.
        with suppress(RuntimeError):
            if rank + 1 < size:
                store.wait([f"gone {rank + 1}"], timedelta(seconds=3))
        dist.destroy_process_group()
        with suppress(RuntimeError):
            store.set(f"gone {rank}", "")


class Launch(NamedTuple):
    """What torchrun says of the job that this process belongs to."""

    id: str
    """Names the job: the same after a restart."""
    restarts: int
    """How often its processes were started again."""
    lasting: bool
    """Whether ``id`` also outlives torchrun itself (another machine joins, the job is requeued)."""

    @classmethod
    def of_environment(cls) -> Launch | None:
        """None without torchrun."""
        run_id = os.environ.get("TORCHELASTIC_RUN_ID")
        if not run_id:
            return None
        restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        if run_id == "none":  # torchrun's default on several machines: every job has it
            return cls(f"{socket.gethostname()}/{os.getppid()}", restarts, lasting=False)
        return cls(run_id, restarts, lasting=True)
