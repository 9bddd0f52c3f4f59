"""One look at what is watched, from /proc alone: the other way to an answer than a trace."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from tracer.kernel.fdinfo import (
    FdWatch,
    HeldFd,
    can_compare_files,
    group_shared,
    inotify_fds,
    read_watches,
)
from tracer.kernel.procfs import (
    ProcessFacts,
    holds_no_files,
    read_process,
    running_pids,
    shows_all_processes,
    user_namespace,
)
from tracer.session import Filter
from tracer.targets.users import sysctl_limits, user_name
from tracer.views import ls as view

# who holds an instance, and its watches
_Held = tuple[tuple[HeldFd, ...], tuple[FdWatch, ...]]


class Scan(NamedTuple):
    """One walk through /proc: who holds instances, and whom we may not look into."""

    processes: dict[int, ProcessFacts]
    instances: list[_Held]
    refused: list[ProcessFacts]
    shows_all: bool
    sharing_known: bool

    def hidden(self, filter_: Filter) -> list[ProcessFacts]:
        """Those asked for that we may not look into."""
        return [process for process in self.refused if filter_.includes(process)]


def scan_proc() -> Scan:
    """Look into every process: sharing and use per user can be told only from all of them."""
    processes: dict[int, ProcessFacts] = {}
    held: list[HeldFd] = []
    refused: list[ProcessFacts] = []
    for pid in running_pids():
        try:
            fds = inotify_fds(pid)
        except ProcessLookupError:
            continue
        except PermissionError:
            refused.extend(_with_files(pid))
            continue
        facts = read_process(pid) if fds else None
        if facts is not None:
            processes[pid] = facts
            held.extend(HeldFd(pid, fd) for fd in fds)
    sharing_known = len(held) < 2 or can_compare_files()
    groups = group_shared(held) if sharing_known else [(one,) for one in held]
    instances, also_refused = _read_instances(groups)
    refused.extend(processes[pid] for pid in also_refused)
    return Scan(processes, instances, refused, shows_all_processes(), sharing_known)


def take_snapshot(scan: Scan, filter_: Filter) -> view.Snapshot:
    """The part of a scan that is asked for."""
    pids = {pid for pid, process in scan.processes.items() if filter_.includes(process)}
    instances = tuple(
        view.Instance(
            number, tuple(_holder(scan.processes[one.pid], one.fd) for one in holders), watches
        )
        for number, (holders, watches) in enumerate(scan.instances, 1)
        if any(one.pid in pids for one in holders)
    )
    holding = {holder.pid for instance in instances for holder in instance.holders}
    return view.Snapshot(
        kernel=os.uname().release,
        complete=not scan.hidden(filter_) and (scan.shows_all or bool(filter_.pids)),
        sharing_known=scan.sharing_known,
        pids=frozenset(pids & holding),
        instances=instances,
        usage=count_usage(scan),
    )


def count_usage(scan: Scan) -> tuple[view.Usage, ...]:
    """
    Watches and instances per user namespace and user, most watches first.

    The kernel charges whoever made the instance; we take its first holder for that.
    """
    counts: defaultdict[tuple[int | None, int], list[int]] = defaultdict(list)
    for holders, watches in scan.instances:
        uid = scan.processes[holders[0].pid].uid
        counts[user_namespace(holders[0].pid), uid].append(len(watches))
    hidden = {process.uid for process in scan.refused}
    usage = [
        _usage(userns, uid, sizes, uid not in hidden) for (userns, uid), sizes in counts.items()
    ]
    return tuple(sorted(usage, key=lambda one: (-one.watches, one.uid, one.userns or 0)))


def _usage(userns: int | None, uid: int, sizes: list[int], complete: bool) -> view.Usage:
    # /proc/sys shows the limits of our own user namespace only
    limits = sysctl_limits() if userns == user_namespace(os.getpid()) else None
    return view.Usage(
        uid=uid,
        user=user_name(uid),
        userns=userns,
        watches=sum(sizes),
        watches_limit=limits and limits.watches,
        instances=len(sizes),
        instances_limit=limits and limits.instances,
        complete=complete,
    )


def _read_instances(groups: Iterable[tuple[HeldFd, ...]]) -> tuple[list[_Held], set[int]]:
    """The instances, and the processes that may no longer be looked into."""
    instances: list[_Held] = []
    refused: set[int] = set()
    for holders in groups:
        for at, one in enumerate(holders):
            try:
                watches = read_watches(*one)
            except PermissionError:
                refused.add(one.pid)
                continue
            if watches is not None:
                # those before it have closed theirs
                instances.append((holders[at:], watches))
                break
    return instances, refused


def _with_files(pid: int) -> list[ProcessFacts]:
    facts = None if holds_no_files(pid) else read_process(pid)
    return [] if facts is None else [facts]


def _holder(process: ProcessFacts, fd: int) -> view.Holder:
    return view.Holder(process.pid, fd, user_name(process.uid), process.comm, process.exe)
