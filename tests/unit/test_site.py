"""Places that open instances, what each process has of a place, and what there is at marks."""

from __future__ import annotations

import pytest
from build import (
    AGENT,
    ANOTHER_STACK,
    FIRST,
    OTHER,
    SECOND,
    STACK,
    add,
    closed,
    failed,
    init,
    last,
    rm,
    walk,
    walked,
)
from hypothesis import given
from hypothesis import strategies as st
from recount import assert_counts_add_up, causes

from tracer.core.cause import Cause
from tracer.core.events import CallEvent, Instance, Op, Process
from tracer.core.ledger import Ledger
from tracer.core.site import Place, Share, Site, Stock
from tracer.core.stack import Stack, missing
from tracer.core.walk import Queue
from tracer.core.watch import InstanceAccount

_REUSED = FIRST._replace(gen=5000)
_UNREADABLE = missing("unreadable")


def _fed(*events: CallEvent, ledger: Ledger | None = None, stack: Stack = STACK) -> Ledger:
    ledger = ledger if ledger is not None else Ledger()
    for event in events:
        ledger.apply(event, stack)
    return ledger


def _adding(ledger: Ledger) -> Site:
    (site,) = (site for site in ledger.accounts.sites.values() if not site.opens_instances)
    return site


def _opening(ledger: Ledger) -> Site:
    (site,) = (site for site in ledger.accounts.sites.values() if site.opens_instances)
    return site


def _opened_by_many(number: int, stack: Stack = STACK) -> Ledger:
    """As many processes, each with an instance of its own that it never closes."""
    ledger = Ledger(keep_freed_by_exit=True)
    for i in range(number):
        who = {"process": Process(3000 + i, i), "instance": Instance(0x1000 * (i + 1), 100 + i)}
        _fed(init(100 + i, **who), ledger=ledger, stack=stack)
    return ledger


def _end_all(ledger: Ledger) -> None:
    """The kernel frees the instances of `_opened_by_many` as their processes end."""
    for account in list(ledger.instances.values()):
        (holder,) = account.holders
        ledger.apply_last(last(900, [], instance=account.instance, process=holder.process))
        ledger.apply_closed(closed(901, account.instance, holder.process))


# --- instances ---


def test_an_instance_that_is_closed_is_one_of_its_place_less() -> None:
    ledger = _fed(init(100), init(200, instance=_REUSED))
    ledger.apply_closed(closed(317))

    site = _opening(ledger)
    assert (site.added, site.live, site.left) == (2, 1, 1)
    assert causes(site.removed) == {Cause.CLOSED: 1}
    assert (ledger.totals.opened, ledger.totals.closed) == (2, 1)
    share = site.shares[AGENT]
    assert (share.live, share.removed, share.longest_life) == (1, 1, 217)
    assert causes(ledger.totals.removed) == {}
    assert_counts_add_up(ledger)


def test_an_instance_that_a_walk_misses_was_closed() -> None:
    ledger = _fed(init(100), add(111, 1))
    ledger.reconcile(walk(began=2_000))

    assert causes(_opening(ledger).removed) == {Cause.CLOSED: 1}
    assert causes(_adding(ledger).removed) == {Cause.CLOSED: 1}
    assert (ledger.totals.opened, ledger.totals.closed) == (1, 1)
    assert_counts_add_up(ledger)


def test_an_instance_told_after_it_was_closed_came_and_went() -> None:
    ledger = Ledger()
    ledger.apply_closed(closed(130))
    _fed(init(120), ledger=ledger)

    site = _opening(ledger)
    assert (site.added, site.live, causes(site.removed)) == (1, 0, {Cause.CLOSED: 1})
    assert (ledger.totals.opened, ledger.totals.closed, ledger.instances) == (1, 1, {})
    assert_counts_add_up(ledger)


def test_an_instance_from_before_the_trace_is_of_no_place() -> None:
    ledger = Ledger()
    ledger.reconcile(walk(walked([1], 1_003), began=1_000))
    ledger.apply_closed(closed(1_100))

    assert ledger.accounts.sites == {}
    assert (ledger.totals.opened, ledger.totals.closed) == (0, 0)
    assert causes(ledger.totals.removed) == {Cause.CLOSED: 1}


def test_an_instance_that_only_the_exit_freed_is_kept_when_asked_for() -> None:
    ledger = _fed(init(100), ledger=Ledger(keep_freed_by_exit=True))
    ledger.apply_last(last(1_500, []))
    ledger.apply_closed(closed(1_501))

    (account,) = ledger.instances_freed_by_exit
    assert (account.instance, ledger.instances) == (FIRST, {})
    site = _opening(ledger)
    assert (site.added, site.live, site.freed_by_exit, site.left) == (1, 0, 1, 1)
    assert causes(site.removed) == {}
    assert (ledger.totals.opened, ledger.totals.closed) == (1, 0)
    share = site.shares[AGENT]
    assert (share.live, share.freed_by_exit, share.removed, share.ended_at) == (0, 1, 0, 1_500)
    assert_counts_add_up(ledger)


