"""The list from /proc against that by the iterator, and what is particular to it."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple

import pytest
from agreement import Way, tracing
from harness import Puppet

from tracer.cli.outcome import Reporting
from tracer.core.events import CallEvent, Instance
from tracer.core.rows import Rows
from tracer.core.verdict import Verdict
from tracer.core.walk import Walk
from tracer.core.wire import Reading, decode
from tracer.errors import EXIT_INCONCLUSIVE
from tracer.kernel import proc_list
from tracer.kernel.fdinfo import read_watches
from tracer.kernel.probe import Probe, Scope
from tracer.kernel.proc_list import ProcList
from tracer.kernel.ring import records
from tracer.kernel.stream import Stream
from tracer.kernel.walk import KernelList
from tracer.session import Session

pytestmark = pytest.mark.usefixtures("root")

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWUSER = 0x10000000
# bpf/ask.c
_SLOTS_A_QUESTION = 512
_MASKS = (0x100, 0xFFF, 0x80000100, 0x04000100, 0x01000100)


class Lists(NamedTuple):
    """Both ways to the list through one attached probe."""

    bpf: Any
    iterator: KernelList
    proc: ProcList
    stream: Stream


@pytest.fixture(scope="module")
def lists(root: None) -> Iterator[Lists]:
    with Probe(Scope()) as probe:
        stream = Stream(probe, lambda _: None)
        probe.attach()
        both = Lists(probe.bpf, KernelList(probe.bpf), ProcList(probe.bpf, ""), stream)
        yield both
        both.proc.close()
        both.iterator.close()
        stream.close()


def _told_of(walk: Walk, pids: set[int]) -> dict[Instance, Any]:
    """All that a walk tells of the instances these hold, but for its time and where inodes are."""
    return {
        key: (
            sorted(walked.holders),
            walked.queue.length,
            walked.payers,
            None
            if walked.watches is None
            else {wd: (watch.target, watch.mask) for wd, watch in walked.watches},
        )
        for key, walked in walk.instances.items()
        if pids & {holder.process.pid for holder in walked.holders}
    }


def _holders(rows: Rows, pids: set[int]) -> set[tuple[int, int, int, Instance]]:
    return {(row.tgid, row.tid, row.fd, row.instance) for row in rows.holders if row.tgid in pids}


# --- the same as the iterator ---


@pytest.mark.kernels
def test_both_tell_the_same_of_watches(lists: Lists, puppet: Puppet, folders: list[Path]) -> None:
    """GIVEN instances with every kind of mask, of /proc and /sys, and with none THEN equal."""
    fd = puppet.ok("init")
    puppet.ok("init")
    for folder, mask in zip(folders, _MASKS):
        puppet.ok("add", fd, folder, mask)
    for path in ("/proc", "/sys"):
        puppet.ok("add", fd, Path(path), 0x100)
    (folders[0] / "new").touch()

    told = _told_of(lists.proc.walk(), {puppet.pid})

    assert told == _told_of(lists.iterator.walk(), {puppet.pid})
    assert sorted((queued, len(watches)) for _, queued, _, watches in told.values()) == [
        (0, 0),
        (1, len(_MASKS) + 2),
    ]


@pytest.mark.kernels
def test_both_tell_the_same_of_many_watches(lists: Lists, puppet: Puppet, tmp_path: Path) -> None:
    puppet.ok("many", puppet.ok("init"), tmp_path, 5003)

    told = _told_of(lists.proc.walk(), {puppet.pid})

    assert told == _told_of(lists.iterator.walk(), {puppet.pid})
    assert [len(watches) for *_, watches in told.values()] == [5003]


@pytest.mark.kernels
def test_both_tell_the_same_of_holders(lists: Lists, puppet: Puppet, folders: list[Path]) -> None:
    """GIVEN a duplicate, a child and a thread with a table of its own THEN equal rows."""
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0])
    puppet.ok("dup", fd)
    child = puppet.ok("fork")
    thread = puppet.ok("table")
    own = puppet.ok("init")
    pids = {puppet.pid, child}

    found = _holders(lists.proc.rows(), pids)

    assert found == _holders(lists.iterator.rows(), pids)
    assert len({instance for *_, instance in found}) == 2
    assert (child, thread, own) in {row[:3] for row in found}
    assert len(found) == 2 + 2 + 3
    assert _told_of(lists.proc.walk(), pids) == _told_of(lists.iterator.walk(), pids)


@pytest.mark.kernels
def test_both_tell_the_same_of_a_large_table(lists: Lists, puppet: Puppet) -> None:
    """GIVEN more files than one question looks at WHEN walked THEN the one behind them is found."""
    first = puppet.ok("init")
    for _ in range(_SLOTS_A_QUESTION + 11):
        puppet.ok("dup", 0)
    last = puppet.ok("init")

    found = _holders(lists.proc.rows(), {puppet.pid})

    assert {fd for _, _, fd, _ in found} == {first, last}
    assert found == _holders(lists.iterator.rows(), {puppet.pid})


@pytest.mark.kernels
def test_both_tell_the_same_of_who_pays(lists: Lists, tmp_path: Path) -> None:
    """GIVEN a watch in a user namespace of its own WHEN walked THEN both users are told."""
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        _LIBC.unshare(_CLONE_NEWUSER)
        fd = _LIBC.inotify_init1(os.O_CLOEXEC)
        _LIBC.inotify_add_watch(fd, os.fsencode(tmp_path), 0x100)
        os.write(ready[1], b".")
        os.read(done[0], 1)
        os._exit(0)
    try:
        assert os.read(ready[0], 1) == b"."
        by_proc, by_iterator = lists.proc.walk(), lists.iterator.walk()
        inner = os.stat(f"/proc/{child}/ns/user").st_ino
    finally:
        os.write(done[1], b".")
        assert os.waitpid(child, 0) == (child, 0)
        for end in (*ready, *done):
            os.close(end)

    told = _told_of(by_proc, {child})
    assert told == _told_of(by_iterator, {child})
    ((_, _, payers, _),) = told.values()
    assert [userns for userns, _ in payers] == [inner, os.stat("/proc/self/ns/user").st_ino]
    own = [user for user in by_proc.users if user.userns == inner]
    assert own == [user for user in by_iterator.users if user.userns == inner]
    assert [(user.watches, user.instances) for user in own] == [(1, 1)]


def test_without_kcmp_a_thread_is_no_second_holder(
    lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proc_list, "shares_files", lambda pid, tid: False)
    fd = _LIBC.inotify_init1(os.O_CLOEXEC)
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        ((holders, *_),) = _told_of(lists.proc.walk(), {os.getpid()}).values()
    finally:
        end.set()
        thread.join()
        os.close(fd)

    assert [(holder.process.pid, holder.fd) for holder in holders] == [(os.getpid(), fd)]


def test_a_walk_ends_where_processes_never_stop_to_come(
    lists: Lists, puppet: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a new pid at every look WHEN walked THEN it ends, with all that was there before."""
    fd = puppet.ok("init")
    looks: list[int] = []

    def with_another() -> list[int]:
        assert len(looks) < 100, "it never ends"
        # of processes that have ended again
        looks.append(2**30 + len(looks))
        return [puppet.pid, *looks]

    monkeypatch.setattr(proc_list, "running_pids", with_another)

    assert {row[2] for row in _holders(lists.proc.rows(), {puppet.pid})} == {fd}
    assert len(looks) > 1


