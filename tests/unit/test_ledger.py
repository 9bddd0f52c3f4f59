"""The ledger: fed with events and walks, it must say what the kernel says, and count it right."""

from __future__ import annotations

from collections import Counter

import pytest
from build import (
    AGENT,
    ANOTHER_STACK,
    FIRST,
    IN_CREATE,
    IN_MODIFY,
    OTHER,
    SECOND,
    STACK,
    START,
    WRAPPER,
    add,
    failed,
    init,
    kernel_watch,
    last,
    rm,
    walk,
    walked,
)
from hypothesis import given
from hypothesis import strategies as st
from recount import assert_counts_add_up, causes

from tracer.core.accounts import OTHERS, Failure, ProcessAccount
from tracer.core.cause import Cause
from tracer.core.events import IN_MASK_ADD, IN_ONESHOT, CallEvent, Instance, Op, Process
from tracer.core.ledger import Ledger
from tracer.core.site import Site
from tracer.core.stack import Frame, Stack, StackState, missing
from tracer.core.walk import HolderFd, Inode, UserUse, Walk
from tracer.core.watch import Origin

# The same address for a group as FIRST, made later.
_REUSED = FIRST._replace(gen=5000)
_BEFORE_TRACE = Instance(group=0xFFFF888000002000, gen=0)
_UNREADABLE = missing("unreadable")


def _fed(*events: CallEvent, ledger: Ledger | None = None, stack: Stack = STACK) -> Ledger:
    ledger = ledger if ledger is not None else Ledger()
    for event in events:
        ledger.apply(event, stack)
    return ledger


def _live(ledger: Ledger) -> list[tuple[Instance, int]]:
    return sorted((account.instance, watch.wd) for account, watch in ledger.watches())


def _site(ledger: Ledger) -> Site:
    """The one that adds watches."""
    (site,) = (site for site in ledger.accounts.sites.values() if not site.opens_instances)
    return site


def _agent(ledger: Ledger) -> ProcessAccount:
    return ledger.accounts.processes[AGENT]


# --- calls ---


def test_an_added_watch_is_live_with_all_that_is_known_of_it() -> None:
    ledger = _fed(init(100), add(111, 1, path=b"/run/\xff"))

    ((account, watch),) = ledger.watches()
    assert (account.instance, account.opened_at, account.opener) == (FIRST, 100, _agent(ledger))
    assert account.holders == (HolderFd(AGENT, 3),)
    assert (watch.wd, watch.origin, watch.path) == (1, Origin.TRACED, b"/run/\xff")
    assert (watch.added_at, watch.is_oneshot, watch.owner) == (111, False, _agent(ledger))
    assert watch.site is _site(ledger)
    assert watch.site.stack == STACK
    assert_counts_add_up(ledger)


def test_opening_an_instance_adds_no_watch() -> None:
    ledger = _fed(init(100))

    site = ledger.instances[FIRST].opening_site
    assert site is not None
    assert (site.opens_instances, site.added, site.live, site.left) == (True, 1, 1, 1)
    assert (ledger.totals.opened, ledger.totals.closed, ledger.totals.added) == (1, 0, 0)
    assert (_agent(ledger).added, _live(ledger)) == (0, [])
    assert_counts_add_up(ledger)


def test_a_removed_watch_lives_on_as_a_count_only() -> None:
    ledger = _fed(init(100), add(111, 1), add(112, 2), rm(113, 1))

    assert _live(ledger) == [(FIRST, 2)]
    assert causes(_site(ledger).removed) == {Cause.RM_WATCH: 1}
    assert causes(_agent(ledger).removed) == {Cause.RM_WATCH: 1}
    assert (_agent(ledger).added, _agent(ledger).live, _site(ledger).live) == (2, 1, 1)
    assert_counts_add_up(ledger)


def test_the_same_descriptor_again_is_an_update() -> None:
    """
    GIVEN a watch
    WHEN the same inode is added again, from elsewhere
    THEN it is one watch still, of the place that added it first, and live after that
    """
    ledger = _fed(add(111, 1))
    _fed(add(123, 1, arg=IN_MODIFY), ledger=ledger, stack=ANOTHER_STACK)

    ((_, watch),) = ledger.watches()
    assert watch.site is not None
    assert (watch.site.stack, watch.touched) == (STACK, 123)
    assert (watch.added_at, watch.touched) == (111, 123)
    assert (ledger.totals.added, ledger.totals.updated, _agent(ledger).updated) == (1, 1, 1)
    assert_counts_add_up(ledger)


def test_a_late_update_does_not_turn_back_the_clock() -> None:
    ledger = _fed(add(111, 1), add(123, 1), add(117, 1))

    ((_, watch),) = ledger.watches()
    assert watch.touched == 123


