"""From the ledger to a report, for processes that are all gone."""

from __future__ import annotations

import errno

import pytest
from build import (
    AGENT,
    ANOTHER_STACK,
    FIRST,
    OTHER,
    SECOND,
    STACK,
    add,
    closed,
    failed,
    init,
    last,
    rm,
    walk,
    walked,
)

from tracer.core.cause import Cause
from tracer.core.events import CallEvent, Instance, Op, Process
from tracer.core.ledger import Ledger
from tracer.core.report import HolderRow, Report, SiteRow, Unit
from tracer.core.stack import missing
from tracer.core.verdict import Verdict
from tracer.core.walk import UserUse, Walk
from tracer.targets import processes

pytest.importorskip("bcc")
from tracer.kernel.inodes import InodeState
from tracer.kernel.probe import Counters
from tracer.kernel.procfs import ProcessFacts
from tracer.snapshot import Snapshots

_NOTHING_LOST = Counters(*[0] * len(Counters._fields))
# above every pid there can be
_PIDS = 1 << 22
_OTHERS = Instance(0xFFFF888000002000, 101)


def _snapshots(ledger: Ledger) -> Snapshots:
    table = processes.ProcessTable()
    return Snapshots(
        ledger,
        table,
        older_s=0,
        mode="kprobe",
        truth="iterator",
        state_of=lambda _: InodeState.UNKNOWN,
    )


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
    read: list[int] = []
    monkeypatch.setattr(processes, "read_process", read.append)
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
    assert read == []
    judged = snapshots.judged(_NOTHING_LOST, complete=True, asked_at=1 << 62)
    assert sum(site.added for site in judged.sites if site.unit is Unit.WATCHES) == 30_001
    assert sum(site.added for site in judged.sites) == 30_001 + judged.trace.opened
    # only who has something left may be an orphan
    assert set(read) == {AGENT.pid}


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
    ledger.apply(init(SECOND, fd=3), STACK)
    for wd in range(1, 24):
        ledger.apply(add(wd * SECOND, wd), STACK)

    (site,) = _watches(_judged(ledger, asked_at=24 * SECOND))
    assert site.verdict is Verdict.LEAK
    (later,) = _watches(_judged(ledger, asked_at=200 * SECOND))
    assert later.verdict is Verdict.HELD


# --- rounds, instances and limits ---


def _watches(report: Report) -> list[SiteRow]:
    return [site for site in report.sites if site.unit is Unit.WATCHES]


def _instances(report: Report) -> list[SiteRow]:
    return [site for site in report.sites if site.unit is Unit.INSTANCES]


def _in_rounds(*numbers: int) -> Ledger:
    """As many watches are added in each round, of 10 s each."""
    ledger = Ledger()
    ledger.apply(init(1_000), STACK)
    wd = 0
    for number in range(len(numbers) + 1):
        ledger.begin_mark()
        ledger.mark(10 * SECOND * (number + 1))
        for _ in range(numbers[number] if number < len(numbers) else 0):
            wd += 1
            ledger.apply(add(10 * SECOND * (number + 1) + wd, wd), STACK)
    return ledger


def test_a_round_has_what_came_in_it_and_stayed() -> None:
    report = _judged(_in_rounds(5, 3, 3, 3), asked_at=60 * SECOND)

    (site,) = _watches(report)
    assert (site.verdict, site.per_round, site.live) == (Verdict.LEAK, (5, 3, 3, 3), 14)
    assert site.evidence[0].kind == "grows_each_round"
    # 9 in the 30 s after the first round
    assert site.per_hour == pytest.approx(9 * 120)
    (opened,) = _instances(report)
    assert (opened.verdict, opened.per_round) == (Verdict.HELD, (0, 0, 0, 0))
    assert report.trace.rounds == 4


def test_a_place_that_comes_in_a_later_round_had_nothing_before() -> None:
    (site,) = _watches(_judged(_in_rounds(0, 0, 3), asked_at=60 * SECOND))

    assert site.per_round == (0, 0, 3)


