"""Removals that the kernel tells of: counted once, with their cause, in any order with calls."""

from __future__ import annotations

from itertools import permutations

import pytest
from build import (
    AGENT,
    FIRST,
    IN_MODIFY,
    OTHER,
    SECOND,
    STACK,
    add,
    closed,
    gone,
    init,
    last,
    rm,
    walk,
    walked,
)
from recount import assert_counts_add_up

from tracer.core.cause import Cause
from tracer.core.departures import Departure, Departures
from tracer.core.events import CallEvent, ClosedEvent, Event, GoneEvent
from tracer.core.ledger import Ledger
from tracer.core.walk import HolderFd

_REUSED = FIRST._replace(gen=5000)
_DELETED = Departure(Cause.DELETED, 17, was_live=True)


def _fed(*events: Event, ledger: Ledger | None = None) -> Ledger:
    ledger = ledger if ledger is not None else Ledger()
    for event in events:
        if isinstance(event, CallEvent):
            ledger.apply(event, STACK)
        elif isinstance(event, GoneEvent):
            ledger.apply_gone(event, Cause.DELETED)
        elif isinstance(event, ClosedEvent):
            ledger.apply_closed(event)
        else:
            ledger.apply_last(event)
    assert_counts_add_up(ledger)
    return ledger


def _live(ledger: Ledger) -> list[int]:
    return sorted(watch.wd for _, watch in ledger.watches())


def _counts(ledger: Ledger) -> tuple[int, int, dict[Cause, int]]:
    totals = ledger.totals
    return totals.added, totals.updated, dict(totals.removed)


# --- a watch ---


def test_a_watch_leaves_at_once_with_its_cause() -> None:
    ledger = _fed(init(100), add(110, 1), add(120, 2), gone(130, 1))

    assert _live(ledger) == [2]
    assert _counts(ledger) == (2, 0, {Cause.DELETED: 1})
    (site,) = (site for site in ledger.accounts.sites.values() if not site.opens_instances)
    assert (site.live, site.removed) == (1, {Cause.DELETED: 1})
    assert ledger.accounts.processes[AGENT].live == 1


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_no_order_brings_a_watch_back(order: tuple[int, ...]) -> None:
    events = [add(110, 1), add(120, 2), gone(130, 1)]

    ledger = _fed(init(100), *(events[at] for at in order))

    assert _live(ledger) == [2]
    assert _counts(ledger) == (2, 0, {Cause.DELETED: 1})


def test_an_update_that_ends_after_the_watch_went_is_no_add() -> None:
    ledger = _fed(init(100), add(110, 1), gone(130, 1), add(140, 1, arg=IN_MODIFY))

    assert _live(ledger) == []
    assert _counts(ledger) == (1, 1, {Cause.DELETED: 1})


def test_an_add_that_ends_after_its_watch_went_and_is_updated_counts_once() -> None:
    ledger = _fed(init(100), gone(130, 1), add(140, 1), add(150, 1))

    assert _live(ledger) == []
    assert _counts(ledger) == (1, 1, {Cause.DELETED: 1})


def test_a_call_that_removed_it_too_does_not_count() -> None:
    ledger = _fed(init(100), add(110, 1), gone(130, 1), rm(131, 1))

    assert _counts(ledger) == (1, 0, {Cause.DELETED: 1})


def test_a_removal_in_an_instance_nobody_knows_makes_none() -> None:
    ledger = _fed(gone(130, 1), closed(140))

    assert not ledger.instances
    assert _counts(ledger) == (0, 0, {})


def test_a_walk_from_before_does_not_bring_it_back() -> None:
    """GIVEN a walk that read the list just before the removal THEN it is not adopted."""
    ledger = _fed(init(100), add(110, 1), gone(200, 1))

    change = ledger.reconcile(walk(walked([1], 190), began=180))

    assert not change
    assert _live(ledger) == []


def test_the_memory_of_removals_ends() -> None:
    ledger = _fed(init(100), add(110, 1), gone(120, 1))
    ledger.forget_removals(120 + SECOND)
    # from then on the descriptor may be another's
    _fed(add(120 + SECOND, 1), ledger=ledger)

    assert _live(ledger) == [1]
    assert len(ledger._departures) == 0


# --- an instance ---


