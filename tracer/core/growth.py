"""
Telling growth from a start-up, from a plateau and from chance.

Two things can show it. Rounds of a scenario: what is more after each of them grows with it. Or
time alone, cut into equal parts: a leak grows in most of them and up to the end, a cache stops.
What is removed now and then may be a leak among balanced calls or a number that only fluctuates,
which two rules tell apart: what is left has outlived everything that was removed, or the number
never falls back to what it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tracer.core.course import Course
from tracer.core.evidence import Evidence, duration

# Two points make any line. Growth in three of four parts cannot come from a start-up burst
# followed by a late straggler.
PARTS = 4
GROWING_PARTS = 3
# Less than this cannot show growth in that many parts, and so few may have been needed one by one:
# what a program makes use of later on is watched later on.
LEAST = 3
LEAST_CERTAIN = 5
# A program that starts up watches all it wants in one go, as fast as it can. What repeats, and can
# leak, be it by hand, by a test or by a daemon's timer, takes longer.
START_UP_NS = 100_000_000
# Of the lowest numbers of parts, counted from the end, the k-th is the lowest yet with a chance of
# 1/k if the number only fluctuates (records of exchangeable values, Rényi 1962). So from part to
# part it rises for good 5 or more of 7 times with a chance of 351/40320, 6 or more with one of
# 29/40320. Below one in a hundred it is a reason to look, below one in a thousand it is a leak.
FLOOR_PARTS = 8
SUSPECT_FLOOR_RISES = 5
LEAK_FLOOR_RISES = 6
# A number that only fluctuates rises at first, until those that came first are due to go: for as
# long as the longest of them live. It takes as long again to see that it goes on to rise.
START_UP_LIVES = 2
# A scenario's first round may warm up; one more is no series. What only fluctuates is more after
# each of two rounds one time in six at most, and after each of three one time in twenty-four: of
# all orders of three or four numbers, one rises.
LEAST_JUDGED_ROUNDS = 2
LEAST_CERTAIN_ROUNDS = 3
# Where a round in four does not grow, as when the scenario failed in it, one still has to look.
GROWING_ROUNDS = 0.75
_HOUR_NS = 3600e9


class History(NamedTuple):
    """
    What became of the watches (or instances) of a site, or of one process's share of it. Times and
    lives in nanoseconds.

    `left_since` are the times at which those came that nobody removed, sorted; those after `until`
    are too young to judge. `longest_life` is that of the `removed` ones. `nets` are by round, which
    took `rounds_ns` after the first.
    """

    left_since: Sequence[int]
    removed: int
    longest_life: int
    course: Course
    until: int
    nets: Sequence[int] = ()
    rounds_ns: int = 0


class Growth(NamedTuple):
    """`is_certain` False: it is over, or may be chance."""

    is_certain: bool
    evidence: tuple[Evidence, ...]
    per_hour: float


def growth(history: History) -> Growth | None:
    """How it grows; None if it does not."""
    if has_rounds(history.nets):
        return _in_rounds(history)
    found = filter(None, (_of_what_is_left(history), _above_its_floor(history)))
    return max(found, key=lambda one: one.is_certain, default=None)


def has_rounds(nets: Sequence[int]) -> bool:
    """Whether there are enough to judge by."""
    return len(nets) > LEAST_JUDGED_ROUNDS


# --- rounds ---


def _in_rounds(history: History) -> Growth | None:
    judged = history.nets[1:]
    grown = sum(net > 0 for net in judged)
    total = sum(judged)
    if total <= 0 or grown < GROWING_ROUNDS * len(judged):
        return None
    kind = "grows_each_round" if grown == len(judged) else "grows_most_rounds"
    is_certain = grown == len(judged) >= LEAST_CERTAIN_ROUNDS
    evidence = (Evidence(kind, describe_rounds(history.nets)),)
    return Growth(is_certain, evidence, total * _HOUR_NS / max(history.rounds_ns, 1))


_ROUNDS_LISTED = 12


def describe_rounds(nets: Sequence[int]) -> str:
    """``+3 in each of 5 rounds``; the first is told apart where it differs."""
    first, *judged = nets
    if not judged:
        return f"{_net(first)} in the only round"
    if len(set(nets)) == 1:
        return f"{_in_each(first, len(nets))} rounds"
    begin = f"{_net(first)} in the first round"
    if len(judged) == 1:
        return f"{begin}, then {_net(judged[0])}"
    if len(set(judged)) == 1:
        return f"{begin}, then {_in_each(judged[0], len(judged))}"
    if len(judged) > _ROUNDS_LISTED:
        grown = sum(net > 0 for net in judged)
        return f"{begin}, then more in {grown} of {len(judged)}, {sum(judged):+,} in all"
    return f"{begin}, then {' '.join(f'{net:+,}' for net in judged)}"


def _in_each(net: int, rounds: int) -> str:
    return f"{net:+,} in each of {rounds:,}" if net else f"none in any of {rounds:,}"


def _net(number: int) -> str:
    return f"{number:+,}" if number else "none"


# --- time ---


def _of_what_is_left(history: History) -> Growth | None:
    """By when those came that are left, and older than any became that was removed."""
    end = history.until - history.longest_life
    old = [at for at in history.left_since if at <= end]
    if len(old) < LEAST or history.until - old[0] < _start_up(history):
        return None
    grew = _parts_with_growth(old, end)
    if sum(grew) < GROWING_PARTS:
        return None
    evidence = [_growth(old, grew, end)]
    if history.removed:
        evidence.append(_outlived(len(old), history))
    per_hour = len(old) * _HOUR_NS / max(end - old[0], 1)
    is_certain = grew[-1] and len(old) >= LEAST_CERTAIN
    return Growth(is_certain, tuple(evidence), per_hour if grew[-1] else 0.0)


def _start_up(history: History) -> int:
    """For how long growth says nothing."""
    return max(START_UP_NS, START_UP_LIVES * history.longest_life)


def _parts_with_growth(added_at: Sequence[int], end: int) -> list[bool]:
    """For each equal part of the time from the first add to `end`: was anything added?"""
    begin = added_at[0]
    span = max(end - begin, 1)
    grew = [False] * PARTS
    for at in added_at:
        grew[min((at - begin) * PARTS // span, PARTS - 1)] = True
    return grew


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


def _outlived(number: int, history: History) -> Evidence:
    longest = duration(history.longest_life / 1e9)
    return Evidence(
        "outlived",
        f"{number:,} outlived all {history.removed:,} that are gone, "
        f"of which none lived longer than {longest}",
    )


def _above_its_floor(history: History) -> Growth | None:
    """By the numbers below which it never fell again."""
    begin, end = history.course.begin, history.until
    if not history.removed or begin is None or end - begin < START_UP_NS:
        return None
    # not the first part, which rises from nothing, nor what came since the lowest of the last
    floors = history.course.floors(begin, end, FLOOR_PARTS + 1)[1:-1]
    rises = [after > before for before, after in zip(floors, floors[1:])]
    number = sum(rises)
    if not rises[-1] or number < SUSPECT_FLOOR_RISES:
        return None
    span = (end - begin) * FLOOR_PARTS / (FLOOR_PARTS + 1)
    text = (
        f"rose {number} times in {FLOOR_PARTS} parts of {duration(span / 1e9)} "
        f"and never fell back, from {floors[0]:,} to {floors[-1]:,}"
    )
    is_certain = number >= LEAK_FLOOR_RISES and end - begin >= START_UP_LIVES * history.longest_life
    per_hour = (floors[-1] - floors[0]) * _HOUR_NS / (span * len(rises) / FLOOR_PARTS)
    return Growth(is_certain, (Evidence("never_falls_back", text),), per_hour)


# --- no growth ---


def no_growth(history: History) -> tuple[Evidence, ...]:
    """What speaks against a leak; the first in few words, for a column."""
    if has_rounds(history.nets):
        return (Evidence("flat_in_rounds", describe_rounds(history.nets)),)
    if history.nets and history.left_since:
        text = f"{describe_rounds(history.nets)}: too few to judge"
        return (Evidence("few_rounds", text),)
    old = [at for at in history.left_since if at <= history.until]
    if not old:
        return ()
    length = history.until - _begin(history, old)
    if length < START_UP_NS and len(old) >= LEAST:
        return (Evidence("short", f"within {duration(length / 1e9)}: too short to judge"),)
    if history.removed:
        return (_fluctuation(len(old), history.course.peak),)
    quiet = duration((history.until - old[-1]) / 1e9)
    if len(old) < LEAST:
        last = Evidence("last_added", f"the last was added {quiet} before the end")
        return (Evidence("few", "too few to judge"), last)
    return (Evidence("plateau", f"did not grow in the last {quiet}"),)


def _begin(history: History, old: Sequence[int]) -> int:
    """When the first came, be it one that is gone."""
    begin = history.course.begin if history.removed else None
    return old[0] if begin is None else min(begin, old[0])


def _fluctuation(left: int, peak: int) -> Evidence:
    if left < peak:
        return Evidence("falls_back", f"{peak:,} at most, fell back to {left:,}")
    return Evidence("plateau", f"never more than {peak:,} at a time")
