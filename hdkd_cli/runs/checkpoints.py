"""Checkpoints: written once, renamed into place, verified when read, free of pickle.

checkpoints/step-<n>/   model.safetensors      parameters and buffers; header: the architecture
                        optimizer.safetensors  momentum buffers, loss scale
                        weights.safetensors    the loss weights and what learns them
                        state.json             step, offset of metrics.jsonl
                        manifest.json          size and SHA-256 of the others
checkpoints/last        symbolic link to the newest, swapped by rename
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt

from hdkd_cli.errors import CheckpointError
from hdkd_cli.files import point_link, read_tensors, sha256_file, write_json, write_tensors
from hdkd_cli.reading import parse_record, read_text

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = "hdkd/checkpoint/1"
GROUPS = ("model", "optimizer", "weights")


class FileEntry(BaseModel):
    """What the manifest says about a file."""

    model_config = ConfigDict(frozen=True)

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: NonNegativeInt


class Manifest(BaseModel):
    """manifest.json."""

    model_config = ConfigDict(frozen=True)

    step: NonNegativeInt
    files: dict[Annotated[str, Field(pattern=r"^[a-z]+\.[a-z]+$")], FileEntry]


class Progress(BaseModel):
    """state.json: how far training was."""

    model_config = ConfigDict(frozen=True, extra="allow")

    step: NonNegativeInt
    metrics_bytes: NonNegativeInt
    stretch_steps: NonNegativeInt = 0
    """Steps since the last log record."""
    stretch_seconds: NonNegativeFloat = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk.

    Attributes:
        path: Its folder.
        files: File name → size and SHA-256, from the manifest.
        step: Optimiser steps it has behind it.
    """

    path: Path
    files: Mapping[str, FileEntry]
    step: int

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Read a checkpoint's manifest.

        Raises:
            CheckpointError: the folder or its manifest is missing, damaged or of another version.
        """
        source = path / "manifest.json"
        if not source.is_file():
            raise CheckpointError(f"{path}: is no complete checkpoint (no manifest.json)")
        text = read_text(source, CheckpointError)
        manifest = parse_record(Manifest, SCHEMA, text, str(source), CheckpointError)
        return cls(path, manifest.files, manifest.step)

    @property
    def model_sha256(self) -> str:
        """Fingerprint of the network's parameters and buffers."""
        return self._entry("model.safetensors").sha256

    def tensors(self, group: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """One of ``GROUPS``, verified: (tensors on the CPU, metadata).

        Raises:
            CheckpointError: the file is missing, truncated, altered or not safetensors.
        """
        return read_tensors(self._verified(f"{group}.safetensors"), CheckpointError)

    def state(self) -> Progress:
        """``state.json``, verified.

        Raises:
            CheckpointError: the file is missing, truncated or altered.
        """
        path = self._verified("state.json")
        return parse_record(
            Progress, "", read_text(path, CheckpointError), str(path), CheckpointError
        )

    def _entry(self, name: str) -> FileEntry:
        if name not in self.files:
            raise CheckpointError(f"{self.path / 'manifest.json'}: names no {name}")
        return self.files[name]

    def _verified(self, name: str) -> Path:
        entry, path = self._entry(name), self.path / name
        try:
            size = path.stat().st_size
            if size != entry.bytes:
                raise self._damaged(
                    f"{path}: has {size} bytes, the manifest says {entry.bytes} (truncated?)"
                )
            if sha256_file(path) != entry.sha256:
                raise self._damaged(f"{path}: does not match the manifest (altered or damaged)")
        except OSError as problem:
            raise self._damaged(f"{path}: {problem.strerror}") from None
        return path

    def _damaged(self, message: str) -> CheckpointError:
        return damaged(message, self.path.resolve().parent, self.step)

    def is_whole(self) -> bool:
        """Whether every file is as the manifest says."""
        try:
            return all(
                (self.path / name).stat().st_size == entry.bytes
                and sha256_file(self.path / name) == entry.sha256
                for name, entry in self.files.items()
            )
        except OSError:
            return False


def save_checkpoint(
    folder: Path,
    step: int,
    groups: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
    *,
    architecture: str,
    keep: int,
    milestone_steps: int | None = None,
) -> Checkpoint:
    """Write ``step-<step>``, point ``last`` at it, delete what need not be kept.

    Args:
        folder: The run's ``checkpoints`` folder.
        step: Optimiser steps done.
        groups: Tensors by name for each of ``GROUPS``.
        state: What else a resume needs, JSON-ready.
        architecture: Canonical text of the network, kept in the model file's header.
        keep: How many of the newest checkpoints to keep, at least 1.
        milestone_steps: Also keep those whose step is a multiple of this.

    Raises:
        OSError: the disk is full or the folder not writable; earlier checkpoints are untouched.
    """
    folder.mkdir(exist_ok=True)  # not its parents: a run that was moved leaves no second one
    target = folder / f"step-{step}"
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=f".{target.name}."))
    try:
        temporary.chmod(0o755)
        for group in GROUPS:
            header = {"architecture": architecture} if group == "model" else None
            write_tensors(temporary / f"{group}.safetensors", groups[group], header)
        write_json(temporary / "state.json", state)
        files = {
            path.name: FileEntry(sha256=sha256_file(path), bytes=path.stat().st_size)
            for path in sorted(temporary.iterdir())
        }
        manifest = Manifest(step=step, files=files)
        write_json(temporary / "manifest.json", {"schema": SCHEMA, **manifest.model_dump()})
        if target.exists():  # a damaged one that is being replaced, or the same state again
            replaced = Path(tempfile.mkdtemp(dir=folder, prefix=f".{target.name}."))
            target.rename(replaced)  # whole or gone at any moment
            temporary.rename(target)
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    point_link(folder / "last", target.name)
    older = [c for c in complete_checkpoints(folder) if c.step < step]
    for old in older[: -(keep - 1) or None]:
        if milestone_steps is None or old.step % milestone_steps:
            shutil.rmtree(old.path, ignore_errors=True)
    return Checkpoint(target, files, step)


