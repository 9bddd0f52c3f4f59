"""To what a limit may reasonably be raised."""

from __future__ import annotations

from typing import NamedTuple

from tracer.core.shortage import Resource

# INOTIFY_WATCH_COST in fs/notify/inotify/inotify_user.c: the mark, and twice a struct inode for the
# inode that it pins; on 64-bit 80 + 2 * 600 bytes or so. By it the kernel chooses its own default,
# which takes 1 % of memory at most.
WATCH_BYTES = 1280
_MEMORY_SHARE = 8
SYSCTLS = {
    Resource.WATCHES: "fs.inotify.max_user_watches",
    Resource.INSTANCES: "fs.inotify.max_user_instances",
}
# the same of a namespace, for whoever is in it: kernel/ucount.c
NAMESPACE_SYSCTLS = {
    Resource.WATCHES: "user.max_inotify_watches",
    Resource.INSTANCES: "user.max_inotify_instances",
}
QUEUE_SYSCTL = "fs.inotify.max_queued_events"
DROP_IN = "/etc/sysctl.d/60-inotify.conf"


class Settings(NamedTuple):
    """What holds now, None where it cannot be read; `memory` is all that there is, in bytes."""

    watches: int | None
    instances: int | None
    queued_events: int | None
    memory: int | None


class Raise(NamedTuple):
    """
    A setting and the value it may get; None if more would take too much memory.

    `memory` is what a user takes who uses all of it, in bytes, 0 where that is little. `member` is
    a process of the user namespace `userns` that the setting is of, both None for all.
    """

    setting: str
    now: int
    suggested: int | None
    memory: int = 0
    userns: int | None = None
    member: int | None = None


def raises(settings: Settings) -> tuple[Raise, ...]:
    """Those of the whole machine."""
    found = []
    if settings.watches is not None:
        found.append(raise_watches(SYSCTLS[Resource.WATCHES], settings.watches, settings.memory))
    if settings.instances is not None:
        found.append(_doubled(SYSCTLS[Resource.INSTANCES], settings.instances))
    if settings.queued_events is not None:
        found.append(_doubled(QUEUE_SYSCTL, settings.queued_events))
    return tuple(found)


def raise_in_namespace(
    resource: Resource, now: int, memory: int | None, userns: int, member: int | None
) -> Raise:
    """One of a user namespace that has a limit of its own."""
    setting = NAMESPACE_SYSCTLS[resource]
    by_memory = resource is Resource.WATCHES
    found = raise_watches(setting, now, memory) if by_memory else _doubled(setting, now)
    return found._replace(userns=userns, member=member)


def raise_watches(setting: str, now: int, memory: int | None) -> Raise:
    """Twice as many, as long as that takes an eighth of the memory at most."""
    suggested = max(2 * now, 1)
    if memory is not None:
        suggested = min(suggested, memory // _MEMORY_SHARE // WATCH_BYTES)
    if suggested <= now:
        return Raise(setting, now, None, now * WATCH_BYTES)
    return Raise(setting, now, suggested, suggested * WATCH_BYTES)


def _doubled(setting: str, now: int) -> Raise:
    return Raise(setting, now, max(2 * now, 1))