def test_the_same_address_with_another_generation_is_another_instance() -> None:
    ledger = _fed(add(111, 1), add(5003, 1, instance=_REUSED), rm(5007, 1, instance=_REUSED))

    assert _live(ledger) == [(FIRST, 1)]
    assert _fed(add(5011, 1, instance=_REUSED), ledger=ledger).totals.updated == 0
    assert _live(ledger) == [(FIRST, 1), (_REUSED, 1)]


def test_a_watch_is_charged_to_who_added_it_and_removed_from_there() -> None:
    ledger = _fed(add(111, 1), rm(113, 1, process=OTHER))

    assert causes(_agent(ledger).removed) == {Cause.RM_WATCH: 1}
    assert causes(ledger.accounts.processes[OTHER].removed) == {}
    assert_counts_add_up(ledger)


def test_a_failed_call_changes_nothing_and_is_counted_by_its_kind() -> None:
    ledger = _fed(
        add(111, 1),
        *(failed(Op.ADD, 120 + i, 28) for i in range(17)),
        failed(Op.RM, 140, 22, arg=1),
        failed(Op.INIT, 141, 24, process=OTHER),
    )

    assert ledger.accounts.failures == {
        Failure(Op.ADD, 28, AGENT, b"agent"): 17,
        Failure(Op.RM, 22, AGENT, b"agent"): 1,
        Failure(Op.INIT, 24, OTHER, b"agent"): 1,
    }
    assert (_agent(ledger).failed, ledger.accounts.processes[OTHER].failed) == (18, 1)
    assert _live(ledger) == [(FIRST, 1)]
    assert_counts_add_up(ledger)


def test_a_call_whose_descriptor_was_closed_meanwhile_is_left_to_the_walk() -> None:
    ledger = _fed(add(111, 1, instance=Instance(0, 0)))

    assert (ledger.instances, ledger.totals.added) == ({}, 0)


def test_one_stack_of_two_programs_is_two_places_and_of_two_processes_one() -> None:
    ledger = _fed(add(111, 1), add(112, 2, process=OTHER))
    frames = tuple(frame._replace(module=b"/usr/bin/other") for frame in STACK.frames)
    _fed(add(113, 3), ledger=ledger, stack=STACK._replace(frames=frames))

    assert sorted(site.added for site in ledger.accounts.sites.values()) == [1, 2]


_LIBRARY_ONLY = Stack((WRAPPER,), StackState.TRUNCATED, "the frame pointers end here")


@pytest.mark.parametrize("stack", [STACK, _LIBRARY_ONLY])
def test_a_program_that_renames_itself_hides_nothing(stack: Stack) -> None:
    """GIVEN a leak WHEN each add goes by another name THEN it is one place, by the last name."""
    ledger = _fed(*(add(111 + wd, wd, comm=b"name-%d" % wd) for wd in range(23)), stack=stack)

    site = _site(ledger)
    assert (site.added, site.live, site.comm) == (23, 23, b"name-22")
    assert_counts_add_up(ledger)


def test_an_interpreter_is_another_place_in_each_process() -> None:
    """GIVEN two scripts WHEN only the interpreter is seen THEN neither passes for the other."""
    frames = (WRAPPER, Frame("PyEval_EvalCode", b"/usr/bin/python3.11", 7), START)
    stack = Stack(frames, StackState.COMPLETE)
    ledger = _fed(add(111, 1), add(112, 2, process=OTHER), add(113, 3), stack=stack)

    assert sorted(site.added for site in ledger.accounts.sites.values()) == [1, 2]


def test_code_of_libraries_alone_is_another_place_in_each_program() -> None:
    ledger = _fed(add(111, 1), add(112, 2, process=OTHER, comm=b"other"), stack=_LIBRARY_ONLY)
    _fed(add(113, 3, process=AGENT._replace(birth=23)), ledger=ledger, stack=_LIBRARY_ONLY)

    assert sorted(site.added for site in ledger.accounts.sites.values()) == [1, 2]


def test_a_later_owner_of_the_pid_is_no_part_of_a_place_without_frames() -> None:
    ledger = _fed(add(111, 1), add(112, 2, process=AGENT._replace(birth=23)), stack=_UNREADABLE)

    assert sorted(site.added for site in ledger.accounts.sites.values()) == [1, 1]


def test_without_frames_processes_and_reasons_are_kept_apart() -> None:
    ledger = _fed(add(111, 1), add(112, 2), add(113, 3, process=OTHER), stack=missing("gone"))
    _fed(add(114, 4), ledger=ledger, stack=missing("unreadable"))

    assert sorted(site.added for site in ledger.accounts.sites.values()) == [1, 1, 2]


# --- out of order ---


def test_a_late_add_does_not_resurrect_what_was_removed() -> None:
    ledger = _fed(rm(123, 1), add(111, 1))

    assert _live(ledger) == []
    assert causes(_site(ledger).removed) == {Cause.RM_WATCH: 1}
    assert (ledger.totals.added, _site(ledger).added) == (1, 1)
    assert_counts_add_up(ledger)


