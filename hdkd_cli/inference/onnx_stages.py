"""A network whose stages run in onnxruntime: programs built in memory, nothing is written.

The states between its stages are those of the torch network, so whatever runs one runs the other.
B samples, C classes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from functools import cached_property, partial
from typing import Any, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hdkd_cli.errors import ExportError
from hdkd_cli.inference.fold import folded
from hdkd_cli.inference.programs import TOLERANCE, states_for
from hdkd_cli.models.contract import MultiExitNet, Stage, State
from hdkd_cli.wording import first_line

_EXAMPLES = 3  # so many samples are traced; one and all of them are compared


def in_onnxruntime(net: MultiExitNet, threads: int) -> MultiExitNet:
    """``net`` in onnxruntime on the processor: the same answers, up to rounding.

    Args:
        net: The trained network, on the CPU.
        threads: That an operator may use.

    Raises:
        ExportError: a stage cannot be expressed, or its program computes something else.
    """
    net = folded(net)
    states = states_for(net, _EXAMPLES)
    stages = []
    for number, (stage, state) in enumerate(zip(net.stages, states, strict=True), 1):
        try:
            stages.append(OnnxStage(stage, state, threads))
        except Exception as problem:  # the tracer and onnxruntime raise whatever they stumble over
            raise ExportError(
                f"stage {number} cannot run in onnxruntime: {first_line(problem)}"
            ) from problem
    return MultiExitNet(
        stages,
        name=net.name,
        num_classes=net.num_classes,
        input_shape=net.input_shape,
        arguments=net.arguments,
    )


class OnnxStage(Stage):
    """A stage in one program; its body and its head alone are two more, built at first use.

    Args:
        stage: What it computes, in evaluation mode.
        state: What it takes, for some samples.
        threads: That an operator may use.

    Raises:
        ExportError: the program computes something else.
    """

    def __init__(self, stage: Stage, state: State, threads: int) -> None:
        super().__init__()
        self.head_keys = stage.head_keys
        self._build = partial(_Program, stage, threads=threads)
        self._before = state
        with torch.no_grad():
            self._after = stage.body(state)
        self._all = self._build(state, writes=tuple(self._after), head=True)

    def body(self, state: State) -> State:
        """The next state, and nothing else is computed."""
        return _HandedOn(zip(self._after, self._body_alone(state), strict=True))

    def head(self, state: State) -> Tensor:
        """Logits (B, C)."""
        return torch.from_numpy(self._head_alone(state)[0])

    def both(self, state: State) -> tuple[State, Tensor]:
        """Body and head in one program."""
        *arrays, logits_BC = self._all(state)
        return _HandedOn(zip(self._after, arrays, strict=True)), torch.from_numpy(logits_BC)

    @cached_property
    def _body_alone(self) -> _Program:
        return self._build(self._before, writes=tuple(self._after), head=False)

    @cached_property
    def _head_alone(self) -> _Program:
        read = {key: self._after[key] for key in self.head_keys}
        return self._build(read, writes=(), head=True)


class _HandedOn(dict[str, Tensor]):
    """A state that remembers what it is made of: while all samples go on, the next program takes
    that, which for one image is a hundredth of its time.

    Args:
        entries: Names and arrays.
    """

    def __init__(self, entries: Iterable[tuple[str, NDArray[Any]]]) -> None:
        self.arrays = dict(entries)
        super().__init__({key: torch.from_numpy(array) for key, array in self.arrays.items()})


class _Program:
    """A part of a stage under onnxruntime, compared with torch as soon as it is built.

    Args:
        stage: The stage.
        state: What it takes, for some samples; without ``writes``, what its head takes.
        writes: Entries that the body is to compute; none: the head alone runs.
        head: Whether the logits come after them.
        threads: That an operator may use.

    Raises:
        ExportError: it computes something else.
    """

    def __init__(
        self, stage: Stage, state: State, *, writes: tuple[str, ...], head: bool, threads: int
    ) -> None:
        import onnxruntime

        function = _Function(stage, tuple(state), writes, head).eval()
        names = [f"in.{key}" for key in state]
        outputs = [f"out.{key}" for key in (*writes, *("logits",) * head)]
        content = io.BytesIO()
        with warnings.catch_warnings():
            # The older of torch's exporters, deprecated, builds programs that live as long as this
            # process in a thirtieth of the time (docs/log.md). Its tracer warns of every shape
            # that Python reads.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                function,
                tuple(state.values()),
                cast("Any", content),  # a file-like object is declared for the newer one no more
                input_names=names,
                output_names=outputs,
                dynamic_axes={name: {0: "batch"} for name in (*names, *outputs)},
                dynamo=False,
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(
            content.getvalue(), options, providers=["CPUExecutionProvider"]
        )
        self._outputs = outputs
        used = {tensor.name for tensor in self._session.get_inputs()}
        self._reads = [(name, key) for name, key in zip(names, state, strict=True) if name in used]
        self._compare(function, state)

    def __call__(self, state: State) -> list[NDArray[Any]]:
        """What it computes from a state on the CPU."""
        if isinstance(state, _HandedOn):
            feed = {name: state.arrays[key] for name, key in self._reads}
        else:
            feed = {name: state[key].contiguous().numpy() for name, key in self._reads}
        found: list[NDArray[Any]] = self._session.run(self._outputs, feed)
        return found

    def _compare(self, function: _Function, state: State) -> None:
        for index in (slice(1), slice(None)):
            part = {key: tensor[index] for key, tensor in state.items()}
            with torch.no_grad():
                wanted = function(*part.values())
            for ours, theirs in zip(wanted, self(part), strict=True):
                # Sums are rounded by the size of their terms, which may be far above their own.
                size = ours.abs().max().clamp_min(1)
                gap = (ours - torch.from_numpy(theirs)).abs().max() / size
                if not gap <= TOLERANCE:  # NaN is a difference too
                    raise ExportError(f"its program differs by {float(gap):.2g} from torch")


class _Function(nn.Module):
    """A part of a stage as a function of tensors."""

    def __init__(
        self, stage: Stage, reads: tuple[str, ...], writes: tuple[str, ...], head: bool
    ) -> None:
        super().__init__()
        self.stage, self.reads, self.writes, self.with_head = stage, reads, writes, head

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        state = dict(zip(self.reads, tensors, strict=True))
        if self.writes:
            state = self.stage.body(state)
        logits = (self.stage.head(state),) if self.with_head else ()
        return (*(state[key] for key in self.writes), *logits)
