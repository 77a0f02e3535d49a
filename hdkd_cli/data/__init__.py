"""Images: data sets, splits with roles, and streams of normalised batches.

sources     named images with labels: folders, CIFAR, digits
splits      which images train, validate, calibrate and test
pictures    upright RGB, resized and cut out: Pillow and numpy alone
transform   the evaluation transform, the same for every way to read an image
order       which images at which step; Batch
in_memory   small images: decoded once, augmented as whole batches
workers     large images: decoded and augmented by worker processes
dataset     ``open_data`` and ``ImageData``, which put these together
given       validation images that a file lists
labelled    ``open_labelled``: images that are no split of a run
"""

from hdkd_cli.data.dataset import ImageData, open_data
from hdkd_cli.data.labelled import LabelledImages, open_labelled
from hdkd_cli.data.order import Batch, Share, Stream
from hdkd_cli.data.sources.base import IMAGE_SUFFIXES, ArraySource, FolderSource, Source
from hdkd_cli.data.splits import Split
from hdkd_cli.data.transform import read_image

__all__ = [
    "IMAGE_SUFFIXES",
    "ArraySource",
    "Batch",
    "FolderSource",
    "ImageData",
    "LabelledImages",
    "Share",
    "Source",
    "Split",
    "Stream",
    "open_data",
    "open_labelled",
    "read_image",
]