def test_an_instance_that_the_exit_freed_was_closed_when_not_asked_for() -> None:
    ledger = _fed(init(100))
    ledger.apply_last(last(1_500, []))
    ledger.apply_closed(closed(1_501))

    assert ledger.instances_freed_by_exit == []
    assert (_opening(ledger).left, ledger.totals.closed) == (0, 1)
    assert_counts_add_up(ledger)


def test_an_instance_that_a_process_closes_and_outlives_was_closed() -> None:
    """GIVEN a child that inherited it and ended WHEN its parent closes it THEN no exit did."""
    ledger = _fed(init(100), ledger=Ledger(keep_freed_by_exit=True))
    ledger.apply_last(last(1_500, [], process=OTHER))
    ledger.apply_closed(closed(1_600))

    assert (ledger.instances_freed_by_exit, ledger.totals.closed) == ([], 1)


def test_failed_adds_are_those_of_the_instance() -> None:
    ledger = _fed(
        init(100),
        init(101, instance=_REUSED),
        *(failed(Op.ADD, 110 + i, 28) for i in range(3)),
        failed(Op.RM, 120, 22, arg=1),
        failed(Op.ADD, 121, 2, instance=Instance(0, 0)),
        failed(Op.ADD, 122, 2, instance=Instance(0x7000, 7)),
    )

    by_key = {key: account.failed_adds for key, account in ledger.instances.items()}
    assert by_key == {FIRST: 3, _REUSED: 0}


# --- queues ---


def _looked_at(*queued: int) -> InstanceAccount:
    account = InstanceAccount(FIRST, 100)
    for i, number in enumerate(queued):
        account.look_at_queue(Queue(number, 0x100), 1_000 + i)
    return account


@pytest.mark.parametrize(
    ("queued", "unread_since", "rises"),
    [
        ((), 0, 0),
        ((0, 0, 0), 0, 0),
        # unread since it was first seen
        ((5,), 1_000, 0),
        ((0, 5, 5, 5), 1_001, 0),
        ((0, 5, 7, 7, 23), 1_001, 2),
        # who reads some goes on reading
        ((5, 7, 6), 1_002, 0),
        ((5, 7, 6, 8), 1_002, 1),
        ((5, 7, 0), 0, 0),
        ((5, 7, 0, 0, 3), 1_004, 0),
    ],
)
def test_what_nobody_reads_rises_and_never_falls(
    queued: tuple[int, ...], unread_since: int, rises: int
) -> None:
    account = _looked_at(*queued)

    assert (account.unread_since, account.queue_rises) == (unread_since, rises)
    assert account.queue.length == (queued[-1] if queued else 0)


def test_a_reader_that_is_slower_than_the_writer_reads() -> None:
    """GIVEN a queue that only grows WHEN its oldest event is another each time THEN it is read."""
    account = InstanceAccount(FIRST, 100)
    for i in range(23):
        account.look_at_queue(Queue(100 + i, 0x1000 + i), 1_000 + i)

    assert (account.unread_since, account.queue_rises) == (1_022, 0)


def test_each_walk_looks_at_the_queues() -> None:
    ledger = Ledger()
    for i, queued in enumerate((0, 3, 5)):
        at = 1_000 * (i + 1)
        ledger.reconcile(walk(walked([1], at + 3, queued=queued), began=at))

    account = ledger.instances[FIRST]
    assert (account.queue.length, account.unread_since, account.queue_rises) == (5, 2_000, 1)
    assert account.queue_rose_at == 3_000


# --- shares ---


def test_a_place_is_the_sum_of_what_processes_have_of_it() -> None:
    ledger = _fed(
        add(111, 1),
        add(112, 2),
        add(113, 3, process=OTHER),
        rm(150, 1),
        add(160, 4, process=OTHER),
        rm(191, 4, process=OTHER),
    )

    site = _adding(ledger)
    assert {process: share.live for process, share in site.shares.items()} == {AGENT: 1, OTHER: 1}
    lives = {process: share.longest_life for process, share in site.shares.items()}
    assert lives == {AGENT: 39, OTHER: 31}
    assert (site.added, site.live, causes(site.removed)) == (4, 2, {Cause.RM_WATCH: 2})
    assert (site.course.peak, site.shares[AGENT].course.peak) == (3, 2)
    assert_counts_add_up(ledger)


