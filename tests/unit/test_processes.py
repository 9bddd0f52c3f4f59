"""What is known of processes: read once, and never again after they ended."""

from __future__ import annotations

import os

import pytest

from tracer.core.events import Process
from tracer.kernel.procfs import ProcessFacts, read_process
from tracer.targets import processes
from tracer.targets.cgroups import parse_memberships
from tracer.targets.processes import ProcessTable, is_running

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class Proc:
    """A /proc of its own, which counts how often it is read."""

    def __init__(self) -> None:
        self.births: dict[int, int] = {}
        self.families: dict[int, tuple[int, int]] = {}
        self.readings = 0

    def start(self, pid: int, birth: int, parent: int = 0, session: int = 0) -> Process:
        self.births[pid] = birth
        self.families[pid] = parent, session
        return Process(pid, birth * _TICK_NS)

    def read(self, pid: int) -> ProcessFacts | None:
        self.readings += 1
        birth = self.births.get(pid)
        if birth is None:
            return None
        parent, session = self.families[pid]
        return ProcessFacts(pid, birth, 0, b"%d" % birth, None, (), parent, session)

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


# --- orphans ---


@pytest.fixture
def family(proc: Proc) -> Proc:
    """init, a shell that leads a session, and a subreaper in it."""
    proc.start(1, 1, parent=0, session=1)
    proc.start(100, 2, parent=1, session=100)
    proc.start(101, 2, parent=100, session=100)
    return proc


def test_a_child_of_who_runs_is_no_orphan(family: Proc) -> None:
    child = family.start(7, 23, parent=100, session=100)
    assert not ProcessTable().is_orphan(child)


def test_a_child_that_was_handed_to_another_is_one(family: Proc) -> None:
    """GIVEN one met with its parent WHEN that ends THEN it is told by the parent it has now."""
    table, child = ProcessTable(), family.start(7, 23, parent=100, session=100)
    table.get(child)
    assert not table.is_orphan(child)
    # a subreaper of the same session
    family.start(7, 23, parent=101, session=100)
    assert table.is_orphan(child)


def test_who_leads_a_session_is_one_only_if_its_parent_was_seen_to_change(family: Proc) -> None:
    table, daemon = ProcessTable(), family.start(7, 23, parent=100, session=7)
    assert not table.is_orphan(daemon)
    family.start(7, 23, parent=1, session=7)
    assert table.is_orphan(daemon)


def test_a_daemon_that_init_started_is_no_orphan(family: Proc) -> None:
    assert not ProcessTable().is_orphan(family.start(7, 23, parent=1, session=7))


def test_one_that_is_met_too_late_is_told_by_its_session(family: Proc) -> None:
    """GIVEN one that inotrace met after its parent had ended."""
    assert ProcessTable().is_orphan(family.start(7, 23, parent=1, session=100))


def test_init_threads_of_the_kernel_and_strangers_are_no_orphans(family: Proc) -> None:
    table = ProcessTable()
    assert not table.is_orphan(Process(1, _TICK_NS))
    family.start(2, 1, parent=0, session=0)
    assert not table.is_orphan(family.start(3, 1, parent=2, session=0))
    # its parent is of another pid namespace
    assert not table.is_orphan(family.start(7, 23, parent=0, session=5))
    # its parent ended while it was asked for
    assert not table.is_orphan(family.start(8, 23, parent=999, session=5))


def test_an_exec_does_not_make_the_parent_the_first_one(family: Proc) -> None:
    """GIVEN a process that is met again WHEN its parent has ended between THEN that is told."""
    table, child = ProcessTable(), family.start(7, 23, parent=100, session=100)
    table.meet(7)
    family.start(7, 23, parent=101, session=100)
    table.meet(7)

    assert table.is_orphan(child)
    family.births.pop(7)
    assert table.is_orphan(child)


def test_who_has_ended_is_as_last_seen(family: Proc) -> None:
    table = ProcessTable()
    child = family.start(7, 23, parent=100, session=100)
    orphan = family.start(8, 23, parent=1, session=100)
    table.is_orphan(child)
    table.is_orphan(orphan)
    for pid in (7, 8, 100):
        family.births.pop(pid)

    assert not table.is_orphan(child)
    assert table.is_orphan(orphan)
    assert not table.is_orphan(Process(9, 1))


def test_a_later_owner_of_the_pid_does_not_make_an_orphan(family: Proc) -> None:
    table, child = ProcessTable(), family.start(7, 23, parent=100, session=100)
    table.get(child)
    later = family.start(7, 29, parent=1, session=100)

    assert not table.is_orphan(child)
    assert table.is_orphan(later)


def test_asking_for_orphans_does_not_change_what_is_known(family: Proc) -> None:
    """GIVEN facts as first met WHEN the process is a zombie by now THEN they stay."""
    table, child = ProcessTable(), family.start(7, 23, parent=100, session=100)
    first = table.get(child)
    table.is_orphan(child)
    assert table.get(child) is first


def test_this_process_has_a_parent_and_a_session() -> None:
    facts = read_process(os.getpid())
    assert facts is not None
    assert (facts.parent, facts.session) == (os.getppid(), os.getsid(0))


def test_this_process_runs() -> None:
    facts = read_process(os.getpid())
    assert facts is not None
    this = Process(facts.pid, facts.birth_ticks * _TICK_NS)

    assert ProcessTable().ended([this]) == []
    assert is_running(this)
    assert not is_running(this._replace(birth=this.birth + 5 * _TICK_NS))
    assert not is_running(Process(1 << 22, 0))


def test_what_a_process_belongs_to_is_kept_from_when_it_was_met(
    proc: Proc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a process that is moved, and then ends THEN it is what it was."""
    cgroups = {7: b"0::/system.slice/a.service\n"}
    monkeypatch.setattr(processes, "memberships", lambda pid: parse_memberships(cgroups[pid]))
    monkeypatch.setattr(processes, "birth_ticks", proc.births.get)
    table, process = ProcessTable(belongings=True), proc.start(7, 23)
    table.meet(7)
    cgroups[7] = b"0::/system.slice/b.service\n"
    table.meet(7)
    proc.births.clear()

    belonging = table.belonging(process)
    assert belonging is not None and belonging.unit == "a.service"
    assert ProcessTable().belonging(process) is None

    later = proc.start(7, 29)
    belonging = table.belonging(later)
    assert belonging is not None and belonging.unit == "b.service"
    assert table.belonging(process) is None


def test_the_cgroup_of_a_later_owner_of_the_pid_is_not_that_of_the_process(
    proc: Proc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a process that ends, and another gets its pid, between two readings."""
    monkeypatch.setattr(processes, "memberships", lambda pid: parse_memberships(b"0::/b.service"))
    monkeypatch.setattr(processes, "birth_ticks", lambda pid: 29)
    table, process = ProcessTable(belongings=True), proc.start(7, 23)

    assert table.get(process) is not None
    assert table.belonging(process) is None
