"""How the number of something went, against a reference that keeps every change."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import accumulate

import pytest
from build import SECOND
from hypothesis import given
from hypothesis import strategies as st

from tracer.core import course as course_module
from tracer.core.course import Course

# the finest window there is
_WINDOW = 1 << course_module._FINEST_SHIFT

_Changes = Sequence[tuple[int, int]]


class _Reference:
    """Every change as it was told."""

    def __init__(self, changes: _Changes) -> None:
        self._changes = changes

    def floor(self, at: int) -> int:
        """The lowest number from just before this time on."""
        before = [number for ts, number in self._changes if ts < at]
        return min([before[-1] if before else 0, *(n for ts, n in self._changes if ts >= at)])

    def last(self, at: int) -> int:
        """The same from just after it."""
        return self.floor(at + 1)


def _course(changes: _Changes) -> Course:
    course = Course()
    for ts, number in changes:
        course.note(ts, number)
    return course


def _edges(begin: int, end: int, parts: int) -> list[int]:
    return [begin + (end - begin) * part // parts for part in range(parts)]


@st.composite
def _histories(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Changes by one or more, never below 0, a nanosecond or seconds apart, again and again."""
    one = st.tuples(st.sampled_from([1, 1 << 10, _WINDOW, 1 << 34]), st.integers(-3, 5))
    steps = draw(st.lists(one, min_size=1, max_size=30)) * draw(st.integers(1, 23))
    times = accumulate((by for by, _ in steps), initial=draw(st.integers(0, 1 << 50)))
    numbers = accumulate((by for _, by in steps), lambda number, by: max(number + by, 0))
    return list(zip(times, numbers))


# --- the finest windows ---


def test_without_a_change_it_is_zero() -> None:
    assert (Course().begin, Course().peak, Course().floors(3, 23, 4)) == (None, 0, [0] * 5)


def test_it_begins_at_zero_and_where_the_first_change_was() -> None:
    course = _course([(5 * _WINDOW + 7, 23)])

    assert (course.begin, course.peak) == (5 * _WINDOW, 23)
    assert course.floors(5 * _WINDOW, 9 * _WINDOW, 4) == [0, 23, 23, 23, 23]


def test_floors_are_what_it_never_fell_below_again() -> None:
    """GIVEN 7, 2, 5, 3, 9 WHEN cut where it changes THEN each floor is that of all that comes."""
    at = [second * 1024 * _WINDOW for second in range(6)]
    course = _course(list(zip(at, (7, 2, 5, 3, 9))))

    assert course.floors(0, at[5], 5) == [0, 2, 2, 3, 3, 9]
    assert course.peak == 9


def test_a_short_fall_counts() -> None:
    course = _course([(_WINDOW, 23), (2 * _WINDOW, 0), (2 * _WINDOW + 1, 23)])

    assert course.floors(_WINDOW, 3 * _WINDOW, 2) == [0, 0, 23]


def test_what_falls_after_the_end_pulls_down_the_floors_before() -> None:
    course = _course([(_WINDOW, 5), (8 * _WINDOW, 1)])

    assert course.floors(_WINDOW, 4 * _WINDOW, 3) == [0, 1, 1, 1]


def test_what_comes_late_counts_as_if_it_came_now() -> None:
    course = _course([(9 * _WINDOW, 5), (3 * _WINDOW, 1), (9 * _WINDOW, 4)])

    assert course.begin == 9 * _WINDOW
    assert course.floors(0, 20 * _WINDOW, 2) == [0, 4, 4]
    assert course.floors(10 * _WINDOW, 20 * _WINDOW, 2) == [4, 4, 4]


def test_a_window_has_its_lowest_number_and_its_last() -> None:
    course = _course([(_WINDOW + at, number) for at, number in enumerate((5, 2, 7, 4))])

    assert course.floors(_WINDOW, 2 * _WINDOW, 1) == [0, 4]
    assert course.peak == 7


@pytest.mark.parametrize("end", [0, 5 * _WINDOW])
def test_no_time_has_floors_too(end: int) -> None:
    """GIVEN an end that is not after the begin WHEN asked THEN as many, which do not fall."""
    floors = _course([(5 * _WINDOW, 3), (6 * _WINDOW, 2)]).floors(5 * _WINDOW, end, 4)

    assert len(floors) == 5
    assert floors == sorted(floors)


