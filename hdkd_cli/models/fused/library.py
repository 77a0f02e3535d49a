"""The operator's C++ code, compiled for this processor when it is first needed.

It has a plain C interface and knows nothing of torch, so compiling takes two seconds, and no
version of torch makes it stale. The library is kept in the user's cache folder under a name that
tells its source, the compiler and the flags: a folder that several machines share holds one for
each kind of processor.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import torch

from hdkd_cli.files import atomic_path, sha256_bytes, user_cache
from hdkd_cli.models.fused.binding import bind

SOURCE = Path(__file__).with_name("kernels.cpp")
BINDING = Path(__file__).with_name("binding.py")
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fopenmp",
    # exactly these sums and products, in this order; but nobody reads errno or traps
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
)
# Not -march=native: it also tunes for the one processor, which is less travelled code of the
# compiler. GCC 12 tuning for AMD's Zen compiles a division by zero into this source.
LEVELS = {
    "AVX512": ("-march=x86-64-v4", "-mprefer-vector-width=512"),
    "AVX2": ("-march=x86-64-v3",),
}
"""What torch says of the processor's vectors → how to compile for it; others: as it comes."""
SHARED = ("-fPIC", "-shared")


class Unavailable(Exception):
    """This machine cannot have the operator; the message says why."""


def library() -> ctypes.CDLL:
    """The compiled operator, the same one in all of this process.

    Raises:
        Unavailable: there is no compiler, or it fails.
    """
    found = _library()
    if isinstance(found, Unavailable):
        raise found
    return found


def available() -> bool:
    """Whether this machine can have the operator."""
    return not isinstance(_library(), Unavailable)


@functools.cache
def _library() -> ctypes.CDLL | Unavailable:
    """The outcome of the only attempt of this process."""
    try:
        return _compiled()
    except Unavailable as reason:
        return reason
    except OSError as problem:
        return Unavailable(f"the compiled operator cannot be loaded ({problem})")


def compiler() -> list[str]:
    """The command that compiles C++: ``$CXX``, or the first that there is.

    Raises:
        Unavailable: none is installed.
    """
    named = shlex.split(os.environ.get("CXX", ""))
    for command in [named] if named else [["c++"], ["g++"], ["clang++"]]:
        if shutil.which(command[0]):
            return command
    raise Unavailable("no C++ compiler was found")


def _compiled() -> ctypes.CDLL:
    """The library, compiled if it is not kept yet; without a place to keep it, for this process.

    Processes that find it missing at the same time each compile it, and put it there in one move.
    """
    if sys.platform == "win32":
        raise Unavailable("it is not built on Windows")
    command = compiler()
    version = _run([*command, "--version"])
    flags = FLAGS + LEVELS.get(torch.backends.cpu.get_cpu_capability(), ())
    parts = [SOURCE.read_text(), *command, version, *flags]
    key = sha256_bytes("\0".join(parts).encode())[:20]
    kept = user_cache() / "operators" / f"{key}.so"

    def compile_to(path: Path) -> None:
        _run([*command, *flags, *SHARED, str(SOURCE), "-o", str(path)])
        try:
            _run([sys.executable, str(BINDING), str(path)])
        except Unavailable:
            raise Unavailable(f"what {command[0]} makes of the operator is wrong") from None

    with suppress(OSError):
        if not kept.is_file():
            with atomic_path(kept) as temporary:
                compile_to(temporary)
        return bind(str(kept))
    with tempfile.TemporaryDirectory(prefix="hdkd-") as folder:
        path = Path(folder) / kept.name
        compile_to(path)
        return bind(str(path))  # stays loaded when the file is gone


def _run(command: list[str]) -> str:
    """What the compiler says."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise Unavailable(f"{command[0]} does not run ({problem})") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it says nothing"])[0]
        raise Unavailable(f"{command[0]} fails: {said}")
    return done.stdout
