"""A walk over the kernel's own list as what `ls` shows."""

from __future__ import annotations

import ctypes
import os

import pytest
from build import FIRST, SECOND, walk, walked

from tracer import listing
from tracer.core.events import Instance, Process
from tracer.core.walk import HolderFd, UserUse
from tracer.filter import Filter
from tracer.kernel.fdinfo import HeldFd
from tracer.kernel.procfs import read_process
from tracer.listing import scan_proc, scan_walk, take_snapshot
from tracer.views.ls import Queue

_TICK_NS = SECOND // os.sysconf("SC_CLK_TCK")
_SECOND_INSTANCE = Instance(0xFFFF888000002000, 100)


@pytest.fixture
def us() -> Process:
    facts = read_process(os.getpid())
    assert facts is not None
    return Process(facts.pid, facts.birth_ticks * _TICK_NS)


def test_instances_have_their_holders_and_watches(us: Process) -> None:
    scan = scan_walk(walk(walked(range(1, 24), 1, process=us, fd=7), began=1))

    (held,) = scan.instances
    assert held.holders == (HeldFd(us.pid, 7),)
    assert [(watch.wd, watch.inode.ino, watch.device) for watch in held.watches[:2]] == [
        (1, 1001, "0:2049"),
        (2, 1002, "0:2049"),
    ]
    assert scan.truth == "iterator"
    assert take_snapshot(scan, Filter()).complete


def test_a_holder_that_has_ended_is_left_out(us: Process) -> None:
    """GIVEN one whose pid has another owner now WHEN listed THEN neither is taken for the other."""
    earlier = us._replace(birth=us.birth - SECOND)
    held = walked([1], 1, process=us)
    shared = held._replace(holders=(HolderFd(earlier, 3), HolderFd(us, 5)))
    alone = walked([1], 1, instance=_SECOND_INSTANCE, process=earlier)

    scan = scan_walk(walk(shared, alone, began=1))

    assert [held.holders for held in scan.instances] == [(HeldFd(us.pid, 5),)]


def test_an_instance_that_could_not_be_read_is_missed(us: Process) -> None:
    torn = walked(None, 0, instance=_SECOND_INSTANCE, process=us, fd=5)
    scan = scan_walk(walk(walked([1], 1, process=us), torn, began=1))

    assert scan.changing(Filter()) == 1
    assert scan.changing(Filter(pids=frozenset({us.pid + 1}))) == 0
    snapshot = take_snapshot(scan, Filter())
    assert (len(snapshot.instances), snapshot.complete) == (1, False)


def test_use_is_what_the_kernel_counts(us: Process) -> None:
    users = (
        UserUse(uid=0, userns=11, watches=3, watches_limit=8192, instances=1, instances_limit=128),
        UserUse(uid=0, userns=13, watches=5, watches_limit=0, instances=2, instances_limit=7),
    )

    usage = scan_walk(walk(began=1, users=users)).usage

    assert [(one.userns, one.watches, one.watches_limit) for one in usage] == [
        (13, 5, 0),
        (11, 3, 8192),
    ]
    assert {(one.source, one.complete) for one in usage} == {("kernel", True)}


def test_the_key_of_an_instance_does_not_reach_the_view(us: Process) -> None:
    scan = scan_walk(walk(walked([1], 1, instance=FIRST, process=us), began=1))

    assert [instance.id for instance in take_snapshot(scan, Filter()).instances] == [1]


def test_each_queue_is_judged_by_its_own_limit(us: Process) -> None:
    """GIVEN instances made with limits of 23 and 47 WHEN 24 of each are unread THEN one is full."""
    full = walked([1], 1, process=us, fd=3, queued=24, queue_limit=23)
    some = walked([1], 1, instance=_SECOND_INSTANCE, process=us, fd=5, queued=24, queue_limit=47)

    scan = scan_walk(walk(some, full, began=1))

    assert [held.queue for held in scan.instances] == [
        Queue(24, exact=True, full=True),
        Queue(24, exact=True, full=False),
    ]


@pytest.mark.parametrize(("least", "full"), [(0, False), (3, None), (1 << 30, None)])
def test_through_proc_no_queue_is_called_full(
    us: Process, monkeypatch: pytest.MonkeyPatch, least: int, full: bool | None
) -> None:
    """GIVEN that /proc tells no instance's limit THEN only of an empty queue it is told."""
    monkeypatch.setattr(listing, "least_unread", lambda held: least)
    libc = ctypes.CDLL(None, use_errno=True)
    own = libc.inotify_init1(os.O_CLOEXEC)
    if own < 0:
        pytest.skip("no inotify instance is left for this user")
    try:
        (queue,) = [
            held.queue for held in scan_proc().instances if HeldFd(us.pid, own) in held.holders
        ]
    finally:
        os.close(own)

    assert queue == Queue(least, exact=not least, full=full)


@pytest.mark.parametrize(
    ("queued", "limit", "full"),
    [(22, 23, False), (23, 23, True), (24, 23, True), (24, None, None), (0, None, False)],
)
def test_a_queue_is_full_when_the_next_event_is_lost(
    us: Process, queued: int, limit: int | None, full: bool | None
) -> None:
    """GIVEN a limit of 23 WHEN as many are unread, or one that tells of the overflow THEN full."""
    held = walked([1], 1, process=us, queued=queued, queue_limit=limit)

    (one,) = scan_walk(walk(held, began=1)).instances

    assert one.queue == Queue(queued, exact=True, full=full)
