"""Of what a refused call had none left, and who has it."""

from __future__ import annotations

import enum
from dataclasses import dataclass

# create_user_ns() in kernel/user_namespace.c gives a new namespace this, which is no limit
UNLIMITED = 2**31 - 1
# PROC_USER_INIT_INO in include/linux/proc_ns.h
INITIAL_USERNS = 0xEFFFFFFD
# from this share on a limit is worth a warning
NEAR = 0.8


class Resource(str, enum.Enum):
    """What there is only so much of: for a user, or descriptors for a process."""

    WATCHES = "watches"
    INSTANCES = "instances"
    DESCRIPTORS = "descriptors"


@dataclass(frozen=True)
class HolderShare:
    """What a process has of what a user is charged for; an instance is its first holder's."""

    pid: int
    comm: bytes
    watches: int
    instances: int

    def amount(self, resource: Resource) -> int:
        return self.instances if resource is Resource.INSTANCES else self.watches


@dataclass(frozen=True)
class Shortage:
    """
    A limit that was met, as it stood soon after.

    `uid`, `user` and `userns` (its inode number) are who is charged, None where a process has none
    left itself, the only one in `holders` then. `others` hold as well and are not listed.
    """

    resource: Resource
    used: int
    limit: int
    uid: int | None = None
    user: str | None = None
    userns: int | None = None
    holders: tuple[HolderShare, ...] = ()
    others: int = 0

    @property
    def is_met(self) -> bool:
        return self.used >= self.limit


def share_of(used: int, limit: int) -> float:
    """How much of a limit is used, from 0 to 1 and above; all of nothing."""
    return used / limit if limit else 1.0
