"""What is growth and what is not: rules at their boundaries, then thousands of histories."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from math import inf
from typing import NamedTuple

import pytest
from build import SECOND, history
from hypothesis import given
from hypothesis import strategies as st

from tracer.core.course import Course
from tracer.core.evidence import Evidence
from tracer.core.growth import (
    FLOOR_PARTS,
    LEAK_FLOOR_RISES,
    LEAST_CERTAIN,
    LEAST_CERTAIN_ROUNDS,
    LEAST_JUDGED_ROUNDS,
    START_UP_NS,
    SUSPECT_FLOOR_RISES,
    Growth,
    History,
    describe_rounds,
    growth,
    has_rounds,
    no_growth,
)

# When something came and went, in seconds.
_Lives = list[tuple[float, float]]


def _left(*came: float) -> _Lives:
    return [(at, inf) for at in came]


def _grown(found: Growth | None) -> tuple[bool, list[str]] | None:
    return None if found is None else (found.is_certain, [one.kind for one in found.evidence])


# --- rounds ---


def _in_rounds(*nets: int, seconds: float = 10) -> History:
    """The lives of these say the contrary: they came at once, or none did."""
    came = _left(*[0] * max(sum(nets), 0))
    return history(came, 100, nets=nets, rounds_ns=int(seconds * (len(nets) - 1) * SECOND))


@pytest.mark.parametrize(
    ("nets", "kind"),
    [
        ((0, 1, 1), "grows_each_round"),
        ((23, 5, 5), "grows_each_round"),
        ((0, 1, 1, 1), "grows_each_round"),
        ((3, 3, 3, 3, 3), "grows_each_round"),
        ((-5, 1, 1, 1), "grows_each_round"),
        # the first may warm up
        ((23, 0, 0), None),
        ((23, 1, 0), None),
        ((23, 0, 1), None),
        # one round in four
        ((0, 1, 1, 0), None),
        ((0, 1, 1, 1, 0), "grows_most_rounds"),
        ((0, 1, 1, 1, -1), "grows_most_rounds"),
        ((0, 1, 1, 0, 0), None),
        ((0, *[1] * 6, 0, 0), "grows_most_rounds"),
        ((0, *[1] * 5, 0, 0), None),
        # more came than stayed
        ((0, 1, 1, 1, -3), None),
        ((0, 1, 1, 1, -2), "grows_most_rounds"),
        ((23, -1, -1), None),
    ],
)
def test_what_is_more_after_each_round_grows(nets: tuple[int, ...], kind: str | None) -> None:
    found = growth(_in_rounds(*nets))

    if kind is None:
        assert found is None
    else:
        is_certain = kind == "grows_each_round" and len(nets) > LEAST_CERTAIN_ROUNDS
        assert _grown(found) == (is_certain, [kind])


def test_two_rounds_beside_the_first_are_needed() -> None:
    """GIVEN fewer rounds WHEN judged THEN time alone counts."""
    assert LEAST_JUDGED_ROUNDS == 2
    for nets in ((), (1,), (1, 1)):
        assert not has_rounds(nets)
        assert growth(_in_rounds(*nets)) is None
        steady = history(_left(*range(0, 100, 4)), 100, nets=nets)
        assert _grown(growth(steady)) == (True, ["grows_to_end"])


@pytest.mark.parametrize(("judged", "is_certain"), [(2, False), (3, True), (23, True)])
def test_growth_in_two_rounds_may_be_chance(judged: int, is_certain: bool) -> None:
    """GIVEN many more after each round WHEN two, or three, are judged THEN three are certain."""
    assert LEAST_CERTAIN_ROUNDS == 3
    found = growth(_in_rounds(0, *[23] * judged))

    assert _grown(found) == (is_certain, ["grows_each_round"])


def test_rounds_speak_louder_than_time() -> None:
    """GIVEN what grew all the time, but in the first round only WHEN judged THEN it does not."""
    steady = history(_left(*range(0, 100, 4)), 100, nets=(25, 0, 0), rounds_ns=SECOND)

    assert growth(steady) is None
    assert no_growth(steady) == (
        Evidence("flat_in_rounds", "+25 in the first round, then none in any of 2"),
    )


def test_the_pace_is_that_of_the_judged_rounds() -> None:
    found = growth(_in_rounds(100, 3, 3, 3, seconds=60))

    assert found is not None
    assert found.per_hour == pytest.approx(3 * 60)


def test_rounds_that_took_no_time_have_a_pace() -> None:
    assert growth(_in_rounds(1, 1, 1)._replace(rounds_ns=0)) is not None


@pytest.mark.parametrize(
    ("nets", "text"),
    [
        ((3,), "+3 in the only round"),
        ((0,), "none in the only round"),
        ((-1_500,), "-1,500 in the only round"),
        ((1, 1, 1, 1, 1), "+1 in each of 5 rounds"),
        ((0, 0, 0), "none in any of 3 rounds"),
        ((0, 1), "none in the first round, then +1"),
        ((7, 3, 3, 3), "+7 in the first round, then +3 in each of 3"),
        ((7, 3, 0, 3_000), "+7 in the first round, then +3 +0 +3,000"),
        ((-2, 3, -1), "-2 in the first round, then +3 -1"),
        ((0, *[1, 2] * 6), f"none in the first round, then {' '.join(['+1 +2'] * 6)}"),
        (
            (0, *[1, 2] * 6, -5),
            "none in the first round, then more in 12 of 13, +13 in all",
        ),
    ],
)
def test_rounds_in_words(nets: Sequence[int], text: str) -> None:
    assert describe_rounds(nets) == text


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=1_000))
def test_any_rounds_have_a_short_text_and_one_class(nets: list[int]) -> None:
    made = _in_rounds()._replace(nets=nets, rounds_ns=SECOND)

    assert 0 < len(describe_rounds(nets)) < 220
    if has_rounds(nets):
        assert (growth(made) is None) or sum(nets[1:]) > 0


# --- what is left ---


def test_what_comes_among_others_that_go_has_outlived_them() -> None:
    """GIVEN balanced calls, one in twenty of which leaks WHEN judged THEN in numbers why."""
    lives = [(at, inf if at % 20 == 7 else at + 0.5) for at in range(400)]
    found = growth(history(lives, 400))

    assert _grown(found) == (True, ["grows_to_end", "outlived"])
    assert found is not None
    assert [one.text for one in found.evidence] == [
        "grew in each of 4 parts of 6 min 32 s, up to the end",
        "20 outlived all 380 that are gone, of which none lived longer than 500 ms",
    ]
    assert found.per_hour == pytest.approx(20 * 3600 / 392.5)


def test_what_is_not_older_than_any_became_may_still_go() -> None:
    """GIVEN four, of which one is as young as one became WHEN judged THEN three count."""
    lives = [(1, 21), *_left(0, 30, 60, 90)]
    old, young = growth(history(lives, 110)), growth(history(lives, 109))

    assert old is not None
    assert young is not None
    assert old.evidence[1].text.startswith("4 outlived all 1 that are gone")
    assert young.evidence[1].text.startswith("3 outlived all 1 that are gone")


@pytest.mark.parametrize("gone", [[], [(0.5, 1)]])
@pytest.mark.parametrize(("number", "is_certain"), [(3, False), (4, False), (5, True)])
def test_fewer_than_five_are_not_certain_however_they_came(
    number: int, is_certain: bool, gone: _Lives
) -> None:
    """GIVEN steady growth, with or without one that went WHEN few are left THEN a suspect only."""
    assert LEAST_CERTAIN == 5
    left = _left(*(99 * at / (number - 1) for at in range(number)))
    found = growth(history([*gone, *left], 100))

    assert found is not None
    assert found.is_certain is is_certain
    assert found.evidence[0].kind == "grows_to_end"
    assert found.per_hour > 0


def test_those_that_may_still_go_do_not_make_it_certain() -> None:
    """GIVEN five, the last no older than one became WHEN judged THEN only when it is."""
    lives = [(0, 10), *_left(0, 20, 40, 60, 90)]

    assert _grown(growth(history(lives, 99))) == (False, ["grew", "outlived"])
    assert _grown(growth(history(lives, 100))) == (True, ["grows_to_end", "outlived"])


@pytest.mark.parametrize("until", [START_UP_NS - 1, START_UP_NS])
@pytest.mark.parametrize("removed", [0, 7])
def test_what_grows_within_a_start_up_says_nothing(until: int, removed: int) -> None:
    """GIVEN 20 in one go, and others that went at once WHEN judged THEN too short, up to 100 ms."""
    assert START_UP_NS == SECOND // 10
    added_at = [until * at // 20 for at in range(20)]
    course = Course()
    for number, at in enumerate(added_at, 1):
        course.note(at, number)
    made = History(added_at, removed, 0, course, until)

    if until >= START_UP_NS:
        assert growth(made) is not None
    else:
        assert growth(made) is None
        assert no_growth(made) == (Evidence("short", "within 100 ms: too short to judge"),)


@pytest.mark.parametrize(("until", "is_growth"), [(80, True), (79, False)])
def test_it_takes_twice_the_longest_life_to_see_what_outlives(until: int, is_growth: bool) -> None:
    """
    GIVEN one that lived for 40 s
    WHEN the first that is left came 80 s ago, or one second less
    THEN only 80 s are a start-up and as much again
    """
    lives = [(0, 40), *_left(0, *range(5, 40, 2))]

    assert (growth(history(lives, until)) is not None) is is_growth


def test_growth_that_is_over_is_not_certain_and_has_no_pace() -> None:
    found = growth(history(_left(0, 30, 60), 100))

    assert found == (
        False,
        (("grew", "grew in 3 of 4 parts of 1 min 40 s, but not in the last 40 s"),),
        0,
    )


# --- floors ---


def _rising(*rises: bool, longest_life: float = 40) -> History:
    """
    Whether it rises for good from each of 8 parts of 10 s to the next, after a first one.

    In each it falls to where it is for good, and rises far above.
    """
    course = Course()
    floor = 3
    for part, rise in enumerate((False, False, *rises)):
        floor += 2 * rise
        course.note((part * 10 + 3) * SECOND, floor)
        course.note((part * 10 + 6) * SECOND, floor + 23)
    begin = course.begin
    assert begin is not None
    return History([], 7, int(longest_life * SECOND), course, begin + 90 * SECOND)


_UP, _FLAT = True, False


@pytest.mark.parametrize(
    ("rises", "is_certain"),
    [
        ([_UP] * 7, True),
        ([_FLAT, *[_UP] * 6], True),
        ([_UP, _UP, _FLAT, *[_UP] * 4], True),
        ([_FLAT, _FLAT, *[_UP] * 5], False),
        ([_FLAT, _UP, _FLAT, *[_UP] * 4], False),
        ([*[_FLAT] * 3, *[_UP] * 4], None),
        # not in the last part: it may have come to its end
        ([*[_UP] * 6, _FLAT], None),
        ([_FLAT] * 7, None),
    ],
)
def test_what_never_falls_back_grows(rises: list[bool], is_certain: bool | None) -> None:
    assert (FLOOR_PARTS, SUSPECT_FLOOR_RISES, LEAK_FLOOR_RISES) == (8, 5, 6)
    expected = None if is_certain is None else (is_certain, ["never_falls_back"])

    assert _grown(growth(_rising(*rises))) == expected


def test_a_floor_says_from_where_to_where_it_rose() -> None:
    found = growth(_rising(*[_UP] * 7))

    assert found is not None
    assert [one.text for one in found.evidence] == [
        "rose 7 times in 8 parts of 1 min 20 s and never fell back, from 3 to 17"
    ]
    assert found.per_hour == pytest.approx(14 * 3600 / 70)


@pytest.mark.parametrize("milliseconds", [99, 100])
def test_a_floor_that_rises_within_a_start_up_says_nothing(milliseconds: int) -> None:
    course = Course()
    for at in range(90):
        course.note(at << 20, at + 1)
    until = milliseconds * SECOND // 1_000
    found = growth(History([], 7, 0, course, until))

    assert _grown(found) == ((True, ["never_falls_back"]) if milliseconds == 100 else None)


@pytest.mark.parametrize(("longest_life", "is_certain"), [(45, True), (45.1, False)])
def test_what_rises_no_longer_than_it_takes_to_start_up_is_not_certain(
    longest_life: float, is_certain: bool
) -> None:
    """GIVEN a rise of 90 s WHEN the longest life is half of it, or more THEN it may be over."""
    found = growth(_rising(*[_UP] * 7, longest_life=longest_life))

    assert _grown(found) == (is_certain, ["never_falls_back"])


def test_chances_are_those_of_records() -> None:
    """GIVEN all orders of 8 numbers WHEN rises for good are counted THEN as growth.py tells."""
    rises: Counter[int] = Counter()
    for order in permutations(range(8)):
        lowest, number = order[-1], 0
        for low in order[-2::-1]:
            number += low < lowest
            lowest = min(low, lowest)
        rises[number] += 1

    assert (sum(rises.values()), rises[7] + rises[6], rises[5]) == (40320, 29, 351 - 29)


def test_a_cache_that_has_just_filled_up_does_not_rise() -> None:
    """GIVEN it took three quarters of the time WHEN it evicts at each call THEN that was all."""
    lives = [(at, at + 300) for at in range(400)]
    made = history(lives, 400)

    assert made.removed == 101
    assert growth(made) is None


def test_a_cache_that_is_being_filled_up_and_evicts_at_random_has_outlived_nothing() -> None:
    chance = random.Random(23)
    size = 1000
    case = _cache(size, 1.05 * size, at_random=True)
    for _ in range(10):
        found = growth(history(case.make(chance), case.seconds))
        assert found is None or not found.is_certain or found.evidence[-1].kind == "grows_to_end"


def test_what_is_certain_by_any_rule_is_certain() -> None:
    """GIVEN what outlived the others long ago, and a floor that rises WHEN judged THEN by that."""
    made = _rising(*[_UP] * 7)
    left_since = [at * SECOND for at in (0, 10, 20, 30, 50)]
    long_ago = made._replace(left_since=left_since, longest_life=5 * SECOND)

    assert _grown(growth(long_ago._replace(course=Course()))) == (False, ["grew", "outlived"])
    assert _grown(growth(long_ago)) == (True, ["never_falls_back"])


# --- no growth ---


@pytest.mark.parametrize(
    ("lives", "evidence"),
    [
        ([], []),
        ([(3, 5)], []),
        (
            _left(0, 60),
            [("few", "too few to judge"), ("last_added", "the last was added 40 s before the end")],
        ),
        (_left(0, 1, 2, 3), [("plateau", "did not grow in the last 1 min 37 s")]),
        ([(0, 5), (1, 6), *_left(2, 9)], [("falls_back", "3 at most, fell back to 2")]),
        ([(0, 5), (0, 5), *_left(9, 9)], [("plateau", "never more than 2 at a time")]),
        (_left(99.95, 99.96, 99.97, 99.98), [("short", "within 50 ms: too short to judge")]),
        (
            [(99.9508, 99.96), *_left(99.96, 99.97, 99.98)],
            [("short", "within 50 ms: too short to judge")],
        ),
        # it is not what is left that tells for how long others came and went
        ([(0, 5), *_left(99.96, 99.97, 99.98)], [("plateau", "never more than 3 at a time")]),
        # fewer are few, however short it was
        (
            _left(99.95, 99.96),
            [
                ("few", "too few to judge"),
                ("last_added", "the last was added 40 ms before the end"),
            ],
        ),
        # the young ones do not count
        (_left(100.5), []),
    ],
)
def test_what_speaks_against_growth(lives: _Lives, evidence: list[tuple[str, str]]) -> None:
    made = history(lives, 101)._replace(until=100 * SECOND)

    assert growth(made) is None
    assert list(no_growth(made)) == evidence


# --- histories that only fluctuate, and leaks among balanced pairs ---


class _Case(NamedTuple):
    name: str
    make: Callable[[random.Random], _Lives]
    seconds: float


def _times(chance: random.Random, until: float, pace: float) -> Iterator[float]:
    """At random, so many a second."""
    at = chance.expovariate(pace)
    while at < until:
        yield at
        at += chance.expovariate(pace)


def _folders(number: float, life: float, seconds: float) -> _Case:
    """Opened and closed at random: so many at a time, in the long run."""

    def make(chance: random.Random) -> _Lives:
        return [
            (at, at + chance.expovariate(1 / life)) for at in _times(chance, seconds, number / life)
        ]

    return _Case(f"{number} folders for {life} s", make, seconds)


def _cache(size: int, seconds: float, at_random: bool) -> _Case:
    """Full after about `size` seconds; the oldest goes, or any."""

    def make(chance: random.Random) -> _Lives:
        held: deque[float] = deque()
        lives: _Lives = []
        for at in _times(chance, seconds, 1):
            if len(held) >= size:
                held.rotate(-chance.randrange(size) if at_random else 0)
                lives.append((held.popleft(), at))
            held.append(at)
        return lives + _left(*held)

    return _Case(f"cache of {size}, {'any' if at_random else 'the oldest'} goes", make, seconds)


def _sawtooth(size: int, seconds: float) -> _Case:
    """All go when they are about so many."""

    def make(chance: random.Random) -> _Lives:
        held: list[float] = []
        lives: _Lives = []
        most = size
        for at in _times(chance, seconds, 1):
            held.append(at)
            if len(held) >= most:
                lives += [(came, at + 0.001) for came in held]
                held, most = [], int(size * chance.uniform(0.7, 1.3))
        return lives + _left(*held)

    return _Case(f"sawtooth of {size}", make, seconds)


def _shims(number: int, life: float, seconds: float) -> _Case:
    """One for each container, replaced as soon as it ends; all are there from the begin on."""

    def make(chance: random.Random) -> _Lives:
        lives: _Lives = []
        for slot in range(number):
            at = slot / 10
            while at < seconds:
                gone = at + chance.uniform(0.2, 1.8) * life
                lives.append((at, gone))
                at = gone + chance.uniform(0, life / 10)
        return lives

    return _Case(f"{number} shims for {life} s", make, seconds)


def _reloads(number: int, period: float, seconds: float) -> _Case:
    """So many watches, all replaced each time, within a second."""

    def make(chance: random.Random) -> _Lives:
        turns = [0.0, *_times(chance, seconds, 1 / period), inf]
        return [
            (begin + at / number, end + at / number)
            for begin, end in zip(turns, turns[1:])
            for at in range(number)
        ]

    return _Case(f"{number} at each reload", make, seconds)


_FLUCTUATIONS = [
    *(_folders(number, 10, 10 * lives) for number in (2, 5, 20, 100) for lives in (5, 10, 30)),
    *(_cache(n, n * fills, any_) for n in (30, 100) for fills in (2, 5) for any_ in (False, True)),
    *(_sawtooth(size, size * times) for size in (10, 100) for times in (2.5, 4.5, 10)),
    *(_shims(number, 30, seconds) for number in (3, 30) for seconds in (120, 600)),
    *(_reloads(number, 30, seconds) for number in (5, 50) for seconds in (120, 600)),
]
_SAMPLES = 200


def _classes(case: _Case, samples: int = _SAMPLES) -> Counter[str]:
    chance = random.Random(case.name)
    found: Counter[str] = Counter()
    for _ in range(samples):
        grown = growth(history(case.make(chance), case.seconds))
        found["none" if grown is None else "certain" if grown.is_certain else "suspect"] += 1
    return found


def test_of_thousands_that_only_fluctuate_hardly_any_are_called_growth() -> None:
    """
    GIVEN folders, caches, sawteeth, containers and reloads, for longer than it takes to start up
    WHEN thousands are judged
    THEN one in two thousand is called certain and one in fifty a suspect, of all; of a kind of
         which there are few at a time, or with lives that may be as long as the trace, some more
    """
    total: Counter[str] = Counter()
    for case in _FLUCTUATIONS:
        found = _classes(case)
        assert found["certain"] <= _SAMPLES // 100, (case, found)
        total += found

    judged = sum(total.values())
    assert judged >= 5_000
    assert total["certain"] <= judged // 2_000, total
    assert total["suspect"] <= judged // 50, total


def test_what_fluctuates_for_long_is_suspect_as_seldom_as_the_constants_say() -> None:
    """GIVEN lives of a tenth of a part WHEN judged THEN fewer than one in a hundred."""
    total = sum((_classes(_folders(n, 10, 800)) for n in (5, 20)), Counter[str]())

    assert total["certain"] <= 1, total
    assert total["suspect"] <= sum(total.values()) // 100, total


def _leak(every: int, leaks: int, pace: float, life: float, at_random: bool) -> _Case:
    """One in so many is forgotten; `life` is that of the others, in times of what is between."""

    def regular(chance: random.Random) -> _Lives:
        return [(at * pace, _gone(chance, at)) for at in range(every * leaks)]

    def jittery(chance: random.Random) -> _Lives:
        times = _times(chance, every * leaks * pace, 1 / pace)
        lives = [(at, at + chance.expovariate(1 / (life * pace))) for at in times]
        return [
            (came, inf if number % every == every // 2 else gone)
            for number, (came, gone) in enumerate(lives)
        ]

    def _gone(chance: random.Random, at: int) -> float:
        is_leak = at % every == every // 2
        return inf if is_leak else at * pace + chance.uniform(0, life * pace)

    name = f"1 in {every} of {every * leaks}"
    return _Case(name, jittery if at_random else regular, every * leaks * pace)


@pytest.mark.parametrize("at_random", [False, True])
@pytest.mark.parametrize("pace", [0.001, 0.5, 3_600])
@pytest.mark.parametrize(("every", "leaks"), [(100, 20), (20, 30)])
@pytest.mark.parametrize("life", [0.5, 10])
def test_leaks_among_balanced_pairs_are_found(
    every: int, leaks: int, pace: float, life: float, at_random: bool
) -> None:
    """GIVEN 20 leaks or more, at any pace WHEN judged THEN none is missed, and 19 of 20 certain."""
    found = _classes(_leak(every, leaks, pace, life, at_random), 40)

    assert found["none"] == 0, found
    assert found["certain"] >= 38, found


@pytest.mark.parametrize(("leaks", "is_certain"), [(3, False), (4, False), (5, True)])
def test_the_fifth_leak_among_balanced_pairs_makes_it_certain(leaks: int, is_certain: bool) -> None:
    found = _classes(_leak(20, leaks, 0.5, 0.5, at_random=False), 40)

    assert found == {"certain" if is_certain else "suspect": 40}


@pytest.mark.parametrize("every", [20, 100])
def test_one_that_lived_for_long_does_not_hide_a_leak(every: int) -> None:
    """
    GIVEN a leak among short-lived ones, and one that went after nine tenths of the time
    WHEN judged
    THEN it is suspect still: what is left has not outlived it, but never fell back
    """
    case = _leak(every, 20, 1, 1, at_random=False)
    lives = [(0.0, 0.9 * case.seconds), *case.make(random.Random(23))]

    assert _grown(growth(history(lives, case.seconds))) == (False, ["never_falls_back"])


if __name__ == "__main__":
    for case in _FLUCTUATIONS:
        print(case.name, case.seconds, dict(_classes(case)))
