"""Stages as programs: traced graphs with a dynamic batch, serialised for other runtimes.

A program takes the entries of the state that its stage reads, and returns the logits and the
entries that later stages read, in the order in which the next program takes them. B batch, C
classes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from hdkd_cli.choices import ExportPrecision, ExportTarget
from hdkd_cli.errors import ExportError
from hdkd_cli.files import sha256_bytes
from hdkd_cli.models.contract import MultiExitNet, Stage, State

TOLERANCE = 1e-4
"""Largest difference between what a program and its stage return; relative beyond ±1."""


@dataclass(frozen=True)
class Program:
    """One stage as a graph.

    Attributes:
        graph: Takes the tensors of ``reads``; returns logits and the tensors of ``writes``.
        reads: Entries of the incoming state.
        writes: Entries of the outgoing state, as the next program reads them.
    """

    graph: ExportedProgram
    reads: tuple[str, ...]
    writes: tuple[str, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names in a graph are unique, an entry that is read and written has two."""
        return tuple(f"in.{name}" for name in self.reads)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it returns, in order."""
        return ("logits", *(f"out.{name}" for name in self.writes))


def trace_stages(net: MultiExitNet) -> list[Program]:
    """The K stages as graphs with a dynamic batch; each reads and writes only what is needed.

    Raises:
        ExportError: torch cannot express a stage as a graph.
    """
    states = states_for(net, batch=2)
    programs: list[Program] = []
    needed: tuple[str, ...] = ()  # by the stages behind the one at hand
    for k in reversed(range(net.num_exits)):
        stage, state = net.stages[k], states[k]
        try:
            graph = _trace(stage, state, needed)
            used = _used(graph, tuple(state))
            if used != tuple(state):
                graph = _trace(stage, {name: state[name] for name in used}, needed)
        except Exception as problem:  # tracers raise whatever they stumble over
            raise inexpressible(k + 1, problem) from problem
        programs.append(Program(graph, reads=used, writes=needed))
        needed = used
    return programs[::-1]


class _Whole(nn.Module):
    """A stage as one function of tensors: body, then head."""

    def __init__(self, stage: Stage, reads: tuple[str, ...], writes: tuple[str, ...]) -> None:
        super().__init__()
        self.stage = stage
        self.reads = reads
        self.writes = writes

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        state = self.stage.body(dict(zip(self.reads, tensors, strict=True)))
        return self.stage.head(state), *(state[name] for name in self.writes)


def _trace(stage: Stage, state: State, writes: tuple[str, ...]) -> ExportedProgram:
    batch = Dim("batch")
    with torch.no_grad():
        graph = torch.export.export(
            _Whole(stage, tuple(state), writes).eval(),
            tuple(state.values()),
            dynamic_shapes={"tensors": tuple({0: batch} for _ in state)},
            strict=False,
        )
    graph.example_inputs = None  # the one thing that a .pt2 archive would hold as a pickle
    for node in graph.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return graph


def _used(graph: ExportedProgram, reads: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the inputs that something is computed from."""
    places = {node.name: node for node in graph.graph.nodes if node.op == "placeholder"}
    inputs = graph.graph_signature.user_inputs
    return tuple(
        name for name, place in zip(reads, inputs, strict=True) if places[str(place)].users
    )


def states_for(net: MultiExitNet, batch: int) -> list[State]:
    """What each of the K stages takes, for noise; the same noise each time."""
    generator = torch.Generator().manual_seed(0)
    states = [net.start(torch.randn(batch, *net.input_shape, generator=generator))]
    with torch.no_grad():
        for stage in list(net.stages)[:-1]:
            states.append(stage.body(states[-1]))
    return states


@dataclass(frozen=True)
class Programs:
    """The K stages as files.

    Attributes:
        traced: What each reads and writes.
        files: The content of each file.
        net: What they compute: they are compared with it once they are written.
        precision: How weights are stored.
    """

    traced: Sequence[Program]
    files: Sequence[bytes]
    net: MultiExitNet
    precision: ExportPrecision = "fp32"

    @classmethod
    def of(cls, net: MultiExitNet, to: ExportTarget) -> Programs:
        """Those of a network, on the CPU and in evaluation mode.

        Raises:
            ExportError: a stage cannot be expressed.
        """
        traced = trace_stages(net)
        return cls(traced, [serialised(program, k, to) for k, program in enumerate(traced, 1)], net)

    @property
    def sha256(self) -> str:
        """Fingerprint of all of them."""
        return sha256_bytes(*self.files)


def serialised(program: Program, number: int, to: ExportTarget) -> bytes:
    """A program as the content of a file.

    Args:
        program: Which.
        number: Its stage, from 1, for the message.
        to: Format.

    Raises:
        ExportError: the format cannot express it.
    """
    try:
        return _as_onnx(program) if to == "onnx" else _as_pt2(program)
    except Exception as problem:  # exporters raise whatever they stumble over
        raise inexpressible(number, problem) from problem


def _as_onnx(program: Program) -> bytes:
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.11 uses what it deprecates
        # One name for the batch of all inputs is what we mean, the exporter finds it odd.
        warnings.filterwarnings("ignore", message="# The axis name: batch")
        exported = torch.onnx.export(
            program.graph,
            input_names=program.inputs,
            output_names=program.outputs,
            dynamic_shapes={"tensors": tuple({0: Dim("batch")} for _ in program.reads)},
            dynamo=True,
            verbose=False,
        )
    assert exported is not None
    for node in exported.model.graph:
        node.metadata_props.clear()  # the exporter's notes to itself, longer than the graph
    content: bytes = exported.model_proto.SerializeToString()
    return content


def _as_pt2(program: Program) -> bytes:
    archive = io.BytesIO()
    torch.export.save(program.graph, archive)
    return archive.getvalue()


def inexpressible(number: int, problem: Exception) -> ExportError:
    """What to raise when a library stumbles over stage ``number``."""
    root: BaseException = problem  # torch's exporter wraps it in advice on how to report it
    while root.__cause__ is not None:
        root = root.__cause__
    first = (str(root).strip() or "no message").splitlines()[0]
    return ExportError(f"stage {number} cannot be exported: {type(root).__name__}: {first}")
