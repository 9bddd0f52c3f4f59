"""Work that is done again takes a tenth of the time, however long it takes."""

from __future__ import annotations

from typing import Callable

import pytest

from tracer.stacks import pace as pace_module
from tracer.stacks.pace import Pace


class _Clock:
    def __init__(self) -> None:
        self.now = 1173.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock()
    monkeypatch.setattr(pace_module, "time", made)
    return made


@pytest.fixture
def work(clock: _Clock) -> Callable[[Pace, float], None]:
    def do(pace: Pace, seconds: float) -> None:
        with pace:
            clock.now += seconds

    return do


Work = Callable[[Pace, float], None]


def test_it_is_due_at_first(clock: _Clock) -> None:
    assert Pace().is_due


def test_it_is_due_again_after_ten_times_what_it_took(clock: _Clock, work: Work) -> None:
    pace = Pace()
    work(pace, 0.5)

    for later, is_due in ((0.0, False), (4.75, False), (5.0, True), (500.0, True)):
        clock.now = 1173.5 + later
        assert pace.is_due is is_due


def test_it_goes_by_the_last_time(clock: _Clock, work: Work) -> None:
    """GIVEN work that took long, then not WHEN asked THEN the latter counts."""
    pace = Pace()
    work(pace, 8.0)
    work(pace, 0.25)

    clock.now += 2.25
    assert not pace.is_due
    clock.now += 0.25
    assert pace.is_due


def test_work_that_takes_no_time_is_always_due(clock: _Clock, work: Work) -> None:
    pace = Pace()
    work(pace, 0.0)

    assert pace.is_due


def test_work_that_fails_counts_as_well(clock: _Clock) -> None:
    pace = Pace()
    with pytest.raises(OSError), pace:
        clock.now += 1.0
        raise OSError

    assert not pace.is_due
    clock.now += 10.0
    assert pace.is_due


def test_over_a_long_time_it_is_a_tenth_at_most(clock: _Clock, work: Work) -> None:
    pace = Pace()
    worked, begin = 0.0, clock.now
    while clock.now < begin + 1000:
        if pace.is_due:
            work(pace, 0.5)
            worked += 0.5
        else:
            clock.now += 0.0625
    assert 0.08 < worked / (clock.now - begin) < 0.1
