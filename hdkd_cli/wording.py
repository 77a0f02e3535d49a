"""Others' words in our messages. Imports nothing: an exported network brings this file along."""

from __future__ import annotations


def first_line(problem: BaseException) -> str:
    """The first line of what an exception says; its name, if it says nothing."""
    return (str(problem).strip() or type(problem).__name__).splitlines()[0]
