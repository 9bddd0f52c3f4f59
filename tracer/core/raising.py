"""To what a limit may reasonably be raised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tracer.core.shortage import UNLIMITED, Resource

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
# what the kernel begins with, in inotify_user_setup(), and with the least of memory: twice of none
# is none
_DEFAULTS = {Resource.WATCHES: 8192, Resource.INSTANCES: 128}
_DEFAULT_QUEUE = 16384


class Settings(NamedTuple):
    """
    What holds now, None where it cannot be read; `memory` is all that there is, in bytes.

    `userns` is the user namespace that we run in and whose limits they are, None for the initial.
    """

    watches: int | None
    instances: int | None
    queued_events: int | None
    memory: int | None
    userns: int | None = None

    def allowed(self, resource: Resource) -> int | None:
        return self.watches if resource is Resource.WATCHES else self.instances


class Raise(NamedTuple):
    """
    A setting and the value it may get; None if more would take too much memory.

    `used` is the most that a user has of it. `memory` is what a user takes who uses all of it, in
    bytes, 0 where that is little. It is of the user namespace `userns`, None for the whole machine:
    to be set there by `member`, a process in it, or by us if `is_ours`.
    """

    setting: str
    now: int
    suggested: int | None
    used: int = 0
    memory: int = 0
    userns: int | None = None
    member: int | None = None
    is_ours: bool = False


def raises(settings: Settings, used: Mapping[Resource, int]) -> Iterator[Raise]:
    """What we may set; of both resources a user has so much at most."""
    inside = settings.userns is not None
    for resource, name in (NAMESPACE_SYSCTLS if inside else SYSCTLS).items():
        now = settings.allowed(resource)
        if now is not None:
            for one in _raised(resource, name, now, used[resource], settings.memory):
                yield one._replace(userns=settings.userns, is_ours=inside)
    # is of the whole machine: in a namespace, nobody has it to set
    if settings.queued_events is not None and settings.queued_events < UNLIMITED and not inside:
        now = settings.queued_events
        yield Raise(QUEUE_SYSCTL, now, _doubled(now, _DEFAULT_QUEUE))


def raises_in_namespace(
    resource: Resource, now: int, used: int, memory: int | None, userns: int, member: int | None
) -> Iterator[Raise]:
    """One of a user namespace that has a limit of its own, if it can be raised."""
    for one in _raised(resource, NAMESPACE_SYSCTLS[resource], now, used, memory):
        yield one._replace(userns=userns, member=member)


def _raised(
    resource: Resource, setting: str, now: int, used: int, memory: int | None
) -> Iterator[Raise]:
    """
    Twice of what is allowed, and of what is used where that is more, watches as long as they take
    an eighth of the memory at most; nothing if it is no limit.
    """
    if now >= UNLIMITED:
        return
    most = max(now, used)
    suggested = _doubled(most, _DEFAULTS[resource])
    if resource is Resource.INSTANCES:
        yield Raise(setting, now, suggested, used)
        return
    if memory is not None:
        suggested = min(suggested, memory // _MEMORY_SHARE // WATCH_BYTES)
    if suggested <= most:
        yield Raise(setting, now, None, used, most * WATCH_BYTES)
    else:
        yield Raise(setting, now, suggested, used, suggested * WATCH_BYTES)


def _doubled(number: int, default: int) -> int:
    # the kernel refuses what is no int
    return min(2 * number or default, UNLIMITED)
