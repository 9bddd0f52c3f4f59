"""
The ledger of a session against the kernel's own list.

Each test ends with :func:`agreed`: the final report is complete, and what it takes for live is what
fdinfo shows, watch by watch.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import pytest
from harness import Puppet, kernel_watches_of, ledger_watches, process_of, removed, until

from tracer.core.report import Report
from tracer.core.verdict import Verdict
from tracer.kernel.symbols import BccStacks
from tracer.session import Filter, Session
from tracer.views.json_report import report_object

pytestmark = pytest.mark.usefixtures("root")

on_both_truths = pytest.mark.usefixtures("truth")

IN_CREATE, IN_DELETE, IN_ONESHOT = 0x100, 0x200, 0x80000000


@contextmanager
def tracing(*pids: int, name: bytes | None = None) -> Iterator[Session]:
    with Session(Filter(frozenset(pids), name=name), BccStacks(), older_s=0.0) as session:
        yield session


def agreed(session: Session, *held: tuple[int, int]) -> Any:
    """Finish; the report as JSON, once it was found equal to fdinfo of the descriptors `held`."""
    report = session.finish()
    assert report.trace.complete and report.conclusive
    assert report.trace.lost == 0
    assert ledger_watches(session) == kernel_watches_of(*held)
    _agrees_with_itself(report, session)
    return report_object(report)


def _agrees_with_itself(report: Report, session: Session) -> None:
    live = ledger_watches(session).total()
    assert sum(instance.watches for instance in report.instances) == live
    assert report.live == live
    in_sites = sum(site.live for site in report.sites)
    assert in_sites + report.baseline == live


@on_both_truths
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


def test_old_inotify_init_counts_too(puppet: Puppet, folders: list[Path]) -> None:
    with tracing(puppet.pid) as session:
        fd = puppet.ok("old-init")
        puppet.ok("add", fd, folders[0])
        report = agreed(session, (puppet.pid, fd))

    assert report["instances"][0]["opened_by"] is not None


@on_both_truths
def test_adding_a_watched_target_again_is_an_update(puppet: Puppet, folders: list[Path]) -> None:
    """GIVEN a hard link to a watched file WHEN it is added with another mask THEN no new watch."""
    file, link = folders[0] / "file", folders[0] / "link"
    file.touch()
    link.hardlink_to(file)

    with tracing(puppet.pid) as session:
        fd = puppet.ok("init")
        assert puppet.ok("add", fd, file, 2) == puppet.ok("add", fd, link, 0x20000004)
        report = agreed(session, (puppet.pid, fd))

    assert (report["trace"]["added"], report["trace"]["updated"]) == (1, 1)
    assert process_of(report, puppet.pid)["live"] == 1


def test_a_failed_call_is_counted_and_changes_nothing(puppet: Puppet, folders: list[Path]) -> None:
    with tracing(puppet.pid) as session:
        fd = puppet.ok("init")
        for _ in range(3):
            assert puppet("add", fd, folders[0] / "missing") == -errno.ENOENT
        assert puppet("rm", fd, 41) == -errno.EINVAL
        assert puppet("add", 997, folders[0]) == -errno.EBADF
        assert puppet("add", 0, folders[0]) == -errno.EINVAL
        report = agreed(session, (puppet.pid, fd))

    failures = {(each["call"], each["errno"]): each["count"] for each in report["failures"]}
    assert failures == {
        ("inotify_add_watch", "ENOENT"): 3,
        ("inotify_rm_watch", "EINVAL"): 1,
        ("inotify_add_watch", "EBADF"): 1,
        ("inotify_add_watch", "EINVAL"): 1,
    }
    assert all(each["explanation"] for each in report["failures"])
    assert process_of(report, puppet.pid)["failed"] == 6


@on_both_truths
def test_a_watch_on_a_deleted_folder_is_gone(puppet: Puppet, folders: list[Path]) -> None:
    with tracing(puppet.pid) as session:
        fd = puppet.ok("init")
        for folder in folders:
            puppet.ok("add", fd, folder)
        for folder in folders[:7]:
            folder.rmdir()
        report = agreed(session, (puppet.pid, fd))

    assert process_of(report, puppet.pid)["live"] == 16
    assert report["trace"]["removed_by_cause"] == removed(unknown=7)


def test_a_deleted_file_stays_watched_while_it_is_open(puppet: Puppet, folders: list[Path]) -> None:
    file = folders[0] / "file"
    file.touch()
    opened = os.open(file, os.O_RDONLY)
    with tracing(puppet.pid) as session:
        fd = puppet.ok("init")
        puppet.ok("add", fd, file)
        file.unlink()
        report = agreed(session, (puppet.pid, fd))
        assert report["sites"][0]["live"] == 1
        assert report["sites"][0]["targets"][0]["state"] == "gone"

        os.close(opened)
        report = agreed(session, (puppet.pid, fd))
    assert report["sites"][0]["live"] == 0


def test_a_oneshot_watch_is_gone_once_it_fired(puppet: Puppet, folders: list[Path]) -> None:
    with tracing(puppet.pid) as session:
        fd = puppet.ok("init")
        for folder in folders[:5]:
            puppet.ok("add", fd, folder, IN_CREATE | IN_ONESHOT)
        for folder in folders[:3]:
            (folder / "new").touch()
        report = agreed(session, (puppet.pid, fd))

    assert process_of(report, puppet.pid)["live"] == 2


def test_an_unmount_takes_its_watches(
    puppet: Puppet, folders: list[Path], mounted: Callable[..., Path]
) -> None:
    disk = mounted()
    with tracing(puppet.pid) as session:
        fd = puppet.ok("init")
        for name in ("a", "b", "c"):
            (disk / name).mkdir()
            puppet.ok("add", fd, disk / name)
        puppet.ok("add", fd, folders[0])
        agreed(session, (puppet.pid, fd))
        subprocess.run(["umount", str(disk)], check=True)
        report = agreed(session, (puppet.pid, fd))

    assert process_of(report, puppet.pid)["live"] == 1
    assert report["trace"]["removed_by_cause"] == removed(unknown=3)


@on_both_truths
def test_the_last_close_takes_all_watches(puppet: Puppet, folders: list[Path]) -> None:
    with tracing(puppet.pid) as session:
        fd = puppet.ok("init")
        for folder in folders:
            puppet.ok("add", fd, folder)
        puppet.ok("close", fd)
        report = agreed(session)

    assert report["trace"]["removed_by_cause"] == removed(closed=23)
    assert report["instances"] == []


@on_both_truths
def test_closing_one_of_two_descriptors_takes_none(puppet: Puppet, folders: list[Path]) -> None:
    with tracing(puppet.pid) as session:
        fd = puppet.ok("init")
        twin = puppet.ok("dup", fd)
        for folder in folders[:5]:
            puppet.ok("add", fd, folder)
        puppet.ok("close", fd)
        puppet.ok("add", twin, folders[5])
        report = agreed(session, (puppet.pid, twin))

    assert process_of(report, puppet.pid)["live"] == 6
    assert [holder["fd"] for holder in report["instances"][0]["holders"]] == [twin]


@on_both_truths
def test_an_instance_outlives_its_process_in_a_child(puppet: Puppet, folders: list[Path]) -> None:
    puppet.ok("comm", b"outlived")
    with tracing(name=b"outlived") as session:
        fd = puppet.ok("init")
        for folder in folders[:7]:
            puppet.ok("add", fd, folder)
        child = puppet.ok("orphan")
        puppet.ok("add", fd, folders[7])
        report = agreed(session, (child, fd))

    assert {holder["pid"] for holder in report["instances"][0]["holders"]} == {child}
    assert process_of(report, puppet.pid)["live"] == 7
    assert process_of(report, child)["live"] == 1


@on_both_truths
def test_an_exec_closes_what_is_close_on_exec(puppet: Puppet, folders: list[Path]) -> None:
    with tracing(puppet.pid) as session:
        closed, kept = puppet.ok("init"), puppet.ok("init", 0)
        for folder in folders[:5]:
            puppet.ok("add", closed, folder)
            puppet.ok("add", kept, folder)
        puppet.ok("exec")
        report = agreed(session, (puppet.pid, kept))

    assert process_of(report, puppet.pid)["live"] == 5
    assert report["trace"]["removed_by_cause"] == removed(closed=5)


@on_both_truths
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
    assert process["removed"] == removed(rm_watch=1, unknown=1)
    assert sum(site["live"] for site in report["sites"]) == 1


@on_both_truths
def test_a_reused_group_is_another_instance(puppet: Puppet, folders: list[Path]) -> None:
    """GIVEN 97 instances closed with their watch WHEN one more is opened THEN only it counts."""
    with tracing(puppet.pid) as session:
        puppet.ok("reopen", folders[0], 97)
        fd = puppet.ok("init")
        puppet.ok("add", fd, folders[1])
        report = agreed(session, (puppet.pid, fd))

    assert report["trace"]["added"] == 98
    assert report["trace"]["removed_by_cause"] == removed(closed=97)


@on_both_truths
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
            assert ledger_watches(session).total() <= 23
        assert puppet.answer() == 20_000
        for _ in folders[1:]:
            assert puppet.answer() > 0
        report = agreed(session, (puppet.pid, fd))

    assert report["trace"]["added"] == 20_022
    assert report["trace"]["removed_by_cause"] == removed(rm_watch=20_000)
    assert process_of(report, puppet.pid)["live"] == 22


def test_a_32_bit_caller_is_found_in_the_list_and_said_to_be_unknown(
    puppet: Puppet, folders: list[Path]
) -> None:
    with tracing(puppet.pid) as session:
        fd = puppet.ok("init")
        puppet.ok("add", fd, folders[0])
        for folder in folders[1:4]:
            result = puppet("add32", fd, folder)
            if result == -errno.ENOSYS:
                pytest.skip("this kernel takes no 32-bit calls (CONFIG_IA32_EMULATION)")
            assert result > 0
        report = agreed(session, (puppet.pid, fd))

    (unsure,) = [site for site in report["sites"] if site["verdict"] == Verdict.INCONCLUSIVE.value]
    assert (unsure["live"], unsure["pids"], unsure["stack"]) == (3, [puppet.pid], "missing")
    assert [evidence["kind"] for evidence in unsure["evidence"]] == ["unseen"]
    assert "32-bit" in unsure["evidence"][0]["text"]
    assert report["trace"]["added"] == 1


@on_both_truths
def test_a_passed_instance_stays_while_anyone_holds_it(puppet: Puppet, folders: list[Path]) -> None:
    """GIVEN an instance in flight in a socket WHEN its sender closed it THEN it can be received."""
    puppet.ok("comm", b"passed-on")
    with tracing(name=b"passed-on") as session:
        here, there = divmod(puppet.ok("socketpair"), 1000)
        fd = puppet.ok("init")
        puppet.ok("add", fd, folders[0])
        child = puppet.ok("fork")
        puppet.ok("close", fd)
        puppet.tell("exit", 0)
        assert puppet.answer() == 0
        puppet.ok("send", here, fd)
        puppet.ok("close", fd)
        received = puppet.ok("receive", there)
        puppet.ok("add", received, folders[1])
        report = agreed(session, (puppet.pid, received))

    assert report["trace"]["added"] == 2
    assert child not in [holder["pid"] for holder in report["instances"][0]["holders"]]


def test_a_thread_with_its_own_descriptors_is_read_too(puppet: Puppet, folders: list[Path]) -> None:
    with tracing(puppet.pid) as session:
        thread = puppet.ok("table")
        fd = puppet.ok("init")
        puppet.ok("add", fd, folders[0])
        assert not os.path.exists(f"/proc/{puppet.pid}/fd/{fd}")
        report = agreed(session, (thread, fd))
        assert process_of(report, puppet.pid)["live"] == 1

        puppet.tell("end")
        assert puppet.answer() == 0
        # joining waits for less than the end: the descriptors are closed a moment later
        until(
            lambda: not os.path.exists(f"/proc/{puppet.pid}/task/{thread}"), "the end of the thread"
        )
        report = agreed(session)
    assert process_of(report, puppet.pid)["live"] == 0


def test_a_program_that_renames_itself_is_one_place(puppet: Puppet, folders: list[Path]) -> None:
    """GIVEN a program WHEN it has another name at each add THEN all come from one place."""
    with tracing(puppet.pid) as session:
        fd = puppet.ok("init")
        for i, folder in enumerate(folders):
            puppet.ok("comm", b"name-%d" % i)
            puppet.ok("add", fd, folder)
        report = agreed(session, (puppet.pid, fd))

    (site,) = report["sites"]
    assert (site["added"], site["live"], site["comm"]) == (23, 23, "name-22")
