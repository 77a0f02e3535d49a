"""Other people's numbers (published.toml), shown only beside exactly their network.

Growth 6 and growth 16, say, are different networks: a published point is found by the complete
architecture and the data set, never by a name.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from pydantic import TypeAdapter

from hdkd_cli.settings.networks import MSDNetSettings
from hdkd_cli.settings.schema import Settings

_NOT_ARCHITECTURE = {"init"}  # it changes the initial weights only


class Published(NamedTuple):
    """A method's published numbers: top-1 of each exit, and (M "ops", top-1) leaving early."""

    method: str
    top1_pct: tuple[float, ...]
    budgeted: tuple[tuple[float, float], ...] = ()


class PublishedNetwork(NamedTuple):
    """A network that others have published numbers on, and where these are from."""

    dataset: str
    model: MSDNetSettings
    source: str
    methods: tuple[Published, ...]


@cache
def networks() -> tuple[PublishedNetwork, ...]:
    """All of published.toml."""
    text = (files(__package__) / "published.toml").read_text(encoding="utf-8")
    return TypeAdapter(tuple[PublishedNetwork, ...]).validate_python(tomllib.loads(text)["network"])


def published_for(settings: Settings) -> PublishedNetwork | None:
    """The published numbers on the network and data set of ``settings``, if there are any."""
    for network in networks():
        theirs = (network.dataset, network.model.model_dump(exclude=_NOT_ARCHITECTURE))
        if (settings.data.name, settings.model.model_dump(exclude=_NOT_ARCHITECTURE)) == theirs:
            return network
    return None
