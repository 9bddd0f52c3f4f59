"""
Judging a site by the watches it left behind.

A leak is told from a cache by its growth: it adds and never removes, to the end. When the adds
happened is all there is to see, so the judged time is cut into equal parts, and a part in which
a watch was added that is still there is a part in which the site grew.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tracer.core.accounts import Cause

# Two points make any line. Growth in three of four parts cannot come from a start-up burst
# followed by a late straggler.
PARTS = 4
GROWING_PARTS = 3
# Fewer adds than this cannot show growth in that many parts.
LEAST_ADDS = 3


class Verdict(str, enum.Enum):
    """Ordered from what needs action to what needs none."""

    LEAK = "leak"
    POSSIBLE = "possible"
    INCONCLUSIVE = "inconclusive"
    YOUNG = "young"
    HELD = "held"
    CLEAN = "clean"


class Evidence(NamedTuple):
    """One reason for a verdict: a word for programs, a sentence for people."""

    kind: str
    text: str


class Judgement(NamedTuple):
    verdict: Verdict
    evidence: tuple[Evidence, ...]


class SiteHistory(NamedTuple):
    """
    What is known of a site at the end of a trace.

    `live_added_at` are the times at which the watches that are still there were added, in
    nanoseconds and in any order; `freed_by_exit` of them went only with their process. Those
    added after `judged_until` are too young to judge.
    """

    live_added_at: Sequence[int]
    freed_by_exit: int
    removed: Counter[Cause]
    judged_until: int
    older_s: float


def judge(site: SiteHistory) -> Judgement:
    """The verdict on a site, and the evidence that led to it."""
    if not site.live_added_at:
        return _clean(site)
    old = sorted(at for at in site.live_added_at if at <= site.judged_until)
    if not old:
        return _young(site)
    grew = _parts_with_growth(old, site.judged_until)
    removed = sum(site.removed.values())
    evidence = [_growth(old, grew, site.judged_until)]
    if sum(grew) < GROWING_PARTS or len(old) < LEAST_ADDS:
        verdict = Verdict.HELD
        evidence = _plateau(old, site.judged_until)
    elif grew[-1] and not removed:
        verdict = Verdict.LEAK
    else:
        verdict = Verdict.POSSIBLE
    evidence.append(_removals(site.removed, len(old)))
    if site.freed_by_exit:
        evidence.append(_freed_by_exit(site.freed_by_exit, len(site.live_added_at)))
    return Judgement(verdict, tuple(evidence))


def unseen(live: int, freed_by_exit: int) -> Judgement:
    """Of watches that a walk found, and whose calls were not seen."""
    text = "in the kernel's list: call lost, 32-bit, or made by an untraced process"
    evidence = [Evidence("unseen", text)]
    if freed_by_exit:
        evidence.append(_freed_by_exit(freed_by_exit, live))
    return Judgement(Verdict.INCONCLUSIVE, tuple(evidence))


def _parts_with_growth(added_at: Sequence[int], end: int) -> list[bool]:
    """For each equal part of the time from the first add to `end`: was anything added?"""
    begin = added_at[0]
    span = max(end - begin, 1)
    grew = [False] * PARTS
    for at in added_at:
        grew[min((at - begin) * PARTS // span, PARTS - 1)] = True
    return grew


def _clean(site: SiteHistory) -> Judgement:
    implicit = sum(site.removed.values()) - site.removed[Cause.RM_WATCH]
    how = "all were removed"
    if implicit:
        how = f"all are gone: {causes(site.removed)}"
    return Judgement(Verdict.CLEAN, (Evidence("balanced", how),))


def _young(site: SiteHistory) -> Judgement:
    text = f"all live watches are younger than {site.older_s:g} s: trace longer, or lower --older"
    return Judgement(Verdict.YOUNG, (Evidence("young", text),))


def _growth(old: Sequence[int], grew: Sequence[bool], end: int) -> Evidence:
    span = duration((end - old[0]) / 1e9)
    parts = "each" if all(grew) else f"{sum(grew)}"
    if grew[-1]:
        return Evidence(
            "grows_to_end", f"grew in {parts} of {PARTS} parts of {span}, up to the end"
        )
    quiet = duration((end - old[-1]) / 1e9)
    text = f"grew in {parts} of {PARTS} parts of {span}, but not in the last {quiet}"
    return Evidence("grew", text)


def _removals(removed: Counter[Cause], live: int) -> Evidence:
    number = sum(removed.values())
    if not number:
        return Evidence("never_removed", "none was ever removed")
    if number == removed[Cause.RM_WATCH]:
        return Evidence("partly_removed", f"{number:,} were removed, {live:,} were not")
    return Evidence("partly_removed", f"{number:,} are gone, {live:,} are not: {causes(removed)}")


def causes(removed: Mapping[Cause, int]) -> str:
    """``17 removed, 3 deleted``, in the order of Cause."""
    return ", ".join(f"{removed[cause]:,} {_WORDS[cause]}" for cause in Cause if removed.get(cause))


_WORDS = {
    Cause.RM_WATCH: "removed",
    Cause.DELETED: "deleted",
    Cause.UNMOUNTED: "unmounted",
    Cause.ONESHOT: "fired once",
    Cause.CLOSED: "closed",
    Cause.UNKNOWN: "for unknown reasons",
}


def _plateau(old: Sequence[int], end: int) -> list[Evidence]:
    # the first stands in a column of its own, on a line with the place: it must be short
    quiet = duration(max(end - old[-1], 0) / 1e9)
    if len(old) < LEAST_ADDS:
        last = Evidence("last_added", f"the last was added {quiet} before the end")
        return [Evidence("few", "too few to judge"), last]
    return [Evidence("plateau", f"did not grow in the last {quiet}")]


def _freed_by_exit(number: int, live: int) -> Evidence:
    which = "all were" if number == live else f"{number:,} of {live:,} were"
    if live == 1:
        which = "it was"
    return Evidence("freed_only_by_exit", f"{which} freed only by the exit of the process")


def duration(seconds: float) -> str:
    """``4 ms``, ``1.4 s``, ``12 s``, ``2 min 13 s``, ``3 h 5 min``."""
    # as they are rounded: neither 1000 ms nor 10.0 s
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
