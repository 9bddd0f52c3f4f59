"""A walk over the kernel's own list as what `ls` shows."""

from __future__ import annotations

import os

import pytest
from build import FIRST, SECOND, walk, walked

from tracer import listing
from tracer.core.events import Instance, Process
from tracer.core.walk import HolderFd, UserUse
from tracer.filter import Filter
from tracer.kernel.fdinfo import HeldFd
from tracer.kernel.procfs import read_process
from tracer.listing import scan_walk, take_snapshot
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


def test_what_is_unread_and_when_that_is_all_there_may_be(
    us: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a limit of 23 WHEN 22 and 24 are unread, one of them the overflow THEN one is full."""
    monkeypatch.setattr(listing, "max_queued_events", lambda: 23)
    some = walked([1], 1, process=us, fd=3, queued=22)
    full = walked([1], 1, instance=_SECOND_INSTANCE, process=us, fd=5, queued=24)

    scan = scan_walk(walk(some, full, began=1))

    assert [held.queue for held in scan.instances] == [
        Queue(22, exact=True, full=False),
        Queue(24, exact=True, full=True),
    ]
