"""Ending a trace on a signal, at a moment that suits."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Callable

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Whether an ending signal came."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def stop_on_signals(on_signal: Callable[[int], None] | None = None) -> Iterator[Stop]:
    """
    The first SIGINT, SIGTERM or SIGHUP only asks to stop; a second one ends at once.

    With `on_signal`, that is called instead of asking, with the signal's number.
    """
    stop = Stop()

    def handle(number: int, _frame: FrameType | None) -> None:
        if on_signal is not None:
            on_signal(number)
            return
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    before = {number: signal.signal(number, handle) for number in _ENDING}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
