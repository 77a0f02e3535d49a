"""From a run to the images it was trained on, and whether others are the same."""

from __future__ import annotations

from pathlib import Path

from hdkd_cli.data import ImageData, open_data
from hdkd_cli.errors import DataError
from hdkd_cli.runs.folder import RunFolder


def images_of_run(run: RunFolder, root: Path | None = None) -> ImageData:
    """The images that a run was made with; nothing is downloaded.

    Args:
        run: The run.
        root: Where they are now; None: where they were in training.

    Raises:
        DataError: they are missing, or others.
    """
    changes = {"download": False} | ({"root": str(root)} if root is not None else {})
    settings = run.settings().data.model_copy(update=changes)
    data = open_data(settings, without=run.skipped())
    refuse_other_images(run, data)
    return data


def refuse_other_images(run: RunFolder, data: ImageData) -> None:
    """Compare the splits with those the run was trained on.

    Raises:
        DataError: an image or label differs.
    """
    known = run.info().splits
    for role, split in data.splits.items():
        if known.get(role, split.sha256) != split.sha256:
            raise DataError(
                f"the images are not those of {run.path}: its {role} split differs "
                "(files added, removed, renamed or changed, or classes renamed?)"
            )
