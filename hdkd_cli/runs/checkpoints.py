"""Checkpoints: written once, renamed into place, verified when read, free of pickle.

checkpoints/step-<n>/   model.safetensors      parameters and buffers; header: the architecture
                        optimizer.safetensors  momentum buffers, loss scale
                        weights.safetensors    the loss weights and what learns them
                        state.json             step, offset of metrics.jsonl
                        manifest.json          size and SHA-256 of the others
checkpoints/last        symbolic link to the newest, swapped by rename
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdkd_cli.errors import CheckpointError
from hdkd_cli.files import point_link, read_tensors, sha256_file, write_json, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

SCHEMA = "hdkd/checkpoint/1"
GROUPS = ("model", "optimizer", "weights")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk.

    Attributes:
        path: Its folder.
        files: File name → {"sha256", "bytes"}, from the manifest.
        step: Optimiser steps it has behind it.
    """

    path: Path
    files: Mapping[str, Mapping[str, Any]]
    step: int

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """Read a checkpoint's manifest.

        Raises:
            CheckpointError: the folder or its manifest is missing, damaged or of another version.
        """
        try:
            manifest = json.loads((path / "manifest.json").read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise CheckpointError(f"{path}: is no complete checkpoint (no manifest.json)") from None
        except (ValueError, OSError) as problem:
            raise CheckpointError(f"{path / 'manifest.json'}: unreadable ({problem})") from None
        if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
            raise CheckpointError(f"{path / 'manifest.json'}: is not of version {SCHEMA}")
        try:
            return cls(path, dict(manifest["files"]), int(manifest["step"]))
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"{path / 'manifest.json'}: is incomplete") from None

    @property
    def model_sha256(self) -> str:
        """Fingerprint of the network's parameters and buffers."""
        return str(self._entry("model.safetensors")["sha256"])

    def tensors(self, group: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        """One of ``GROUPS``, verified: (tensors on the CPU, metadata).

        Raises:
            CheckpointError: the file is missing, truncated, altered or not safetensors.
        """
        return read_tensors(self._verified(f"{group}.safetensors"), CheckpointError)

    def state(self) -> dict[str, Any]:
        """``state.json``, verified.

        Raises:
            CheckpointError: the file is missing, truncated or altered.
        """
        return dict(json.loads(self._verified("state.json").read_text()))

    def _entry(self, name: str) -> Mapping[str, Any]:
        if name not in self.files:
            raise CheckpointError(f"{self.path / 'manifest.json'}: names no {name}")
        return self.files[name]

    def _verified(self, name: str) -> Path:
        entry, path = self._entry(name), self.path / name
        try:
            size = path.stat().st_size
            if size != entry["bytes"]:
                raise CheckpointError(
                    f"{path}: has {size} bytes, the manifest says {entry['bytes']} (truncated?)"
                    + self._offer()
                )
            if sha256_file(path) != entry["sha256"]:
                raise CheckpointError(
                    f"{path}: does not match the manifest (altered or damaged){self._offer()}"
                )
        except OSError as problem:
            raise CheckpointError(f"{path}: {problem.strerror}{self._offer()}") from None
        return path

    def _offer(self) -> str:
        """Which older checkpoint could be used instead, as the end of a message."""
        for other in reversed(complete_checkpoints(self.path.resolve().parent)):
            if other.step < self.step and other.is_whole():
                return f"; the one before it is whole: {other.path}"
        return ""

    def is_whole(self) -> bool:
        """Whether every file is as the manifest says."""
        try:
            return all(
                (self.path / name).stat().st_size == entry["bytes"]
                and sha256_file(self.path / name) == entry["sha256"]
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
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{step}"
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=f".{target.name}."))
    try:
        temporary.chmod(0o755)
        for group in GROUPS:
            header = {"architecture": architecture} if group == "model" else None
            write_tensors(temporary / f"{group}.safetensors", groups[group], header)
        write_json(temporary / "state.json", state)
        files = {
            path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size}
            for path in sorted(temporary.iterdir())
        }
        write_json(temporary / "manifest.json", {"schema": SCHEMA, "step": step, "files": files})
        if target.exists():  # a damaged one that is being replaced, or the same state again
            shutil.rmtree(target)
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


def discard_leftovers(folder: Path, newer_than: int) -> None:
    """Delete what a killed process left half-written, and checkpoints newer than a step.

    Call it only where no other process writes: on resume, under the run's lock.
    """
    for path in folder.glob(".*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    for checkpoint in complete_checkpoints(folder):
        if checkpoint.step > newer_than:
            shutil.rmtree(checkpoint.path, ignore_errors=True)
