"""What is said to people: notes, warnings and errors, on stderr. stdout is for data.

Colour follows the terminal and ``NO_COLOR``. Text is printed as it is: brackets are no markup, and
lines are not broken, so that one message stays one line in a log.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


class Talk:
    """The one who talks.

    Attributes:
        quiet: Keep notes and progress to oneself; warnings and errors are always told.
    """

    def __init__(self) -> None:
        self.quiet = False

    def console(self) -> Console:
        """A console on stderr as it is now, for progress and tables."""
        from rich.console import Console

        return Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def note(self, message: str) -> None:
        """Something worth knowing."""
        if not self.quiet:
            self._say("note", "cyan", message)

    @contextmanager
    def patience(self, what: str, seconds: float = 2.0) -> Iterator[None]:
        """Note ``what`` is going on inside if it takes longer than ``seconds``."""
        timer = threading.Timer(seconds, self.note, (f"{what} …",))
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def warning(self, message: str) -> None:
        """Something that may not be what was meant."""
        self._say("warning", "yellow", message)

    def error(self, message: str, hint: str | None = None) -> None:
        """Why it ended, and what to do about it."""
        self._say("error", "bold red", message)
        if hint is not None:
            self._say("hint", "cyan", hint)

    def _say(self, kind: str, style: str, message: str) -> None:
        from rich.text import Text

        self.console().print(Text.assemble((f"{kind}:", style), f" {message}"))


talk = Talk()