def complete_checkpoints(folder: Path) -> list[Checkpoint]:
    """All checkpoints in ``folder`` that have a readable manifest, oldest first."""
    found = []
    for path in folder.glob("step-*"):
        try:
            found.append(Checkpoint.open(path))
        except CheckpointError:
            continue
    return sorted(found, key=lambda c: c.step)


def steps_of(folder: Path) -> dict[int, Path]:
    """Every ``step-<n>`` in ``folder``, readable or not: n → its path, the newest first.

    Raises:
        OSError: the folder cannot be read.
    """
    found = {}
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            if step := re.fullmatch(r"step-(\d{1,18})", path.name):
                found[int(step[1])] = path
    return dict(sorted(found.items(), reverse=True))


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint; None: there are none, and nothing says that there were.

    Raises:
        CheckpointError: the newest is damaged or gone; an older one is not taken in its place.
        OSError: the folder cannot be read.
    """
    if folder.is_symlink() and not folder.exists():
        raise CheckpointError(f"{folder}: is a link that leads nowhere ({folder.readlink()})")
    steps, last = steps_of(folder), folder / "last"
    if last.is_symlink() and not last.exists():
        gone = re.fullmatch(r"step-(\d{1,18})", last.readlink().name)
        if not steps or (gone and int(gone[1]) > max(steps)):
            step = int(gone[1]) if gone else 0
            raise damaged(f"{last}: leads to {last.readlink()}, which is gone", folder, step)
    for step, path in steps.items():
        try:
            return Checkpoint.open(path)
        except CheckpointError as problem:
            raise damaged(problem.message, folder, step) from None
    return None


def damaged(message: str, folder: Path, step: int) -> CheckpointError:
    """The error of a checkpoint that cannot be used; its hint is the newest one before it."""
    for other in reversed(complete_checkpoints(folder)):
        if other.step < step and other.is_whole():
            hint = f"the one before it is whole: {other.path}"
            return CheckpointError(message, hint=hint, subject=folder)
    return CheckpointError(message, subject=folder)


def discard_leftovers(folder: Path, newer_than: int) -> None:
    """Delete what a killed process left half-written, and checkpoints newer than a step.

    Call it only where no other process writes: on resume, under the run's lock.
    """
    if folder.is_symlink() and not folder.exists():
        folder.unlink()
    for path in folder.glob(".*"):
        _delete(path)
    steps, last = steps_of(folder), folder / "last"
    kept = [path for step, path in steps.items() if step <= newer_than]
    if kept and last.is_symlink():
        point_link(last, kept[0].name)
    elif last.is_symlink():
        last.unlink()
    for step, path in steps.items():
        if step > newer_than:
            _delete(path)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
