"""What the ledger keeps: live watches and instances whole, everything else as counts."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tracer.core.cause import Cause
from tracer.core.events import Caller, CallEvent, FullUser, Op, Process
from tracer.core.site import Place, Share, Site, Stock
from tracer.core.stack import Stack, is_runtime

# How many names of ended processes and kinds of failures are told apart.
_NAMES_MAX = 1024
_FAILURES_MAX = 1024
_QUICK_SITES_MAX = 65536
# What the rest goes by.
OTHERS = b"(others)"


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


class Failure(NamedTuple):
    """
    A kind of failed call by one process; by all that go by this name if `process` is None.

    `full` is who had all that the limit allows, as Payer, None if that is not what it met.
    """

    op: int
    errno: int
    process: Process | None
    comm: bytes
    exhausted: int = 0
    full: tuple[int, int] | None = None


class Totals:
    """Counts over the whole trace; of watches, but for `opened` and `closed`."""

    __slots__ = ("added", "closed", "exits_truncated", "opened", "removed", "updated")

    def __init__(self) -> None:
        self.added = 0
        self.opened = 0
        self.closed = 0
        self.updated = 0
        self.removed: Counter[Cause] = Counter()
        self.exits_truncated = 0

    @property
    def net(self) -> int:
        """How many watches and instances more there are than there were."""
        return self.added + self.opened - self.closed - sum(self.removed.values())


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
        # as of the last such call
        self.full_users: dict[Failure, FullUser] = {}
        self._shares_of_callers: dict[tuple[int, int], tuple[Caller, Stack, Share]] = {}

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
        kind = count_failure(self.failures, event, times)
        full = event.full_user
        if full is not None and kind.full is not None:
            self.full_users[kind] = full

    def share(self, stack: Stack, caller: Caller, account: ProcessAccount) -> Share:
        """Of the site of a call; the same caller and stack come as the same objects, most times."""
        quick = (id(caller), id(stack))
        found = self._shares_of_callers.get(quick)
        if found is None:
            if len(self._shares_of_callers) >= _QUICK_SITES_MAX:
                self._shares_of_callers.clear()
            site = self._site(stack, caller, account)
            share = site.shares.get(caller.process)
            if share is None:
                share = site.shares[caller.process] = Share(site, caller.process)
            # with the objects themselves, since an id is only unique while its object lives
            found = self._shares_of_callers[quick] = caller, stack, share
        share = found[2]
        share.site.comm = caller.comm
        return share

    def _site(self, stack: Stack, caller: Caller, account: ProcessAccount) -> Site:
        place = _place(stack, caller, account)
        site = self.sites.get(place)
        if site is None:
            site = self.sites[place] = Site(place, stack, caller.comm)
        return site

    def stocks(self) -> Iterator[Stock]:
        """All sites, and what each process has of them."""
        for site in self.sites.values():
            yield site
            yield from site.shares.values()

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
            folded = kind._replace(process=None, comm=names[kind.process], full=None)
            self.failures[folded] += self.failures.pop(kind)
            self.full_users.pop(kind, None)

    def _fold_sites(self, names: dict[Process, bytes]) -> None:
        """A place that only the process told apart is now one with those of its namesakes."""
        for site in self.sites.values():
            for process in names.keys() & site.shares.keys():
                del site.shares[process]
        for place in [place for place in self.sites if place.process in names]:
            assert place.process is not None
            site = self.sites.pop(place)
            name = names[place.process]
            folded = place._replace(process=None, name=name)
            into = self.sites.get(folded)
            if into is None:
                into = self.sites[folded] = Site(folded, site.stack, name)
            into.take(site)
        self._shares_of_callers.clear()


def count_failure(failures: Counter[Failure], event: CallEvent, times: int = 1) -> Failure:
    """Count a failed call; the kind that it is counted as."""
    caller = event.caller
    full = event.full_user
    kind = Failure(
        op=caller.op,
        errno=-event.ret,
        process=caller.process,
        comm=caller.comm,
        exhausted=_exhausted(event),
        full=full.payer if full is not None else None,
    )
    if kind not in failures and len(failures) >= _FAILURES_MAX:
        kind = kind._replace(process=None, comm=OTHERS, full=None)
    failures[kind] += times
    return kind


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
