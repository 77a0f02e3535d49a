"""What is said to people: notes, warnings and errors, on stderr. stdout is for data.

Colour follows the terminal and ``NO_COLOR``. Text is printed as it is: brackets are no markup, and
lines are not broken, so that one message stays one line in a log. Control characters, which a file
or a class may have in its name, are shown, not obeyed.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


_JOINERS = "\u200c\u200d"  # invisible, and part of words in Persian, of emoji


def visible(text: str, *, lines: bool = False) -> str:
    """``text`` with every character escaped that a terminal would act on or hide behind.

    Args:
        text: Anything, a file name from anywhere say.
        lines: Keep line breaks that an indented line follows: those of our own messages.
    """
    if text.isascii() and text.isprintable():
        return text
    broken = re.split(r"\n(?=  )", text) if lines else [text]
    return "\n".join("".join(map(_shown, line)) for line in broken)


def _shown(char: str) -> str:
    # Cc: ESC and C1; Cf: bidirectional overrides; Zl, Zp: line breaks; Cs: bytes that are no text
    hidden = unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp", "Cs"} and char not in _JOINERS
    return char.encode("unicode_escape").decode() if hidden else char


class Talk:
    """Notes, warnings and errors on stderr.

    Attributes:
        quiet: No notes and no progress; warnings and errors are always shown.
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

        said = Text.assemble((f"{kind}:", style), f" {visible(message, lines=True)}")
        with suppress(OSError):  # stderr is closed or full; the exit code stays
            self.console().print(said)


talk = Talk()
