"""The evaluation transform in text: its fingerprint, and for people."""

from __future__ import annotations

import json

from hdkd_cli.settings.data import DataSettings


def describe(settings: DataSettings) -> str:
    """Canonical text of the evaluation transform, for fingerprints."""
    return json.dumps(
        {
            "resize": settings.shorter_side,
            "interpolation": f"{settings.interpolation}, antialiased",
            "center_crop": settings.image_size,
            "mean": settings.mean,
            "std": settings.std,
            "orientation": "exif",
        }
    )


def in_words(settings: DataSettings) -> str:
    """What is done to images, in a sentence."""
    size, short = settings.image_size, settings.shorter_side
    cut = f"the centre of {size}×{size} is cut out" if short > size else "the centre is cut out"
    augment = {
        "none": "",
        "pad-crop": f"padded by {settings.padding} pixels and cropped at random",
        "resized-crop": f"a random area is resized to {size}×{size}",
    }[settings.augment]
    in_training = ", ".join(filter(None, [augment, "half are mirrored" * settings.flip]))
    return f"images are resized to {short} pixels on their shorter side and {cut}" + (
        f"; in training: {in_training}" if in_training else ""
    )


def discards(settings: DataSettings) -> str | None:
    """A sentence if most of a square image is cut off before evaluation; None: it is not."""
    kept = (settings.image_size / settings.shorter_side) ** 2
    if kept >= 0.5:
        return None
    return (
        f"data.resize = {settings.shorter_side} with data.image_size = {settings.image_size}: "
        f"evaluation sees {100 * kept:.0f} % of a square image, its centre"
    )