def test_a_closed_instance_takes_its_watches() -> None:
    ledger = _fed(init(100), add(110, 1), add(120, 2), closed(130))

    assert not ledger.instances
    assert _counts(ledger) == (2, 0, {Cause.CLOSED: 2})


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_no_order_brings_an_instance_back(order: tuple[int, ...]) -> None:
    events = [init(100), add(110, 1), rm(115, 1), closed(130)]

    ledger = _fed(*(events[at] for at in order))

    assert not ledger.instances
    added, _, removed = _counts(ledger)
    assert (added, sum(removed.values())) == (1, 1)


def test_an_instance_made_anew_at_the_same_address_is_another() -> None:
    ledger = _fed(
        init(100),
        add(110, 1),
        closed(130),
        init(5000, instance=_REUSED),
        add(5001, 1, instance=_REUSED),
    )

    assert list(ledger.instances) == [_REUSED]
    assert _live(ledger) == [1]
    assert _counts(ledger) == (2, 0, {Cause.CLOSED: 1})


def test_what_the_end_of_its_process_closes_is_kept_as_freed_by_exit() -> None:
    ledger = _fed(
        init(100), add(110, 1), last(200, [1]), closed(210), ledger=Ledger(keep_freed_by_exit=True)
    )

    assert not ledger.instances
    assert _live(ledger) == [1]
    assert _counts(ledger) == (1, 0, {})


def test_what_a_process_closes_that_goes_on_was_not_freed_by_the_end_of_another() -> None:
    """GIVEN two holders of which one ended WHEN the other closes the instance THEN it is closed."""
    ledger = _fed(init(100), add(110, 1), ledger=Ledger(keep_freed_by_exit=True))
    ledger.instances[FIRST].holders = (HolderFd(AGENT, 3), HolderFd(OTHER, 3))
    _fed(last(200, [1]), closed(210, closer=OTHER), ledger=ledger)

    assert _live(ledger) == []
    assert _counts(ledger) == (1, 0, {Cause.CLOSED: 1})


# --- the memory ---


def test_a_departure_is_found_by_watch_and_by_instance() -> None:
    departures = Departures()
    departures.note(FIRST, 1, _DELETED)

    assert departures.of(FIRST, 1) == _DELETED
    assert departures.of(FIRST, 2) is None
    assert departures.of(_REUSED, 1) is None
    closed = Departure(Cause.CLOSED, 18, live=frozenset({3}))
    departures.note(FIRST, None, closed)
    assert departures.of(FIRST, 1) == _DELETED
    assert departures.of(FIRST, 2) == closed
    assert departures.of(FIRST, 3) == closed._replace(was_live=True)


def test_what_is_older_is_forgotten() -> None:
    departures = Departures()
    for ts in range(23):
        departures.note(FIRST, ts, _DELETED._replace(ts=ts))
    departures.forget(17)

    assert len(departures) == 6
    assert departures.of(FIRST, 16) is None
    assert departures.of(FIRST, 17) == _DELETED


# --- beside a walk ---


def test_an_instance_that_closed_after_it_was_read_is_not_adopted() -> None:
    ledger = _fed(init(100), *(add(110 + wd, wd) for wd in (1, 2, 3)), closed(1_005))
    change = ledger.reconcile(walk(walked([1, 2, 3], 1_003), began=1_000, ended=1_010))

    assert not change
    assert _counts(ledger) == (3, 0, {Cause.CLOSED: 3})


def test_a_watch_of_an_unknown_instance_that_went_after_it_was_read_is_not_adopted() -> None:
    ledger = _fed(gone(1_005, 1))
    change = ledger.reconcile(walk(walked([1, 2], 1_003), began=1_000, ended=1_010))

    assert [wd for _, wd, _ in change.unlisted] == [2]


def test_what_was_closed_before_it_was_read_is_another_by_the_same_key() -> None:
    ledger = _fed(init(100), add(111, 1), closed(900))
    change = ledger.reconcile(walk(walked([1], 1_003), began=1_000))

    assert [wd for _, wd, _ in change.unlisted] == [1]


def test_an_update_told_after_the_close_is_no_add() -> None:
    ledger = _fed(init(100), add(111, 1), closed(120), add(115, 1, arg=IN_MODIFY))

    assert _counts(ledger) == (1, 1, {Cause.CLOSED: 1})
