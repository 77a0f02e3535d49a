"""``hdkd export``: a network that leaves early, without this package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hdkd_cli.choices import ExportTarget
from hdkd_cli.commands import options
from hdkd_cli.commands.inputs import one_point, open_run, read_policy_option
from hdkd_cli.ui.console import talk
from hdkd_cli.ui.output import emit

if TYPE_CHECKING:
    from hdkd_cli.evaluation.policy import ExitPolicy
    from hdkd_cli.models.contract import MultiExitNet
    from hdkd_cli.records import ExportLatency
    from hdkd_cli.runs.folder import RunFolder


def export(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Run folder, or -.", show_default=False)
    ],
    to: Annotated[ExportTarget, typer.Option("--to", help="Format of the programs.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="New folder to write.")
    ],
    policy: options.PolicyOption = None,
    budget: options.BudgetOption = None,
    allow_mismatch: options.AllowMismatchOption = False,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Time the programs and PyTorch on test images (seconds)."),
    ] = False,
    data_dir: options.DataDirOption = None,
    form: options.FormatOption = None,
) -> None:
    """Write the network as one program per stage, with its policy, labels and a small runner.

    DIR/run.py classifies images and really leaves early; it needs onnxruntime, numpy and pillow
    (torch for --to pt2), not hdkd.
    """
    from hdkd_cli.evaluation.compatibility import check_checkpoint, check_exits
    from hdkd_cli.inference.export import export as export_network
    from hdkd_cli.inference.export import refuse_target
    from hdkd_cli.models.cost import measure_costs
    from hdkd_cli.records import Export, ExportedFile
    from hdkd_cli.runs.network import trained_network

    refuse_target(to, output)
    opened = open_run(run)
    net, checkpoint = trained_network(opened), opened.checkpoint().model_sha256
    chosen = read_policy_option(policy, opened)
    check_exits(chosen, net.num_exits)
    for warning in check_checkpoint(
        chosen, checkpoint, str(opened.path), allow_mismatch=allow_mismatch
    ):
        talk.warning(warning)
    full_macs = measure_costs(net).macs_K[-1]
    chosen, _ = one_point(chosen, opened, budget, full_macs=full_macs, data_dir=data_dir)
    export_network(
        net,
        chosen,
        opened.info()["classes"],
        opened.settings().data,
        to=to,
        folder=output,
        checkpoint_sha256=checkpoint,
    )
    record = Export(
        folder=str(output),
        to=to,
        files=tuple(
            ExportedFile(name=path.name, bytes=path.stat().st_size)
            for path in sorted(output.iterdir())
        ),
        latency=_latency(output, net, chosen, opened, data_dir) if measure else None,
    )
    emit(record, form)


def _latency(
    folder: Path, net: MultiExitNet, policy: ExitPolicy, run: RunFolder, data_dir: Path | None
) -> tuple[ExportLatency, ...]:
    """The programs beside PyTorch, on test images."""
    import torch

    from hdkd_cli.inference.exported_latency import IMAGES, measure_latency
    from hdkd_cli.inference.of_run import data_of_run, deployed, some_images
    from hdkd_cli.inference.runner import Network

    device = torch.device("cpu")
    data = data_of_run(run, "test", None if data_dir is None else str(data_dir))
    images_NCHW = some_images(data, "test", IMAGES, device).images_NCHW
    exported = Network(folder, torch.get_num_threads())
    return measure_latency(exported, deployed(net, device).net, policy, images_NCHW)
