"""The first failure of each kind is looked into; the others are counted, within bounds."""

from __future__ import annotations

import errno
import os
import resource

import pytest
from build import AGENT, OTHER, SECOND, failed, walk, walked

from tracer.core.events import CallEvent, Exhausted, Op, Process
from tracer.core.shortage import Resource
from tracer.core.walk import UserUse, Walk
from tracer.errors import InotraceError
from tracer.kernel.procfs import read_process

pytest.importorskip("bcc")
from tracer.explaining import Explainer
from tracer.targets.processes import ProcessTable

_TICK_NS = SECOND // os.sysconf("SC_CLK_TCK")
_USER = UserUse(uid=0, userns=11, watches=23, watches_limit=23, instances=1, instances_limit=128)


class FakeTruth:
    truth = "iterator"
    refusal = ""

    def __init__(self) -> None:
        self.walks = 0
        self.closed = False

    def walk(self) -> Walk:
        self.walks += 1
        held = walked(range(1, 24), 1)._replace(payers=((11, 0),))
        return walk(held, began=1, users=(_USER,))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def truth() -> FakeTruth:
    return FakeTruth()


@pytest.fixture
def explainer(truth: FakeTruth) -> Explainer:
    return Explainer(lambda: truth, ProcessTable())


def _us() -> Process:
    facts = read_process(os.getpid())
    assert facts is not None
    return Process(facts.pid, facts.birth_ticks * _TICK_NS)


def _full(pid: int = AGENT.pid, userns: int = 11, used: int = 23) -> CallEvent:
    """A call of a process whose user had all in that namespace."""
    event = failed(Op.ADD, 1, errno.ENOSPC, inode=used << 32 | 23, ino=userns, dev=0)
    return event._replace(caller=event.caller._replace(process=Process(pid, AGENT.birth)))


def test_only_the_first_of_a_kind_is_told_of(explainer: Explainer, truth: FakeTruth) -> None:
    full = _full()
    first = explainer.first(full)

    assert first is not None and first.shortage is not None
    assert (first.shortage.used, first.shortage.limit, first.shortage.userns) == (23, 23, 11)
    assert [(one.pid, one.watches) for one in first.shortage.holders] == [(AGENT.pid, 23)]
    assert [explainer.first(full) for _ in range(6)] == [None] * 6
    assert [(row.errno, row.count) for row in explainer.counted()] == [("ENOSPC", 7)]
    assert truth.walks == 1


def test_calls_of_which_only_the_number_is_left_are_counted(explainer: Explainer) -> None:
    event = failed(Op.ADD, 1, errno.ENOENT)

    assert explainer.first(event, times=23) is not None
    assert explainer.first(event, times=7) is None
    assert [(row.errno, row.count) for row in explainer.counted()] == [("ENOENT", 30)]


def test_the_list_is_not_read_for_what_no_limit_refused(
    explainer: Explainer, truth: FakeTruth
) -> None:
    with explainer:
        for number in (errno.ENOENT, errno.EBADF, errno.EINVAL):
            row = explainer.first(failed(Op.ADD, 1, number))
            assert row is not None and row.explanation and row.shortage is None

    assert (truth.walks, truth.closed) == (0, False)


def test_many_kinds_at_once_are_told_by_few_walks(explainer: Explainer, truth: FakeTruth) -> None:
    with explainer:
        for pid in range(100, 123):
            row = explainer.first(_full(pid + (1 << 22)))
            assert row is not None and row.shortage is not None
            assert [one.pid for one in row.shortage.holders] == [AGENT.pid]

    assert (truth.walks, truth.closed) == (1, True)


def test_a_user_whom_no_walk_found_full_is_told_without_holders(explainer: Explainer) -> None:
    """GIVEN a namespace that went with its process WHEN others of that user are full."""
    explainer.first(_full())
    row = explainer.first(_full(OTHER.pid, userns=13, used=29))

    assert row is not None and row.shortage is not None
    assert (row.shortage.userns, row.shortage.used, row.shortage.limit) == (13, 29, 23)
    assert (row.shortage.holders, row.shortage.others) == ((), 0)


def test_a_flood_of_processes_is_counted_together(explainer: Explainer) -> None:
    event = failed(Op.ADD, 1, errno.ENOENT)
    told = [
        explainer.first(event._replace(caller=event.caller._replace(process=Process(pid, 1))))
        for pid in range(1, 2001)
    ]

    assert sum(row is not None for row in told) == 1025
    rows = explainer.counted()
    assert (len(rows), sum(row.count for row in rows)) == (1025, 2000)
    assert (rows[0].pid, rows[0].comm) == (None, b"(others)")


def test_without_the_kernels_list_the_words_remain() -> None:
    def refuse() -> FakeTruth:
        raise InotraceError("the kernel refuses the iterator")

    row = Explainer(refuse, ProcessTable()).first(failed(Op.ADD, 1, errno.ENOSPC))

    assert row is not None
    assert (row.shortage, row.explanation != "") == (None, True)


def test_descriptors_are_told_while_the_process_runs(explainer: Explainer) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    event = failed(Op.INIT, 1, errno.EMFILE, fd=-1)._replace(detail=int(Exhausted.DESCRIPTORS))
    ours = event._replace(caller=event.caller._replace(process=_us()))

    row = explainer.first(ours)
    assert row is not None and row.shortage is not None
    assert (row.shortage.resource, row.shortage.limit) == (Resource.DESCRIPTORS, soft)
    assert row.shortage.used == pytest.approx(len(os.listdir("/proc/self/fd")), abs=3)
    gone = explainer.first(event._replace(caller=event.caller._replace(process=OTHER)))
    assert gone is not None and gone.shortage is None
