"""Runs on several ranks for tests: processes over gloo, and a network they cannot disagree on."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import signal
import socket
from pathlib import Path
from typing import Any

import torch
from small_runs import small_settings
from torch import Tensor, nn

from hdkd_cli.data import open_data
from hdkd_cli.errors import HdkdError
from hdkd_cli.models import MultiExitNet, Stage, State
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.settings.networks import CustomModelSettings
from hdkd_cli.settings.schema import Settings
from hdkd_cli.training.distributed import joined
from hdkd_cli.training.events import Event, StepLogged
from hdkd_cli.training.session import run_training

CPU = torch.device("cpu")


class _Block(Stage):
    head_keys = ("image",)

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.classifier = nn.Linear(width, classes)

    def body(self, state: State) -> State:
        return {"image": self.convolution(state["image"]).relu()}

    def head(self, state: State) -> Tensor:
        logits: Tensor = self.classifier(state["image"].mean((2, 3)))
        return logits


class PlainNet(MultiExitNet):
    """No BatchNorm, so that images can be shared out in any way.

    ``TROUBLE=<rank>:<pass>:<kind>`` in the environment makes the training pass with that number go
    wrong on one rank, once: ``kill`` its process, or yield ``nan``.
    """

    passes = 0

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_KBC = super().forward(images_BCHW)
        self.passes += self.training
        rank, number, kind = os.environ.get("TROUBLE", "-:0:").split(":")
        if rank == os.environ.get("RANK") and int(number) == self.passes:
            if kind == "nan":
                return logits_KBC * torch.nan
            if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
                os.kill(os.getpid(), signal.SIGKILL)
        return logits_KBC


def plain_net(*, exits: int, num_classes: int, image_size: int) -> PlainNet:
    """``model.name = "several_ranks:plain_net"``."""
    widths = [3] + [8 * 2**k for k in range(exits)]
    return PlainNet(
        [_Block(*pair, num_classes) for pair in itertools.pairwise(widths)],
        name="plain",
        num_classes=num_classes,
        input_shape=(3, image_size, image_size),
        arguments={},
    )


def plain_settings(**training: object) -> Settings:
    """A dozen quick steps of ``PlainNet``, each logged; the weights move every second step."""
    settings = small_settings(model=CustomModelSettings(name="several_ranks:plain_net", exits=3))
    changes = {"log_every": 1, **training}
    return settings.model_copy(update={"training": settings.training.model_copy(update=changes)})


class Follow:
    """A sink: keeps what was logged, and sends a signal after one of the steps."""

    def __init__(self, signal_at: int | None = None) -> None:
        self.steps: list[StepLogged] = []
        self.signal_at = signal_at

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepLogged):
            self.steps.append(event)
            if event.step == self.signal_at:
                os.kill(os.getpid(), signal.SIGTERM)


def train_alone(run: RunFolder, settings: Settings, *, resume: bool = False) -> list[StepLogged]:
    """Train in this process; the steps as they were logged."""
    follow = Follow()
    data = open_data(settings.data)
    run_training(run, settings, data, CPU, sinks=[follow], resume=resume)
    return follow.steps


def train_on_two_ranks(
    run: RunFolder,
    settings: Settings,
    *,
    resume: bool = False,
    signal_rank_1_at: int | None = None,
    trouble: str = "",
) -> list[dict[str, Any]]:
    """Train in two processes; what each of them saw: steps, exception, exit code."""
    environments = two_ranks() if not trouble else [e | {"TROUBLE": trouble} for e in two_ranks()]
    context = multiprocessing.get_context("spawn")
    answers = [run.path / f"rank-{rank}.json" for rank in range(2)]
    processes = [
        context.Process(
            target=_rank,
            args=(run, settings, resume, environment, at, answer),
        )
        for environment, at, answer in zip(
            environments, (None, signal_rank_1_at), answers, strict=True
        )
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    return [json.loads(answer.read_text()) for answer in answers]


def two_ranks() -> list[dict[str, str]]:
    """What torchrun would tell two processes on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [{"RANK": str(r), "LOCAL_RANK": str(r), **common} for r in range(2)]


def _rank(
    run: RunFolder,
    settings: Settings,
    resume: bool,
    environment: dict[str, str],
    signal_at: int | None,
    answer: Path,
) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    follow = Follow(signal_at)
    outcome: dict[str, object] = {"exception": None, "exit_code": 0, "message": ""}
    with joined() as ranks:
        try:
            run_training(
                run,
                settings,
                open_data(settings.data),
                CPU,
                sinks=[follow],
                resume=resume,
                ranks=ranks,
            )
        except HdkdError as problem:
            outcome = {
                "exception": type(problem).__name__,
                "exit_code": problem.exit_code,
                "message": str(problem),
            }
    steps = [event.record() for event in follow.steps]
    answer.write_text(json.dumps({"steps": steps, **outcome}))
