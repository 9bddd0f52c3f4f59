"""What the ledger keeps: live watches and instances whole, everything else as counts."""

from __future__ import annotations

import enum
import errno
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from tracer.core.events import IN_ONESHOT, Caller, CallEvent, Instance, Op, Process
from tracer.core.stack import Stack, is_runtime
from tracer.core.walk import HolderFd, Inode, Payer, Target

# How many names of ended processes and kinds of failures are told apart.
_NAMES_MAX = 1024
_FAILURES_MAX = 1024
_QUICK_SITES_MAX = 65536
_FOLDERS_SHARED = 4096
_U64, _U32 = (1 << 64) - 1, (1 << 32) - 1
# What the rest goes by.
OTHERS = b"(others)"


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


class Place(NamedTuple):
    """
    What makes two calls come from the same place.

    `code` are the frames' names, or why there are none. `process` tells places apart where the
    code does not, being none or an interpreter's; `name` is of the process where the frames do not
    tell which program it is.
    """

    op: int
    name: bytes
    process: Process | None
    code: object


class Site:
    """
    A place in the code that adds watches or opens instances, with what came of the watches.

    `comm` is who called last from there.
    """

    __slots__ = ("added", "comm", "freed_by_exit", "live", "place", "removed", "stack")

    def __init__(self, place: Place, stack: Stack, comm: bytes) -> None:
        self.place = place
        self.stack = stack
        self.comm = comm
        self.added = 0
        self.live = 0
        self.freed_by_exit = 0
        self.removed: Counter[Cause] = Counter()


class ProcessAccount:
    """
    What one process did and has. `live` and `baseline` are watches it is charged with here.

    `name` is the first `comm` it was seen with: what it renames itself to is no other program.
    """

    __slots__ = (
        "added",
        "baseline",
        "comm",
        "failed",
        "live",
        "name",
        "process",
        "removed",
        "uid",
        "updated",
    )

    def __init__(self, process: Process) -> None:
        self.process = process
        self.name = b""
        self.comm = b""
        self.uid: int | None = None
        self.added = 0
        self.updated = 0
        self.failed = 0
        self.live = 0
        self.baseline = 0
        self.removed: Counter[Cause] = Counter()