def test_an_add_after_the_removal_is_a_new_watch() -> None:
    ledger = _fed(rm(111, 1), add(123, 1))

    assert _live(ledger) == [(FIRST, 1)]
    assert_counts_add_up(ledger)


def test_a_late_removal_does_not_end_a_watch_that_was_touched_since() -> None:
    ledger = _fed(add(111, 1), add(131, 1), rm(123, 1))

    assert _live(ledger) == [(FIRST, 1)]


def test_removals_are_remembered_for_as_long_as_an_add_may_be_late_and_no_longer() -> None:
    """
    GIVEN two removals
    WHEN all is forgotten that is 100 ms old, one nanosecond after the first became that
    THEN the first is, the second is not, and nothing grows without bound
    """
    ledger = _fed(rm(1_000, 1), rm(1_001, 2))
    ledger.forget_removals(before=1_001 + 100_000_000)

    account = ledger.instances[FIRST]
    assert account.removed_at == {2: 1_001}
    _fed(add(999, 1), add(999, 2), ledger=ledger)
    assert _live(ledger) == [(FIRST, 1)]

    for ts in range(2_000, 2_000 + 23 * SECOND, SECOND):
        _fed(rm(ts, ts), ledger=ledger)
        ledger.forget_removals(ts)
    assert len(account.removed_at) == 1


def test_forgetting_an_older_removal_keeps_the_newer_one_of_the_same_descriptor() -> None:
    ledger = _fed(rm(1_000, 1), rm(1_000 + 2 * SECOND, 1))

    ledger.forget_removals(1_000 + SECOND)

    assert ledger.instances[FIRST].removed_at == {1: 1_000 + 2 * SECOND}


@given(
    lives=st.lists(st.integers(0, 50), min_size=1, max_size=11),
    data=st.data(),
)
def test_calls_may_come_in_any_order(lives: list[int], data: st.DataObject) -> None:
    """
    GIVEN watches that lived for some time, or for 0: still do
    WHEN their adds and removals come in any order
    THEN what is live and what is counted is as if they had come in order
    """
    events = []
    for wd, life in enumerate(lives):
        events.append(add(1_000 + wd, wd))
        if life:
            events.append(rm(1_000 + wd + life, wd))
    ledger = _fed(*data.draw(st.permutations(events)))

    assert _live(ledger) == [(FIRST, wd) for wd, life in enumerate(lives) if not life]
    assert ledger.totals.added == len(lives)
    assert ledger.totals.removed[Cause.RM_WATCH] == sum(map(bool, lives))
    assert_counts_add_up(ledger)


# --- walks ---


def test_the_first_walk_is_the_baseline() -> None:
    ledger = Ledger()
    change = ledger.reconcile(walk(walked([1, 2], 1_003, _BEFORE_TRACE, queued=7), began=1_000))

    assert len(change.unlisted) == 2
    assert _live(ledger) == [(_BEFORE_TRACE, 1), (_BEFORE_TRACE, 2)]
    assert {watch.origin for _, watch in ledger.watches()} == {Origin.BASELINE}
    assert {watch.site for _, watch in ledger.watches()} == {None}
    assert (_agent(ledger).baseline, _agent(ledger).live, _agent(ledger).added) == (2, 2, 0)
    assert ledger.instances[_BEFORE_TRACE].queue.length == 7
    assert_counts_add_up(ledger)


def test_what_a_later_walk_finds_is_of_unknown_origin() -> None:
    ledger = Ledger()
    ledger.reconcile(walk(began=900))
    ledger.reconcile(walk(walked([1], 1_003), began=1_000))

    ((_, watch),) = ledger.watches()
    assert (watch.origin, watch.target) == (Origin.UNKNOWN, kernel_watch(1).target)
    assert (_agent(ledger).baseline, _agent(ledger).live) == (0, 1)
    assert_counts_add_up(ledger)


def test_an_adopted_watch_is_charged_to_the_opener_if_known_else_to_the_holder() -> None:
    opened, unopened = _REUSED, _BEFORE_TRACE
    ledger = _fed(init(5_000, instance=opened))
    ledger.reconcile(
        walk(
            walked([1], 6_001, opened, process=OTHER),
            walked([2], 6_002, unopened, process=OTHER),
            began=6_000,
        )
    )

    owners = {watch.wd: watch.owner.process for _, watch in ledger.watches()}
    assert owners == {1: AGENT, 2: OTHER}


def test_traced_watches_stay_traced_and_learn_their_target() -> None:
    ledger = _fed(add(111, 1))
    change = ledger.reconcile(walk(walked([1], 1_003), began=1_000))

    assert not change
    ((_, watch),) = ledger.watches()
    assert (watch.origin, watch.target) == (Origin.TRACED, kernel_watch(1).target)