def test_live_counts_the_round_that_has_begun() -> None:
    snapshots = _snapshots(_in_rounds(3))
    ledger = Ledger()

    assert snapshots.live(_NOTHING_LOST).trace.rounds == 2
    assert _snapshots(ledger).live(_NOTHING_LOST).trace.rounds == 0
    assert _judged(ledger).trace.rounds == 0
    ledger.mark(100)
    assert _snapshots(ledger).live(_NOTHING_LOST).trace.rounds == 1
    assert _judged(ledger).trace.rounds == 0


def test_a_limit_that_was_met_is_told_with_who_has_it_all() -> None:
    ledger = Ledger()
    snapshots = _snapshots(ledger)
    ledger.apply(failed(Op.ADD, 1, errno.ENOENT), STACK)
    ledger.apply(_met(2), STACK)
    (row,) = snapshots.live(_NOTHING_LOST).failures

    assert row.errno == "ENOENT" and snapshots.has_new_failures

    snapshots.saw_all(_full_walk(AGENT, began=3))
    _, row = snapshots.live(_NOTHING_LOST).failures

    assert row.errno == "ENOSPC" and not snapshots.has_new_failures
    assert row.shortage is not None
    assert [(one.pid, one.watches) for one in row.shortage.holders] == [(AGENT.pid, 23)]


def test_who_had_it_all_is_kept_until_a_call_fails_again() -> None:
    """GIVEN a limit that others meet later WHEN nothing fails any more THEN who had it then."""
    ledger = Ledger()
    snapshots = _snapshots(ledger)

    def holders() -> list[int]:
        (row,) = snapshots.live(_NOTHING_LOST).failures
        assert row.shortage is not None
        return [one.pid for one in row.shortage.holders]

    ledger.apply(_met(1), STACK)
    snapshots.saw_all(_full_walk(AGENT, began=2))
    snapshots.saw_all(_full_walk(OTHER, began=3))
    assert holders() == [AGENT.pid]
    ledger.apply(_met(4), STACK)
    snapshots.saw_all(_full_walk(OTHER, began=5))
    assert holders() == [OTHER.pid]
    # a namespace that is gone with all who had something in it
    ledger.apply(_met(6), STACK)
    snapshots.saw_all(walk(began=7))
    assert holders() == [OTHER.pid]


def _met(ts: int) -> CallEvent:
    """A call of AGENT that met the limit of 23 watches in namespace 11."""
    return failed(Op.ADD, ts, errno.ENOSPC, inode=23 << 32 | 23, ino=11, dev=0)


def _full_walk(holder: Process, began: int) -> Walk:
    full = UserUse(0, 11, watches=23, watches_limit=23, instances=1, instances_limit=128)
    held = walked(range(1, 24), 1, process=holder)._replace(payers=((11, 0),))
    return walk(held, began=began, users=(full,))


def _leaking_instances(number: int, users: tuple[UserUse, ...] = ()) -> Snapshots:
    """One an hour, without a watch, all still open when a walk looks."""
    ledger = Ledger()
    keys = [Instance(0x1000 * (i + 1), 3_600 * SECOND * (i + 1)) for i in range(number)]
    for i, key in enumerate(keys):
        event = init(key.gen, fd=3 + i, instance=key, ino=_USERNS, dev=1000)
        ledger.apply(event, STACK)
    began = 3_600 * SECOND * number + 1
    look = walk(
        *(walked([], began + 1, key, fd=3 + i) for i, key in enumerate(keys)),
        began=began,
        users=users,
    )
    ledger.reconcile(look)
    snapshots = _snapshots(ledger)
    snapshots.saw(look)
    return snapshots


_USERNS = 4026531837
_USER = UserUse(1000, _USERNS, 0, 8192, 120, 128)


def test_a_leak_of_instances_names_the_descriptors_and_when_there_are_no_more() -> None:
    snapshots = _leaking_instances(9, (_USER,))
    report = snapshots.judged(_NOTHING_LOST, complete=True, asked_at=9 * 3_600 * SECOND + 9)

    (site,) = report.sites
    assert (site.unit, site.verdict, site.live) == (Unit.INSTANCES, Verdict.LEAK, 9)
    assert site.holders == tuple(HolderRow(AGENT.pid, 3 + i, b"agent") for i in range(9))
    assert (site.targets, site.payer) == ((), (_USERNS, 1000))
    assert site.per_hour == pytest.approx(9 / 8, rel=1e-3)
    # 8 are left
    assert site.full_in_s == pytest.approx(8 / (9 / 8) * 3600, rel=1e-3)
    assert (report.trace.opened, report.trace.closed) == (9, 0)
    (row,) = report.processes
    assert (row.verdict, row.leaked, row.live, row.instances) == (Verdict.LEAK, 0, 0, 9)
    assert {instance.opened_by for instance in report.instances} == {site.id}
    (user,) = report.limits
    assert (user.watches.per_hour, user.watches.full_in_s) == (0, None)
    assert (user.instances.per_hour, user.instances.full_in_s) == (site.per_hour, site.full_in_s)


