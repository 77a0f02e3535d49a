"""Taking a network elsewhere: its programs, the policy, the labels, and a runner, in a folder.

Nothing in the folder needs pickle: an ONNX file holds its weights itself, a .pt2 archive as raw
bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from hdkd_cli.choices import ExportPrecision, ExportTarget
from hdkd_cli.errors import ExportError, UsageError
from hdkd_cli.evaluation.policy import ExitPolicy, write_policy
from hdkd_cli.files import atomic_folder, sha256_file, write_bytes, write_json, write_text
from hdkd_cli.inference import runner
from hdkd_cli.inference.exported_files import CONFIDENCES
from hdkd_cli.inference.exported_network import Network
from hdkd_cli.inference.programs import Programs
from hdkd_cli.inference.standalone import standalone
from hdkd_cli.inference.verify import verify_single_file, verify_stages
from hdkd_cli.models.contract import MultiExitNet
from hdkd_cli.models.cost import measure_costs
from hdkd_cli.reading import parse_record, read_text
from hdkd_cli.records.export import (
    Exported,
    ExportedTransform,
    ManifestFile,
    Reduction,
    StageProgram,
)
from hdkd_cli.settings.data import DataSettings

README = """\
A classifier with several exits: easy images leave early.

    pip install {needs} numpy pillow
    python run.py IMAGE ...

manifest.json describes the other files. The thresholds in policy.json may be edited.
"""

SINGLE_FILE = """
network.onnx is all that another program needs. It takes images (B, 3, H, W), float32, prepared as
its metadata say, and thresholds (K-1 of them, or none at all for those of the policy), and returns
prediction (B), exit (B, from 1), confidence (B) and logits (B, C):

    import numpy, onnxruntime
    session = onnxruntime.InferenceSession("network.onnx")
    none = numpy.empty(0, numpy.float32)
    answer = session.run(None, {"image": images, "thresholds": none})

It computes until the last image of a batch has left: give it one image at a time.
"""


def refuse_target(
    to: ExportTarget,
    folder: Path,
    *,
    single_file: bool = False,
    precision: ExportPrecision = "fp32",
) -> None:
    """Whether an export can be written, before any work is done.

    Raises:
        UsageError: ``folder`` holds something already, a package is missing, or the format has no
            single file or no such precision.
    """
    if single_file and to == "pt2":
        raise UsageError(f"--single-file: there is none for --to {to}", hint="use --to onnx")
    if precision != "fp32" and to != "onnx":
        raise UsageError(f"--precision {precision}: not for --to {to}", hint="use --to onnx")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        whole = _whole_export(folder)
        held = f" and holds a whole export to {whole.to}" if whole else ""
        raise UsageError(
            f"{folder}: exists already{held}",
            hint="use it, or name a new or empty folder" if whole else "name a new or empty folder",
            subject=folder,
        )
    needed = () if to == "pt2" else ("onnx", "onnxscript", "onnxruntime")
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
    single_file: bool = False,
    programs: Programs | None = None,
    reduction: Reduction | None = None,
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
        single_file: One ONNX file that stops by itself, instead of a program a stage.
        programs: Its stages, if they are there already; they may be of lower precision.
        reduction: What that does, for the manifest.

    Raises:
        UsageError: see `refuse_target`.
        ExportError: a stage cannot be expressed, or its program computes something else.
        OSError: the disk is full or the folder is not writable; nothing is left behind then.
    """
    assert len(policy.points) == 1
    if policy.confidence not in CONFIDENCES:
        raise ExportError(
            f"the policy's confidence is {policy.confidence!r}, which the runner does not have",
            hint=f"calibrate with one of {', '.join(CONFIDENCES)}",
        )
    refuse_target(to, folder, single_file=single_file)
    with atomic_folder(folder) as target:
        made = programs or Programs.of(net, to)
        traced, files = made.traced, made.files
        weights_sha256 = checkpoint_sha256 if made.precision == "fp32" else made.sha256
        fitted_sha256 = policy.fitted_on.checkpoint_sha256
        transform = ExportedTransform(
            resize=data.shorter_side,
            interpolation=f"{data.interpolation}, antialiased",
            crop=data.image_size,
            mean=data.mean,
            std=data.std,
        )
        macs_K = measure_costs(net).macs_K
        if single_file:
            from hdkd_cli.inference import single_file as whole  # onnx is an extra

            about = {
                "labels": list(classes),
                "transform": transform.model_dump(mode="json"),
                "macs": macs_K,
                "policy": policy.as_record(),
                "checkpoint_sha256": checkpoint_sha256,
                "precision": made.precision,
            }
            files = [whole.joined(files, traced, policy, net.input_shape, classes, about)]
            entries = [
                StageProgram(file="network.onnx", inputs=whole.INPUTS, outputs=whole.OUTPUTS)
            ]
        else:
            entries = [
                StageProgram(
                    file=f"stage{number}.{to}", inputs=program.inputs, outputs=program.outputs
                )
                for number, program in enumerate(traced, 1)
            ]
        for entry, content in zip(entries, files, strict=True):
            write_bytes(target / entry.file, content)
        write_policy(target / "policy.json", policy)
        write_text(target / "labels.json", json.dumps(list(classes), indent=2) + "\n")
        write_text(target / "run.py", standalone(Path(runner.__file__)))
        needs = "onnxruntime" if to == "onnx" else "torch"
        alone = SINGLE_FILE if single_file else ""
        write_text(target / "README.txt", README.format(needs=needs) + alone)
        manifest = Exported(
            to=to,
            network=net.name,
            checkpoint_sha256=checkpoint_sha256,
            input_shape=net.input_shape,
            transform=transform,
            macs=macs_K,
            programs=tuple(entries),
            single_file=single_file,
            precision=made.precision,
            weights_sha256=weights_sha256 if fitted_sha256 in {None, weights_sha256} else None,
            reduction=reduction,
            files=tuple(
                ManifestFile(name=path.name, bytes=path.stat().st_size, sha256=sha256_file(path))
                for path in sorted(target.iterdir())
            ),
        )
        write_json(target / "manifest.json", manifest.as_record())
        if single_file:
            verify_single_file(Network(target), made.net, policy)
        else:
            verify_stages(Network(target), made.net, traced)
