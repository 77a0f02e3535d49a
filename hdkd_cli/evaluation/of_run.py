"""Scores of a run: collected once per split, kept beside it, reused only while nothing changed."""

from __future__ import annotations

from collections.abc import Callable

import torch

from hdkd_cli.choices import Role
from hdkd_cli.data import ImageData, open_data
from hdkd_cli.devices import use_channels_last
from hdkd_cli.errors import DataError, ScoresError
from hdkd_cli.evaluation.collect import collect
from hdkd_cli.evaluation.scores import Scores, read_scores, write_scores
from hdkd_cli.models.cost import measure_costs
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.runs.network import trained_network


def scores_of_run(
    run: RunFolder,
    split: Role,
    *,
    device: torch.device,
    data_root: str | None = None,
    batch_size: int | None = None,
    note: Callable[[str], object],
) -> Scores:
    """The scores of one split under a run's checkpoint.

    Args:
        run: The run.
        split: Which images.
        device: Where the network runs.
        data_root: Where the images are now; None: where they were in training.
        batch_size: Images a forward pass; None: ``evaluation.batch_size``.
        note: Told what is worth knowing (scores collected, a cache that could not be written).

    Raises:
        DataError: the images are missing, or are not those of the run's split; the split is empty.
        CheckpointError: there is no usable checkpoint.
    """
    settings = run.settings()
    changes = {"download": False} | ({"root": data_root} if data_root else {})
    data = open_data(settings.data.model_copy(update=changes))
    refuse_other_images(run, data)
    if not len(data.splits[split].labels_N):
        raise DataError(f"{run.path}: its {split} split is empty")
    meta = {
        "checkpoint_sha256": run.checkpoint().model_sha256,
        "split": split,
        "split_sha256": data.splits[split].sha256,
        "transform": data.transform,
        "precision": "fp32",
        "network": str(settings.model.name),
        "dataset": settings.data.name,
    }
    cached = run.path / "scores" / f"{split}.safetensors"
    if cached.exists():
        try:
            scores = read_scores(cached)
            if dict(scores.meta) == meta:
                return scores
        except ScoresError as problem:
            note(f"{problem}; collecting the scores again")
    net = trained_network(run)
    costs = measure_costs(net)
    net = net.to(device)
    channels_last = use_channels_last(settings.training.channels_last, device)
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
    batches = data.evaluation_batches(
        split,
        batch_size=batch_size or settings.evaluation.batch_size,
        device=device,
        channels_last=channels_last,
    )
    scores = collect(net, batches, costs, meta)
    try:
        write_scores(cached, scores)
    except OSError as problem:
        note(f"{cached}: not kept ({problem.strerror})")
    return scores


def refuse_other_images(run: RunFolder, data: ImageData) -> None:
    """Compare the splits with those the run was trained on.

    Raises:
        DataError: an image or label differs.
    """
    known = run.info().get("splits", {})
    for role, split in data.splits.items():
        if known.get(role, split.sha256) != split.sha256:
            raise DataError(
                f"the images are not those of {run.path}: its {role} split differs "
                "(files added, removed or renamed?)"
            )
