"""A folder of pictures, and a run that was trained on it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image


class Pictures(NamedTuple):
    """A run, and the folder its images are in."""

    run: Path
    data: Path


def write_pictures(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """``counts[part]`` noisy pictures per class: cats are dark, 狗 (dogs) are bright."""
    dice = np.random.default_rng(seed)
    for part, count in counts.items():
        for name, level in (("cat", 60), ("狗", 160)):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = dice.integers(level - 60, level + 60, (20, 20, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return root
