"""The seam between what the kernel collected of a stack and what a reader sees of it."""

from __future__ import annotations

from typing import Protocol

from tracer.core.events import CallEvent
from tracer.core.stack import Stack, missing
from tracer.core.wire import Arrival


class StackResolver(Protocol):
    """Turns raw stacks into frames with names."""

    def meet(self, arrival: Arrival) -> None:
        """
        A program image uses inotify for the first time: open what its symbols need.

        Called from another thread than `resolve`.
        """

    def resolve(self, event: CallEvent) -> Stack:
        """The stack of a call; never raises, a stack that cannot be had says why."""

    def close(self) -> None:
        """Give back what was opened."""


class NoStacks:
    """For commands that show none."""

    _NOT_COLLECTED = missing("not collected")

    def meet(self, arrival: Arrival) -> None:
        pass

    def resolve(self, event: CallEvent) -> Stack:
        return self._NOT_COLLECTED

    def close(self) -> None:
        pass
