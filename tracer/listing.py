"""One look at what is watched, without tracing: the other way to an answer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from tracer.core.shortage import INITIAL_USERNS
from tracer.core.walk import Hidden, HolderFd, Inode, Payer, Queue, Walk, WatchRows
from tracer.errors import InotraceError
from tracer.filter import Filter
from tracer.kernel.capabilities import TRACING, missing
from tracer.kernel.fdinfo import (
    FdWatch,
    HeldFd,
    can_compare_files,
    group_shared,
    inotify_fds,
    read_watches,
)
from tracer.kernel.inodes import Inodes
from tracer.kernel.preflight import need_btf
from tracer.kernel.probe import bcc_errors, load_walk
from tracer.kernel.procfs import (
    ProcessFacts,
    holds_no_files,
    read_process,
    running_pids,
    shows_all_processes,
)
from tracer.kernel.queues import least_unread
from tracer.kernel.walk import KernelList
from tracer.targets.processes import ProcessTable
from tracer.targets.users import user_name
from tracer.user_use import Held, counted_payer, counted_usage, kernel_usage
from tracer.views import ls as view


class Scan(NamedTuple):
    """
    One walk over all that is open: who holds instances, and whom we may not look into.

    `unread` are instances that changed each time they were read, `unheld` those that a user is
    charged for and no process has.
    """

    truth: str
    processes: dict[int, ProcessFacts]
    instances: list[Held]
    unread: list[tuple[HeldFd, ...]]
    refused: list[ProcessFacts]
    shows_all: bool
    sharing_known: bool
    usage: tuple[view.Usage, ...]
    unheld: Mapping[Payer, Hidden] = {}

    def hidden(self, filter_: Filter) -> list[ProcessFacts]:
        """Those asked for that we may not look into."""
        return [process for process in self.refused if filter_.includes(process)]

    def changing(self, filter_: Filter) -> int:
        """How many instances of those asked for could not be read."""
        return sum(
            any(filter_.includes(self.processes[one.pid]) for one in holders)
            for holders in self.unread
        )

    def in_flight(self, filter_: Filter) -> Hidden:
        """What nobody has in a table of descriptors, of the users asked for: in a socket, mostly"""
        if filter_ != Filter(uid=filter_.uid):
            # it is of no process
            return Hidden(0, 0)
        # who made a namespace is charged for what is in it
        found = [
            hidden
            for (userns, uid), hidden in self.unheld.items()
            if userns == INITIAL_USERNS and filter_.uid in (None, uid)
        ]
        return Hidden(sum(one.instances for one in found), sum(one.watches for one in found))


class Lister:
    """
    Looks at what is watched, again and again, until `close`. Use as a context manager.

    By the iterator where it loads, which keeps no program waiting, otherwise through /proc; also
    where /proc hides who the holders are, which then says so. `names` loads what tells of `inodes`,
    too: None where the kernel refuses.
    """

    def __init__(self, names: bool = False) -> None:
        self._bpf: Any = None
        self._kernel: KernelList | None = None
        self.inodes: Inodes | None = None
        if shows_all_processes() and not missing(TRACING):
            self._open(names)

    def __enter__(self) -> Lister:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.inodes = None
        if self._kernel is not None:
            self._kernel.close()
        if self._bpf is not None:
            self._bpf.cleanup()
        self._kernel = self._bpf = None

    def scan(self) -> Scan:
        """Look into every process: sharing and use can be told only from all of them."""
        walk = self.walk()
        if walk is None:
            return scan_proc()
        return scan_walk(walk)._replace(unheld=self._unheld(walk))

    def _unheld(self, walk: Walk) -> Mapping[Payer, Hidden]:
        found = {payer: hidden for payer, hidden in walk.hidden.items() if hidden.instances > 0}
        # counters are read beside the lists: a difference must last to be one
        again = self.walk() if found else None
        if again is None:
            return {}
        return {payer: each for payer, each in found.items() if again.hidden.get(payer) == each}

    def walk(self) -> Walk | None:
        """The kernel's own list; None where it cannot be read."""
        if self._kernel is not None:
            with suppress(InotraceError):
                return self._kernel.walk()
        return None

    def _open(self, names: bool) -> None:
        with suppress(ImportError, InotraceError):
            # libbpf would tell on standard error that there is none
            need_btf()
            self._bpf = load_walk(names)
            self._kernel = KernelList(self._bpf)
            if names:
                with bcc_errors("the kernel does not let us ask for names of inodes"):
                    self.inodes = Inodes(self._bpf)