def test_a_watch_that_the_kernel_no_longer_has_went_for_an_unknown_cause() -> None:
    ledger = _fed(add(111, 1), add(112, 2))
    change = ledger.reconcile(walk(walked([2], 1_003), began=1_000))

    assert [watch.wd for _, watch in change.gone] == [1]
    assert _live(ledger) == [(FIRST, 2)]
    assert causes(_site(ledger).removed) == {Cause.UNKNOWN: 1}
    assert_counts_add_up(ledger)


def test_a_baseline_watch_that_goes_is_still_counted_as_from_before() -> None:
    ledger = Ledger()
    ledger.reconcile(walk(walked([1, 2], 1_003, _BEFORE_TRACE), began=1_000))
    _fed(rm(1_011, 1, instance=_BEFORE_TRACE), ledger=ledger)

    assert (_agent(ledger).baseline, _agent(ledger).live) == (2, 1)
    assert causes(_agent(ledger).removed) == {Cause.RM_WATCH: 1}
    assert_counts_add_up(ledger)


def test_a_vanished_instance_was_closed_with_its_watches() -> None:
    ledger = _fed(init(100), add(111, 1), add(112, 2), add(1_111, 1, instance=_REUSED))
    change = ledger.reconcile(walk(walked([1], 2_003, _REUSED), began=2_000))

    assert [account.instance for account in change.closed] == [FIRST]
    assert _live(ledger) == [(_REUSED, 1)]
    assert causes(ledger.totals.removed) == {Cause.CLOSED: 2}
    assert_counts_add_up(ledger)


@pytest.mark.parametrize(("touched", "stays"), [(1_002, False), (1_003, True), (1_004, True)])
def test_an_event_newer_than_the_reading_wins_over_it(touched: int, stays: bool) -> None:
    """GIVEN a reading at 1003 WHEN an event spoke of the watch after that THEN the event holds."""
    added = _fed(add(touched, 1))
    added.reconcile(walk(walked([], 1_003), began=1_000))
    assert bool(_live(added)) is stays

    updated = _fed(add(111, 1), add(touched, 1))
    updated.reconcile(walk(walked([], 1_003), began=1_000))
    assert bool(_live(updated)) is stays

    removed = _fed(add(111, 1), rm(touched, 1))
    removed.reconcile(walk(walked([1], 1_003), began=1_000))
    assert bool(_live(removed)) is not stays


@pytest.mark.parametrize(("touched", "stays"), [(999, False), (1_000, True), (1_001, True)])
@pytest.mark.parametrize("how", ["opened", "added", "removed"])
def test_an_instance_that_is_newer_than_the_walk_is_not_closed(
    how: str, touched: int, stays: bool
) -> None:
    event = {
        "opened": init(touched, instance=FIRST._replace(gen=touched)),
        "added": add(touched, 1),
        "removed": rm(touched, 1),
    }[how]
    ledger = _fed(event)

    ledger.reconcile(walk(began=1_000))

    assert bool(ledger.instances) is stays


def test_an_instance_that_could_not_be_read_is_left_as_it_is() -> None:
    ledger = _fed(init(100), add(111, 1))
    unread = walk(walked(None, 0, process=OTHER), began=1_000)

    assert unread.unread == 1
    assert not ledger.reconcile(unread)
    assert _live(ledger) == [(FIRST, 1)]
    # who holds it comes from elsewhere than its watches
    assert ledger.instances[FIRST].holders == (HolderFd(OTHER, 3),)


def test_difference_only_looks() -> None:
    ledger = _fed(add(111, 1), add(112, 2))
    look = walk(walked([2, 3], 1_003), walked([5], 1_004, _REUSED), began=1_000)

    for _ in range(2):
        change = ledger.difference(look)
        assert [watch.wd for _, watch in change.gone] == [1]
        assert [(key, wd) for key, wd, _ in change.unlisted] == [(FIRST, 3), (_REUSED, 5)]
        assert _live(ledger) == [(FIRST, 1), (FIRST, 2)]
    ledger.reconcile(look)
    assert not ledger.difference(look)


def test_a_removal_that_a_walk_saw_first_is_counted_once() -> None:
    """
    GIVEN a watch that the kernel removed, while the call that did has not returned yet
    WHEN a walk misses it, and then the call returns
    THEN one removal is counted and not two
    """
    ledger = _fed(add(111, 1))
    ledger.reconcile(walk(walked([], 1_003), began=1_000))
    _fed(rm(1_011, 1), ledger=ledger)

    assert sum(ledger.totals.removed.values()) == 1
    assert_counts_add_up(ledger)


# --- the end of a process ---


def _closing_walk() -> Walk:
    return walk(began=2_000)


