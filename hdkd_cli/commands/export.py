"""``hdkd export``: a network that leaves early, without this package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hdkd_cli.commands import options
from hdkd_cli.commands.inputs import open_run, read_policy_option
from hdkd_cli.ui.output import emit

if TYPE_CHECKING:
    from hdkd_cli.evaluation.policy import ExitPolicy
    from hdkd_cli.models.contract import MultiExitNet
    from hdkd_cli.runs.folder import RunFolder


def export(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="Run folder, or -.", show_default=False)
    ],
    to: Annotated[Literal["onnx", "pt2"], typer.Option("--to", help="Format of the programs.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="New folder to write.")
    ],
    policy: options.PolicyOption = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="B",
            help="Mean cost to meet: a fraction of the full network (0.4) or MACs (30M). "
            "Without: the policy's most accurate point.",
        ),
    ] = None,
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
    from hdkd_cli.inference.export import export as export_network
    from hdkd_cli.inference.export import refuse_target
    from hdkd_cli.runs.network import trained_network

    refuse_target(to, output)
    opened = open_run(run)
    net = trained_network(opened)
    chosen = _one_point(read_policy_option(policy, opened), budget, net, opened)
    settings = opened.settings()
    export_network(
        net,
        chosen,
        opened.info()["classes"],
        settings.data,
        to=to,
        folder=output,
        checkpoint_sha256=opened.checkpoint().model_sha256,
    )
    record = {
        "schema": "hdkd/export/1",
        "folder": output,
        "to": to,
        "files": [
            {"name": path.name, "bytes": path.stat().st_size} for path in sorted(output.iterdir())
        ],
        "latency": _latency(output, net, opened, data_dir) if measure else None,
    }
    emit(record, form, rows="files")


def _one_point(
    policy: ExitPolicy, budget: str | None, net: MultiExitNet, run: RunFolder
) -> ExitPolicy:
    """``policy`` with one operating point: the best there is, or the best within the budget.

    Raises:
        PolicyError: it was fitted on another network.
        UsageError: no such budget, or none that the policy can meet.
    """
    from hdkd_cli.errors import PolicyError
    from hdkd_cli.evaluation.budget import parse_budget
    from hdkd_cli.evaluation.compatibility import check_exits
    from hdkd_cli.models.cost import measure_costs

    check_exits(policy, net.num_exits)
    fitted, checkpoint = policy.fitted_on.checkpoint_sha256, run.checkpoint().model_sha256
    if fitted is not None and fitted != checkpoint:
        raise PolicyError(f"the policy was not fitted on the checkpoint of {run.path}: calibrate")
    full_macs = measure_costs(net).macs_K[-1]
    point = policy.select(None if budget is None else parse_budget(budget, full_macs))
    return policy.model_copy(update={"points": (point,)})


def _latency(
    folder: Path, net: MultiExitNet, run: RunFolder, data_dir: Path | None
) -> list[dict[str, Any]]:
    """The programs beside PyTorch, on test images drawn at random: folders are sorted by class."""
    import torch

    from hdkd_cli.data import open_data
    from hdkd_cli.data.stream import Request
    from hdkd_cli.inference.exported_latency import IMAGES, measure_latency
    from hdkd_cli.inference.runner import Network

    changes = {"download": False} | ({"root": str(data_dir)} if data_dir else {})
    data = open_data(run.settings().data.model_copy(update=changes))
    indices_N = data.splits["test"].indices_N
    drawn = torch.randperm(len(indices_N), generator=torch.Generator().manual_seed(0))[:IMAGES]
    batches = data.images.batches(
        iter([Request(indices_N[drawn])]),
        augment=False,
        device=torch.device("cpu"),
        channels_last=False,
    )
    return measure_latency(Network(folder, torch.get_num_threads()), net, next(batches).images)
