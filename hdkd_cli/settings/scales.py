"""How many scales an MSDNet has where they are not given: as many as its images need."""

from __future__ import annotations

import math
from typing import Any

from hdkd_cli.settings.networks import MSDNetSettings

HEADS_TAKE = (5, 12)
"""Sides in pixels of the coarsest scale that the heads can take."""


def scales_for(image_size: int, stem: Any) -> dict[str, list[int]]:
    """Factors of an MSDNet for images of this size; empty where the schema's own ones fit.

    Published networks end at 7 or 8 pixels: three scales of 32, four of 224 behind the large stem.
    Other sizes get the number of scales that comes closest to 8. [ours]
    """
    side = image_size / (4 if stem == "imagenet" else 1)
    own = MSDNetSettings.model_fields["growth_factors"].default
    if HEADS_TAKE[0] <= side / 2 ** (len(own) - 1) <= HEADS_TAKE[1]:
        return {}
    scales = max(1, 1 + round(math.log2(side / 8)))
    factors = [min(2**scale, own[-1]) for scale in range(scales)]
    return {"growth_factors": factors, "bottleneck_factors": factors}