def test_what_only_the_exit_freed_is_kept_and_live_when_asked_for() -> None:
    ledger = _fed(add(111, 1), add(112, 2), rm(113, 2), ledger=Ledger(keep_freed_by_exit=True))
    ledger.apply_last(last(1_500, [1]))
    ledger.reconcile(_closing_walk())

    assert [watch.wd for _, watch in ledger.freed_by_exit] == [1]
    assert _live(ledger) == [(FIRST, 1)]
    site = _site(ledger)
    assert (site.freed_by_exit, site.live, site.left, _agent(ledger).live) == (1, 0, 1, 1)
    assert ledger.instances == {}
    assert ledger.last_exit_at == 1_500
    assert not ledger.difference(_closing_walk())
    assert_counts_add_up(ledger)


def test_what_the_exit_freed_is_closed_when_not_asked_for() -> None:
    ledger = _fed(add(111, 1))
    ledger.apply_last(last(1_500, [1]))
    ledger.reconcile(_closing_walk())

    assert (_live(ledger), ledger.freed_by_exit) == ([], [])
    assert causes(ledger.totals.removed) == {Cause.CLOSED: 1}
    assert_counts_add_up(ledger)


@pytest.mark.parametrize("keep", [False, True])
def test_what_was_gone_before_the_exit_went_for_an_unknown_cause(keep: bool) -> None:
    ledger = _fed(add(111, 1), add(112, 2), ledger=Ledger(keep_freed_by_exit=keep))
    ledger.apply_last(last(1_500, [2]))
    ledger.reconcile(_closing_walk())

    assert ledger.totals.removed[Cause.UNKNOWN] == 1
    assert _live(ledger) == ([(FIRST, 2)] if keep else [])
    assert_counts_add_up(ledger)


def test_an_instance_closed_before_the_exit_was_closed() -> None:
    ledger = _fed(add(111, 1), ledger=Ledger(keep_freed_by_exit=True))
    ledger.reconcile(_closing_walk())

    assert (_live(ledger), ledger.freed_by_exit) == ([], [])
    assert causes(ledger.totals.removed) == {Cause.CLOSED: 1}


def test_a_child_that_ended_does_not_turn_a_later_close_into_an_exit() -> None:
    """GIVEN a child that inherited the instance and ended WHEN its parent closes THEN closed."""
    ledger = _fed(init(100), add(111, 1), ledger=Ledger(keep_freed_by_exit=True))
    ledger.apply_last(last(1_500, [1], process=OTHER))
    ledger.reconcile(_closing_walk())

    assert ledger.freed_by_exit == []
    assert causes(ledger.totals.removed) == {Cause.CLOSED: 1}


def test_only_the_end_of_the_last_holder_frees() -> None:
    """GIVEN two holders that end WHEN the watch went between their ends THEN no exit freed it."""
    events = init(100), add(111, 1), add(112, 2)
    ledger = _fed(*events, ledger=Ledger(keep_freed_by_exit=True))
    ledger.apply_last(last(1_500, [1, 2]))
    ledger.apply_last(last(1_600, [2], process=OTHER))
    ledger.reconcile(_closing_walk())

    assert [watch.wd for _, watch in ledger.freed_by_exit] == [2]
    assert causes(ledger.totals.removed) == {Cause.UNKNOWN: 1}


def test_a_walk_may_find_a_watch_before_its_call_has_ended() -> None:
    """GIVEN a watch adopted by a walk WHEN its add ends a moment later THEN it has its site."""
    ledger = _fed(init(100))
    ledger.reconcile(walk(walked([], 500), began=490))
    ledger.reconcile(walk(walked([1], 1_000), began=990))
    assert _agent(ledger).live == 1
    ledger.apply(add(1_100, 1), STACK)

    assert (_site(ledger).added, _site(ledger).live, _agent(ledger).live) == (1, 1, 1)
    assert ledger.totals.updated == 0
    assert_counts_add_up(ledger)


def test_a_much_later_add_of_a_watch_nobody_saw_added_is_an_update() -> None:
    ledger = _fed(init(100))
    ledger.reconcile(walk(walked([], 500), began=490))
    ledger.reconcile(walk(walked([1], 1_000), began=990))
    ledger.apply(add(1_000 + SECOND, 1), STACK)

    assert (ledger.totals.added, ledger.totals.updated) == (0, 1)


def test_what_a_second_baseline_walk_finds_was_there_before_too() -> None:
    ledger = Ledger()
    ledger.reconcile(walk(walked([1], 1_000), began=990))
    ledger.reconcile(walk(walked([1, 2], 2_000), began=1_990), baseline=True)

    assert {watch.origin for _, watch in ledger.watches()} == {Origin.BASELINE}


