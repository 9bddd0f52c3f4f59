"""One order of events out of per-CPU buffers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

from tracer.core.events import Event
from tracer.core.stack import Stack

# An event gets its time a moment before it enters its buffer; on a virtual machine that moment
# can be a stolen time slice. Later stragglers are still applied, last writer wins.
SLACK_NS = 10_000_000

_ts = attrgetter("ts")


class Traced(NamedTuple):
    """An event, its symbolized stack, and its time in nanoseconds of CLOCK_MONOTONIC."""

    ts: int
    event: Event
    stack: Stack


class Order:
    """
    Holds events back until none with an earlier time can come.

    Buffers are per CPU: a removal on one is often read before its add on another.
    """

    def __init__(self) -> None:
        self._pending: list[Traced] = []

    def __len__(self) -> int:
        """How many are held back."""
        return len(self._pending)

    def add(self, events: Iterable[Traced]) -> None:
        self._pending.extend(events)

    def until(self, watermark: int) -> list[Traced]:
        """Take the events up to `watermark`, in order of time."""
        # each buffer's run is sorted already, which timsort merges cheaply
        self._pending.sort(key=_ts)
        end = bisect_right([traced.ts for traced in self._pending], watermark)
        ready = self._pending[:end]
        del self._pending[:end]
        return ready
