"""onnxruntime-web, as the user fetched it: two files, of one version, known by their checksums.

Nothing is downloaded here: ``npm pack`` is the user's act.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path

from hdkd_cli.errors import UsageError

VERSION = "1.30.0"
FILES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": (
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"
    ),
}
"""File of the package's ``dist`` folder → SHA-256 of its content."""
HINT = (
    f"run `npm pack onnxruntime-web@{VERSION}` and say "
    f"--runtime onnxruntime-web-{VERSION}.tgz (or the folder that `npm install` made of it)"
)
_LARGEST = 64 << 20  # bytes of one file; the larger of the two has 14 MB


def read_runtime(path: Path | None) -> dict[str, bytes]:
    """The content of ``FILES``.

    Args:
        path: The package: the archive that ``npm pack`` wrote, or its folder in ``node_modules``.

    Raises:
        UsageError: there is none, or it is another version.
    """
    if path is None:
        raise UsageError(
            f"--to web needs onnxruntime-web {VERSION}, and nothing is downloaded unasked",
            hint=HINT,
        )
    try:
        if path.is_dir():
            return _checked(path, lambda name: (path / "dist" / name).read_bytes())
        with tarfile.open(path) as archive:
            return _checked(path, lambda name: _member(archive, name))
    except (OSError, KeyError, EOFError, tarfile.TarError) as problem:
        why = problem.strerror if isinstance(problem, OSError) and problem.strerror else "damaged"
        raise UsageError(
            f"{path}: is no package of onnxruntime-web {VERSION} ({why})", hint=HINT, subject=path
        ) from None


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    stream = archive.extractfile(f"package/dist/{name}")
    if stream is None:  # a folder or a link
        raise KeyError(name)
    return stream.read(_LARGEST)


def _checked(path: Path, read: Callable[[str], bytes]) -> dict[str, bytes]:
    found = {name: read(name) for name in FILES}
    for name, content in found.items():
        if hashlib.sha256(content).hexdigest() != FILES[name]:
            raise UsageError(
                f"{path}: {name} is not that of onnxruntime-web {VERSION} (its checksum differs)",
                hint=HINT,
                subject=path,
            )
    return found