@pytest.mark.parametrize(
    ("before", "update", "is_oneshot"),
    [
        (IN_ONESHOT, IN_MODIFY, False),
        (IN_ONESHOT, IN_MODIFY | IN_MASK_ADD, True),
        (IN_CREATE, IN_MODIFY | IN_MASK_ADD, False),
        (IN_CREATE, IN_MODIFY | IN_ONESHOT, True),
    ],
)
def test_an_update_replaces_the_mask_or_adds_to_it(
    before: int, update: int, is_oneshot: bool
) -> None:
    ledger = _fed(add(111, 1, arg=IN_CREATE | before), add(112, 1, arg=update))

    ((_, watch),) = ledger.watches()
    assert watch.is_oneshot is is_oneshot


def test_a_baseline_watch_that_the_exit_freed_is_nobodys_leak() -> None:
    ledger = Ledger(keep_freed_by_exit=True)
    ledger.reconcile(walk(walked([1], 1_003), began=1_000))
    ledger.apply_last(last(1_500, [1]))
    ledger.reconcile(_closing_walk())

    assert _live(ledger) == []
    assert_counts_add_up(ledger)


def test_the_last_watches_may_come_in_several_parts() -> None:
    ledger = _fed(*(add(111 + wd, wd) for wd in range(23)), ledger=Ledger(keep_freed_by_exit=True))
    ledger.apply_last(last(1_500, range(13)))
    ledger.apply_last(last(1_500, range(13, 23), truncated=True))
    ledger.reconcile(_closing_walk())

    assert len(ledger.freed_by_exit) == 23
    assert ledger.totals.exits_truncated == 1


def test_the_end_of_an_unknown_instance_is_only_a_time() -> None:
    ledger = Ledger(keep_freed_by_exit=True)
    ledger.apply_last(last(1_500, [1]))
    ledger.apply_last(last(1_400, [1]))

    assert (ledger.last_exit_at, ledger.instances) == (1_500, {})
    assert ledger.totals.exits_truncated == 0


def test_more_than_fits_at_the_end_of_an_unknown_instance_is_told() -> None:
    ledger = Ledger(keep_freed_by_exit=True)
    ledger.apply_last(last(1_500, [1], truncated=True))

    assert ledger.totals.exits_truncated == 1


def test_an_unseen_watch_that_only_the_exit_freed_is_kept() -> None:
    """
    GIVEN a watch that a walk found, and whose call was not seen
    WHEN only the exit frees it
    THEN it is still there to be told of
    """
    ledger = Ledger(keep_freed_by_exit=True)
    ledger.reconcile(walk(began=900))
    ledger.reconcile(walk(walked([1], 1_003), began=1_000))
    ledger.apply_last(last(1_500, [1]))
    ledger.reconcile(_closing_walk())

    ((_, watch),) = ledger.freed_by_exit
    assert (watch.wd, watch.origin, watch.site) == (1, Origin.UNKNOWN, None)
    assert (_agent(ledger).live, sum(ledger.totals.removed.values())) == (1, 0)
    assert_counts_add_up(ledger)


def test_an_instance_does_not_remember_all_who_ever_held_it() -> None:
    ledger = _fed(init(100), add(111, 1))
    for i in range(23):
        ledger.apply_last(last(200 + i, [1], process=Process(3000 + i, i)))
    ledger.reconcile(walk(walked([1], 1_003), began=1_000))

    assert ledger.instances[FIRST].ended_holders == set()


# --- many processes ---


def _short_lived(number: int, stack: Stack = _UNREADABLE) -> Ledger:
    """As many processes, named sh-0 to sh-2, each adds and removes a watch, and fails once."""
    ledger = Ledger()
    for i in range(number):
        who = {"process": Process(3000 + i, i), "comm": b"sh-%d" % (i % 3)}
        who["instance"] = FIRST._replace(gen=1_000 + i)
        _fed(
            init(1_000 + i, **who),
            add(1_000 + i, 1, **who),
            rm(1_001 + i, 1, **who),
            failed(Op.ADD, 1_002 + i, 2, **who),
            ledger=ledger,
            stack=stack,
        )
    ledger.reconcile(walk(began=SECOND))
    return ledger


def test_idle_is_who_has_no_watch_and_holds_no_instance() -> None:
    ledger = _fed(add(111, 1), init(112, process=OTHER, instance=_REUSED))
    kept, closed = Process(3001, 1), Process(3002, 2)
    _fed(failed(Op.ADD, 113, 2, process=closed), ledger=ledger)
    _fed(add(114, 1, process=kept, instance=_BEFORE_TRACE), ledger=ledger)
    ledger.apply_last(last(115, [1], process=kept, instance=_BEFORE_TRACE))

    assert ledger.idle() == [closed]

    ledger.reconcile(walk(walked([], 1_003, _REUSED, process=kept), began=1_000))
    # who opened an instance is charged for what is found in it, whoever holds it
    assert ledger.idle() == [AGENT, closed]


