"""The functions of the compiled operator, and a trial of them: ``python binding.py LIBRARY``.

Compilers make mistakes, in code for new processors above all, and a wrong instruction would end a
run without a word. So a fresh library is tried in a process of its own before it is kept: exit
code 0 if it computes what BatchNorm and ReLU are. Imports neither torch nor this package.

R rows, C channels.
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import c_double, c_int, c_int64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGNATURES = {
    # x, y, rows, channels, weight, bias, running mean and variance, momentum, epsilon,
    # statistics, threads
    "forward": (*[c_void_p] * 2, *[c_int64] * 2, *[c_void_p] * 4, *[c_double] * 2, c_void_p, c_int),
    # x, gradient, its stride, to x, rows, channels, weight, bias, statistics,
    # to parameters, threads
    "backward": (*[c_void_p] * 2, c_int64, c_void_p, *[c_int64] * 2, *[c_void_p] * 4, c_int),
    # x, of x, its stride, of y, rows, channels, weight, bias, of weight, of bias,
    # statistics, threads
    "tangent": (*[c_void_p] * 2, c_int64, c_void_p, *[c_int64] * 2, *[c_void_p] * 5, c_int),
}
DTYPES = ("float32", "bfloat16")


def bind(path: str) -> ctypes.CDLL:
    """The library with its functions' types.

    Raises:
        OSError: it cannot be loaded.
    """
    loaded = ctypes.CDLL(path)
    for name, types in SIGNATURES.items():
        for dtype in DTYPES:
            function = getattr(loaded, f"{name}_{dtype}")
            function.argtypes, function.restype = types, None
    return loaded


def trial(functions: ctypes.CDLL) -> None:
    """Run every function on rows of several widths, and compare with float64.

    Raises:
        AssertionError: a result is wrong.
    """
    for channels in (1, 6, 58, 116, 130):
        for dtype in DTYPES:
            _try(functions, dtype, rows=700, channels=channels)


def _try(functions: ctypes.CDLL, dtype: str, *, rows: int, channels: int) -> None:
    random = np.random.default_rng(0)
    stride = channels + 3
    x, wide = (random.normal(size=(rows, n)).astype(np.float32) for n in (channels, stride))
    weight, bias, of_weight, of_bias = random.normal(size=(4, channels)).astype(np.float32)
    running, statistics, to_parameters = np.zeros((3, 2, channels), np.float32)
    held_x, held_wide = _held(x, dtype), _held(wide, dtype)
    x, wide = _floats(held_x), _floats(held_wide)
    y, to_x, of_y = (np.empty_like(held_x) for _ in range(3))

    def call(name: str, *arguments: Any) -> None:
        pointers = (a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments)
        getattr(functions, f"{name}_{dtype}")(*pointers)

    size, affine = (rows, channels), (weight, bias)
    call("forward", held_x, y, *size, *affine, running[0], running[1], 0.1, 1e-5, statistics, 2)
    call("backward", held_x, held_wide, stride, to_x, *size, *affine, statistics, to_parameters, 2)
    call("tangent", held_x, held_wide, stride, of_y, *size, *affine, of_weight, of_bias,
         statistics, 2)  # fmt: skip

    part = wide[:, :channels].astype(np.float64)
    scale = 1 / np.sqrt(x.astype(np.float64).var(0) + 1e-5)
    normal = (x - x.astype(np.float64).mean(0)) * scale
    v = normal * weight + bias

    def centred(a: NDArray[np.float64]) -> NDArray[np.float64]:
        rest: NDArray[np.float64] = a - a.mean(0) - normal * (a * normal).mean(0)
        return rest

    decided = np.abs(v) > 1e-3
    gradient = np.where(v > 0, part, 0)
    bound = 2e-2 if dtype == "bfloat16" else 1e-3
    for found, expected, where in (
        (y, np.maximum(v, 0), ...),
        (to_x, weight * scale * centred(gradient), decided),
        (of_y, np.where(v > 0, weight * scale * centred(part) + normal * of_weight + of_bias, 0),
         decided),
        (to_parameters, np.stack([(gradient * normal).sum(0), gradient.sum(0)]) / rows, ...),
    ):  # fmt: skip
        numbers = found / rows if found is to_parameters else _floats(found)
        error = np.abs(numbers - expected)[where]
        assert error.max() <= bound * (1 + np.abs(expected).max()), (dtype, channels)


def _held(numbers: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    """Floats, or their upper halves: bfloat16."""
    return numbers if dtype == "float32" else (numbers.view(np.uint32) >> 16).astype(np.uint16)


def _floats(held: NDArray[Any]) -> NDArray[np.float32]:
    """What ``_held`` holds."""
    if held.dtype == np.uint16:
        return (held.astype(np.uint32) << 16).view(np.float32)
    return held


if __name__ == "__main__":
    trial(bind(sys.argv[1]))
