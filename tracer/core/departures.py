"""What went a moment ago, so that what is told late of it does not bring it back to life."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Optional

from tracer.core.cause import Cause
from tracer.core.events import Instance

# an instance as a whole where the descriptor is None
_Key = tuple[Instance, Optional[int]]


class Departure(NamedTuple):
    """
    At `ts`. `was_live`: whether the ledger had the watch when it went; of an instance, `live` are
    the descriptors that it had.
    """

    cause: Cause
    ts: int
    was_live: bool = False
    live: frozenset[int] = frozenset()


class Departures:
    """
    Removals that the kernel told of, until :meth:`forget`.

    The kernel does not use a watch descriptor twice in that time: it counts through two thousand
    million of them first.
    """

    def __init__(self) -> None:
        self._known: dict[_Key, Departure] = {}
        self._order: deque[tuple[int, _Key]] = deque()

    def __len__(self) -> int:
        return len(self._known)

    def note(self, instance: Instance, wd: int | None, departure: Departure) -> None:
        """`wd` None: the instance with all its watches."""
        self._known[instance, wd] = departure
        self._order.append((departure.ts, (instance, wd)))

    def of(self, instance: Instance, wd: int | None) -> Departure | None:
        """How the watch went, by itself or with its instance; None if it did not."""
        found = self._known.get((instance, wd))
        whole = self._known.get((instance, None)) if found is None else None
        if whole is not None and wd is not None:
            return whole._replace(was_live=wd in whole.live)
        return found or whole

    def forget(self, before: int) -> None:
        """Drop what is older."""
        while self._order and self._order[0][0] < before:
            self._known.pop(self._order.popleft()[1], None)
