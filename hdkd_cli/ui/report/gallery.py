"""Images that a policy finds easy and hard, exit by exit. N samples, B pictures of S pixels."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from PIL import Image

from hdkd_cli.data import ImageData
from hdkd_cli.data.order import Request
from hdkd_cli.ui.report.read import BudgetCurve

PICTURES = 6  # of each kind at an exit
LARGEST = 96  # pixels a side; larger ones are reduced


class Picture(NamedTuple):
    """One image: a small PNG, its class, and what the network took it for, how sure of it."""

    data_uri: str
    truth: str
    prediction: str
    confidence: float


class ExitPictures(NamedTuple):
    """What leaves at one exit."""

    exit: int  # counted from 1
    samples: int  # that leave here
    right: int  # of them
    easiest: tuple[Picture, ...]  # the right ones, most confident first
    hardest: tuple[Picture, ...]  # the wrong ones, likewise: the mistakes nothing gave away


def read_gallery(curve: BudgetCurve, data: ImageData) -> tuple[ExitPictures, ...]:
    """Pictures for the operating point of ``curve`` that was chosen on the val split.

    Raises:
        DataError: an image cannot be read.
    """
    table, exit_N = curve.table, curve.result.exit_PN[curve.chosen]
    correct_N = curve.correct_PN[curve.chosen]
    leaving = [order_N[exit_N[order_N] == k] for k, order_N in enumerate(table.order_KN)]
    easiest = [here_N[correct_N[here_N]][:PICTURES].tolist() for here_N in leaving]
    hardest = [here_N[~correct_N[here_N]][:PICTURES].tolist() for here_N in leaving]
    thumbnails = _thumbnails([*chain(*easiest, *hardest)], data)

    def picture(sample: int) -> Picture:
        k = exit_N[sample]
        return Picture(
            data_uri=thumbnails[sample],
            truth=data.classes[table.labels_N[sample]],
            prediction=data.classes[table.prediction_KN[k, sample]],
            confidence=float(table.confidence_KN[k, sample]),
        )

    return tuple(
        ExitPictures(
            exit=k + 1,
            samples=len(here_N),
            right=int(correct_N[here_N].sum()),
            easiest=tuple(map(picture, easiest[k])),
            hardest=tuple(map(picture, hardest[k])),
        )
        for k, here_N in enumerate(leaving)
    )


def _thumbnails(samples: Sequence[int], data: ImageData) -> dict[int, str]:
    """Sample of the test split → a small PNG of what the network sees, as a data URI."""
    import torch

    request = Request(data.splits["test"].indices_N[samples])
    batches = data.images.batches(
        [request], augment=False, device=torch.device("cpu"), channels_last=False
    )
    (images_B3SS, _), *_ = batches
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (data.settings.mean, data.settings.std))
    pixels_B3SS = ((images_B3SS * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return {
        sample: _data_uri(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
        for sample, pixels in zip(samples, pixels_B3SS, strict=True)
    }


def _data_uri(image: Image.Image) -> str:
    image.thumbnail((LARGEST, LARGEST))
    content = io.BytesIO()
    image.save(content, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
