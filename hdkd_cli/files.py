"""Files that are either whole or not there: atomic writes, checksums, safe reading of tensors."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdkd_cli.errors import ArtifactError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def shipped(name: str) -> Path:
    """A folder that comes with the package: inside it, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def user_cache() -> Path:
    """The user's folder for what can be made again."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return Path(home) / "hdkd"


def fsync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable (no effect where folders cannot be opened)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows refuses to open folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success fsync it and rename it into place.

    A device or a pipe is no file to replace: it is written in place, all at once at the end.

    Raises:
        OSError: the disk is full or the folder is not writable; ``path`` is then as it was.
    """
    if is_no_file(path):
        with tempfile.TemporaryDirectory(prefix="hdkd-") as folder:
            whole = Path(folder) / path.name
            yield whole
            with whole.open("rb") as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(_mode_of(path))  # mkstemp gives 0600
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def led_to(path: Path) -> Path:
    """Where a path that the user wants written leads: through links, as in a shell's redirection.

    What the program keeps for itself is not written through links: they are replaced.
    """
    return path if is_no_file(path) else Path(os.path.realpath(path))


def is_no_file(path: Path) -> bool:
    """Whether ``path`` leads to a device, a pipe or an open file of this process."""
    if path.is_relative_to("/dev") or path.is_relative_to("/proc"):
        return not path.is_relative_to("/dev/shm")
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _mode_of(path: Path) -> int:
    """The permissions of ``path``; if it is not there, those that ``open`` would give it."""
    try:
        found = path.lstat().st_mode
    except OSError:
        found = 0
    return stat.S_IMODE(found) if stat.S_ISREG(found) else 0o666 & ~_umask()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success rename it into place.

    Files in it are to be written by the functions below, which make them durable.

    Args:
        path: Absent, or an empty folder.

    Raises:
        OSError: the disk is full or the folder is not writable; ``path`` is then as it was.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_folder(path.parent)


def point_link(link: Path, target: str) -> None:
    """Make the symbolic link ``link`` lead to ``target`` beside it, swapped by rename."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
    fsync_folder(link.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write one indented JSON object to ``path`` atomically."""
    write_text(path, json.dumps(record, indent=2, allow_nan=False) + "\n")


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors as safetensors, atomically.

    Args:
        path: Where to write.
        tensors: Name → tensor, any device; they are copied to the CPU and made contiguous.
        metadata: Text to keep in the file's header.

    Raises:
        OSError: the disk is full or the folder is not writable; ``path`` is then as it was.
    """
    from safetensors.torch import save_file

    whole = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    _write_safetensors(path, partial(save_file, whole), metadata)


def write_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> None:
    """The same for arrays: the same bytes, and nothing of torch is needed.

    Raises:
        OSError: the disk is full or the folder is not writable; ``path`` is then as it was.
    """
    import numpy as np
    from safetensors.numpy import save_file

    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    _write_safetensors(path, partial(save_file, whole), metadata)


def _write_safetensors(
    path: Path, save: Callable[..., object], metadata: Mapping[str, str] | None
) -> None:
    from safetensors import SafetensorError

    with atomic_path(path) as temporary:
        try:
            # safetensors 0.8 writes a header it cannot read for no tensors and empty metadata
            save(temporary, dict(metadata) if metadata else None)
        except SafetensorError as problem:  # how the library reports a full disk
            raise OSError(errno.EIO, f"could not be written ({problem})", str(path)) from None


def read_tensors(
    path: Path, error: Callable[[str], ArtifactError]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file: (tensors on the CPU, metadata).

    Args:
        path: The file.
        error: The exception class (or factory) to raise with a one-line message.

    Raises:
        ArtifactError: the file is missing, truncated, or not safetensors (a pickle, say).
    """
    with _opened_safetensors(path, "pt", error) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, dict(file.metadata() or {})


def read_arrays(
    path: Path, names: Collection[str], error: Callable[[str], ArtifactError]
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read some tensors of a safetensors file as arrays: (those that are there, metadata).

    Args:
        path: The file.
        names: Which tensors.
        error: The exception class (or factory) to raise with a one-line message.

    Raises:
        ArtifactError: see `read_tensors`; or a tensor is of a type that numpy has not (bfloat16).
    """
    arrays = {}
    with _opened_safetensors(path, "np", error) as file:
        for name in [name for name in file.keys() if name in names]:  # noqa: SIM118
            try:
                arrays[name] = file.get_tensor(name)
            except (TypeError, AttributeError):
                kind = file.get_slice(name).get_dtype()
                raise error(f"{path}: {name} is {kind}, which numpy has no type for") from None
        return arrays, dict(file.metadata() or {})


@contextmanager
def _opened_safetensors(
    path: Path, framework: str, error: Callable[[str], ArtifactError]
) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (SafetensorError, OSError, ValueError) as problem:
        if path.is_dir():
            raise error(f"{path}: is a folder, a safetensors file is needed") from None
        if looks_like_pickle(path):
            raise error(
                f"{path}: is a Python pickle (torch.save), which is never opened here; "
                "convert it to safetensors first"
            ) from None
        raise error(f"{path}: is damaged or not a safetensors file ({problem})") from None


def _umask() -> int:
    """What this process takes away from the permissions of new files."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


def looks_like_pickle(path: Path) -> bool:
    """Whether the first bytes are those of a pickle or of ``torch.save``'s zip archive."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError:
        return False
    return head.startswith(b"PK\x03\x04") or (head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5")


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_bytes(*parts: bytes) -> str:
    """Hex SHA-256 of the concatenation of ``parts``."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
