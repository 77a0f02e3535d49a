"""The run folder: everything of one run, opened by path.

settings.toml   resolved, re-creates the run
run.json        argv, versions, device, git revision, seed, status, exit code
metrics.jsonl   one event per line          train.log   the same for people
checkpoints/  scores/  policies/  reports/  profile.json
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hdkd_cli.errors import CheckpointError, RunError, UsageError
from hdkd_cli.files import point_link, write_json, write_text
from hdkd_cli.reading import MAX_SETTINGS_BYTES, parse_record, read_text
from hdkd_cli.records.training import RunInfo
from hdkd_cli.runs.checkpoints import Checkpoint, newest_checkpoint
from hdkd_cli.runs.metrics import open_plain, read_metrics
from hdkd_cli.settings.keys import leaves
from hdkd_cli.settings.schema import Settings
from hdkd_cli.settings.toml import from_toml, to_toml
from hdkd_cli.settings.trust import note_factories


@dataclass(frozen=True)
class RunFolder:
    """One run on disk.

    Attributes:
        path: The folder.
        pinned: The checkpoint to read; None: the newest complete one.
    """

    path: Path
    pinned: Checkpoint | None = None

    @classmethod
    def create(
        cls,
        runs_dir: Path,
        preset: str,
        settings: Settings,
        *,
        name: str | None = None,
        launch: str | None = None,
        origin: Mapping[str, str] | None = None,
    ) -> RunFolder:
        """Make a new run folder; two runs made in one second do not collide.

        Args:
            runs_dir: Where runs are kept; made if absent.
            preset: Name the folder starts with.
            settings: What the run will do.
            name: Folder name instead of ``<preset>-s<seed>-<utc time>``.
            launch: Names the job that makes it; see ``of_launch``.
            origin: Key of a setting → the layer that set it.

        Raises:
            UsageError: ``name`` exists already, or is no plain folder name.
        """
        if name is not None and (not name or name in {".", ".."} or Path(name).name != name):
            raise UsageError(f"--name {name!r}: a plain folder name is needed, no path")
        stamp = f"{preset}-s{settings.training.seed}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        runs_dir.mkdir(parents=True, exist_ok=True)
        attempt = 1
        while True:
            path = runs_dir / (name or (stamp if attempt == 1 else f"{stamp}-{attempt}"))
            try:
                path.mkdir()
                break
            except FileExistsError:
                if name is not None:
                    raise UsageError(
                        f"{path}: exists already",
                        hint=f"choose another --name, or go on with `hdkd train --resume {path}`",
                        subject=path,
                    ) from None
                attempt += 1
        run = cls(path)
        write_text(path / "settings.toml", to_toml(settings))
        write_json(
            path / "run.json",
            {
                "schema": RunInfo.schema_id,
                "preset": preset,
                "seed": settings.training.seed,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "launch": launch,
                "origin": dict(origin or {}),
                "status": "created",
                "exit_code": None,
                "argv": sys.argv,
                "git_revision": _git_revision(),
                "python": platform.python_version(),
                "platform": platform.platform(),
                "versions": {p: version(p) for p in ("hdkd", "torch", "torchvision", "numpy")},
            },
        )
        return run

    @classmethod
    def of_launch(cls, runs_dir: Path, launch: str) -> RunFolder | None:
        """The newest run in ``runs_dir`` that the job ``launch`` made, if there is one."""
        found = []
        for path in runs_dir.glob("*/run.json"):
            run = cls(path.parent)
            with suppress(RunError):
                info = run.info()
                if info.launch == launch:
                    found.append((info.created, path.stat().st_mtime_ns, run))
        return max(found, key=lambda entry: entry[:2])[2] if found else None

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open a run folder, or one checkpoint in it (``RUN/checkpoints/step-100``).

        Raises:
            RunError: there is no run at ``path``.
            CheckpointError: ``path`` names a checkpoint that is not complete.
        """
        if path.parent.name == "checkpoints":
            return cls(cls.open(path.parent.parent).path, Checkpoint.open(path.resolve()))
        if not path.is_dir():
            raise RunError(f"{path}: no such run folder")
        if not (path / "settings.toml").is_file():
            raise RunError(f"{path}: is not a run folder (no settings.toml in it)")
        return cls(path)

    def settings(self) -> Settings:
        """The settings the run was made with. Code that they name is not trusted by that.

        Raises:
            RunError: settings.toml is missing.
            SettingsError: settings.toml is damaged or of another version.
        """
        path = self.path / "settings.toml"
        settings = from_toml(read_text(path, RunError, limit=MAX_SETTINGS_BYTES), source=str(path))
        note_factories(leaves(settings).values(), str(path))
        return settings

    def info(self) -> RunInfo:
        """What run.json says.

        Raises:
            RunError: it is missing or damaged.
        """
        return self._read_info()[0]

    def skipped(self) -> tuple[str, ...]:
        """The images of ``info().skipped`` as the file system names them, be that text or not.

        Raises:
            RunError: run.json is missing or damaged.
        """
        return tuple(self._read_info()[1].get("skipped", ()))

    def update_info(self, **changes: Any) -> None:
        """Change entries of run.json; what this version does not know stays in it.

        Raises:
            RunError: run.json is missing or damaged.
        """
        write_json(self.path / "run.json", {**self._read_info()[1], **changes})

    def _read_info(self) -> tuple[RunInfo, dict[str, Any]]:
        """run.json as a record, and as the file has it."""
        path = self.path / "run.json"
        text = read_text(path, RunError)
        record = parse_record(RunInfo, RunInfo.schema_id, text, str(path), RunError)
        return record, json.loads(text)

    @property
    def checkpoints(self) -> Path:
        """The folder checkpoints are written to."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """The metrics log."""
        return self.path / "metrics.jsonl"

    @property
    def policies(self) -> Path:
        """The folder of exit policies; ``last`` in it leads to the one calibrated last."""
        return self.path / "policies"

    @property
    def profile(self) -> Path:
        """What the run's network took when it was profiled last."""
        return self.path / "profile.json"

    def keep_policy(self, name: str, record: Mapping[str, Any]) -> None:
        """Write a policy and remember it as the one calibrated last."""
        write_json(self.policies / f"{name}.json", record)
        point_link(self.policies / "last", f"{name}.json")

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to go on from.

        Raises:
            CheckpointError: the newest is damaged or gone.
        """
        return newest_checkpoint(self.checkpoints) is not None

    def has_saved(self) -> bool:
        """Whether the run ever completed a checkpoint, by what it says of itself.

        Raises:
            RunError: run.json or metrics.jsonl is damaged.
        """
        if self.info().status == "finished":
            return True
        if not self.metrics.exists():
            return False
        return any(
            record["event"] == "checkpoint" or record.get("first_step")
            for record in read_metrics(self.metrics)
        )

    def checkpoint(self) -> Checkpoint:
        """The pinned checkpoint, or the newest.

        Raises:
            CheckpointError: there is none, or the newest is damaged or gone.
        """
        if self.pinned is not None:
            return self.pinned
        newest = newest_checkpoint(self.checkpoints)
        if newest is None:
            raise CheckpointError(
                f"{self.path}: has no complete checkpoint",
                hint=f"finish it with `hdkd train --resume {self.path}`",
                subject=self.path,
            )
        return newest

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for writing; the operating system lets go when the process ends.

        Raises:
            RunError: another process is training this run.
        """
        with open_plain(self.path / ".lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(f"{self.path}: another process is training this run") from None
            yield


def _git_revision() -> str | None:
    """Revision of the source tree the package runs from, "+" appended when it has changes."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        output = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=here, env=environment, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return output.stdout.strip()