# --- what it leaves alone ---


@pytest.mark.kernels
def test_a_walk_keeps_nothing_open(lists: Lists, puppet: Puppet, folders: list[Path]) -> None:
    """GIVEN a walk WHEN the owner closes its instance THEN it is gone: nobody else held it."""
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0])
    before = sorted(os.listdir("/proc/self/fd"))
    (key,) = _told_of(lists.proc.walk(), {puppet.pid})
    assert sorted(os.listdir("/proc/self/fd")) == before

    puppet.ok("close", fd)

    assert key not in lists.proc.walk().instances
    assert key not in lists.iterator.walk().instances


def test_no_instance_is_duplicated_while_it_is_read(
    lists: Lists, puppet: Puppet, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a walk at its reading WHEN we look at our own descriptors THEN none is an instance."""
    puppet.ok("add", puppet.ok("init"), folders[0])
    links = []

    def look(tid: int, fd: int) -> Any:
        links.extend(_own_links())
        return read_watches(tid, fd)

    monkeypatch.setattr(proc_list, "read_watches", look)
    lists.proc.walk()

    assert f"/proc/{puppet.pid}" in links
    assert "anon_inode:inotify" not in links


def _own_links() -> Iterator[str]:
    for name in os.listdir("/proc/self/fd"):
        try:
            yield os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            # the one that listed
            continue


@pytest.mark.kernels
def test_our_own_calls_are_not_told(lists: Lists, puppet: Puppet) -> None:
    """GIVEN a list opened and walked while others are traced THEN only those have events."""
    _callers(lists.stream)
    puppet.ok("init")
    listed = ProcList(lists.bpf, "")
    listed.walk()
    listed.close()

    callers = _callers(lists.stream)

    assert puppet.pid in callers
    assert os.getpid() not in callers


def _callers(stream: Stream) -> set[int]:
    """Whose calls came since the last time."""
    assert stream.wait_drained(time.monotonic_ns())
    callers = set()
    while contents := stream.take().contents:
        events = [decode(record) for each in contents for record in records(each)]
        callers |= {event.caller.process.pid for event in events if isinstance(event, CallEvent)}
    return callers


# --- what cannot be read ---


@pytest.mark.kernels
def test_a_descriptor_reused_while_it_is_read_is_not_taken_for_the_first(
    lists: Lists, puppet: Puppet, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN another instance under the same number WHEN its fdinfo is read THEN it is not told."""
    fd = puppet.ok("init")

    def reopen_and_read(tid: int, number: int) -> Any:
        if tid == puppet.pid:
            puppet.ok("close", fd)
            assert puppet.ok("init") == fd
            puppet.ok("add", fd, folders[0])
        return read_watches(tid, number)

    monkeypatch.setattr(proc_list, "read_watches", reopen_and_read)
    rows = lists.proc.rows()

    assert [row.reading for row in rows.holders if row.tgid == puppet.pid] == [Reading.TORN]


def test_refused_fdinfo_is_said_and_nothing_invented(
    puppet: Puppet, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a security module that keeps fdinfo from us WHEN traced THEN it is inconclusive."""

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(proc_list, "read_watches", refuse)
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0])
    with tracing(puppet.pid, truth="fdinfo") as session:
        puppet.ok("add", fd, folders[1])
        report = session.finish()

    assert not report.trace.complete
    assert Reporting(fail_on=Verdict.LEAK).exit_code(report) == EXIT_INCONCLUSIVE
    # of the two only that is known which was seen being added
    assert [instance.watches for instance in report.instances] == [1]


# --- a session with it ---


@pytest.mark.kernels
def test_the_report_says_where_the_list_came_from(
    session: Session, request: pytest.FixtureRequest
) -> None:
    way: Way = request.node.callspec.params["session"]

    assert session.finish().host.truth == way.truth
    assert bool(session.refusal) == (way.truth == "fdinfo")


def test_what_changes_before_the_first_walk_is_baseline(
    puppet: Puppet, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN probes that already trace WHEN an old watch is updated before the walk THEN so told."""
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0])
    walk = ProcList.walk

    def update_and_walk(listed: ProcList) -> Walk:
        puppet.ok("add", fd, folders[0], 0x200)
        return walk(listed)

    monkeypatch.setattr(ProcList, "walk", update_and_walk)
    with tracing(puppet.pid, truth="fdinfo") as session:
        report = session.finish()

    assert (report.trace.added, report.baseline) == (0, 1)
    assert report.trace.updated >= 1


def test_a_user_without_instances_left_can_still_be_traced(
    lists: Lists, puppet: Puppet, start_puppet: Callable[..., Puppet]
) -> None:
    puppet.ok("init")
    own = [user for user in lists.iterator.walk().users if user.uid == os.getuid()]
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    before = limit.read_text()
    limit.write_text(str(min(user.instances for user in own)))
    try:
        with Probe(Scope()) as probe:
            stream = Stream(probe, lambda _: None)
            probe.attach()
            listed = ProcList(probe.bpf, "")
            held = _holders(listed.rows(), {puppet.pid})
            listed.close()
            stream.close()
    finally:
        limit.write_text(before)
    assert len(held) == 1
