"""One look at what is watched, without tracing: the other way to an answer."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tracer.core.walk import HolderFd, UserUse, Walk, WatchRows
from tracer.errors import InotraceError
from tracer.kernel.capabilities import TRACING, missing
from tracer.kernel.fdinfo import (
    FdWatch,
    HeldFd,
    can_compare_files,
    group_shared,
    inotify_fds,
    read_watches,
)
from tracer.kernel.preflight import need_btf
from tracer.kernel.probe import load_walk
from tracer.kernel.procfs import (
    ProcessFacts,
    holds_no_files,
    read_process,
    running_pids,
    shows_all_processes,
    user_namespace,
)
from tracer.kernel.walk import KernelList
from tracer.session import Filter
from tracer.targets.processes import ProcessTable
from tracer.targets.users import sysctl_limits, user_name
from tracer.views import ls as view

# who holds an instance, and its watches
_Held = tuple[tuple[HeldFd, ...], tuple[FdWatch, ...]]


class Scan(NamedTuple):
    """
    One walk over all that is open: who holds instances, and whom we may not look into.

    `unread` are instances that changed each time they were read.
    """

    truth: str
    processes: dict[int, ProcessFacts]
    instances: list[_Held]
    unread: list[tuple[HeldFd, ...]]
    refused: list[ProcessFacts]
    shows_all: bool
    sharing_known: bool
    usage: tuple[view.Usage, ...]

    def hidden(self, filter_: Filter) -> list[ProcessFacts]:
        """Those asked for that we may not look into."""
        return [process for process in self.refused if filter_.includes(process)]

    def changing(self, filter_: Filter) -> int:
        """How many instances of those asked for could not be read."""
        return sum(
            any(filter_.includes(self.processes[one.pid]) for one in holders)
            for holders in self.unread
        )


def scan() -> Scan:
    """
    Look into every process: sharing and use per user can be told only from all of them.

    By the iterator where it loads, which keeps no program waiting, otherwise through /proc; also
    where /proc hides who the holders are, which then says so.
    """
    walk = _walk_kernel_list() if shows_all_processes() and not missing(TRACING) else None
    return scan_proc() if walk is None else scan_walk(walk)


def _walk_kernel_list() -> Walk | None:
    try:
        # libbpf would tell on standard error that there is none
        need_btf()
        bpf = load_walk()
    except (ImportError, InotraceError):
        return None
    try:
        kernel = KernelList(bpf)
        try:
            return kernel.walk()
        finally:
            kernel.close()
    except InotraceError:
        return None
    finally:
        bpf.cleanup()


def scan_walk(walk: Walk) -> Scan:
    """What a walk over the kernel's own list says."""
    table = ProcessTable()
    processes: dict[int, ProcessFacts] = {}
    instances: list[_Held] = []
    unread: list[tuple[HeldFd, ...]] = []
    for walked in walk.instances.values():
        holders = _still_there(walked.holders, table, processes)
        if not holders:
            continue
        if walked.watches is None:
            unread.append(holders)
        else:
            instances.append((holders, _watches(walked.watches)))
    return Scan(
        truth=KernelList.truth,
        processes=processes,
        instances=sorted(instances, key=lambda one: one[0]),
        unread=unread,
        refused=[],
        shows_all=True,
        sharing_known=True,
        usage=_sorted_usage(map(_kernel_usage, walk.users)),
    )


def scan_proc() -> Scan:
    """What /proc says."""
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
    return Scan(
        truth="fdinfo",
        processes=processes,
        instances=instances,
        unread=[],
        refused=refused,
        shows_all=shows_all_processes(),
        sharing_known=sharing_known,
        usage=_count_usage(processes, instances, {process.uid for process in refused}),
    )


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
        truth=scan.truth,
        complete=not scan.hidden(filter_)
        and not scan.changing(filter_)
        and (scan.shows_all or bool(filter_.pids)),
        sharing_known=scan.sharing_known,
        pids=frozenset(pids & holding),
        instances=instances,
        usage=scan.usage,
    )


def _still_there(
    holders: Iterable[HolderFd], table: ProcessTable, processes: dict[int, ProcessFacts]
) -> tuple[HeldFd, ...]:
    """Those whose process has not ended meanwhile; what is known of it goes to `processes`."""
    found = []
    for process, fd in holders:
        facts = table.get(process)
        if facts is not None:
            processes[process.pid] = facts
            found.append(HeldFd(process.pid, fd))
    return tuple(sorted(found))


def _watches(rows: WatchRows) -> tuple[FdWatch, ...]:
    return tuple([FdWatch(wd, watch.inode.ino, watch.inode.dev, watch.mask) for wd, watch in rows])


def _kernel_usage(user: UserUse) -> view.Usage:
    return view.Usage(
        uid=user.uid,
        user=user_name(user.uid),
        userns=user.userns,
        watches=user.watches,
        watches_limit=user.watches_limit,
        instances=user.instances,
        instances_limit=user.instances_limit,
        source="kernel",
        complete=True,
    )


def _count_usage(
    processes: Mapping[int, ProcessFacts], instances: Iterable[_Held], hidden: set[int]
) -> tuple[view.Usage, ...]:
    """
    Watches and instances per user namespace and user; of `hidden` users there may be more.

    The kernel charges whoever made the instance; we take its first holder for that.
    """
    counts: defaultdict[tuple[int | None, int], list[int]] = defaultdict(list)
    for holders, watches in instances:
        uid = processes[holders[0].pid].uid
        counts[user_namespace(holders[0].pid), uid].append(len(watches))
    return _sorted_usage(
        _counted_usage(userns, uid, sizes, uid not in hidden)
        for (userns, uid), sizes in counts.items()
    )


def _sorted_usage(usage: Iterable[view.Usage]) -> tuple[view.Usage, ...]:
    return tuple(sorted(usage, key=lambda one: (-one.watches, one.uid, one.userns or 0)))


def _counted_usage(userns: int | None, uid: int, sizes: list[int], complete: bool) -> view.Usage:
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
        source="counted",
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
