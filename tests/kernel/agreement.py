"""The ledger of a session against the kernel's own list, watch by watch."""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cmp_to_key
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest
from harness import (
    KernelWatch,
    kernel_watches,
    kernel_watches_of,
    ledger_watches,
    own_name,
    process_of,
    until,
    working_modes,
)
from recount import assert_counts_add_up

from tracer.core.report import Report, Unit
from tracer.errors import InotraceError
from tracer.kernel.hooks import Mode
from tracer.session import Filter, Session
from tracer.stacks.collector import Stacks
from tracer.stacks.resolver import NoStacks, StackResolver
from tracer.views.json_report import report_object

# Of the processes that the session of several tests traces.
NAME = own_name("case")
_LIBC = ctypes.CDLL(None, use_errno=True)
_KCMP = {"x86_64": 312, "aarch64": 272}[os.uname().machine]
_KCMP_FILE, _KCMP_FILES = 0, 2


class Way(NamedTuple):
    """How calls and removals are told, and where the kernel's list comes from."""

    mode: Mode
    truth: str = "iterator"

    def __str__(self) -> str:
        return f"{self.mode.value}-{self.truth}"


_MODES = working_modes()
# Every mode that works; and in the best one, the list as where there is no iterator.
WAYS = (*map(Way, _MODES), Way(_MODES[0], "fdinfo"))


# For tests whose outcome does not depend on where the list comes from.
by_iterator = pytest.mark.parametrize("session", WAYS[:-1], indirect=True, ids=str)


def refusing_iterator() -> AbstractContextManager[object]:
    """As on a kernel where it does not load."""
    refusal = InotraceError("the kernel refuses the iterator")
    return mock.patch("tracer.kernel.truth.KernelList", side_effect=refusal)


@contextmanager
def tracing(
    *pids: int,
    name: bytes = b"",
    stacks: bool = True,
    mode: Mode | None = None,
    truth: str = "iterator",
) -> Iterator[Session]:
    """
    A session; many tests in one are much faster without stacks, and of no less use.

    `truth` "fdinfo" is as if the kernel refused the iterator.
    """
    resolver: StackResolver = Stacks() if stacks else NoStacks()
    filter_ = Filter(frozenset(pids), name=name)
    with refusing_iterator() if truth == "fdinfo" else nullcontext():
        session = Session(filter_, resolver, older_s=0.0, mode=mode)
    with session:
        yield session


def agreed(session: Session, *held: tuple[int, int]) -> Any:
    """Finish; the report as JSON, once it was found equal to fdinfo of the descriptors `held`."""
    report = session.finish()
    assert report.trace.complete and report.conclusive
    assert ledger_watches(session) == kernel_watches_of(*held)
    _agrees_with_itself(report, session)
    return report_object(report)


def _agrees_with_itself(report: Report, session: Session) -> None:
    live = sum(ledger_watches(session).values())
    assert sum(instance.watches for instance in report.instances) == live
    assert report.live == live
    in_sites = sum(site.live for site in report.sites if site.unit is Unit.WATCHES)
    assert in_sites + report.baseline == live


class Found:
    """What happened within one case of a session that several cases share."""

    def __init__(self, before: Any, after: Any) -> None:
        self.report = after
        self.added: int = after["trace"]["added"] - before["trace"]["added"]
        self.updated: int = after["trace"]["updated"] - before["trace"]["updated"]
        self.removed = _causes(after) - _causes(before)
        self.failures = _failures(after) - _failures(before)

    def live(self, pid: int) -> int:
        """How many watches the process is charged with."""
        live: int = process_of(self.report, pid)["live"]
        return live

    def holders(self) -> set[tuple[int, int]]:
        """(pid, fd) of everything that still holds an instance."""
        return {
            (holder["pid"], holder["fd"])
            for instance in self.report["instances"]
            for holder in instance["holders"]
        }

    def explanations(self, call: str, name: str) -> set[str]:
        return {
            row["explanation"]
            for row in self.report["failures"]
            if (row["call"], row["errno"]) == (call, name)
        }


class Case:
    """A part of a session that begins when nothing is live."""

    def __init__(self, session: Session) -> None:
        def is_empty() -> bool:
            self._before = report_object(session.finish())
            return not ledger_watches(session)

        # those of the case before it have been told to end
        until(is_empty, "the end of what an earlier case watched")
        self._session = session

    @property
    def mode(self) -> Mode:
        return self._session._feed.probe.mode

    def agreed(self, *held: tuple[int, int]) -> Found:
        """As :func:`agreed`; what this case did so far."""
        return Found(self._before, agreed(self._session, *held))


