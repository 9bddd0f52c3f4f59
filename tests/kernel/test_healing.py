"""What the buffers refuse is taken back: the ledger stays the kernel's own list."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from harness import (
    Puppet,
    kernel_watches_of,
    ledger_watches,
    process_of,
    removed,
    site_of,
    until,
    watch_sites,
)

from tracer import feed
from tracer.core.report import Report, Unit
from tracer.core.verdict import Verdict
from tracer.kernel import probe, stream
from tracer.session import Filter, Session
from tracer.stacks.collector import Stacks
from tracer.views.json_report import report_object

pytestmark = pytest.mark.usefixtures("root")

_TOO_MANY = "too many calls from new places at once to look at each"
_PAIRS = 30_000
# the first tells of the places that add, which the second finds known
_LEARNING_PAIRS = 2


@pytest.fixture
def tiny_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """One page for each CPU: a dozen calls, where a flood makes thousands between two visits."""
    monkeypatch.setattr(stream, "pages_per_cpu", lambda: 1)
    # so rare that this is true of a slow machine as well
    monkeypatch.setattr(stream, "_POLL_MS", 200)


@pytest.fixture
def tiny_spill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_EXTRA_DEFINITIONS", ("-DSPILL_ENTRIES=16",))


@pytest.fixture
def flooding(start_puppet: Callable[..., Puppet], tmp_path: Path) -> Iterator[list[Puppet]]:
    """Two puppets with an instance each, to be told to flood, one on each of two CPUs."""
    puppets = [start_puppet(), start_puppet()]
    for puppet, cpu in zip(puppets, sorted(os.sched_getaffinity(0))):
        os.sched_setaffinity(puppet.pid, {cpu})
    yield puppets


def _traced(*puppets: Puppet) -> Session:
    pids = frozenset(puppet.pid for puppet in puppets)
    return Session(Filter(pids), Stacks(), older_s=0.0)


def _until_answered(session: Session, puppet: Puppet) -> int:
    while not puppet.has_answered():
        session.step()
    return puppet.answer()


def _agreed(session: Session, *held: tuple[int, int]) -> Report:
    report = session.finish()
    assert report.trace.complete
    assert ledger_watches(session) == kernel_watches_of(*held)
    return report


def _learn_places(session: Session, puppet: Puppet, fd: int, folder: Path) -> None:
    """Let the walk over stacks know where a flood calls from, before it comes."""
    for _ in range(_LEARNING_PAIRS):
        puppet.ok("flood", fd, folder, 1)
        session.finish()


def test_with_nine_of_ten_calls_refused_the_ledger_is_exact(
    tiny_buffers: None, flooding: list[Puppet], folders: list[Path]
) -> None:
    """GIVEN leaks amid two floods WHEN the buffers refuse most calls THEN none is missing."""
    with _traced(*flooding) as session:
        fds = [puppet.ok("init") for puppet in flooding]
        for puppet, fd in zip(flooding, fds):
            _learn_places(session, puppet, fd, folders[22])
        for puppet, fd, own in zip(flooding, fds, (folders[:11], folders[11:22])):
            for folder in own[:5]:
                puppet.tell("leak", fd, folder)
            puppet.tell("flood", fd, folders[22], _PAIRS)
            for folder in own[5:]:
                puppet.tell("leak", fd, folder)
        for puppet in flooding:
            answers = [_until_answered(session, puppet) for _ in range(12)]
            assert min(answers) > 0
        report = _agreed(session, *((p.pid, fd) for p, fd in zip(flooding, fds)))

    trace = report.trace
    assert trace.lost > 0.9 * 4 * _PAIRS
    assert trace.healed == trace.lost and report.conclusive
    pairs = _PAIRS + _LEARNING_PAIRS
    assert (trace.added, trace.updated, trace.failed) == (2 * pairs + 22, 0, 0)
    shown = report_object(report)
    assert shown["trace"]["removed_by_cause"] == removed(rm_watch=2 * pairs)
    flood = site_of(shown, "balance_volume")
    assert (flood["added"], flood["removed"]) == (2 * pairs, removed(rm_watch=2 * pairs))
    for puppet in flooding:
        process = process_of(shown, puppet.pid)
        assert (process["added"], process["removed"]) == (pairs + 11, removed(rm_watch=pairs))
    leak = site_of(shown, "leak_secret")
    assert (leak["live"], leak["added"], leak["removed"]) == (22, 22, removed())
    assert sorted(target["path"] for target in leak["targets"]) == sorted(map(str, folders[:22]))
    assert all(instance["opened_by"] for instance in shown["instances"])


def test_a_flood_from_places_never_seen_is_whole_and_no_stack_is_wrong(
    tiny_buffers: None, flooding: list[Puppet], folders: list[Path]
) -> None:
    """GIVEN two floods WHEN rows are learned while they run THEN stacks may be cut, and say so."""
    with _traced(*flooding) as session:
        fds = [puppet.ok("init") for puppet in flooding]
        for puppet, fd in zip(flooding, fds):
            puppet.tell("flood", fd, folders[22], _PAIRS)
        for puppet in flooding:
            assert _until_answered(session, puppet) == _PAIRS
        report = _agreed(session, *((p.pid, fd) for p, fd in zip(flooding, fds)))

    sites = watch_sites(report_object(report))
    assert sum(site["added"] for site in sites) == report.trace.added == 2 * _PAIRS
    (whole,) = (site for site in sites if site["stack"] == "complete")
    names = [frame["function"] for frame in whole["frames"]]
    for cut in sites:
        shown = [frame["function"] for frame in cut["frames"]]
        assert shown == names[: len(shown)]
        assert cut is whole or (cut["stack"], cut["stack_reason"]) == ("truncated", _TOO_MANY), cut


def test_a_refused_call_is_told_all_the_same(
    tiny_buffers: None, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN calls of every kind after a flood WHEN refused THEN each has the effect it had."""
    before = puppet.ok("init")
    wds = [puppet.ok("add", before, folder) for folder in folders[:3]]
    with _traced(puppet) as session:
        puppet.tell("flood", before, folders[22], _PAIRS)
        puppet.tell("rm", before, wds[0])
        puppet.tell("add", before, folders[1], 2)
        puppet.tell("init")
        puppet.tell("add", before, folders[4] / "missing")
        puppet.tell("add", before, folders[3])
        assert _until_answered(session, puppet) == _PAIRS
        assert _until_answered(session, puppet) == 0
        assert _until_answered(session, puppet) == wds[1]
        opened = _until_answered(session, puppet)
        assert _until_answered(session, puppet) == -errno.ENOENT
        assert _until_answered(session, puppet) > 0
        report = _agreed(session, (puppet.pid, before), (puppet.pid, opened))

    trace = report.trace
    assert trace.healed == trace.lost > _PAIRS
    assert (trace.added, trace.updated, trace.failed) == (_PAIRS + 1, 1, 1)
    (failure,) = report_object(report)["failures"]
    assert (failure["errno"], failure["count"], failure["pid"]) == ("ENOENT", 1, puppet.pid)
    assert report_object(report)["trace"]["removed_by_cause"] == removed(rm_watch=_PAIRS + 1)