def test_who_made_the_namespace_grows_with_it() -> None:
    """GIVEN a leak in a namespace without limits WHEN judged THEN its maker's limit is reached."""
    inner = _USER._replace(instances=9, instances_limit=2**31 - 1, maker=(1, 0))
    outer = UserUse(0, 1, 0, 8192, 120, 128)
    snapshots = _leaking_instances(9, (inner, outer))
    report = snapshots.judged(_NOTHING_LOST, complete=True, asked_at=9 * 3_600 * SECOND + 9)

    (site,) = report.sites
    assert (site.payer, site.full_payer) == (inner.payer, outer.payer)
    assert site.full_in_s == pytest.approx(8 / (9 / 8) * 3600, rel=1e-3)
    assert [user.instances.per_hour for user in report.limits] == [site.per_hour] * 2
    assert [user.instances.full_in_s for user in report.limits] == [None, site.full_in_s]


def test_without_the_limits_of_who_pays_there_is_no_time() -> None:
    snapshots = _leaking_instances(9, (_USER._replace(uid=7),))
    (site,) = snapshots.judged(_NOTHING_LOST, True, 9 * 3_600 * SECOND + 9).sites

    assert site.per_hour > 0
    assert site.full_in_s is None


@pytest.mark.parametrize("is_folded", [False, True])
def test_what_summed_up_processes_removed_still_tells_how_long_one_lives(is_folded: bool) -> None:
    """
    GIVEN more and more processes with a watch each, and one that had removed it after 47 s
    WHEN that one is summed up
    THEN those of the last 47 s are no more a leak than before
    """
    ledger = Ledger()
    for i, (came, gone) in enumerate([(1, 48), (10, 0), (20, 0), (30, 0), (40, 0)]):
        who = {"process": Process(_PIDS + i, i), "instance": Instance(0x1000, 1 + i)}
        ledger.apply(add(came * SECOND, 1, **who), STACK)
        if gone:
            ledger.apply(rm(gone * SECOND, 1, **who), STACK)
    if is_folded:
        ledger.fold([Process(_PIDS, 0)])
    (site,) = _judged(ledger, asked_at=50 * SECOND).sites

    assert (site.verdict, site.live, site.added) == (Verdict.HELD, 4, 5)


def test_a_process_is_judged_by_the_worst_that_it_has() -> None:
    ledger = _in_rounds(3, 3, 3, 3)
    ledger.apply(init(1_000, process=OTHER, instance=_OTHERS), STACK)
    ledger.apply(add(10 * SECOND + 7, 1, process=OTHER, instance=_OTHERS), ANOTHER_STACK)
    report = _judged(ledger, asked_at=60 * SECOND)

    rows = {row.pid: (row.verdict, row.leaked) for row in report.processes}
    assert rows == {AGENT.pid: (Verdict.LEAK, 12), OTHER.pid: (Verdict.HELD, 0)}


def test_instances_that_only_the_exit_freed_are_of_their_place() -> None:
    ledger = Ledger(keep_freed_by_exit=True)
    ledger.apply(init(1_000), STACK)
    ledger.apply_last(last(SECOND, []))
    ledger.apply_closed(closed(SECOND + 1))
    report = _judged(ledger, asked_at=2 * SECOND)

    (site,) = report.sites
    assert (site.unit, site.live, site.added, site.pids) == (Unit.INSTANCES, 1, 1, (AGENT.pid,))
    assert site.evidence[-1].kind == "freed_only_by_exit"
    assert (report.trace.opened, report.trace.closed, report.instances) == (1, 0, ())
    (row,) = _snapshots(ledger).live(_NOTHING_LOST).sites
    assert (row.unit, row.live) == (Unit.INSTANCES, 1)