def test_who_left_watches_behind_at_its_exit_is_not_idle() -> None:
    ledger = _fed(add(111, 1), ledger=Ledger(keep_freed_by_exit=True))
    ledger.apply_last(last(1_500, [1]))
    ledger.reconcile(_closing_walk())

    assert len(ledger.freed_by_exit) == 1
    assert ledger.idle() == []


@pytest.mark.parametrize("stack", [STACK, _UNREADABLE])
def test_ended_processes_are_summed_up_by_name(stack: Stack) -> None:
    ledger = _short_lived(23, stack)
    idle = ledger.idle()
    assert len(idle) == 23

    ledger.fold(idle[:20])

    accounts = ledger.accounts
    assert list(accounts.processes) == idle[20:]
    assert {comm: ended.processes for comm, ended in accounts.ended.items()} == {
        b"sh-0": 7,
        b"sh-1": 7,
        b"sh-2": 6,
    }
    assert accounts.failures[Failure(Op.ADD, 2, None, b"sh-0")] == 7
    assert len(accounts.failures) == 3 + 3
    # those that opened an instance, and those that added watches
    assert len(accounts.sites) == (2 if stack is STACK else 2 * (3 + 3))
    assert_counts_add_up(ledger)


def test_a_call_of_a_process_that_was_taken_for_ended_starts_a_new_account() -> None:
    ledger = _short_lived(3)
    ledger.fold(ledger.idle())
    _fed(
        add(2 * SECOND, 1, process=Process(3000, 0), comm=b"sh-0"),
        ledger=ledger,
        stack=_UNREADABLE,
    )

    assert ledger.accounts.processes[Process(3000, 0)].live == 1
    assert [site.live for site in ledger.accounts.sites.values() if site.live] == [1]
    assert_counts_add_up(ledger)


def test_any_number_of_names_is_summed_up_in_bounds() -> None:
    ledger = Ledger()
    for i in range(1500):
        who = {"process": Process(3000 + i, i), "comm": b"%d" % i}
        _fed(failed(Op.ADD, i, 2, **who), ledger=ledger)
    ledger.fold(ledger.idle())

    ended = ledger.accounts.ended
    assert (len(ended), ended[OTHERS].processes) == (1024 + 1, 1500 - 1024)
    assert len(ledger.accounts.failures) <= 1024 + 1
    assert_counts_add_up(ledger)


def test_any_number_of_kinds_of_failures_is_counted_in_bounds() -> None:
    ledger = Ledger()
    for i in range(1500):
        _fed(failed(Op.ADD, i, 2, process=Process(3000 + i, i)), ledger=ledger)
        _fed(failed(Op.RM, i, 22, process=Process(3000 + i, i)), ledger=ledger)

    failures = ledger.accounts.failures
    assert len(failures) == 1024 + 2
    assert failures[Failure(Op.RM, 22, None, OTHERS)] == 1500 - 512
    assert_counts_add_up(ledger)


# --- what the kernel side forgot, and what is in no table of descriptors ---


def test_a_forgotten_generation_is_that_of_the_latest_instance() -> None:
    """GIVEN an address that was used twice WHEN told without a generation THEN it is the second."""
    forgotten = FIRST._replace(gen=0)
    ledger = _fed(init(100), add(111, 1), init(5_000, instance=_REUSED))
    _fed(add(5_011, 1, instance=forgotten), ledger=ledger)
    look = walk(walked([1], 6_003, forgotten), began=6_000).named(ledger.recognized)
    ledger.reconcile(look)

    assert _live(ledger) == [(_REUSED, 1)]
    assert causes(ledger.totals.removed) == {Cause.CLOSED: 1}


def test_an_instance_from_before_has_no_generation_to_forget() -> None:
    before = FIRST._replace(gen=0)
    ledger = Ledger()
    ledger.reconcile(walk(walked([1], 1_003, before), began=1_000))
    _fed(add(1_111, 2, instance=before), ledger=ledger)

    assert _live(ledger) == [(before, 1), (before, 2)]


_UID, _USERNS = 1000, 4026531837


def _use(watches: int, instances: int) -> UserUse:
    return UserUse(_UID, _USERNS, watches, 8192, instances, 128)


def _charged(watches: int, instances: int) -> Walk:
    return walk(began=2_000, users=(_use(watches, instances),)).with_hidden()


def _paid_init(ts: int, **changes: object) -> CallEvent:
    return init(ts, ino=_USERNS, dev=_UID, **changes)


def _opened_with_two() -> Ledger:
    ledger = Ledger()
    ledger.reconcile(walk(began=50))
    return _fed(_paid_init(100), add(111, 1), add(112, 2), ledger=ledger)


@pytest.mark.parametrize(
    ("watches", "instances", "live"),
    [(2, 1, 2), (3, 2, 2), (0, 0, 0), (1, 1, 0), (2, 0, 0)],
)
def test_an_instance_nobody_has_lives_if_its_user_is_charged_for_it(
    watches: int, instances: int, live: int
) -> None:
    ledger = _opened_with_two()
    ledger.reconcile(_charged(watches, instances))

    assert len(_live(ledger)) == live
    assert causes(ledger.totals.removed) == ({} if live else {Cause.CLOSED: 2})


