"""Why calls fail, as they fail: the first of each kind is looked into, the others are counted."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from typing import Callable

from tracer.core.accounts import Failure, count_failure
from tracer.core.events import CallEvent, FullUser
from tracer.core.report import FailureRow
from tracer.core.shortage import Shortage
from tracer.errors import InotraceError
from tracer.kernel.truth import Truth
from tracer.shortages import Shortages, failure_row, is_of_a_limit
from tracer.targets.processes import ProcessTable

# Walks take at most a twentieth of the time; what one has told is true for a second.
_WALK_SHARE = 20
_FRESH_S = 1.0


class Explainer:
    """
    `open_truth` gives the kernel's list, which is read when a call meets a limit, and not before.
    Use as a context manager, within that of what the list is read by.
    """

    def __init__(self, open_truth: Callable[[], Truth], processes: ProcessTable) -> None:
        self._open_truth = open_truth
        self._truth: Truth | None = None
        self._shortages = Shortages(processes)
        self._next_walk = 0.0
        self._fresh_until = 0.0
        self._counts: Counter[Failure] = Counter()

    def __enter__(self) -> Explainer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._truth is not None:
            self._truth.close()

    def first(self, event: CallEvent, times: int = 1) -> FailureRow | None:
        """Count failed calls; told of only if they are the first of their kind by their process."""
        kind = count_failure(self._counts, event, times)
        if self._counts[kind] > times:
            return None
        return failure_row(kind, 1, self._shortage(kind, event.full_user))

    def counted(self) -> list[FailureRow]:
        """All kinds with how many there were, most first."""
        return [failure_row(kind, times) for kind, times in self._counts.most_common()]

    def _shortage(self, kind: Failure, full: FullUser | None) -> Shortage | None:
        if not is_of_a_limit(kind.op, kind.errno):
            return None
        now = time.monotonic()
        is_told = now < self._fresh_until and self._shortages.shows(kind)
        if now >= self._next_walk and not is_told:
            # without it, what the kernel told with the call remains
            with suppress(InotraceError):
                self._walk(now)
        return self._shortages.of(kind, full)

    def _walk(self, began: float) -> None:
        # also after one that failed
        self._next_walk = began + _FRESH_S
        self._truth = self._truth or self._open_truth()
        self._shortages.saw(self._truth.walk())
        self._next_walk = began + _WALK_SHARE * (time.monotonic() - began)
        self._fresh_until = began + _FRESH_S