def test_a_watch_is_of_the_share_of_who_added_it_and_not_of_who_removes_it() -> None:
    ledger = _fed(add(111, 1), rm(130, 1, process=OTHER))

    (share,) = _adding(ledger).shares.values()
    assert (share.process, share.live, share.removed) == (AGENT, 0, 1)


def test_what_the_exit_freed_is_no_fall_of_the_share() -> None:
    """GIVEN 3 watches WHEN only the exit frees them THEN their share is judged as it stood."""
    adds = [add(SECOND * wd, wd) for wd in (1, 2, 3)]
    ledger = _fed(init(100), *adds, ledger=Ledger(keep_freed_by_exit=True))
    ledger.apply_last(last(5 * SECOND, [1, 2, 3]))
    ledger.apply_closed(closed(5 * SECOND + 1))

    site = _adding(ledger)
    share = site.shares[AGENT]
    assert (share.live, share.freed_by_exit, share.removed) == (0, 3, 0)
    assert share.course.floors(0, 9 * SECOND, 1)[-1] == 3
    assert site.course.floors(0, 9 * SECOND, 1)[-1] == 0
    assert (site.left, share.longest_life) == (3, 0)


def test_what_passed_unlisted_has_no_life() -> None:
    share = Share(Site(Place(1, b"", None, ()), STACK, b"agent"), AGENT)
    share.pass_by(Cause.RM_WATCH, 23)

    assert (share.removed, share.longest_life, share.course.peak) == (23, 0, 0)
    assert (share.site.added, share.site.left) == (23, 0)


@given(st.lists(st.tuples(st.sampled_from([AGENT, OTHER]), st.booleans()), max_size=41))
def test_shares_and_their_place_agree_whatever_comes(steps: list[tuple[Process, bool]]) -> None:
    ledger = Ledger()
    live: dict[Process, list[int]] = {AGENT: [], OTHER: []}
    for i, (process, adds) in enumerate(steps):
        if adds or not live[process]:
            live[process].append(i)
            _fed(add(1_000 + i, i, process=process), ledger=ledger)
        else:
            _fed(rm(1_000 + i, live[process].pop(), process=process), ledger=ledger)
        if i % 5 == 0:
            ledger.begin_mark()
            ledger.mark(1_000 + i)

    assert_counts_add_up(ledger)
    for site in ledger.accounts.sites.values():
        shares = site.shares.values()
        assert site.live == sum(map(len, live.values())) == sum(share.live for share in shares)
        assert site.at_marks[-1] == sum(share.at_marks[-1] for share in shares if share.at_marks)


# --- marks ---


def _marked(ledger: Ledger, ts: int) -> None:
    ledger.begin_mark()
    ledger.mark(ts)


def test_a_mark_notes_what_is_there_of_each_place_and_process() -> None:
    ledger = _fed(init(100), add(111, 1))
    _marked(ledger, 200)
    _fed(add(211, 2), add(212, 3, process=OTHER), ledger=ledger)
    _marked(ledger, 300)
    _fed(rm(311, 1), ledger=ledger)
    _marked(ledger, 400)

    site = _adding(ledger)
    assert ledger.marks == [200, 300, 400]
    assert site.at_marks == [1, 3, 2]
    assert site.shares[AGENT].at_marks == [1, 2, 1]
    # who came after the first mark had nothing at it
    assert site.shares[OTHER].at_marks == [0, 1, 1]
    assert _opening(ledger).at_marks == [1, 1, 1]
    assert_counts_add_up(ledger)


def test_a_place_that_comes_late_had_nothing_at_the_marks_before() -> None:
    ledger = Ledger()
    _marked(ledger, 200)
    _marked(ledger, 300)
    _fed(add(311, 1), ledger=ledger)
    assert _adding(ledger).at_marks == []
    _marked(ledger, 400)

    assert _adding(ledger).at_marks == [0, 0, 1]


def test_what_comes_and_goes_while_a_mark_is_made_is_of_no_round() -> None:
    """GIVEN 2 watches WHEN one more comes and one goes while it is marked THEN there was 1."""
    ledger = _fed(add(111, 1), add(112, 2))
    ledger.begin_mark()
    _fed(rm(120, 1), add(121, 3), add(122, 4), ledger=ledger)
    ledger.mark(130)
    _marked(ledger, 200)

    assert _adding(ledger).at_marks == [1, 3]


