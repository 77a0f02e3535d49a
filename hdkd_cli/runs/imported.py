"""A published checkpoint as a run folder, with which everything but resuming works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from hdkd_cli.errors import UsageError
from hdkd_cli.files import sha256_file
from hdkd_cli.models.foreign import read_foreign_state
from hdkd_cli.models.published import published_classes, take_published
from hdkd_cli.runs.checkpoints import save_checkpoint
from hdkd_cli.runs.folder import RunFolder
from hdkd_cli.runs.network import initial_network
from hdkd_cli.settings.schema import Settings


def import_checkpoint(
    path: Path,
    settings: Settings,
    preset: str,
    target: Path,
    *,
    classes: Callable[[int], Sequence[str]],
) -> RunFolder:
    """Write the run folder of a published checkpoint.

    Args:
        path: The checkpoint, as ``models/foreign.py`` reads it.
        settings: Those the network was trained with, as far as they are known.
        preset: What they are called.
        target: The folder to make.
        classes: From their number to the names of the classes.

    Raises:
        CheckpointError: the file is no checkpoint of this network.
        SettingsError: there is no such network.
        UsageError: ``target`` exists already.
    """
    if target.exists():
        raise UsageError(f"{target}: exists already", hint="choose another -o", subject=target)
    state = read_foreign_state(path)
    count = published_classes(state, path)
    net = initial_network(settings, num_classes=count)
    take_published(net, state, path)
    names = list(classes(count))
    run = RunFolder.create(target.absolute().parent, preset, settings, name=target.name)
    save_checkpoint(
        run.checkpoints,
        0,
        {"model": net.state_dict(), "optimizer": {}, "weights": {}},
        {"step": 0, "metrics_bytes": 0},
        architecture=net.architecture(),
        keep=1,
    )
    run.update_info(
        classes=names,
        status="finished",
        exit_code=0,
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
        imported={"file": str(path), "sha256": sha256_file(path)},
    )
    return run
