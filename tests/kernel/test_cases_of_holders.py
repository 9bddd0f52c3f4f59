"""
Who holds an instance: its watches go with the last descriptor, and no earlier.

All tests share one session, and end with :meth:`Case.agreed`: what the ledger takes for live is
what fdinfo shows, watch by watch.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from agreement import Case, assert_removed
from harness import Puppet, until

from tracer.session import Session

pytestmark = [pytest.mark.usefixtures("root"), pytest.mark.kernels]


@pytest.fixture
def puppet(traced_puppet: Puppet) -> Puppet:
    return traced_puppet


# --- descriptors ---


def test_the_last_close_takes_all_watches(case: Case, puppet: Puppet, folders: list[Path]) -> None:
    fd = puppet.ok("init")
    for folder in folders:
        puppet.ok("add", fd, folder)
    puppet.ok("close", fd)
    found = case.agreed()

    assert_removed(found.removed, closed=23)
    assert found.report["instances"] == []


def test_closing_one_of_two_descriptors_takes_none(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    fd = puppet.ok("init")
    twin = puppet.ok("dup", fd)
    for folder in folders[:5]:
        puppet.ok("add", fd, folder)
    puppet.ok("close", fd)
    puppet.ok("add", twin, folders[5])
    found = case.agreed((puppet.pid, twin))
    assert found.live(puppet.pid) == 6
    assert found.holders() == {(puppet.pid, twin)}

    puppet.ok("close", twin)
    assert_removed(case.agreed().removed, closed=6)


def test_a_reused_descriptor_is_another_instance(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN an instance, closed WHEN another gets its number THEN only its watches are live."""
    first = puppet.ok("init")
    for folder in folders[:3]:
        puppet.ok("add", first, folder)
    puppet.ok("close", first)
    second = puppet.ok("init")
    assert second == first
    puppet.ok("add", second, folders[3])
    found = case.agreed((puppet.pid, second))

    assert found.live(puppet.pid) == 1
    assert_removed(found.removed, closed=3)


def test_a_reused_group_is_another_instance(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN 97 instances closed with their watch WHEN one more is opened THEN only it counts."""
    puppet.ok("reopen", folders[0], 97)
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[1])
    found = case.agreed((puppet.pid, fd))

    assert found.added == 98
    assert_removed(found.removed, closed=97)


# --- processes ---


def _until_left(pid: int, fd: int) -> None:
    """A process that makes an orphan ends a moment after that has answered."""
    until(lambda: not os.path.lexists(f"/proc/{pid}/fd/{fd}"), "the end of the parent")


def test_a_child_holds_what_its_parent_leaves(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN a parent that ended WHEN its child goes on THEN the watches stay, and who added."""
    fd = puppet.ok("init")
    for folder in folders[:7]:
        puppet.ok("add", fd, folder)
    child = puppet.ok("orphan")
    _until_left(puppet.pid, fd)
    puppet.ok("add", fd, folders[7])
    found = case.agreed((child, fd))
    assert found.holders() == {(child, fd)}
    assert (found.live(puppet.pid), found.live(child)) == (7, 1)

    puppet.ok("close", fd)
    assert_removed(case.agreed().removed, closed=8)


def test_a_parent_holds_what_its_child_leaves(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0])
    child = puppet.ok("fork")
    puppet.ok("add", fd, folders[1])
    own = puppet.ok("init")
    puppet.ok("add", own, folders[2])
    case.agreed((child, fd), (child, own))

    puppet.tell("exit", 0)
    assert puppet.answer() == 0
    found = case.agreed((puppet.pid, fd))
    assert found.holders() == {(puppet.pid, fd)}
    assert (found.live(puppet.pid), found.live(child)) == (1, 1)
    assert_removed(found.removed, closed=1)


def test_a_grandchild_holds_what_all_before_it_leave(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0])
    child = puppet.ok("orphan")
    _until_left(puppet.pid, fd)
    puppet.ok("add", fd, folders[1])
    grandchild = puppet.ok("orphan")
    _until_left(child, fd)
    found = case.agreed((grandchild, fd))
    assert found.holders() == {(grandchild, fd)}
    assert (found.live(puppet.pid), found.live(child)) == (1, 1)

    puppet.ok("close", fd)
    assert_removed(case.agreed().removed, closed=2)


def test_the_end_of_the_last_holder_takes_all_watches(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    child = puppet.ok("fork")
    fd = puppet.ok("init")
    for folder in folders[:5]:
        puppet.ok("add", fd, folder)
    case.agreed((child, fd))
    puppet.tell("exit", 0)
    assert puppet.answer() == 0
    found = case.agreed()

    assert found.live(child) == 0
    assert_removed(found.removed, closed=5)


def test_an_exec_closes_what_is_close_on_exec(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    closed, kept = puppet.ok("init"), puppet.ok("init", 0)
    for folder in folders[:5]:
        puppet.ok("add", closed, folder)
        puppet.ok("add", kept, folder)
    puppet.ok("exec")
    found = case.agreed((puppet.pid, kept))

    assert found.live(puppet.pid) == 5
    assert_removed(found.removed, closed=5)


def test_what_the_exec_of_a_child_closes_stays_with_its_parent(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0])
    child = puppet.ok("fork")
    assert (child, fd) in case.agreed((puppet.pid, fd)).holders()
    puppet.ok("exec")

    assert case.agreed((puppet.pid, fd)).holders() == {(puppet.pid, fd)}


def test_a_thread_with_its_own_descriptors_is_read_too(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    thread = puppet.ok("table")
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0])
    assert not os.path.exists(f"/proc/{puppet.pid}/fd/{fd}")
    assert case.agreed((thread, fd)).live(puppet.pid) == 1

    puppet.tell("end")
    assert puppet.answer() == 0
    # joining waits for less than the end: the descriptors are closed a moment later
    until(lambda: not os.path.exists(f"/proc/{puppet.pid}/task/{thread}"), "the end of the thread")
    assert_removed(case.agreed().removed, closed=1)


# --- sockets ---


def test_a_received_instance_is_the_one_that_was_sent(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN an instance in flight WHEN its sender closed it THEN it can be received, and grows."""
    here, there = divmod(puppet.ok("socketpair"), 1000)
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0])
    puppet.ok("send", here, fd)
    puppet.ok("close", fd)
    child = puppet.ok("fork")
    received = puppet.ok("receive", there)
    puppet.ok("add", received, folders[1])
    found = case.agreed((child, received))

    assert found.added == 2
    assert found.holders() == {(child, received)}
    assert (found.live(puppet.pid), found.live(child)) == (1, 1)


def test_an_instance_in_flight_goes_with_both_ends_of_its_socket(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    here, there = divmod(puppet.ok("socketpair"), 1000)
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0])
    puppet.ok("send", here, fd)
    puppet.ok("close", fd)
    puppet.ok("close", here)
    puppet.ok("close", there)
    found = case.agreed()

    assert found.report["instances"] == []
    assert_removed(found.removed, closed=1)


def test_what_was_in_flight_at_one_look_is_live_at_the_next(
    case: Case, session: Session, puppet: Puppet, folders: list[Path]
) -> None:
    here, there = divmod(puppet.ok("socketpair"), 1000)
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0])
    puppet.ok("send", here, fd)
    puppet.ok("close", fd)
    # no descriptor leads to its fdinfo now
    session.finish()
    received = puppet.ok("receive", there)
    puppet.ok("add", received, folders[1])

    assert case.agreed((puppet.pid, received)).live(puppet.pid) == 2
