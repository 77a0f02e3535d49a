"""Taking a network elsewhere: one program per stage, the policy, the labels, and a runner.

A program takes the entries of the state that its stage reads, and returns the logits and the
entries that later stages read, in the order in which the next program takes them. Nothing in the
folder needs pickle: an ONNX file holds its weights itself, a .pt2 archive as raw bytes.
K exits, B batch, C classes.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from hdkd_cli.choices import ExportTarget
from hdkd_cli.errors import ExportError, UsageError
from hdkd_cli.evaluation.policy import ExitPolicy, write_policy
from hdkd_cli.files import atomic_folder, sha256_file, write_bytes, write_json, write_text
from hdkd_cli.inference import runner
from hdkd_cli.models.contract import MultiExitNet, Stage, State
from hdkd_cli.models.cost import measure_costs
from hdkd_cli.reading import parse_record, read_text
from hdkd_cli.records import Exported, ExportedTransform, ManifestFile, StageProgram
from hdkd_cli.settings.schema import DataSettings

TOLERANCE = 1e-4
"""Largest difference between what a program and its stage return; relative beyond ±1."""

README = """\
A classifier with several exits: easy images leave early.

    pip install {needs} numpy pillow
    python run.py IMAGE ...

manifest.json describes the other files. The thresholds in policy.json may be edited.
"""


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


def refuse_target(to: ExportTarget, folder: Path) -> None:
    """Whether an export can be written, before any work is done.

    Raises:
        UsageError: ``folder`` holds something already, or a package is missing.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        whole = _whole_export(folder)
        held = f" and holds a whole export to {whole.to}" if whole else ""
        raise UsageError(
            f"{folder}: exists already{held}",
            hint="use it, or name a new or empty folder" if whole else "name a new or empty folder",
            subject=folder,
        )
    needed = ("onnx", "onnxscript", "onnxruntime") if to == "onnx" else ()
    if missing := [name for name in needed if find_spec(name) is None]:
        raise UsageError(f"--to {to} needs {', '.join(missing)}: pip install 'hdkd[export]'")


def _whole_export(folder: Path) -> Exported | None:
    """What ``folder`` holds if it is a complete export, such as one that ended before it was told.

    Files other than the programs may have been edited.
    """
    source = folder / "manifest.json"
    try:
        text = read_text(source, ExportError)
        manifest = parse_record(Exported, Exported.schema_id, text, str(source), ExportError)
        programs = {stage.file for stage in manifest.programs}
        files = {file.name: file.sha256 for file in manifest.files}
        whole = all(sha256_file(folder / name) == files.get(name) for name in programs)
        whole = whole and all((folder / name).is_file() for name in files)
    except (ExportError, OSError):
        return None
    return manifest if whole else None


