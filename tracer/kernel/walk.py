"""
Reading the kernel's own list of watches.

Which descriptor belongs to which instance comes from the BPF iterator, what an instance watches
from fdinfo of one of its holders. The two are not read at one moment: an instance counts as read
only if the same descriptor still led to it afterwards.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Callable

from tracer.core.events import Instance, Process
from tracer.core.walk import HolderFd, KernelWatch, Target, UserUse, Walk, WalkedInstance
from tracer.core.wire import Holder
from tracer.kernel.fdinfo import read_watches
from tracer.kernel.probe import Probe

_ATTEMPTS = 3

_Reading = tuple[int, Mapping[int, KernelWatch]]


def walk_kernel(probe: Probe, in_scope: Callable[[list[Holder]], list[Holder]]) -> Walk:
    """
    Every instance that a process in scope holds, with its watches.

    `in_scope` picks the rows of those processes.

    Raises InotraceError if the kernel refuses the iterator.
    """
    began = time.monotonic_ns()
    rows = probe.holders()
    wanted = {_key(row) for row in in_scope(rows)}
    readings: dict[Instance, _Reading] = {}
    for _ in range(_ATTEMPTS):
        missing = [row for row in rows if _key(row) in wanted - readings.keys()]
        if not missing:
            break
        found = _read(missing)
        rows = probe.holders()
        readings.update(_confirmed(found, rows))
        wanted &= {_key(row) for row in rows}
    return Walk(
        began=began,
        ended=time.monotonic_ns(),
        instances=_instances(rows, wanted, readings),
        users=_users(row for row in rows if _key(row) in wanted),
    )


def _key(row: Holder) -> Instance:
    return Instance(row.group, row.gen)


def _read(rows: Iterable[Holder]) -> dict[Instance, tuple[Holder, _Reading]]:
    """One reading of each instance, with the row whose descriptor it was read through."""
    found: dict[Instance, tuple[Holder, _Reading]] = {}
    for row in rows:
        if _key(row) in found:
            continue
        read_at = time.monotonic_ns()
        watches = read_watches(row.tid, row.fd)
        if watches is not None:
            by_wd = {w.wd: KernelWatch(Target(w.dev, w.ino), w.mask) for w in watches}
            found[_key(row)] = row, (read_at, by_wd)
    return found


def _confirmed(
    found: Mapping[Instance, tuple[Holder, _Reading]], rows: Iterable[Holder]
) -> dict[Instance, _Reading]:
    now = {(row.tid, row.fd): _key(row) for row in rows}
    return {
        key: reading for key, (row, reading) in found.items() if now.get((row.tid, row.fd)) == key
    }


def _instances(
    rows: Iterable[Holder], wanted: set[Instance], readings: Mapping[Instance, _Reading]
) -> dict[Instance, WalkedInstance]:
    holders: dict[Instance, list[Holder]] = defaultdict(list)
    for row in rows:
        if _key(row) in wanted:
            holders[_key(row)].append(row)
    return {key: _walked(key, held, readings.get(key)) for key, held in holders.items()}


def _walked(key: Instance, rows: list[Holder], reading: _Reading | None) -> WalkedInstance:
    read_at, watches = reading if reading is not None else (0, None)
    return WalkedInstance(
        instance=key,
        holders=tuple(HolderFd(Process(row.tgid, row.birth), row.fd) for row in rows),
        queued=rows[0].queued,
        read_at=read_at,
        watches=watches,
    )


def _users(rows: Iterable[Holder]) -> tuple[UserUse, ...]:
    users = {
        (row.userns, row.uid): UserUse(
            uid=row.uid,
            userns=row.userns,
            watches=row.watches_used,
            watches_limit=row.watches_limit,
            instances=row.instances_used,
            instances_limit=row.instances_limit,
        )
        for row in rows
    }
    return tuple(users[key] for key in sorted(users))
