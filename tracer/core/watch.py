"""What is live: watches, and the instances that they belong to."""

from __future__ import annotations

import enum
from functools import lru_cache

from tracer.core.accounts import ProcessAccount
from tracer.core.events import IN_ONESHOT, Instance, Process
from tracer.core.site import Share, Site
from tracer.core.walk import HolderFd, Inode, Payer, Queue, Target

_FOLDERS_SHARED = 4096
_U64, _U32 = (1 << 64) - 1, (1 << 32) - 1


class Origin(str, enum.Enum):
    """How the ledger learned of a watch."""

    TRACED = "traced"
    BASELINE = "baseline"
    UNKNOWN = "unknown"


class Watch:
    """
    One live watch.

    The path is kept in two parts, of which one is shared. `place` is the inode as one number, a
    third of what the tuple takes, or None until a walk told. `touched` is the time of the last
    event that spoke of it: what a walk older than that says does not count. `at_exit` is when a
    holder last ended with the watch still there. A million of these may be live: see
    tests/bench/memory.py before adding a field.
    """

    __slots__ = (
        "added_at",
        "at_exit",
        "folder",
        "is_oneshot",
        "name",
        "origin",
        "owner",
        "place",
        "share",
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
        share: Share | None = None,
        path: bytes | None = None,
        inode: Inode | None = None,
    ) -> None:
        self.wd = wd
        self.origin = origin
        self.owner = owner
        self.share = share
        self.folder: bytes | None = None
        self.name = path
        if path is not None and b"/" in path:
            folder, _, self.name = path.rpartition(b"/")
            self.folder = _shared(folder)
        self.is_oneshot = bool(mask & IN_ONESHOT)
        self.added_at = added_at
        self.touched = added_at
        self.at_exit = 0
        self.place = None if inode is None else place_of(*inode)

    @property
    def site(self) -> Site | None:
        """Where it was added; None if the call was not seen."""
        return None if self.share is None else self.share.site

    @property
    def path(self) -> bytes | None:
        """As the call passed it."""
        if self.name is None or self.folder is None:
            return self.name
        return self.folder + b"/" + self.name

    @property
    def inode(self) -> Inode | None:
        """What is watched; None until a walk told."""
        if self.place is None:
            return None
        place = self.place
        return Inode(place & _U64, place >> 128, place >> 96 & _U32, place >> 64 & _U32)

    @property
    def target(self) -> Target | None:
        """The same without what only the kernel side understands."""
        inode = self.inode
        return None if inode is None else inode.target


@lru_cache(maxsize=_FOLDERS_SHARED)
def _shared(folder: bytes) -> bytes:
    """The same object for the same folder: who watches a tree names its folders again and again."""
    return folder


def place_of(address: int, ino: int, dev: int, generation: int) -> int:
    """The fields of an Inode as one number."""
    # what is small comes last: it makes the number shorter
    return ino << 128 | dev << 96 | generation << 64 | address


class InstanceAccount:
    """
    One live instance and its watches by descriptor. `payer` is charged for it, None if not known.
    `seen_at` is when a walk last found it. `failed_adds` are calls that would have added a watch.

    Of the `queue` none was read since `unread_since` (0: all were read); `queue_rises` walks found
    more than the one before, the last at `queue_rose_at`.

    `without_target` are the descriptors of which no walk has told what they watch. `holders` are
    as the last walk found them, before that the opener; `ended_holders` are those that ended with
    watches on it, at the latest at `last_exit_at`.
    """

    __slots__ = (
        "ended_holders",
        "failed_adds",
        "holders",
        "instance",
        "last_exit_at",
        "opened_at",
        "opener",
        "opening_share",
        "payer",
        "queue",
        "queue_rises",
        "queue_rose_at",
        "removed_at",
        "seen_at",
        "unread_since",
        "watches",
        "without_target",
    )

    def __init__(self, instance: Instance, opened_at: int) -> None:
        self.instance = instance
        self.opened_at = opened_at
        self.opener: ProcessAccount | None = None
        self.opening_share: Share | None = None
        self.payer: Payer | None = None
        self.holders: tuple[HolderFd, ...] = ()
        self.seen_at = 0
        self.failed_adds = 0
        self.queue = Queue(0)
        self.queue_rises = 0
        self.queue_rose_at = 0
        self.unread_since = 0
        self.watches: dict[int, Watch] = {}
        self.without_target: set[int] = set()
        self.removed_at: dict[int, int] = {}
        self.ended_holders: set[Process] = set()
        self.last_exit_at = 0

    @property
    def opening_site(self) -> Site | None:
        """Where it was opened; None if the call was not seen."""
        return None if self.opening_share is None else self.opening_share.site

    def look_at_queue(self, queue: Queue, at: int) -> None:
        """What waits to be read at this time (ns)."""
        before, self.queue = self.queue, queue
        if not queue.length:
            self.unread_since = self.queue_rises = 0
        elif not self.unread_since or _was_read(before, queue):
            self.unread_since = self.queue_rose_at = at
            self.queue_rises = 0
        elif queue.length > before.length:
            self.queue_rises += 1
            self.queue_rose_at = at


def _was_read(before: Queue, now: Queue) -> bool:
    # in between, another may have come to be where the oldest was
    return now.oldest != before.oldest or now.length < before.length
