"""Events of all CPUs in one order of time."""

from __future__ import annotations

from build import add
from hypothesis import given
from hypothesis import strategies as st

from tracer.core.order import SLACK_NS, Order, Traced
from tracer.core.stack import missing


def _traced(ts: int, wd: int = 1) -> Traced:
    return Traced(ts, add(ts, wd), missing("not needed"))


def test_the_runs_of_two_cpus_are_merged() -> None:
    order = Order()
    order.add(map(_traced, [3, 11, 23]))
    order.add(map(_traced, [2, 5, 7, 31]))

    assert [traced.ts for traced in order.until(23)] == [2, 3, 5, 7, 11, 23]


def test_what_is_beyond_the_watermark_stays() -> None:
    order = Order()
    order.add(map(_traced, [5, 2, 3]))

    assert [traced.ts for traced in order.until(3)] == [2, 3]
    assert order.until(4) == []
    assert [traced.ts for traced in order.until(5)] == [5]
    assert order.until(2**63) == []


def test_a_removal_read_before_its_add_comes_after_it() -> None:
    order = Order()
    order.add([_traced(1_000_100)])
    order.add([_traced(1_000_000)])

    assert [traced.ts for traced in order.until(1_000_100 + SLACK_NS)] == [1_000_000, 1_000_100]


def test_a_straggler_is_still_given() -> None:
    order = Order()
    order.add([_traced(23)])
    order.until(23)
    order.add([_traced(7)])

    assert [traced.ts for traced in order.until(23)] == [7]


def test_events_of_one_moment_keep_the_order_of_their_buffer() -> None:
    order = Order()
    order.add(_traced(7, wd) for wd in range(23))

    assert [traced.event.wd for traced in order.until(7)] == list(range(23))  # type: ignore[union-attr]


@given(
    events=st.lists(
        st.tuples(st.integers(0, 500), st.integers(0, 50), st.integers(0, 3)), max_size=53
    ),
    steps=st.lists(st.integers(1, 97), max_size=23),
)
def test_with_growing_watermarks_everything_comes_once_and_sorted(
    events: list[tuple[int, int, int]], steps: list[int]
) -> None:
    """
    GIVEN events that enter the buffer of their CPU at most 50 after they happened
    WHEN the buffers are drained again and again, each time up to 50 before now
    THEN the parts put together are all events in order of time
    """
    slack = 50
    order, got, now, before = Order(), [], 0, -1
    for step in [*steps, 500 + 2 * slack]:
        now += step
        for cpu in range(4):
            order.add(
                _traced(ts) for ts, late, on in events if on == cpu and before < ts + late <= now
            )
        before = now
        part = [traced.ts for traced in order.until(now - slack)]
        assert all(ts <= now - slack for ts in part)
        got += part

    assert got == sorted(ts for ts, _, _ in events)
