"""One look at who has how much of which limit."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from tracer.core.holdings import HeldBy, Holdings
from tracer.core.raising import Settings
from tracer.core.shortage import NEAR, HolderShare, Resource, Shortage, share_of
from tracer.core.walk import Walk
from tracer.kernel.descriptors import descriptors_of
from tracer.kernel.procfs import running_pids, user_namespace
from tracer.kernel.queues import max_queued_events
from tracer.kernel.walk import KernelList
from tracer.listing import Lister, Scan, scan_proc
from tracer.targets.processes import ProcessTable
from tracer.targets.users import is_in_namespace, own_limits, own_namespace
from tracer.user_use import kernel_usage
from tracer.views import limits as view

# how many of those that hold most are asked for their descriptors
_ASKED_MAX = 32


class Look(NamedTuple):
    """The limits, and the walk over /proc that they were counted by, if they were."""

    limits: view.Limits
    counted: Scan | None


def look_at_limits(uid: int | None = None) -> Look:
    """
    Of all users, or of one: by the kernel's counters where they can be read, else by what /proc
    shows.
    """
    with Lister() as lister:
        walk = lister.walk()
    scan = scan_proc() if walk is None else None
    limits = _counted(scan) if scan is not None else _of_walk(walk or Walk(0, 0, {}, ()))
    return Look(_with_descriptors(_only(limits, uid)), scan)


def _of_walk(walk: Walk) -> view.Limits:
    holdings = Holdings(walk)
    table = ProcessTable()
    users = []
    for usage in kernel_usage(walk.users):
        assert usage.userns is not None
        payer = usage.userns, usage.uid
        held = holdings.holders(payer, Resource.WATCHES)
        users.append(
            view.User(
                usage=usage,
                holders=tuple(_holder(one, table) for one in held),
                maker=holdings.maker(payer),
            )
        )
    members = _members(users)
    instances = [one for one in walk.instances.values() if one.holders]
    return view.Limits(
        kernel=os.uname().release,
        truth=KernelList.truth,
        complete=not walk.unread,
        users=tuple(replace(user, member=members.get(user.usage.userns)) for user in users),
        watches=sum(len(one.watches or ()) for one in instances),
        instances=len(instances),
        settings=_settings(),
    )


def _counted(scan: Scan) -> view.Limits:
    held: defaultdict[tuple[int | None, int], dict[int, HolderShare]] = defaultdict(dict)
    for instance in scan.instances:
        first = scan.processes[instance.holders[0].pid]
        known = held[user_namespace(first.pid), first.uid]
        share = known.get(first.pid, HolderShare(first.pid, first.comm, 0, 0))
        known[first.pid] = replace(
            share,
            watches=share.watches + len(instance.watches),
            instances=share.instances + 1,
        )
    settings = _settings()
    users = tuple(
        view.User(usage, _most_first(held[usage.userns, usage.uid].values()))
        for usage in scan.usage
    )
    return view.Limits(
        kernel=os.uname().release,
        truth=scan.truth,
        # in a namespace, what whoever made it is charged for remains unseen
        complete=not scan.refused and scan.shows_all and settings.userns is None,
        users=users,
        watches=sum(len(instance.watches) for instance in scan.instances),
        instances=len(scan.instances),
        settings=settings,
    )


def _most_first(holders: Iterable[HolderShare]) -> tuple[HolderShare, ...]:
    return tuple(sorted(holders, key=lambda one: (-one.watches, one.pid)))


def _holder(held: HeldBy, table: ProcessTable) -> HolderShare:
    facts = table.get(held.process)
    comm = facts.comm if facts is not None else b"?"
    return HolderShare(held.process.pid, comm, held.watches, held.instances)


def _members(users: Iterable[view.User]) -> Mapping[int | None, int]:
    """
    For namespaces with limits of their own a process in each, by which one gets into it and is
    root there.
    """
    owners = [user for user in users if user.is_in_namespace and user.has_own_limit]
    missing = {user.usage.userns for user in owners}
    holders = (one.pid for user in owners for one in user.holders[:_ASKED_MAX])
    found: dict[int | None, int] = {}
    for pid in chain(holders, running_pids() if missing else ()):
        userns = user_namespace(pid) if missing else None
        if userns in missing and _has_root(pid):
            found[userns] = pid
            missing.remove(userns)
    return found


def _has_root(pid: int) -> bool:
    """Whether there is a root in its user namespace, who alone may set what holds for that."""
    try:
        # user_namespaces(7): first user in it, first outside, how many
        lines = Path(f"/proc/{pid}/uid_map").read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    return any(line.split()[:1] == ["0"] for line in lines)


def _only(limits: view.Limits, uid: int | None) -> view.Limits:
    if uid is None:
        return limits
    return replace(limits, asked=frozenset(user.key for user in limits.users if user.uid == uid))


def _with_descriptors(limits: view.Limits) -> view.Limits:
    most = {
        holder.pid: holder
        for user in limits.shown
        for holder in sorted(user.holders, key=lambda one: -one.instances)[:_ASKED_MAX]
    }
    asked = sorted(most.values(), key=lambda one: -one.instances)[:_ASKED_MAX]
    near = sorted(_near_descriptors(asked), key=lambda one: -share_of(one.used, one.limit))
    return replace(limits, descriptors=tuple(near))


def _near_descriptors(holders: Iterable[HolderShare]) -> Iterator[Shortage]:
    for holder in holders:
        found = descriptors_of(holder.pid)
        if found is not None and share_of(*found) >= NEAR:
            yield Shortage(Resource.DESCRIPTORS, found.used, found.limit, holders=(holder,))


def _settings() -> Settings:
    limits = own_limits()
    return Settings(
        watches=limits and limits.watches,
        instances=limits and limits.instances,
        queued_events=max_queued_events(),
        memory=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        userns=own_namespace() if is_in_namespace() else None,
    )
