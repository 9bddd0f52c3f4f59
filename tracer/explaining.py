"""Why calls fail, as they fail: the first of each kind is looked into, the others are counted."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from typing import Callable

from tracer.core.accounts import Failure, count_failure
from tracer.core.events import CallEvent
from tracer.core.report import FailureRow
from tracer.core.shortage import Shortage
from tracer.errors import InotraceError
from tracer.kernel.truth import Truth
from tracer.shortages import Shortages, failure_row, is_of_a_limit
from tracer.targets.processes import ProcessTable

# walks take at most a twentieth of the time
_WALK_EVERY_S = 1.0
_WALK_SHARE = 20


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
        shortage = (
            self._shortage(kind, event.caller.uid) if is_of_a_limit(kind.op, kind.errno) else None
        )
        return failure_row(kind, 1, shortage)

    def counted(self) -> list[FailureRow]:
        """All kinds with how many there were, most first."""
        return [failure_row(kind, times) for kind, times in self._counts.most_common()]

    def _shortage(self, kind: Failure, uid: int) -> Shortage | None:
        if kind.process is None:
            return None
        if time.monotonic() >= self._next_walk:
            # without it, what a process lacks itself can still be told
            with suppress(InotraceError):
                self._walk()
        found = self._shortages.of(kind.op, kind.errno, kind.process, uid, kind.exhausted)
        # one that is not met is of a look before the call
        return found if found is None or found.uid is None or found.is_met else None

    def _walk(self) -> None:
        began = time.monotonic()
        self._next_walk = began + _WALK_EVERY_S
        self._truth = self._truth or self._open_truth()
        self._shortages.saw(self._truth.walk())
        took = time.monotonic() - began
        self._next_walk = began + max(_WALK_EVERY_S, _WALK_SHARE * took)
