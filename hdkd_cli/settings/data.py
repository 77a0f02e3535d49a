"""The ``data`` section: which images, and what is done to them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt

from hdkd_cli.choices import Augment, ImageCheck, InMemory, Interpolation, Layout
from hdkd_cli.settings.datasets import DATASETS, dataset_spec
from hdkd_cli.settings.section import Section

Triple = tuple[float, float, float]


def _known_dataset(name: str) -> str:
    if dataset_spec(name) is None:
        choices = ", ".join(f'"{known}"' for known in [*DATASETS, "package.module:factory"])
        raise ValueError(f"no such data set; there are: {choices}")
    return name


class DataSettings(Section):
    """Which images, how they are split, and what is done to them.

    The defaults are those of ``digits``; the other data sets bring their own (``DATASETS``).
    """

    name: Annotated[str, AfterValidator(_known_dataset)] = "digits"
    """The data set. ``folder`` and ``imagenet`` read ``<root>/train/<class>/*``;
    ``package.module:factory`` is one of your own, called as ``factory(root=, **options)``; it
    returns a ``hdkd_cli.data.Source``."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of the factory of a data set of your own."""
    root: str | None = None
    """Folder the data is in; ``digits`` needs none. (``--data-dir``)"""
    layout: Literal["auto", Layout] = "auto"
    """Of ``folder``: ``train-test`` has train/, test/ and maybe val/; of ``train-val``, val/ is the
    test part; ``tiny-imagenet`` is read as it is downloaded; ``auto`` looks."""
    download: bool = False
    """Fetch CIFAR from its authors' site if it is not in ``root``. (``--download``)"""
    image_size: PositiveInt = 32
    """Side in pixels of the square image the network sees."""
    resize: PositiveInt | None = None
    """Shorter side in pixels before the centre crop of evaluation; absent: ``image_size``, or
    256/224 of it with ``resized-crop``."""
    interpolation: Interpolation = "bilinear"
    """How images are resized, with antialiasing."""
    augment: Augment = "pad-crop"
    """Training only: pad and crop at random, or crop a random area and resize it."""
    padding: NonNegativeInt = 2
    """Pixels of zero padding for ``pad-crop``."""
    rand_augment: NonNegativeInt = 0
    """Training only: random operations per image (RandAugment: Cubuk et al., 2020); 0: none."""
    rand_magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """How strong the operations of ``rand_augment`` are."""
    flip: bool = False
    """Training only: mirror half of the images left to right."""
    mean: Triple = (0.3055, 0.3055, 0.3055)
    """Per-channel mean that is subtracted, on a 0..1 scale."""
    std: Triple = (0.3234, 0.3234, 0.3234)
    """Per-channel standard deviation that is divided by."""
    train_per_class: PositiveInt | None = None
    """Training images per class; absent: all that are left. The rest is the ``reserve`` split."""
    val_per_class: NonNegativeInt | None = 25
    """Validation images per class, held out of the training images; absent: a ``val/`` folder's, or
    a tenth of each class where there is none. 0: every image trains, which fixed weights allow."""
    val_indices: str | None = None
    """File that lists the validation images among the training images, in place of
    ``val_per_class``: numbers from 0 or names, one per line, or a safetensors file."""
    calibration_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the validation images set aside for policies with guarantees; never trains γ."""
    split_seed: NonNegativeInt = 0
    """Seed of the splits: two runs with the same one see the same splits."""
    in_memory: InMemory = "auto"
    """Decode all images once into memory; ``auto``: when they need less than 2 GiB."""
    cache: bool = True
    """Keep the decoded images on disk beside the data (or in the user's cache folder)."""
    workers: NonNegativeInt = 4
    """Decoding processes for images that are not held in memory."""
    check: ImageCheck = "headers"
    """What is read of every image file before training, to find those that cannot be read."""
    skip_bad: bool = False
    """Train and evaluate without the image files that cannot be read; all are decoded once to find
    them. run.json names them."""

    @property
    def shorter_side(self) -> int:
        """Shorter side in pixels before the centre crop of evaluation."""
        if self.resize is not None:
            return self.resize
        if self.augment == "resized-crop":
            return round(self.image_size * 256 / 224)
        return self.image_size
