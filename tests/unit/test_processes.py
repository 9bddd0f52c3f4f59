"""What is known of processes: read once, and never again after they ended."""

from __future__ import annotations

import os

import pytest

from tracer.core.events import Process
from tracer.kernel.procfs import ProcessFacts, read_process
from tracer.targets import processes
from tracer.targets.processes import ProcessTable

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Proc:
    """A /proc of its own, which counts how often it is read."""

    def __init__(self) -> None:
        self.births: dict[int, int] = {}
        self.readings = 0

    def start(self, pid: int, birth: int) -> Process:
        self.births[pid] = birth
        return Process(pid, birth * _TICK_NS)

    def read(self, pid: int) -> ProcessFacts | None:
        self.readings += 1
        birth = self.births.get(pid)
        return None if birth is None else ProcessFacts(pid, birth, 0, b"%d" % birth, None, ())

    def pids(self) -> list[int]:
        return sorted(self.births)


@pytest.fixture
def proc(monkeypatch: pytest.MonkeyPatch) -> Proc:
    fake = Proc()
    monkeypatch.setattr(processes, "read_process", fake.read)
    monkeypatch.setattr(processes, "running_pids", fake.pids)
    return fake


def test_facts_are_read_once_and_outlive_the_process(proc: Proc) -> None:
    table, process = ProcessTable(), proc.start(7, 23)
    first = table.get(process)
    proc.births.clear()

    assert first is not None
    assert first.comm == b"23"
    assert table.get(process) is first
    assert proc.readings == 1


def test_a_later_owner_of_the_pid_is_another_process(proc: Proc) -> None:
    table, process = ProcessTable(), proc.start(7, 23)
    later = proc.start(7, 29)

    assert table.get(process) is None
    facts = table.get(later)
    assert facts is not None
    assert facts.comm == b"29"


def test_no_number_of_ended_processes_is_read_twice(proc: Proc) -> None:
    """GIVEN more processes than facts are kept of WHEN all are asked for again THEN none is read"""
    table = ProcessTable()
    ended = [Process(i, i * _TICK_NS) for i in range(1, 30_001)]
    for process in ended:
        assert table.get(process) is None
    assert proc.readings == 30_000

    for process in ended:
        assert table.get(process) is None
    assert proc.readings == 30_000


def test_what_is_asked_for_is_not_what_is_forgotten(
    proc: Proc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_KNOWN_MAX", 3)
    table = ProcessTable()
    wanted = proc.start(7, 23)
    for pid in range(100, 123):
        table.get(wanted)
        table.get(proc.start(pid, pid))
    table.get(wanted)

    assert proc.readings == 1 + 23


def test_who_has_ended_is_known_without_a_reading(proc: Proc) -> None:
    table = ProcessTable()
    runs, ended, replaced = proc.start(7, 23), Process(8, 1), proc.start(9, 23)
    table.get(runs)
    proc.start(9, 29)
    table.meet(9)
    before = proc.readings

    assert table.ended([runs, ended]) == [ended]
    assert table.get(ended) is None
    assert proc.readings == before
    assert table.ended([ended, replaced, runs]) == [ended, replaced]


def test_this_process_runs() -> None:
    facts = read_process(os.getpid())
    assert facts is not None
    this = Process(facts.pid, facts.birth_ticks * _TICK_NS)

    assert ProcessTable().ended([this]) == []
