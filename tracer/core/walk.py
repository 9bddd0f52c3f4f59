"""The kernel's own list of watches, as one walk over it found them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tracer.core.events import Instance, Process


class Target(NamedTuple):
    """What is watched: an inode on a device (kernel dev_t: major << 20 | minor)."""

    dev: int
    ino: int


class KernelWatch(NamedTuple):
    """A watch as the kernel tells it, of the inode `ino` on `dev`."""

    dev: int
    ino: int
    mask: int

    @property
    def target(self) -> Target:
        return Target(self.dev, self.ino)


class HolderFd(NamedTuple):
    """A process's descriptor on an instance."""

    process: Process
    fd: int


class UserUse(NamedTuple):
    """What a user has of the two limits, from the kernel's counters."""

    uid: int
    userns: int
    watches: int
    watches_limit: int
    instances: int
    instances_limit: int


class WalkedInstance(NamedTuple):
    """
    One instance. `read_at` is a time just before its watches were read.

    `watches` by descriptor; None if they could not be read, because the instance was closed or
    changed meanwhile. `user` (namespace and uid, as in UserUse) is who is charged for it.
    """

    instance: Instance
    holders: tuple[HolderFd, ...]
    queued: int
    read_at: int
    watches: Mapping[int, KernelWatch] | None
    user: tuple[int, int] | None = None


class Walk(NamedTuple):
    """Instances and their users. Times are nanoseconds of CLOCK_MONOTONIC."""

    began: int
    ended: int
    instances: Mapping[Instance, WalkedInstance]
    users: tuple[UserUse, ...]

    def only(self, wanted: Callable[[WalkedInstance], bool]) -> Walk:
        """The walk as if there were no other instances."""
        instances = {key: walked for key, walked in self.instances.items() if wanted(walked)}
        charged = {walked.user for walked in instances.values()}
        users = tuple(user for user in self.users if (user.userns, user.uid) in charged)
        return self._replace(instances=instances, users=users)

    @property
    def unread(self) -> int:
        """How many instances could not be read."""
        return sum(walked.watches is None for walked in self.instances.values())