def test_what_was_in_flight_before_the_trace_is_none_of_its_instances() -> None:
    ledger = Ledger()
    ledger.reconcile(_charged(7, 1)._replace(began=50, ended=51))
    _fed(_paid_init(100), add(111, 1), ledger=ledger)
    ledger.reconcile(_charged(7, 1))

    assert _live(ledger) == []


# --- why a watch went ---


def test_who_compares_tells_why_a_watch_went() -> None:
    ledger = _fed(add(111, 1), add(112, 2), add(113, 3))
    told = {1: Cause.DELETED, 2: Cause.UNMOUNTED}
    ledger.reconcile(walk(walked([3], 1_003), began=1_000), cause_of=lambda watch: told[watch.wd])

    assert causes(_site(ledger).removed) == {Cause.DELETED: 1, Cause.UNMOUNTED: 1}
    assert_counts_add_up(ledger)


def test_what_an_add_is_on_is_known_at_once() -> None:
    ledger = _fed(
        add(111, 1, inode=2**64 - 8, ino=2**63 + 5, dev=0x800001, detail=2**32 - 1), add(112, 2)
    )

    by_wd = {watch.wd: watch.inode for _, watch in ledger.watches()}
    assert by_wd == {1: Inode(2**64 - 8, 2**63 + 5, 0x800001, 2**32 - 1), 2: None}


@pytest.mark.parametrize(
    ("watches", "instances", "live", "in_doubt"),
    [
        (1, 1, {1: 1}, False),
        (2, 1, {2: 2}, False),
        (3, 1, {1: 1, 2: 2}, True),
        (3, 2, {1: 1, 2: 2}, False),
        (4, 2, {1: 1, 2: 2}, True),
    ],
)
def test_of_two_missing_instances_the_counters_say_which_lives_if_they_can(
    watches: int, instances: int, live: dict[int, int], in_doubt: bool
) -> None:
    """GIVEN one with one watch and one with two WHEN so many are hidden THEN these are kept."""
    ledger = Ledger()
    ledger.reconcile(walk(began=50))
    other = FIRST._replace(group=FIRST.group + 0x1000)
    _fed(_paid_init(100), add(111, 1), ledger=ledger)
    who = {"instance": other}
    _fed(_paid_init(101, **who), add(112, 1, **who), add(113, 2, **who), ledger=ledger)
    change = ledger.reconcile(_charged(watches, instances))

    assert Counter(len(one.watches) for one in ledger.instances.values()) == Counter(live.keys())
    assert change.in_doubt is in_doubt


def test_who_changes_its_uid_is_still_charged_as_before() -> None:
    ledger = _opened_with_two()
    _fed(add(113, 3, uid=7), ledger=ledger)
    ledger.reconcile(_charged(3, 1))

    assert len(_live(ledger)) == 3


def test_a_baseline_instance_may_be_in_flight_as_well() -> None:
    ledger = Ledger()
    paid = walked([1], 1_003)._replace(payers=((_USERNS, _UID),))
    ledger.reconcile(walk(paid, began=1_000, users=(_use(1, 1),)).with_hidden())
    ledger.reconcile(_charged(1, 1))

    assert len(_live(ledger)) == 1


# --- another instance by the same key ---


def test_other_targets_by_the_same_numbers_are_another_instance() -> None:
    """GIVEN an address used again by a call not seen WHEN compared THEN the first was closed."""
    ledger = Ledger()
    ledger.reconcile(walk(began=50))
    first, second = (add(110 + wd, wd, inode=wd, ino=20 + wd, dev=8) for wd in (1, 2))
    _fed(init(100), first, second, ledger=ledger)
    change = ledger.reconcile(walk(walked([1, 2], 1_003), began=1_000))

    assert [account.instance for account in change.closed] == [FIRST]
    assert causes(ledger.totals.removed) == {Cause.CLOSED: 2}
    assert [(watch.wd, watch.origin) for _, watch in ledger.watches()] == [
        (1, Origin.UNKNOWN),
        (2, Origin.UNKNOWN),
    ]
    assert_counts_add_up(ledger)


def test_every_watch_is_looked_at_in_the_end() -> None:
    same = {wd: kernel_watch(wd).inode for wd in range(2, 101)}
    ledger = _fed(init(100), add(111, 101, inode=5, ino=23, dev=8))
    for wd, inode in same.items():
        _fed(
            add(112, wd, inode=inode.address, ino=inode.ino, dev=inode.dev, detail=7), ledger=ledger
        )
    look = walk(walked(range(2, 102), 1_003), began=1_000)

    assert not ledger.difference(look)
    assert ledger.difference(look, exact=True).closed
