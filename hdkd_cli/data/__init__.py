"""Images: data sets, splits with roles, and streams of normalised batches.

source      folders, CIFAR, digits: named images with labels (folders.py, cifar.py, digits.py)
splits      who trains, validates, calibrates and tests
frame       the evaluation transform, the same for every way to read an image
stream      which images at which step; Batch
memory      small images: decoded once (pool.py), augmented as whole batches (augment.py)
loading     large images: decoded and augmented by worker processes
dataset     ``open_data`` and ``ImageData``, which put these together
"""

from hdkd_cli.data.dataset import ImageData, open_data
from hdkd_cli.data.frame import read_image
from hdkd_cli.data.source import IMAGE_SUFFIXES
from hdkd_cli.data.splits import Role, Split
from hdkd_cli.data.stream import Batch, Share, Stream

__all__ = [
    "IMAGE_SUFFIXES",
    "Batch",
    "ImageData",
    "Role",
    "Share",
    "Split",
    "Stream",
    "open_data",
    "read_image",
]