def export(
    net: MultiExitNet,
    policy: ExitPolicy,
    classes: Sequence[str],
    data: DataSettings,
    *,
    to: ExportTarget,
    folder: Path,
    checkpoint_sha256: str,
) -> None:
    """Write ``net`` as programs that run without this package; all of ``folder`` or nothing.

    What is written is run and compared with the network before it gets its name.

    Args:
        net: The trained network, on the CPU, in evaluation mode.
        policy: How images leave: one operating point.
        classes: Class names in the order of the labels.
        data: The evaluation transform.
        to: Format of the programs.
        folder: Where to; absent or empty.
        checkpoint_sha256: Where the weights come from.

    Raises:
        UsageError: see `refuse_target`.
        ExportError: a stage cannot be expressed, or its program computes something else.
        OSError: the disk is full or the folder is not writable; nothing is left behind then.
    """
    assert len(policy.points) == 1
    if policy.confidence not in runner.CONFIDENCES:
        raise ExportError(
            f"the policy's confidence is {policy.confidence!r}, which the runner does not have",
            hint=f"calibrate with one of {', '.join(runner.CONFIDENCES)}",
        )
    refuse_target(to, folder)
    serialised = _as_onnx if to == "onnx" else _as_pt2
    with atomic_folder(folder) as target:
        programs = trace_stages(net)
        names = [f"stage{number}.{to}" for number in range(1, len(programs) + 1)]
        for number, (name, program) in enumerate(zip(names, programs, strict=True), 1):
            try:
                content = serialised(program)
            except Exception as problem:  # exporters raise whatever they stumble over
                raise _inexpressible(number, problem) from problem
            write_bytes(target / name, content)
        write_policy(target / "policy.json", policy)
        write_text(target / "labels.json", json.dumps(list(classes), indent=2) + "\n")
        write_bytes(target / "run.py", Path(runner.__file__).read_bytes())
        needs = "onnxruntime" if to == "onnx" else "torch"
        write_text(target / "README.txt", README.format(needs=needs))
        manifest = Exported(
            to=to,
            network=net.name,
            checkpoint_sha256=checkpoint_sha256,
            input_shape=net.input_shape,
            transform=ExportedTransform(
                resize=data.shorter_side,
                interpolation=f"{data.interpolation}, antialiased",
                crop=data.image_size,
                mean=data.mean,
                std=data.std,
            ),
            macs=measure_costs(net).macs_K,
            programs=tuple(
                StageProgram(
                    file=name, inputs=tuple(_inputs(program)), outputs=tuple(_outputs(program))
                )
                for name, program in zip(names, programs, strict=True)
            ),
            files=tuple(
                ManifestFile(name=path.name, bytes=path.stat().st_size, sha256=sha256_file(path))
                for path in sorted(target.iterdir())
            ),
        )
        write_json(target / "manifest.json", manifest.as_record())
        _verify(runner.Network(target), net, programs)


def trace_stages(net: MultiExitNet) -> list[Program]:
    """The K stages as graphs with a dynamic batch; each reads and writes only what is needed.

    Raises:
        ExportError: torch cannot express a stage as a graph.
    """
    states = _states(net, batch=2)
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
            raise _inexpressible(k + 1, problem) from problem
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


def _states(net: MultiExitNet, batch: int) -> list[State]:
    """What each of the K stages takes, for noise; the same noise each time."""
    generator = torch.Generator().manual_seed(0)
    states = [net.start(torch.randn(batch, *net.input_shape, generator=generator))]
    with torch.no_grad():
        for stage in list(net.stages)[:-1]:
            states.append(stage.body(states[-1]))
    return states


def _inputs(program: Program) -> list[str]:
    """Names in a graph are unique, an entry that is read and written has two."""
    return [f"in.{name}" for name in program.reads]


def _outputs(program: Program) -> list[str]:
    return ["logits", *(f"out.{name}" for name in program.writes)]


def _as_onnx(program: Program) -> bytes:
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.11 uses what it deprecates
        # One name for the batch of all inputs is what we mean, the exporter finds it odd.
        warnings.filterwarnings("ignore", message="# The axis name: batch")
        exported = torch.onnx.export(
            program.graph,
            input_names=_inputs(program),
            output_names=_outputs(program),
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


def _inexpressible(number: int, problem: Exception) -> ExportError:
    first = (str(problem).strip() or type(problem).__name__).splitlines()[0]
    return ExportError(f"stage {number} cannot be exported: {type(problem).__name__}: {first}")


def _verify(exported: runner.Network, net: MultiExitNet, programs: Sequence[Program]) -> None:
    """Compare what was written with the stages, each on the true state, at two batch sizes.

    Raises:
        ExportError: they differ by more than ``TOLERANCE``.
    """
    for batch in (1, 3):
        states = _states(net, batch)
        for k, (program, stage) in enumerate(zip(programs, net.stages, strict=True)):
            with torch.no_grad():
                state = stage.body(states[k])
                wanted = [stage.head(state), *(state[name] for name in program.writes)]
            found = exported.program_K[k]([states[k][name].numpy() for name in program.reads])
            for name, ours, theirs in zip(_outputs(program), wanted, found, strict=True):
                gap = (ours - torch.from_numpy(theirs)).abs() / ours.abs().clamp_min(1)
                if not gap.max() <= TOLERANCE:  # NaN is a difference too
                    raise ExportError(
                        f"stage {k + 1}: the exported program's {name} differs by "
                        f"{float(gap.max()):.2g} from the network's, {TOLERANCE:g} is allowed"
                    )