def test_what_only_the_exit_freed_is_no_longer_there_at_a_mark() -> None:
    ledger = _fed(init(100), add(111, 1), add(112, 2), ledger=Ledger(keep_freed_by_exit=True))
    _marked(ledger, 200)
    ledger.begin_mark()
    ledger.apply_last(last(250, [1, 2]))
    ledger.apply_closed(closed(251))
    ledger.mark(300)

    assert _adding(ledger).at_marks == [2, 0]
    # which is judged by its own life
    assert _adding(ledger).shares[AGENT].at_marks == []
    assert _opening(ledger).at_marks == [1, 0]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=7))
def test_a_stock_has_as_many_numbers_as_there_were_marks(numbers: list[int]) -> None:
    stock = Stock()
    for number in numbers:
        stock.live = number
        stock.begin_mark()
        stock.mark(len(stock.at_marks))
    late = Stock()
    late.mark(len(numbers))

    assert stock.at_marks == numbers
    assert late.at_marks == [0] * len(numbers) + [0]


# --- processes that ended ---


def test_the_shares_of_ended_processes_are_dropped_and_their_place_keeps_the_marks() -> None:
    ledger = _fed(add(111, 1), add(112, 2, process=OTHER))
    _marked(ledger, 200)
    _fed(rm(211, 2, process=OTHER), ledger=ledger)
    ledger.reconcile(walk(walked([1], 1_003), began=1_000))
    ledger.fold([OTHER])
    _marked(ledger, 2_000)

    site = _adding(ledger)
    assert set(site.shares) == {AGENT}
    assert (site.added, site.live, site.at_marks) == (2, 1, [2, 1])
    assert site.shares[AGENT].at_marks == [1, 1]
    assert_counts_add_up(ledger)


def test_how_long_the_removed_lived_is_not_forgotten_with_their_process() -> None:
    """GIVEN a watch that lived long WHEN its process is summed up THEN its place remembers."""
    ledger = _fed(add(111, 1), add(112, 2, process=OTHER), rm(50_112, 2, process=OTHER))
    assert _adding(ledger).longest_life == 50_000
    ledger.fold([OTHER])

    assert _adding(ledger).longest_life == 50_000


def test_places_that_only_processes_told_apart_add_up_their_marks() -> None:
    """GIVEN places without frames WHEN their processes are summed up THEN they are one place."""
    ledger = Ledger()
    whos = [{"process": Process(3000 + i, i), "instance": Instance(0x1000, i)} for i in (1, 2, 3)]
    for i, who in enumerate(whos):
        if i:
            _marked(ledger, 100 * i)
        _fed(add(100 * i + 1, 1, **who), ledger=ledger, stack=_UNREADABLE)
    _marked(ledger, 300)
    for who in whos:
        _fed(rm(351, 1, **who), ledger=ledger, stack=_UNREADABLE)
    _marked(ledger, 400)
    ledger.reconcile(walk(began=1_000))
    ledger.fold(ledger.idle())

    (site,) = ledger.accounts.sites.values()
    assert (site.place.process, site.added, site.live, site.shares) == (None, 3, 0, {})
    assert site.longest_life == 350
    assert site.at_marks == [1, 2, 3, 0]
    _marked(ledger, 500)
    assert site.at_marks == [1, 2, 3, 0, 0]
    assert_counts_add_up(ledger)


@pytest.mark.parametrize("stack", [STACK, _UNREADABLE])
def test_who_left_an_instance_behind_at_its_exit_is_not_summed_up(stack: Stack) -> None:
    """GIVEN instances that only exits freed WHEN who is idle is summed up THEN they still count."""
    ledger = _opened_by_many(5, stack)
    _end_all(ledger)
    assert len(ledger.instances_freed_by_exit) == 5
    ledger.fold(ledger.idle())

    assert sum(site.left for site in ledger.accounts.sites.values()) == 5
    assert_counts_add_up(ledger)


def test_who_calls_again_after_it_was_summed_up_has_a_new_share() -> None:
    ledger = _fed(add(111, 1), rm(112, 1))
    ledger.reconcile(walk(began=1_000))
    ledger.fold([AGENT])
    _fed(add(2_000, 1), ledger=ledger)

    site = _adding(ledger)
    assert (site.added, site.live, site.shares[AGENT].live) == (2, 1, 1)
    assert site.shares[AGENT].removed == 0
    assert_counts_add_up(ledger)


def test_where_it_opens_and_where_it_adds_are_two_places() -> None:
    """GIVEN one function that opens an instance and adds to it THEN neither hides the other."""
    ledger = _fed(init(100), add(111, 1))
    _fed(add(112, 2), ledger=ledger, stack=ANOTHER_STACK)

    units = sorted((site.opens_instances, site.added) for site in ledger.accounts.sites.values())
    assert units == [(False, 1), (False, 1), (True, 1)]
