"""A run exported: its network as programs or as a page, in the precision that is asked for."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hdkd_cli.choices import ExportPrecision, ExportTarget
from hdkd_cli.errors import UsageError
from hdkd_cli.evaluation.policy import ExitPolicy
from hdkd_cli.inference.export import export, refuse_target
from hdkd_cli.inference.web.folder import write_page
from hdkd_cli.inference.web.runtime import read_runtime
from hdkd_cli.library import page
from hdkd_cli.library.smaller import export_smaller, time_exported
from hdkd_cli.records.export import Export, ExportedFile, ExportLatency, Reduction

if TYPE_CHECKING:
    from hdkd_cli.library.run import Run


def export_run(
    run: Run,
    to: ExportTarget,
    folder: Path,
    policy: ExitPolicy | str | Path | None,
    *,
    budget: str | float | None,
    measure: bool,
    single_file: bool,
    runtime: Path | None,
    precision: ExportPrecision,
    calibration_images: int | None,
) -> Export:
    """See `Run.export`."""
    refuse_target(to, folder, single_file=single_file, precision=precision)
    if runtime is not None and to != "web":
        raise UsageError(f"--runtime: --to {to} brings none", hint="it goes with --to web")
    if measure and to == "web":
        raise UsageError("--measure: a page measures itself", hint="use --to onnx")
    if calibration_images is not None and precision != "int8":
        raise UsageError(
            f"--calibration-images: {precision} needs none", hint="use --precision int8"
        )
    needed = read_runtime(runtime) if to == "web" else {}
    family = run.policy(policy)
    found = family.only(run.point(family, budget))
    reduction: Reduction | None = None
    latency: tuple[ExportLatency, ...] | None = None
    if precision != "fp32":
        reduction, latency = export_smaller(
            run,
            found,
            folder,
            precision=precision,
            images=calibration_images,
            single_file=single_file,
        )
    else:
        net = run.network()
        with tempfile.TemporaryDirectory(prefix="hdkd-") as temporary:
            programs = Path(temporary) / "program" if to == "web" else folder
            export(
                net,
                found,
                run.classes,
                run.settings.data,
                to="onnx" if to == "web" else to,
                folder=programs,
                checkpoint_sha256=run.folder.checkpoint().model_sha256,
                single_file=single_file or to == "web",
            )
            if to == "web":
                offered = page.stops(run, family, found.points[0])
                shown = page.examples(run)
                write_page(programs, offered, shown, run.settings.data, needed, folder)
        latency = time_exported(run, folder, net, found) if measure else None
    return Export(
        folder=str(folder),
        to=to,
        files=tuple(
            ExportedFile(name=path.relative_to(folder).as_posix(), bytes=path.stat().st_size)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ),
        latency=latency,
        shrinks=not single_file and to != "web",
        precision=precision,
        reduction=reduction,
    )
