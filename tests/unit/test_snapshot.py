"""From the ledger to a report, for processes that are all gone."""

from __future__ import annotations

import pytest
from build import (
    AGENT,
    ANOTHER_STACK,
    FIRST,
    SECOND,
    STACK,
    add,
    failed,
    init,
    last,
    rm,
    walk,
    walked,
)

from tracer.core.accounts import Cause
from tracer.core.events import Op, Process
from tracer.core.ledger import Ledger
from tracer.core.report import Report
from tracer.core.stack import missing
from tracer.core.verdict import Verdict
from tracer.targets import processes

pytest.importorskip("bcc")
from tracer.kernel.probe import Counters
from tracer.kernel.procfs import ProcessFacts
from tracer.snapshot import Snapshots

_NOTHING_LOST = Counters(*[0] * len(Counters._fields))
# above every pid there can be
_PIDS = 1 << 22


def _snapshots(ledger: Ledger) -> Snapshots:
    table = processes.ProcessTable()
    return Snapshots(ledger, table, older_s=0, mode="kprobe", truth="iterator")


def _judged(ledger: Ledger, asked_at: int = 1 << 62) -> Report:
    return _snapshots(ledger).judged(_NOTHING_LOST, complete=True, asked_at=asked_at)


def _ledger_of(number: int) -> Ledger:
    """As many processes, each adds and removes a watch and fails once; one watch is left."""
    ledger = Ledger()
    stack = missing("the process ended before its symbols could be read")
    for i in range(number):
        who = {"process": Process(_PIDS + i, i), "instance": FIRST._replace(gen=1_000 + i)}
        ledger.apply(init(1_000 + i, **who), stack)
        ledger.apply(add(1_000 + i, 1, **who), stack)
        ledger.apply(rm(1_001 + i, 1, **who), stack)
        ledger.apply(failed(Op.ADD, 1_002 + i, 2, **who), stack)
    ledger.apply(add(1_003, 1, process=AGENT, comm=b"left"), STACK)
    return ledger


def test_ended_processes_are_few_and_their_sums_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    GIVEN 30,000 processes that have ended
    WHEN a walk tells that they hold nothing
    THEN the latest 1,024 are told apart, and nothing is missing in the sums
    """
    ledger = _ledger_of(30_000)
    snapshots = _snapshots(ledger)
    look = walk(walked([1], SECOND + 3), began=SECOND)
    ledger.reconcile(look)
    snapshots.saw(look)
    monkeypatch.setattr(processes, "read_process", lambda _: pytest.fail("read again"))
    report = snapshots.live(_NOTHING_LOST)

    assert len(report.processes) == 1024 + 1
    assert max(process.pid for process in report.processes) == _PIDS + 29_999
    (row,) = report.ended
    assert (row.comm, row.processes) == (b"agent", 30_000 - 1024)
    rows = (*report.processes, *report.ended)
    assert sum(row.added for row in rows) == report.trace.added == 30_001
    assert sum(row.failed for row in rows) == report.trace.failed == 30_000
    assert sum(row.removed.get(Cause.RM_WATCH, 0) for row in rows) == 30_000
    assert sum(failure.count for failure in report.failures) == 30_000
    assert len(report.failures) <= 1024 + 1
    assert len(ledger.accounts.sites) <= 2 * (1024 + 1) + 1
    judged = snapshots.judged(_NOTHING_LOST, complete=True, asked_at=1 << 62)
    assert sum(site.added for site in judged.sites) == 30_001


def test_who_still_runs_is_told_apart_however_many_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def running(pid: int) -> ProcessFacts:
        return ProcessFacts(pid, birth_ticks=0, uid=0, comm=b"agent", exe=None, cmdline=())

    ledger = _ledger_of(1_500)
    snapshots = _snapshots(ledger)
    monkeypatch.setattr(processes, "running_pids", lambda: list(range(_PIDS, _PIDS + 1_500)))
    monkeypatch.setattr(processes, "read_process", running)
    look = walk(walked([1], SECOND + 3), began=SECOND)
    ledger.reconcile(look)
    snapshots.saw(look)

    assert len(ledger.idle()) == 1_500
    assert ledger.accounts.ended == {}


def test_unseen_watches_that_the_exit_freed_are_an_unsure_site() -> None:
    ledger = Ledger(keep_freed_by_exit=True)
    ledger.reconcile(walk(began=900))
    ledger.reconcile(walk(walked([1, 2], 1_003), began=1_000))
    ledger.apply_last(last(1_500, [1, 2]))
    ledger.reconcile(walk(began=2_000))

    report = _judged(ledger)

    (site,) = report.sites_with(Verdict.INCONCLUSIVE)
    assert (site.live, site.added, site.pids) == (2, 0, (AGENT.pid,))
    assert [evidence.kind for evidence in site.evidence] == ["unseen", "freed_only_by_exit"]
    assert site.evidence[1].text == "all were freed only by the exit of the process"
    assert report.conclusive
    assert report.live == 2


def test_unseen_watches_that_are_there_were_not_freed() -> None:
    ledger = Ledger()
    ledger.reconcile(walk(began=900))
    ledger.reconcile(walk(walked([1], 1_003), began=1_000))

    (site,) = _judged(ledger).sites
    assert [evidence.kind for evidence in site.evidence] == ["unseen"]


def test_a_truncated_exit_of_an_unknown_instance_is_inconclusive() -> None:
    ledger = Ledger(keep_freed_by_exit=True)
    ledger.apply_last(last(1_500, [1], truncated=True))

    assert not _judged(ledger).conclusive


def test_ids_of_places_do_not_change_with_names_processes_and_traces() -> None:
    def ids(comm: bytes, process: Process) -> set[str]:
        ledger = Ledger()
        ledger.apply(add(111, 1, comm=comm, process=process), STACK)
        ledger.apply(add(112, 2, comm=comm, process=process), ANOTHER_STACK)
        return {site.id for site in _judged(ledger).sites}

    first = ids(b"agent", AGENT)
    assert len(first) == 2
    assert ids(b"renamed", Process(_PIDS, 29)) == first


def test_who_never_called_is_summed_up_by_the_name_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """GIVEN a process that holds what was there before WHEN it ended THEN its name is known."""
    daemon = ProcessFacts(_PIDS, birth_ticks=0, uid=0, comm=b"daemon", exe=None, cmdline=())
    monkeypatch.setattr(processes, "read_process", lambda _: daemon)
    ledger = Ledger()
    snapshots = _snapshots(ledger)
    for look in (
        walk(walked([1], 1_003, process=Process(_PIDS, 1)), began=1_000),
        walk(began=2_000),
    ):
        ledger.reconcile(look)
        snapshots.saw(look)
    ledger.fold(ledger.idle())

    assert list(ledger.accounts.ended) == [b"daemon"]


def test_a_trace_ends_when_its_end_was_asked_for() -> None:
    """GIVEN a place that grew to the end WHEN verified for long THEN that is no plateau."""
    ledger = Ledger()
    ledger.apply(init(1_000, fd=3), STACK)
    for wd in range(1, 24):
        ledger.apply(add(1_000 + wd, wd), STACK)

    (site,) = _judged(ledger, asked_at=1_024).sites
    assert site.verdict is Verdict.LEAK
    (later,) = _judged(ledger, asked_at=2_000).sites
    assert later.verdict is Verdict.HELD