class EndedProcesses:
    """What processes of one name did that have ended and are no longer told apart."""

    __slots__ = ("added", "baseline", "failed", "processes", "removed", "updated")

    def __init__(self) -> None:
        self.processes = 0
        self.added = 0
        self.updated = 0
        self.failed = 0
        self.baseline = 0
        self.removed: Counter[Cause] = Counter()

    def take(self, account: ProcessAccount) -> None:
        self.processes += 1
        self.added += account.added
        self.updated += account.updated
        self.failed += account.failed
        self.baseline += account.baseline
        self.removed.update(account.removed)


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
        "site",
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
        inode: Inode | None = None,
    ) -> None:
        self.wd = wd
        self.origin = origin
        self.owner = owner
        self.site = site
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

    `without_target` are the descriptors of which no walk has told what they watch. `holders` are
    as the last walk found them, before that the opener; `ended_holders` are those that ended with
    watches on it, at the latest at `last_exit_at`.
    """

    __slots__ = (
        "ended_holders",
        "holders",
        "instance",
        "last_exit_at",
        "opened_at",
        "opener",
        "opening_site",
        "payer",
        "queued",
        "removed_at",
        "watches",
        "without_target",
    )

    def __init__(self, instance: Instance, opened_at: int) -> None:
        self.instance = instance
        self.opened_at = opened_at
        self.opener: ProcessAccount | None = None
        self.opening_site: Site | None = None
        self.payer: Payer | None = None
        self.holders: tuple[HolderFd, ...] = ()
        self.queued = 0
        self.watches: dict[int, Watch] = {}
        self.without_target: set[int] = set()
        self.removed_at: dict[int, int] = {}
        self.ended_holders: set[Process] = set()
        self.last_exit_at = 0


class Failure(NamedTuple):
    """A kind of failed call by one process; by all that go by this name if `process` is None."""

    op: int
    errno: int
    process: Process | None
    comm: bytes
    exhausted: int = 0


class Totals:
    """Counts over the whole trace."""

    __slots__ = ("added", "exits_truncated", "removed", "updated")

    def __init__(self) -> None:
        self.added = 0
        self.updated = 0
        self.removed: Counter[Cause] = Counter()
        self.exits_truncated = 0


class Accounts:
    """
    Everything that is counted: by who called, from where, and why it failed.

    What ended processes did is summed up by name, so that memory does not follow their number.
    """

    def __init__(self) -> None:
        self.processes: dict[Process, ProcessAccount] = {}
        self.ended: dict[bytes, EndedProcesses] = {}
        self.sites: dict[Place, Site] = {}
        self.failures: Counter[Failure] = Counter()
        self._sites_of_callers: dict[tuple[int, int], tuple[Caller, Stack, Site]] = {}

    def process(self, process: Process) -> ProcessAccount:
        account = self.processes.get(process)
        if account is None:
            account = self.processes[process] = ProcessAccount(process)
        return account

    def caller(self, caller: Caller) -> ProcessAccount:
        """The account of the process that made a call."""
        account = self.process(caller.process)
        account.name = account.name or caller.comm
        account.comm = caller.comm
        account.uid = caller.uid
        return account

    def fail(self, event: CallEvent, account: ProcessAccount, times: int = 1) -> None:
        account.failed += times
        caller = event.caller
        kind = Failure(caller.op, -event.ret, caller.process, caller.comm, _exhausted(event))
        if kind not in self.failures and len(self.failures) >= _FAILURES_MAX:
            kind = kind._replace(process=None, comm=OTHERS)
        self.failures[kind] += times

    def site(self, stack: Stack, caller: Caller, account: ProcessAccount) -> Site:
        """The site of a call; the same caller and stack come as the same objects, most times."""
        quick = (id(caller), id(stack))
        found = self._sites_of_callers.get(quick)
        if found is None:
            if len(self._sites_of_callers) >= _QUICK_SITES_MAX:
                self._sites_of_callers.clear()
            place = _place(stack, caller, account)
            site = self.sites.get(place)
            if site is None:
                site = self.sites[place] = Site(place, stack, caller.comm)
            # with the objects themselves, since an id is only unique while its object lives
            found = self._sites_of_callers[quick] = caller, stack, site
        site = found[2]
        site.comm = caller.comm
        return site

    def fold(self, processes: Iterable[Process]) -> None:
        """Sum up by name what these did; nothing live may refer to them."""
        names = {process: self._fold_process(process) for process in processes}
        if names:
            self._fold_failures(names)
            self._fold_sites(names)

    def _fold_process(self, process: Process) -> bytes:
        account = self.processes.pop(process)
        name = account.comm or b"?"
        if name not in self.ended and len(self.ended) >= _NAMES_MAX:
            name = OTHERS
        ended = self.ended.get(name)
        if ended is None:
            ended = self.ended[name] = EndedProcesses()
        ended.take(account)
        return name

    def _fold_failures(self, names: dict[Process, bytes]) -> None:
        for kind in [kind for kind in self.failures if kind.process in names]:
            assert kind.process is not None
            folded = kind._replace(process=None, comm=names[kind.process])
            self.failures[folded] += self.failures.pop(kind)

    def _fold_sites(self, names: dict[Process, bytes]) -> None:
        """A place that only the process told apart is now one with those of its namesakes."""
        for place in [place for place in self.sites if place.process in names]:
            assert place.process is not None
            site = self.sites.pop(place)
            name = names[place.process]
            folded = place._replace(process=None, name=name)
            into = self.sites.get(folded)
            if into is None:
                into = self.sites[folded] = Site(folded, site.stack, name)
            into.added += site.added
            into.removed.update(site.removed)
        self._sites_of_callers.clear()


def _exhausted(event: CallEvent) -> int:
    return event.detail if (event.caller.op, event.ret) == (Op.INIT, -errno.EMFILE) else 0


def _place(stack: Stack, caller: Caller, account: ProcessAccount) -> Place:
    op = int(caller.op)
    if not stack.frames:
        # there is no place in the code to share: keep processes apart
        return Place(op, caller.comm, caller.process, stack.reason)
    if not _names_program(stack):
        return Place(op, account.name, None, stack.identity)
    if all(map(is_runtime, stack.frames)):
        # an interpreter, which looks the same whatever script it runs
        return Place(op, account.name, caller.process, stack.identity)
    return Place(op, b"", None, stack.identity)


def _names_program(stack: Stack) -> bool:
    """Whether any frame is of a program: code of libraries alone may be in any."""
    return any(
        frame.module is not None and b".so" not in frame.module.rpartition(b"/")[2]
        for frame in stack.frames
    )
