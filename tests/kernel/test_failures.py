"""Calls that real limits refuse: what `trace` and `events` say of it."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any, Callable

import pytest
from agreement import NAME, Case
from harness import Inotrace, Puppet

from tracer.kernel.btf import compiler_definitions
from tracer.kernel.procfs import user_namespace

pytestmark = [pytest.mark.usefixtures("root"), pytest.mark.kernels]

Start = Callable[..., Inotrace]
StartPuppet = Callable[..., Puppet]
# who has no processes
_USER = 54321


def _full(puppet: Puppet, folders: list[Path]) -> int:
    """It has the two watches that it may have; the instance that they are of."""
    if puppet("limit-watches", 2):
        pytest.skip("needs user namespaces")
    fd = puppet.ok("init")
    for folder in folders[:2]:
        puppet.ok("add", fd, folder)
    return fd


def _exhaust_instances(puppet: Puppet, limit: str, number: int) -> None:
    if puppet(limit, number):
        pytest.skip("needs user namespaces")
    while (result := puppet("init")) >= 0:
        pass
    assert result == -errno.EMFILE


def _failure_of(report: Any, pid: int) -> Any:
    (row,) = [one for one in report["failures"] if one["pid"] == pid]
    return row


def _knows_ucounts() -> bool:
    """Before Linux 5.14 credentials do not lead to the counters."""
    return "-DOFF_CRED_UCOUNTS=0" not in compiler_definitions()


@pytest.fixture
def puppet(traced_puppet: Puppet) -> Puppet:
    return traced_puppet


@pytest.fixture
def plain_puppet(start_puppet: Callable[..., Puppet]) -> Puppet:
    """One that keeps its name."""
    return start_puppet()


# --- in every way to trace ---


def test_who_is_full_and_who_holds_it_is_told(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    fd = _full(puppet, folders)
    for _ in range(5):
        assert puppet("add", fd, folders[2]) == -errno.ENOSPC
    row = _failure_of(case.agreed((puppet.pid, fd)).report, puppet.pid)

    assert (row["errno"], row["count"], row["resource"]) == ("ENOSPC", 5, "watches")
    assert (row["uid"], row["userns"]) == (os.getuid(), user_namespace(puppet.pid))
    assert (row["used"], row["limit"], row["others"]) == (2, 2, 0)
    assert [(one["pid"], one["watches"], one["instances"]) for one in row["holders"]] == [
        (puppet.pid, 2, 1)
    ]


def test_instances_and_who_holds_them_are_told(case: Case, puppet: Puppet) -> None:
    _exhaust_instances(puppet, "limit-instances", 3)
    row = _failure_of(case.agreed().report, puppet.pid)

    assert (row["errno"], row["resource"], row["used"], row["limit"]) == (
        "EMFILE",
        "instances",
        3,
        3,
    )
    assert row["userns"] == user_namespace(puppet.pid)
    assert [(one["pid"], one["instances"]) for one in row["holders"]] == [(puppet.pid, 3)]


def test_the_descriptors_of_the_process_are_told(case: Case, puppet: Puppet) -> None:
    _exhaust_instances(puppet, "limit-descriptors", 6)
    row = _failure_of(case.agreed().report, puppet.pid)

    assert (row["errno"], row["resource"]) == ("EMFILE", "descriptors")
    assert (row["used"], row["limit"], row["user"]) == (6, 6, None)


def test_everybody_is_told_the_own_limit(
    case: Case,
    traced_puppet: Puppet,
    start_puppet: StartPuppet,
    folders: list[Path],
    tmp_path: Path,
) -> None:
    """GIVEN two full namespaces of one user WHEN one fails and ends THEN each its own."""
    puppets = [start_puppet(os.fsencode(tmp_path) + b"/" + NAME), traced_puppet]
    fds = [_full(puppet, folders) for puppet in puppets]
    namespaces = [user_namespace(puppet.pid) for puppet in puppets]
    for puppet, fd in zip(puppets, fds):
        assert puppet("add", fd, folders[2]) == -errno.ENOSPC
        if puppet is puppets[0]:
            puppet.tell("exit", 0)
            os.waitid(os.P_PID, puppet.pid, os.WEXITED | os.WNOWAIT)
    report = case.agreed((puppets[1].pid, fds[1])).report

    for puppet, namespace in zip(puppets, namespaces):
        row = _failure_of(report, puppet.pid)
        assert (row["userns"], row["used"], row["limit"]) == (namespace, 2, 2)
        assert {one["pid"] for one in row["holders"]} <= {puppet.pid}


def test_the_effective_user_is_charged(
    case: Case, traced_puppet: Puppet, start_puppet: StartPuppet
) -> None:
    """GIVEN a user without instances left WHEN a process is that one only effectively THEN so."""
    limit = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    holder, other = start_puppet(), traced_puppet
    assert holder("become", _USER) == 0
    while (result := holder("init")) >= 0:
        pass
    assert result == -errno.EMFILE
    assert other("effective", _USER) == 0
    assert other("init") == -errno.EMFILE
    row = _failure_of(case.agreed().report, other.pid)

    assert (row["resource"], row["uid"]) == ("instances", _USER)
    assert row["used"] == row["limit"] == limit
    assert [one["pid"] for one in row["holders"]] == [holder.pid]


# --- the stream ---


def test_the_stream_explains_the_first_and_counts_the_others(
    inotrace: Start, plain_puppet: Puppet, folders: list[Path]
) -> None:
    fd = _full(plain_puppet, folders)
    tool = inotrace("events", "-p", plain_puppet.pid)
    tool.out.line()
    for _ in range(7):
        assert plain_puppet("add", fd, folders[2]) == -errno.ENOSPC
    assert plain_puppet("add", fd, folders[0] / "missing") == -errno.ENOENT
    assert tool.stop() == 0

    who = f"puppet[{plain_puppet.pid}]"
    assert tool.out.rest().count(b"ENOSPC") == 7
    assert tool.err.rest().decode().splitlines() == [
        f"inotrace: inotify_add_watch ENOSPC, {who}: the user has all the watches that the limit "
        "allows; root has 2 of 2 watches in user namespace "
        f"{user_namespace(plain_puppet.pid)}: {who} holds 2",
        f"inotrace: inotify_add_watch ENOENT, {who}: the path did not exist, or is a symbolic "
        "link to nothing",
        f"inotrace: inotify_add_watch ENOSPC, {who}: 7 times",
        "inotrace: 8 calls, 0 lost",
    ]


@pytest.mark.parametrize(
    ("limit", "number", "resource"),
    [("limit-instances", 3, "instances"), ("limit-descriptors", 6, "descriptors")],
)
def test_a_record_tells_which_limit_there_was(
    inotrace: Start, plain_puppet: Puppet, limit: str, number: int, resource: str
) -> None:
    tool = inotrace("events", "-x", "-f", "json", "-p", plain_puppet.pid)
    tool.out.line()
    _exhaust_instances(plain_puppet, limit, number)
    assert plain_puppet("init") == -errno.EMFILE
    assert tool.stop() == 0
    _, first, second, last = map(json.loads, tool.out.rest().splitlines())

    assert (first["limit"]["resource"], first["limit"]["limit"]) == (resource, number)
    assert first["limit"]["used"] == number
    # once is enough
    assert second["limit"] is None
    if _knows_ucounts():
        assert first["explanation"] == second["explanation"] != ""
    assert [(one["errno"], one["count"]) for one in last["summary"]["failures"]] == [("EMFILE", 2)]
    assert tool.err.rest() == b"inotrace: 2 calls, 0 lost\n"


# --- a trace in a pipe ---


def test_a_trace_tells_of_the_first_failure_and_the_report_who_is_full(
    inotrace: Start, plain_puppet: Puppet, folders: list[Path]
) -> None:
    fd = _full(plain_puppet, folders)
    tool = inotrace("trace", "-p", plain_puppet.pid)
    tool.out.until(b"COMMAND")
    tool.out.until(str(plain_puppet.pid).encode())
    for _ in range(7):
        assert plain_puppet("add", fd, folders[2]) == -errno.ENOSPC
    line = tool.out.until(b"holds 2\n").decode()
    assert plain_puppet("add", fd, folders[2]) == -errno.ENOSPC
    assert tool.stop() == 0
    rest = tool.out.rest().decode()[len(line) :]

    who = f"puppet[{plain_puppet.pid}]"
    assert f" inotify_add_watch ENOSPC, {who}: the user has all the watches" in line
    assert "; root has 2 of 2 watches in user namespace" in line
    report = rest[rest.index("FAILED") :]
    assert re.search(rf"8  inotify_add_watch ENOSPC  {re.escape(who)}\n", report)
    assert f"root has 2 of 2 watches in user namespace {user_namespace(plain_puppet.pid)}" in report
    assert "ENOSPC, " not in rest
