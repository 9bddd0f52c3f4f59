"""What the ledger keeps: live watches and instances whole, everything else as counts."""

from __future__ import annotations

import enum
from collections import Counter
from typing import NamedTuple

from tracer.core.events import Instance, Process
from tracer.core.stack import Stack
from tracer.core.walk import HolderFd, Target


class Cause(str, enum.Enum):
    """What ended a watch."""

    RM_WATCH = "rm_watch"
    DELETED = "deleted"
    UNMOUNTED = "unmounted"
    ONESHOT = "oneshot"
    CLOSED = "closed"
    UNKNOWN = "unknown"

    # Enum hashes in Python, and a removal counts its cause three times
    __hash__ = str.__hash__


class Origin(str, enum.Enum):
    """How the ledger learned of a watch."""

    TRACED = "traced"
    BASELINE = "baseline"
    UNKNOWN = "unknown"


class Site:
    """
    A place in the code that adds watches or opens instances, with what came of the watches.

    `op` is what it does. `process` is set where there are no frames to know the place by.
    """

    __slots__ = ("added", "comm", "freed_by_exit", "live", "op", "process", "removed", "stack")

    def __init__(self, op: int, stack: Stack, comm: bytes, process: Process | None) -> None:
        self.op = op
        self.stack = stack
        self.comm = comm
        self.process = process
        self.added = 0
        self.live = 0
        self.freed_by_exit = 0
        self.removed: Counter[Cause] = Counter()


class ProcessAccount:
    """What one process did and has. `live` and `baseline` are watches it is charged with here."""

    __slots__ = (
        "added",
        "baseline",
        "comm",
        "failed",
        "live",
        "process",
        "removed",
        "uid",
        "updated",
    )

    def __init__(self, process: Process) -> None:
        self.process = process
        self.comm = b""
        self.uid: int | None = None
        self.added = 0
        self.updated = 0
        self.failed = 0
        self.live = 0
        self.baseline = 0
        self.removed: Counter[Cause] = Counter()


class Watch:
    """
    One live watch.

    `touched` is the time of the last event that spoke of it: what a walk older than that says
    does not count. `at_exit` is when a holder last ended with the watch still there.
    """

    __slots__ = (
        "added_at",
        "at_exit",
        "mask",
        "origin",
        "owner",
        "path",
        "site",
        "target",
        "touched",
        "wd",
    )

    def __init__(
        self,
        wd: int,
        origin: Origin,
        owner: ProcessAccount,
        added_at: int,
        mask: int,
        site: Site | None = None,
        path: bytes | None = None,
        target: Target | None = None,
    ) -> None:
        self.wd = wd
        self.origin = origin
        self.owner = owner
        self.site = site
        self.path = path
        self.mask = mask
        self.target = target
        self.added_at = added_at
        self.touched = added_at
        self.at_exit = 0


class InstanceAccount:
    """
    One live instance and its watches by descriptor.

    `holders` are as the last walk found them, before that the opener; `ended_holders` are those
    that ended with watches on it, at the latest at `last_exit_at`.
    """

    __slots__ = (
        "ended_holders",
        "holders",
        "instance",
        "last_exit_at",
        "opened_at",
        "opener",
        "opening_site",
        "queued",
        "removed_at",
        "watches",
    )

    def __init__(self, instance: Instance, opened_at: int) -> None:
        self.instance = instance
        self.opened_at = opened_at
        self.opener: ProcessAccount | None = None
        self.opening_site: Site | None = None
        self.holders: tuple[HolderFd, ...] = ()
        self.queued = 0
        self.watches: dict[int, Watch] = {}
        self.removed_at: dict[int, int] = {}
        self.ended_holders: set[Process] = set()
        self.last_exit_at = 0


class Failure(NamedTuple):
    """A kind of failed call by one process."""

    op: int
    errno: int
    process: Process
    comm: bytes


class Totals:
    """Counts over the whole trace."""

    __slots__ = ("added", "exits_truncated", "removed", "updated")

    def __init__(self) -> None:
        self.added = 0
        self.updated = 0
        self.removed: Counter[Cause] = Counter()
        self.exits_truncated = 0