# --- against the reference ---


@given(
    st.lists(st.integers(0, 23), min_size=1, max_size=course_module._WINDOWS_MAX),
    st.integers(1, 200),
    st.integers(1, 9),
)
def test_it_is_exact_while_changes_are_few(numbers: list[int], length: int, parts: int) -> None:
    """GIVEN no more changes than windows, each in its own WHEN asked THEN as the reference says."""
    changes = [(at * 3 * _WINDOW, number) for at, number in enumerate(numbers)]
    begin, end = 0, length * parts * _WINDOW
    floors = _course(changes).floors(begin, end, parts)

    reference = _Reference(changes)
    edges = _edges(begin, end, parts)
    assert floors == [*map(reference.floor, edges), reference.last(end)]


@given(_histories(), st.integers(1, 9), st.floats(0, 1.5))
def test_a_floor_is_that_of_a_time_in_the_same_window(
    changes: list[tuple[int, int]], parts: int, rest: float
) -> None:
    """
    GIVEN so many changes that windows became coarse
    WHEN floors are asked for
    THEN each lies between the true ones at the two ends of the window that its edge is in
    """
    course, reference = _course(changes), _Reference(changes)
    assert course.begin is not None
    begin = course.begin
    end = begin + 1 + int((changes[-1][0] - begin) * rest)
    window = 1 << course._shift
    floors = course.floors(begin, end, parts)

    assert len(floors) == parts + 1
    assert floors == sorted(floors)
    assert floors[0] == reference.floor(begin)
    for floor, edge in zip(floors[1:], [*_edges(begin, end, parts)[1:], end + 1]):
        assert reference.floor(edge) <= floor <= reference.floor(edge + window)


@given(_histories(), st.integers(1, 9))
def test_the_peak_is_exact_and_no_floor_is_above_it(
    changes: list[tuple[int, int]], parts: int
) -> None:
    course = _course(changes)
    end = changes[-1][0]

    assert course.peak == max(0, *(number for _, number in changes))
    assert course.floors(changes[0][0], end + _WINDOW, parts)[-1] <= changes[-1][1] <= course.peak


@given(_histories(), st.integers(0, 60), st.integers(0, 1 << 40))
def test_hardly_anything_comes_late_and_nothing_breaks(
    changes: list[tuple[int, int]], at: int, late: int
) -> None:
    at = min(at, len(changes) - 1)
    ts, number = changes[at]
    course = _course([*changes[:at], (max(ts - late, 0), number), *changes[at + 1 :]])

    assert course.peak == max(0, *(number for _, number in changes))
    assert course.floors(0, changes[-1][0] + 1, 1)[-1] == changes[-1][1]


# --- memory ---


@pytest.mark.parametrize("pace", [1, 1_000, SECOND // 1_000, 3_600 * SECOND])
def test_memory_does_not_follow_the_number_of_changes(pace: int) -> None:
    course = Course()
    most = 0
    for at in range(23_000):
        course.note(at * pace, at % 97)
        most = max(most, _bytes(course))

    assert len(course._windows) <= course_module._WINDOWS_MAX
    # three numbers of 8 bytes, and what an array has beside them and ahead
    assert most < 2_300


def test_windows_are_no_wider_than_the_time_takes() -> None:
    """GIVEN an hour of changes WHEN floors of 8 parts are asked for THEN each has some windows."""
    course = Course()
    for second in range(3_600):
        course.note(second * SECOND, second)

    floors = course.floors(0, 3_600 * SECOND, 8)
    for part, floor in enumerate(floors[1:-1], 1):
        true = part * 450 - 1
        assert true <= floor <= true + 450 // 3


def test_a_pause_of_years_does_not_take_longer() -> None:
    course = _course([(at * _WINDOW, at) for at in range(64)])
    course.note(1 << 62, 5)
    course.note((1 << 62) + 1, 6)

    assert course.floors(0, 1 << 63, 2) == [0, 5, 6]


def _bytes(course: Course) -> int:
    return sys.getsizeof(course) + sum(
        sys.getsizeof(numbers) for numbers in (course._windows, course._lows, course._lasts)
    )
