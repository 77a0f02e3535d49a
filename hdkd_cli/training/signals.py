"""Ctrl-C and SIGTERM at any time: at once while nothing is at stake, after the step in training."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Set by a signal, read by the loop between two steps.

    Attributes:
        signum: The signal that arrived, or None.
    """

    def __init__(self) -> None:
        self.signum: int | None = None

    def _receive(self, signum: int, _frame: FrameType | None) -> None:
        self.signum = signum
        # a second signal must end a step that hangs: hand it to the previous handler
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def deferred_signals() -> Iterator[StopRequest]:
    """While the block runs, the first SIGINT or SIGTERM only sets the request it yields."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield request
        return
    previous = {s: signal.signal(s, request._receive) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
