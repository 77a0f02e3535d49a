"""Which names a policy may use: those of this package, and those that were registered."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import get_args

from hdkd_cli.choices import ConfidenceKind, PolicyKind

_NAME = re.compile("[a-z0-9][a-z0-9-]*")


class Names:
    """Names of one kind of thing.

    Args:
        what: The kind, for messages.
        own: Those that come with this package.
    """

    def __init__(self, what: str, own: Iterable[str]) -> None:
        self._what = what
        self._names = set(own)

    def add(self, name: str) -> None:
        """Let policies use a name that comes from outside.

        Raises:
            ValueError: the name is taken, or is none.
        """
        if name in self._names:
            raise ValueError(f"{self._what} {name!r}: there is one of that name already")
        if not _NAME.fullmatch(name):
            raise ValueError(f"{self._what} {name!r}: a name has small letters, digits and hyphens")
        self._names.add(name)

    def check(self, name: str) -> str:
        """The name as it is.

        Raises:
            ValueError: there is none of that name.
        """
        if name not in self._names:
            raise ValueError(
                f"Input should be one of {', '.join(sorted(self._names))}, not {name!r}"
            )
        return name


POLICY_NAMES = Names("policy", get_args(PolicyKind))
CONFIDENCE_NAMES = Names("confidence", get_args(ConfidenceKind))
