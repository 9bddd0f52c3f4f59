"""Watches that go without a call are seen as they go."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from agreement import Case, by_iterator
from harness import Puppet, kernel_watches_of, ledger_watches, until

from tracer import session as session_module
from tracer.core.cause import Cause
from tracer.kernel import probe
from tracer.kernel.hooks import Mode
from tracer.kernel.probe import Probe, Scope
from tracer.session import Filter, Session
from tracer.stacks.collector import Stacks

pytestmark = pytest.mark.usefixtures("root")

Removals = Callable[[], "dict[Cause, int]"]
IN_CREATE, IN_ONESHOT = 0x100, 0x80000000
_FAR_AWAY_S = 3600.0


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions whose timer does not come while the test lasts."""
    monkeypatch.setattr(session_module, "_WALK_EVERY_S", _FAR_AWAY_S)


@pytest.fixture
def puppet(traced_puppet: Puppet) -> Puppet:
    return traced_puppet


@pytest.fixture
def removals(session: Session, patient: None, case: Case) -> Removals:
    """Tells the removals since the start of the test, from which on no timer comes."""
    _needs_doorbell(session)
    before = Counter(session._ledger.totals.removed)
    return lambda: dict(Counter(session._ledger.totals.removed) - before)


def _needs_doorbell(session: Session) -> None:
    probe = session._feed.probe
    if probe.mode is Mode.TRACEPOINT and probe.doorbell is None:
        pytest.skip("no doorbell: fsnotify_mark_destroy_workfn is not in /proc/kallsyms")


def live_after_a_step(session: Session) -> int:
    session.step()
    return sum(ledger_watches(session).values())


def add_all(session: Session, puppet: Puppet, folders: list[Path], *mask: int) -> int:
    fd = puppet.ok("init")
    for folder in folders:
        puppet.ok("add", fd, folder, *mask)
    until(lambda: live_after_a_step(session) == len(folders), "the adds")
    return fd


@by_iterator
@pytest.mark.kernels
def test_a_deleted_folder_leaves_the_ledger_before_the_timer(
    session: Session, removals: Removals, puppet: Puppet, folders: list[Path]
) -> None:
    fd = add_all(session, puppet, folders)
    for folder in folders[:7]:
        folder.rmdir()
    until(lambda: live_after_a_step(session) == 16, "the removals")

    kernel = kernel_watches_of((puppet.pid, fd))
    assert {one.wd for one in ledger_watches(session)} == {one.wd for one in kernel}
    assert removals() == {Cause.DELETED: 7}


@by_iterator
@pytest.mark.kernels
def test_a_oneshot_watch_that_fired_leaves_before_the_timer(
    session: Session, removals: Removals, puppet: Puppet, folders: list[Path]
) -> None:
    add_all(session, puppet, folders[:5], IN_CREATE | IN_ONESHOT)
    for folder in folders[:3]:
        (folder / "new").touch()
    until(lambda: live_after_a_step(session) == 2, "the removals")

    assert removals() == {Cause.ONESHOT: 3}


@by_iterator
@pytest.mark.kernels
def test_an_unmounted_filesystem_takes_its_watches_before_the_timer(
    session: Session,
    removals: Removals,
    puppet: Puppet,
    folders: list[Path],
    mounted: Callable[..., Path],
) -> None:
    disk = mounted()
    for name in ("a", "b", "c"):
        (disk / name).mkdir()
    add_all(session, puppet, [disk / "a", disk / "b", disk / "c", folders[0]])
    subprocess.run(["umount", str(disk)], check=True)
    until(lambda: live_after_a_step(session) == 1, "the removals")

    assert removals() == {Cause.UNMOUNTED: 3}


@by_iterator
@pytest.mark.kernels
def test_a_closed_instance_leaves_before_the_timer(
    session: Session, removals: Removals, puppet: Puppet, folders: list[Path]
) -> None:
    fd = add_all(session, puppet, folders)
    puppet.ok("close", fd)
    until(lambda: live_after_a_step(session) == 0, "the end of the instance")

    assert removals() == {Cause.CLOSED: 23}
    assert not session._ledger.instances


@by_iterator
@pytest.mark.kernels
def test_a_removal_by_a_call_is_counted_once(
    session: Session, removals: Removals, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN calls that tell of their removals WHEN the kernel does too THEN it counts for one."""
    totals = session._ledger.totals
    before = totals.added
    fd = puppet.ok("init")
    for folder in folders:
        puppet.ok("balance", fd, folder)
    until(lambda: live_after_a_step(session) == 0 and totals.added == before + 23, "the calls")

    assert removals() == {Cause.RM_WATCH: 23}
    session.finish()
    assert removals() == {Cause.RM_WATCH: 23}


@by_iterator
@pytest.mark.kernels
def test_a_call_by_who_is_not_traced_is_a_removal(
    session: Session, removals: Removals, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN an instance shared with a child that is not traced WHEN the child removes a watch."""
    fd = add_all(session, puppet, folders[:3])
    puppet.ok("fork")
    puppet.ok("comm", b"of another name")
    puppet.ok("rm", fd, 2)
    until(lambda: live_after_a_step(session) == 2, "the removal")

    # nobody can know of the call who only sees those of the traced
    is_seen = session._feed.probe.mode is not Mode.TRACEPOINT
    assert removals() == {Cause.RM_WATCH if is_seen else Cause.UNKNOWN: 1}


# --- the doorbell ---


@pytest.fixture
def with_doorbell(puppet: Puppet, patient: None) -> Iterator[Session]:
    filter_ = Filter(frozenset({puppet.pid}))
    with Session(filter_, Stacks(), older_s=0.0, mode=Mode.TRACEPOINT) as session:
        _needs_doorbell(session)
        yield session


def test_the_doorbell_makes_walks_no_more_frequent_than_their_share(
    with_doorbell: Session, monkeypatch: pytest.MonkeyPatch, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN a doorbell that rings all the time THEN walks and their work take a fiftieth."""
    session = with_doorbell
    add_all(session, puppet, folders)
    monkeypatch.setattr(session._feed, "rang_since", lambda _: True)
    began, worked = time.monotonic(), time.thread_time()
    walks = 0
    while walks < 10:
        before = session._walked_at
        session.step()
        walks += session._walked_at != before
    elapsed, worked = time.monotonic() - began, time.thread_time() - worked

    assert elapsed >= 9 * session_module._WALK_SOONEST_S
    assert worked < elapsed


def test_a_doorbell_that_is_silent_makes_no_walk(
    with_doorbell: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = with_doorbell
    walked = session._walked_at
    monkeypatch.setattr(session._feed, "rang_since", lambda _: False)
    until(lambda: time.monotonic() > session._soonest_walk, "the time for a walk")
    session.step()

    assert session._walked_at == walked


def test_the_doorbell_tells_when_it_rang(
    with_doorbell: Session, puppet: Puppet, folders: list[Path]
) -> None:
    feed = with_doorbell._feed
    doorbell = feed.probe.doorbell
    assert doorbell is not None
    puppet.ok("add", puppet.ok("init"), folders[0])
    removed_at = time.monotonic_ns()
    folders[0].rmdir()
    until(lambda: doorbell.rang_at() >= removed_at, "the ring")

    assert doorbell.rang_at() <= time.monotonic_ns()
    assert feed.rang_since(removed_at)
    assert not feed.rang_since(time.monotonic_ns())


def test_without_the_workers_address_there_is_no_doorbell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "WORKER", "no_such_function")
    with Probe(Scope(), Mode.TRACEPOINT) as traced:
        assert traced.doorbell is None
