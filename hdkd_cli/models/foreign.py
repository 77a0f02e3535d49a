"""State dicts that other programs wrote: the one place where ``torch.load`` is called.

It is called with ``weights_only=True``, which builds tensors and plain containers and runs no code,
and only for a file that the user names as a checkpoint to take weights from.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hdkd_cli.errors import CheckpointError
from hdkd_cli.files import looks_like_pickle, read_tensors
from hdkd_cli.wording import first_line

WRAPPER = "state_dict"
PARALLEL = "module."
"""What DataParallel puts before every name."""


def read_foreign_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU, ``module.`` taken off.

    Args:
        path: safetensors, or what ``torch.save`` wrote: a state dict, or a dictionary that holds
            one as ``state_dict``.

    Raises:
        CheckpointError: missing, damaged, no state dict, or more than tensors and plain containers.
    """
    if not path.is_file() or not looks_like_pickle(path):
        state, _ = read_tensors(path, CheckpointError)
    else:
        state = _named_tensors(_load(path), path)
    if not state:
        raise CheckpointError(f"{path}: holds no tensors", subject=path)
    if all(name.startswith(PARALLEL) for name in state):
        return {name.removeprefix(PARALLEL): tensor for name, tensor in state.items()}
    return state


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        raise CheckpointError(
            f"{path}: holds more than tensors, or is damaged, and is not opened "
            f"({first_line(problem)})",
            hint="where you trust the file, load it in Python and save its state dict alone",
            subject=path,
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as problem:
        raise CheckpointError(f"{path}: is damaged ({first_line(problem)})", subject=path) from None


def _named_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get(WRAPPER), Mapping):
        content = content[WRAPPER]
    if not isinstance(content, Mapping):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}, a state dict is needed", subject=path
        )
    others = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(
            f"{path}: is no state dict: {', '.join(others[:6])} "
            f"{'is no tensor' if len(others) == 1 else 'are no tensors'}",
            subject=path,
        )
    return {str(name): value for name, value in content.items()}