def assert_removed(removed: Mapping[str, int], **by_cause: int) -> None:
    """That these removals were for these reasons, and no others."""
    assert +Counter(removed) == +Counter(by_cause)


def _causes(report: Any) -> Counter[str]:
    return Counter(report["trace"]["removed_by_cause"])


def _failures(report: Any) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for row in report["failures"]:
        counts[row["call"], row["errno"]] += row["count"]
    return counts


# --- whole processes ---


class Held(NamedTuple):
    """An instance by (pid, fd) of all that hold it, and what it watches."""

    holders: frozenset[tuple[int, int]]
    watches: frozenset[KernelWatch]


def kernel_instances(name: bytes) -> Counter[Held]:
    """All instances that processes of this name hold in any table, by their fdinfo."""
    entries = [entry for pid in _pids_of(name) for entry in _inotify_fds(pid)]
    entries.sort(key=cmp_to_key(_compare_files))
    instances: list[list[_Fd]] = []
    for entry in entries:
        if instances and not _compare_files(instances[-1][0], entry):
            instances[-1].append(entry)
        else:
            instances.append([entry])
    return Counter(
        Held(
            frozenset((entry.pid, entry.fd) for entry in entries),
            frozenset(kernel_watches(entries[0].tid, entries[0].fd)),
        )
        for entries in instances
    )


def ledger_instances(session: Session) -> Counter[Held]:
    return Counter(
        Held(
            frozenset((holder.process.pid, holder.fd) for holder in account.holders),
            frozenset(
                KernelWatch(watch.wd, *(reversed(watch.target) if watch.target else (0, 0)))
                for watch in account.watches.values()
            ),
        )
        for account in session._ledger.instances.values()
    )


def assert_agrees(session: Session, name: bytes) -> None:
    """
    That the ledger has the instances and watches that all processes of this name hold.

    They must be at rest; what the kernel does for them in its own time is waited for.
    """
    seen: list[Counter[Held]] = []

    def at_rest() -> bool:
        before = kernel_instances(name)
        seen[:] = [before]
        report = session.finish()
        assert report.trace.complete and report.conclusive, _doubts(session, report)
        seen.append(ledger_instances(session))
        return before == kernel_instances(name)

    until(at_rest, "two equal looks at the kernel")
    kernel, ledger = seen
    assert kernel == ledger, _differences(kernel, ledger)
    assert_counts_add_up(session._ledger)


def _doubts(session: Session, report: Report) -> str:
    walk, change = session._reconcile(exact=True)
    return f"inconclusive: {report.trace}\nthen: {change}\nunread: {walk.unread}"


def _differences(kernel: Counter[Held], ledger: Counter[Held]) -> str:
    lines = ["the ledger is not the kernel's list:"]
    for title, only in (("kernel", kernel - ledger), ("ledger", ledger - kernel)):
        for held in only:
            lines.append(f"only in the {title}: held by {sorted(held.holders)}")
            others = {
                wd
                for other in (ledger if title == "kernel" else kernel)
                if other.holders == held.holders
                for wd in other.watches
            }
            lines += [f"    {watch}" for watch in sorted(held.watches - others)]
    return "\n".join(lines)


class _Fd(NamedTuple):
    pid: int
    tid: int
    fd: int


def _pids_of(name: bytes) -> list[int]:
    return [
        int(pid)
        for pid in os.listdir("/proc")
        if pid.isdigit() and _read(f"/proc/{pid}/comm") == name + b"\n"
    ]


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _inotify_fds(pid: int) -> list[_Fd]:
    found = []
    # one that ends meanwhile is missing from the second look, too
    with suppress(FileNotFoundError, ProcessLookupError):
        for tid in map(int, os.listdir(f"/proc/{pid}/task")):
            if tid != pid and not _kcmp(pid, tid, _KCMP_FILES):
                continue
            for fd in map(int, os.listdir(f"/proc/{pid}/task/{tid}/fd")):
                if os.readlink(f"/proc/{pid}/task/{tid}/fd/{fd}") == "anon_inode:inotify":
                    found.append(_Fd(pid, tid, fd))
    return found


def _compare_files(one: _Fd, other: _Fd) -> int:
    """0 if it is the same open file; else an order without further meaning."""
    return (0, -1, 1)[_kcmp(one.tid, other.tid, _KCMP_FILE, one.fd, other.fd)]


def _kcmp(one: int, other: int, what: int, *fds: int) -> int:
    result = _LIBC.syscall(*map(ctypes.c_long, (_KCMP, one, other, what, *(fds or (0, 0)))))
    if result < 0:
        raise OSError(ctypes.get_errno(), "kcmp")
    return int(result)
