"""What one trace must get right as a whole; each single case is a test in test_cases_of_*.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from agreement import agreed, assert_removed, tracing
from harness import Puppet, ledger_watches, process_of, removed, watch_sites

pytestmark = pytest.mark.usefixtures("root")


def test_an_added_watch_is_live_until_it_is_removed(puppet: Puppet, folders: list[Path]) -> None:
    with tracing(puppet.pid) as session:
        fd = puppet.ok("init")
        wds = [puppet.ok("add", fd, folder) for folder in folders]
        for wd in wds[:17]:
            puppet.ok("rm", fd, wd)
        report = agreed(session, (puppet.pid, fd))

    assert report["trace"]["added"] == 23
    assert report["trace"]["removed_by_cause"] == removed(rm_watch=17)
    process = process_of(report, puppet.pid)
    assert (process["live"], process["added"], process["baseline"]) == (6, 23, 0)
    (instance,) = report["instances"]
    assert (instance["watches"], instance["holders"]) == (
        6,
        [{"pid": puppet.pid, "fd": fd, "comm": "puppet"}],
    )
    assert instance["opened_by"] is not None


def test_what_was_there_before_stays_and_is_baseline(puppet: Puppet, folders: list[Path]) -> None:
    fd = puppet.ok("init")
    wds = [puppet.ok("add", fd, folder) for folder in folders[:13]]
    with tracing(puppet.pid) as session:
        report = agreed(session, (puppet.pid, fd))
        process = process_of(report, puppet.pid)
        assert (process["live"], process["baseline"], process["added"]) == (13, 13, 0)
        assert report["instances"][0]["opened_by"] is None
        assert report["sites"] == []

        puppet.ok("rm", fd, wds[0])
        folders[1].rmdir()
        puppet.ok("add", fd, folders[13])
        report = agreed(session, (puppet.pid, fd))

    process = process_of(report, puppet.pid)
    assert (process["live"], process["added"]) == (12, 1)
    assert_removed(process["removed"], rm_watch=1, deleted=1)
    assert sum(site["live"] for site in watch_sites(report)) == 1


def test_removals_on_another_cpu_leave_nothing_behind(puppet: Puppet, folders: list[Path]) -> None:
    """GIVEN 20,000 pairs added on one CPU, removed on another THEN none is taken for live."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("needs two CPUs")
    with tracing(puppet.pid) as session:
        fd = puppet.ok("init")
        puppet.tell("crossing", fd, folders[0], 20_000, cpus[0], cpus[1])
        for folder in folders[1:]:
            puppet.tell("add", fd, folder)
        while not puppet.has_answered():
            session.step()
            # what is live in between is at most the pair at hand and the folders after it
            assert sum(ledger_watches(session).values()) <= 23
        assert puppet.answer() == 20_000
        for _ in folders[1:]:
            assert puppet.answer() > 0
        report = agreed(session, (puppet.pid, fd))

    assert report["trace"]["added"] == 20_022
    assert report["trace"]["removed_by_cause"] == removed(rm_watch=20_000)
    assert process_of(report, puppet.pid)["live"] == 22


def test_a_program_that_renames_itself_is_one_place(puppet: Puppet, folders: list[Path]) -> None:
    """GIVEN a program WHEN it has another name at each add THEN all come from one place."""
    with tracing(puppet.pid) as session:
        fd = puppet.ok("init")
        for i, folder in enumerate(folders):
            puppet.ok("comm", b"name-%d" % i)
            puppet.ok("add", fd, folder)
        report = agreed(session, (puppet.pid, fd))

    (site,) = watch_sites(report)
    assert (site["added"], site["live"], site["comm"]) == (23, 23, "name-22")
