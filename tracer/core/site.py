"""Places in the code that add watches or open instances, and what came of these."""

from __future__ import annotations

from collections import Counter
from itertools import zip_longest
from typing import NamedTuple

from tracer.core.cause import Cause
from tracer.core.course import Course
from tracer.core.events import Op, Process
from tracer.core.stack import Stack


class Place(NamedTuple):
    """
    What makes two calls come from the same place.

    `code` are the frames' names, or why there are none. `process` tells places apart where the
    code does not, being none or an interpreter's; `name` is of the process where the frames do not
    tell which program it is.
    """

    op: int
    name: bytes
    process: Process | None
    code: object


class Stock:
    """
    How many are there, and were: `course` has it over time, `at_marks` at the marks of the trace,
    `low` is the lowest number since a mark was begun.
    """

    __slots__ = ("at_marks", "course", "live", "low")

    def __init__(self) -> None:
        self.live = 0
        self.low = 0
        self.course = Course()
        self.at_marks: list[int] = []

    def begin_mark(self) -> None:
        """What comes and goes from now on until the mark does not count."""
        self.low = self.live

    def mark(self, number: int) -> None:
        """Note how many there are at this mark, the first being 0."""
        self.at_marks += [0] * (number - len(self.at_marks))
        self.at_marks.append(self.low)

    def _come(self, ts: int) -> None:
        self.live += 1
        self.course.note(ts, self.live)

    def _go(self, ts: int) -> None:
        self.live -= 1
        self.course.note(ts, self.live)
        if self.live < self.low:
            self.low = self.live


class Site(Stock):
    """
    A place in the code that adds watches or opens instances, with what came of them.

    `live` is in the kernel now; `freed_by_exit` went only with their process. `comm` is who called
    last from there; `shares` are by process, without those that were summed up. `longest_life` is
    what any that were removed had lived, in ns.
    """

    __slots__ = (
        "added",
        "comm",
        "freed_by_exit",
        "longest_life",
        "place",
        "removed",
        "shares",
        "stack",
    )

    def __init__(self, place: Place, stack: Stack, comm: bytes) -> None:
        super().__init__()
        self.place = place
        self.stack = stack
        self.comm = comm
        self.added = 0
        self.freed_by_exit = 0
        self.longest_life = 0
        self.removed: Counter[Cause] = Counter()
        self.shares: dict[Process, Share] = {}

    def take(self, other: Site) -> None:
        """Of which nothing is live any more."""
        self.added += other.added
        self.removed.update(other.removed)
        self.longest_life = max(self.longest_life, other.longest_life)
        both = zip_longest(self.at_marks, other.at_marks, fillvalue=0)
        self.at_marks = [own + more for own, more in both]

    @property
    def opens_instances(self) -> bool:
        return self.place.op == Op.INIT

    @property
    def left(self) -> int:
        """What nobody removed."""
        return self.live + self.freed_by_exit


class Share(Stock):
    """
    What one process has of a site.

    `longest_life` is what any that were removed had lived, in ns. What only the exit of the process
    freed, at `ended_at`, does not count as a fall: the share is judged as it stood.
    """

    __slots__ = ("ended_at", "freed_by_exit", "longest_life", "process", "removed", "site")

    def __init__(self, site: Site, process: Process) -> None:
        super().__init__()
        self.site = site
        self.process = process
        self.removed = 0
        self.longest_life = 0
        self.freed_by_exit = 0
        self.ended_at = 0

    def enter(self, ts: int) -> None:
        self._come(ts)
        self.site._come(ts)

    def leave(self, ts: int, added_at: int, cause: Cause) -> None:
        """One that was added then is gone."""
        self._go(ts)
        self.site._go(ts)
        self.removed += 1
        self.site.removed[cause] += 1
        if ts - added_at > self.longest_life:
            self.longest_life = ts - added_at
            self.site.longest_life = max(self.site.longest_life, self.longest_life)

    def mark(self, number: int) -> None:
        # one that has ended is judged by its own life
        if self.ended_at and not self.live:
            self.at_marks.clear()
        else:
            super().mark(number)

    def leave_by_exit(self, ts: int) -> None:
        self.live -= 1
        self.low = min(self.low, self.live)
        self.site._go(ts)
        self.freed_by_exit += 1
        self.site.freed_by_exit += 1
        self.ended_at = max(self.ended_at, ts)

    def pass_by(self, cause: Cause, times: int) -> None:
        """So many came and went unlisted."""
        self.removed += times
        self.site.added += times
        self.site.removed[cause] += times