def test_what_no_room_was_left_for_makes_the_result_inconclusive(
    tiny_buffers: None, tiny_spill: None, puppet: Puppet, tmp_path: Path
) -> None:
    """GIVEN room for 16 calls WHEN 4,000 adds come at once THEN all are listed."""
    with _traced(puppet) as session:
        fd = puppet.ok("init")
        puppet.tell("many", fd, tmp_path, 4_000)
        assert _until_answered(session, puppet) == 4_000
        report = _agreed(session, (puppet.pid, fd))

    assert 0 < report.trace.healed < report.trace.lost
    assert not report.conclusive
    assert report.sites_with(Verdict.INCONCLUSIVE)
    assert report.live == 4_000


def test_a_cpu_without_a_buffer_loses_nothing(
    puppet: Puppet, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a CPU that came after the start, as far as the buffers know WHEN used THEN it tells."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    os.sched_setaffinity(puppet.pid, {cpus[-1]})
    monkeypatch.setattr(stream, "online_cpus", lambda: frozenset(cpus[:1]))
    with _traced(puppet) as session:
        fd = puppet.ok("init")
        for folder in folders:
            puppet.ok("leak", fd, folder)
        report = _agreed(session, (puppet.pid, fd))

    assert report.trace.lost == report.trace.healed == 1 + len(folders)
    assert site_of(report_object(report), "leak_secret")["live"] == len(folders)
    assert process_of(report_object(report), puppet.pid)["live"] == len(folders)


def test_a_cpu_that_comes_gets_a_buffer_and_one_that_goes_loses_it(
    puppet: Puppet, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a CPU that comes and goes WHEN used each time THEN every call is told."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    online = set(cpus[:1])
    monkeypatch.setattr(stream, "online_cpus", lambda: frozenset(online))
    os.sched_setaffinity(puppet.pid, {cpus[1]})
    with _traced(puppet) as session:
        rings = session._feed._stream._rings
        fd = puppet.ok("init")
        puppet.ok("leak", fd, folders[0])
        before = session._feed.probe.counters().lost

        online.add(cpus[1])
        until(lambda: len(rings) == 2, "a buffer for the CPU that came")
        puppet.ok("leak", fd, folders[1])
        with_both = session._feed.probe.counters().lost

        online.discard(cpus[1])
        until(lambda: len(rings) == 1, "the end of the buffer")
        puppet.ok("leak", fd, folders[2])
        report = _agreed(session, (puppet.pid, fd))

    assert (before, with_both, report.trace.lost) == (2, 2, 3)
    assert report.trace.healed == 3
    assert site_of(report_object(report), "leak_secret")["live"] == 3


def test_what_a_burst_removed_again_is_held_for_its_place(
    puppet: Puppet, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a place that removes two of three WHEN all is refused THEN it is not a leak."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    monkeypatch.setattr(stream, "online_cpus", lambda: frozenset(cpus[:1]))
    os.sched_setaffinity(puppet.pid, {cpus[1]})
    with _traced(puppet) as session:
        fd = puppet.ok("init")
        for at, folder in enumerate(folders):
            wd = puppet.ok("leak", fd, folder)
            if at % 3:
                puppet.ok("rm", fd, wd)
        report = _agreed(session, (puppet.pid, fd))

    (site,) = [site for site in report.sites if site.unit is Unit.WATCHES]
    assert (site.added, site.live, sum(site.removed.values())) == (23, 8, 15)
    assert site.verdict is not Verdict.LEAK


def test_a_failure_that_was_refused_is_told_with_its_reason(
    puppet: Puppet, folders: list[Path], tiny_buffers: None
) -> None:
    with _traced(puppet) as session:
        fd = puppet.ok("init")
        puppet.tell("flood", fd, folders[0], _PAIRS)
        for _ in range(3):
            puppet.tell("add", fd, folders[0] / "missing")
        assert _until_answered(session, puppet) == _PAIRS
        for _ in range(3):
            assert _until_answered(session, puppet) == -errno.ENOENT
        report = _agreed(session, (puppet.pid, fd))

    (failure,) = report.failures
    assert (failure.errno, failure.count, failure.pid) == ("ENOENT", 3, puppet.pid)
    assert report.trace.healed == report.trace.lost > _PAIRS


def test_what_waits_in_the_kernel_is_taken_in_the_end(
    tiny_buffers: None, puppet: Puppet, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN no room to hold anything back WHEN calls are refused THEN the end has all."""
    monkeypatch.setattr(feed, "_HELD_BACK_MAX", 0)
    with _traced(puppet) as session:
        fd = puppet.ok("init")
        puppet.tell("flood", fd, folders[0], _PAIRS)
        puppet.tell("leak", fd, folders[1])
        assert _until_answered(session, puppet) == _PAIRS
        assert _until_answered(session, puppet) > 0
        report = _agreed(session, (puppet.pid, fd))

    assert report.trace.added == _PAIRS + 1 and report.trace.healed == report.trace.lost
    assert site_of(report_object(report), "leak_secret")["live"] == 1