def scan_walk(walk: Walk) -> Scan:
    """What a walk over the kernel's own list says."""
    table = ProcessTable()
    processes: dict[int, ProcessFacts] = {}
    instances: list[Held] = []
    unread: list[tuple[HeldFd, ...]] = []
    for walked in walk.instances.values():
        holders = _still_there(walked.holders, table, processes)
        if not holders:
            continue
        if walked.watches is None:
            unread.append(holders)
        else:
            queue = view.Queue(walked.queue.length, True, walked.queue.is_full)
            instances.append(Held(holders, _watches(walked.watches), queue, walked.payers))
    return Scan(
        truth=KernelList.truth,
        processes=processes,
        instances=sorted(instances, key=lambda one: one.holders),
        unread=unread,
        refused=[],
        shows_all=True,
        sharing_known=True,
        usage=kernel_usage(walk.users),
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
    instances = [one._replace(payers=(counted_payer(one, processes),)) for one in instances]
    refused.extend(processes[pid] for pid in also_refused)
    return Scan(
        truth="fdinfo",
        processes=processes,
        instances=instances,
        unread=[],
        refused=refused,
        shows_all=shows_all_processes(),
        sharing_known=sharing_known,
        usage=counted_usage(instances, {process.uid for process in refused}),
    )


def take_snapshot(scan: Scan, filter_: Filter) -> view.Snapshot:
    """Without paths and homes."""
    pids = {pid for pid, process in scan.processes.items() if filter_.includes(process)}
    instances = tuple(
        view.Instance(
            number,
            tuple(_holder(scan.processes[one.pid], one.fd) for one in held.holders),
            held.watches,
            held.queue,
            payers=held.payers,
        )
        for number, held in enumerate(scan.instances, 1)
        if any(one.pid in pids for one in held.holders)
    )
    holding = {holder.pid for instance in instances for holder in instance.holders}
    return view.Snapshot(
        kernel=os.uname().release,
        truth=scan.truth,
        complete=not scan.hidden(filter_)
        and not scan.changing(filter_)
        and not scan.in_flight(filter_).instances
        and (scan.shows_all or bool(filter_.pids)),
        sharing_known=scan.sharing_known,
        pids=frozenset(pids & holding),
        instances=instances,
        usage=scan.usage,
        is_filtered=filter_ != Filter(),
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


def _watches(rows: WatchRows) -> tuple[view.Watch, ...]:
    return tuple([view.Watch(wd, watch.inode, watch.mask) for wd, watch in rows])


def _read_instances(groups: Iterable[tuple[HeldFd, ...]]) -> tuple[list[Held], set[int]]:
    """The instances, and the processes that may no longer be looked into."""
    instances: list[Held] = []
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
                instances.append(Held(holders[at:], _read(watches), _queue(one)))
                break
    return instances, refused


def _read(watches: tuple[FdWatch, ...]) -> tuple[view.Watch, ...]:
    # which of several inodes of one number it is, as on btrfs, fdinfo does not tell
    return tuple([view.Watch(one.wd, Inode(0, one.ino, one.dev, 0), one.mask) for one in watches])


def _queue(held: HeldFd) -> view.Queue | None:
    unread = least_unread(held)
    if unread is None:
        return None
    # the limit of an instance is in no file: today's need not be the one it was made with
    return view.Queue(unread, unread == 0, Queue(unread).is_full)


def _with_files(pid: int) -> list[ProcessFacts]:
    facts = None if holds_no_files(pid) else read_process(pid)
    return [] if facts is None else [facts]


def _holder(process: ProcessFacts, fd: int) -> view.Holder:
    return view.Holder(
        process.pid, fd, process.uid, user_name(process.uid), process.comm, process.exe
    )
