"""The seam between what the kernel collected of a stack and what a reader sees of it."""

from __future__ import annotations

from typing import Protocol

from tracer.core.events import CallEvent, Process, StackCopy
from tracer.core.stack import Stack, missing
from tracer.core.wire import Arrival
from tracer.stacks.row import Row


class KernelWalk(Protocol):
    """The kernel's side: what it walks by, and what it could not send."""

    def put_rows(self, process: Process, exec_id: int, rows: dict[int, Row]) -> None:
        """Add rows of one program image, by pc."""

    def drop_rows(self, process: Process, exec_id: int, pcs: set[int]) -> None:
        """Take back rows whose code is gone."""

    def kept_copy(self, tid: int, ts: int) -> StackCopy | None:
        """The copy for a call that found the buffer full; None if there is none any more."""


class StackResolver(Protocol):
    """Turns raw stacks into frames with names."""

    def begin(self, walk: KernelWalk) -> None:
        """Before anything else, once."""

    def meet(self, arrival: Arrival) -> None:
        """
        A program image uses inotify for the first time: open what its symbols need.

        Called from another thread than `resolve`, as `learn` and `tidy` are.
        """

    def learn(self, copy: StackCopy) -> None:
        """Find the rows that the walk of a call lacked; comes before the call itself."""

    def resolve(self, event: CallEvent) -> Stack:
        """The stack of a call; never raises, a stack that cannot be had says why."""

    def tidy(self) -> None:
        """Close files, and forget processes that ended. Called often, and after each `learn`."""

    def close(self) -> None:
        """Give back what was opened."""


class NoStacks:
    """For commands that show none."""

    _NOT_COLLECTED = missing("not collected")

    def begin(self, walk: KernelWalk) -> None:
        pass

    def meet(self, arrival: Arrival) -> None:
        pass

    def learn(self, copy: StackCopy) -> None:
        pass

    def resolve(self, event: CallEvent) -> Stack:
        return self._NOT_COLLECTED

    def tidy(self) -> None:
        pass

    def close(self) -> None:
        pass
