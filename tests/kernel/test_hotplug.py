"""Processors that come, go, or cannot be listened to, as far as the buffers know."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Puppet, kernel_watches_of, ledger_watches, site_of, until

from tracer.core.report import Report
from tracer.errors import InotraceError
from tracer.kernel import stream
from tracer.kernel.ring import Ring
from tracer.session import Filter, Session
from tracer.stacks.collector import Stacks
from tracer.views.json_report import report_object

pytestmark = pytest.mark.usefixtures("root")


class Machine:
    """Which processors are listed as online, and which of those refuse a buffer."""

    def __init__(self) -> None:
        self.first, self.second = sorted(os.sched_getaffinity(0))[:2]
        self.online = {self.first, self.second}
        self.refusing: set[int] = set()
        self.refusals = 0

    def open(self, cpu: int, pages: int) -> Ring:
        if cpu in self.refusing:
            self.refusals += 1
            raise InotraceError(f"cannot open the buffer of CPU {cpu}: No such device")
        return Ring(cpu, pages)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Two of the processors, however many there are."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    made = Machine()
    monkeypatch.setattr(stream, "online_cpus", lambda: frozenset(made.online))
    monkeypatch.setattr(stream, "Ring", made.open)
    yield made


def _traced(puppet: Puppet, cpu: int) -> Session:
    os.sched_setaffinity(puppet.pid, {cpu})
    return Session(Filter(frozenset({puppet.pid})), Stacks(), older_s=0.0)


def _all_were_told(session: Session, puppet: Puppet, fd: int) -> Report:
    report = session.finish()
    assert report.conclusive
    assert ledger_watches(session) == kernel_watches_of((puppet.pid, fd))
    shown = report_object(report)
    assert site_of(shown, "leak_secret")["live"] == report.live
    return report


def _perf_events() -> int:
    """How many this process holds open."""
    with os.scandir("/proc/self/fd") as entries:
        return sum("perf_event" in _link(entry) for entry in entries)


def _link(entry: os.DirEntry[str]) -> str:
    try:
        return os.readlink(entry.path)
    except FileNotFoundError:
        # closed meanwhile
        return ""


def test_a_cpu_that_refuses_a_buffer_gets_one_later(
    machine: Machine, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN a CPU that came and refuses WHEN it tells meanwhile and later THEN nothing is lost."""
    machine.online = {machine.first}
    with _traced(puppet, machine.second) as session:
        rings = session._feed._stream._rings
        fd = puppet.ok("init")
        machine.refusing = {machine.second}
        machine.online = {machine.first, machine.second}
        until(lambda: machine.refusals > 1, "another try")
        puppet.ok("leak", fd, folders[0])
        refused = session._feed.probe.counters().lost

        machine.refusing = set()
        until(lambda: len(rings) == 2, "a buffer for the CPU that came")
        puppet.ok("leak", fd, folders[1])
        report = _all_were_told(session, puppet, fd)

    assert (refused, report.trace.lost, report.trace.healed) == (2, 2, 2)
    assert report.live == 2


def test_what_a_cpu_told_before_it_went_is_read_however_much_waits(
    machine: Machine, puppet: Puppet, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a backlog that stops the draining WHEN a CPU goes THEN its calls are still told."""
    with _traced(puppet, machine.second) as session:
        its_stream = session._feed._stream
        fd = puppet.ok("init")
        room = stream._BACKLOG_BYTES_MAX
        monkeypatch.setattr(stream, "_BACKLOG_BYTES_MAX", -1)
        # a round that is under way may still drain
        until(
            lambda: not its_stream.wait_drained(time.monotonic_ns(), timeout=0.1),
            "the end of draining",
        )
        puppet.ok("leak", fd, folders[0])
        machine.online = {machine.first}
        until(lambda: len(its_stream._rings) == 1, "the end of the buffer")
        monkeypatch.setattr(stream, "_BACKLOG_BYTES_MAX", room)
        report = _all_were_told(session, puppet, fd)

    assert (report.live, report.trace.lost) == (1, 0)


def test_a_cpu_that_goes_before_its_buffer_is_opened_needs_none(
    machine: Machine, puppet: Puppet, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a CPU that goes between the list and its buffer WHEN started THEN the rest is read."""
    machine.refusing = {machine.second}
    looks = iter([frozenset(machine.online)])
    monkeypatch.setattr(stream, "online_cpus", lambda: next(looks, frozenset({machine.first})))
    with _traced(puppet, machine.first) as session:
        fd = puppet.ok("init")
        puppet.ok("leak", fd, folders[0])
        report = _all_were_told(session, puppet, fd)

    assert (machine.refusals, report.live, report.trace.lost) == (1, 1, 0)


def test_a_trace_does_not_start_without_the_buffer_of_a_cpu(
    machine: Machine, puppet: Puppet
) -> None:
    """GIVEN a CPU that is there WHEN it refuses at the start THEN that is said, and all closed."""
    before = _perf_events()
    machine.refusing = {machine.second}

    with pytest.raises(InotraceError, match=f"CPU {machine.second}"):
        _traced(puppet, machine.first)
    assert _perf_events() == before


def test_a_cpu_whose_second_buffer_is_refused_keeps_none(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a CPU with one buffer of two WHEN looked at again and again THEN nothing piles up."""
    tries = 0

    def open_the_large_one(cpu: int, pages: int) -> Ring:
        nonlocal tries
        if cpu == machine.second and pages == stream._FEW_PAGES:
            tries += 1
            raise InotraceError("cannot lock")
        return Ring(cpu, pages)

    monkeypatch.setattr(stream, "Ring", open_the_large_one)
    machine.online = {machine.first}
    with Session(Filter(), Stacks(), older_s=0.0, follow=True):
        before = _perf_events()
        machine.online = {machine.first, machine.second}
        until(lambda: tries > 2, "another try")
        machine.online = {machine.first}
        until(lambda: _perf_events() == before, "the end of what was opened")
