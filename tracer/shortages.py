"""Which limit a call met that the kernel refused for having no more."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from tracer.core.accounts import Accounts, Failure
from tracer.core.events import (
    CALL_NAMES,
    Exhausted,
    FullUser,
    Op,
    Process,
    errno_name,
    explanation,
)
from tracer.core.holdings import HeldBy, Holdings, use_of
from tracer.core.report import FailureRow
from tracer.core.shortage import HolderShare, Resource, Shortage
from tracer.core.walk import Payer, UserUse, Walk
from tracer.kernel.descriptors import descriptors_of
from tracer.kernel.procfs import read_process, user_namespace
from tracer.targets.processes import ProcessTable, is_running
from tracer.targets.users import user_name

_HOLDERS_SHOWN = 3
_OF_LIMITS = ((Op.ADD, errno.ENOSPC), (Op.INIT, errno.EMFILE))
_UNKNOWN = b"?"


class Shortages:
    """Told from the last walk; that of a process itself, from /proc while it runs."""

    def __init__(self, processes: ProcessTable) -> None:
        self._processes = processes
        self._holdings = Holdings(Walk(0, 0, {}, ()))

    def saw(self, walk: Walk) -> None:
        """Go by this walk from now on, which must be of all processes."""
        self._holdings = Holdings(walk)

    def shows(self, kind: Failure) -> bool:
        """Whether the last walk still has the user full that a call found so."""
        user = self._holdings.users.get(kind.full) if kind.full is not None else None
        return user is not None and _is_met(user, _resource(kind))

    def of(self, kind: Failure, full: FullUser | None = None) -> Shortage | None:
        """
        What a call had none left of; None if it met no limit, or that cannot be told.

        `full` is whom the kernel found to be full. Who holds it all is told only if a walk found
        the same.
        """
        if not is_of_a_limit(kind.op, kind.errno) or kind.process is None:
            return None
        if full is not None:
            return self._of_full(full, kind)
        if kind.op == Op.ADD:
            return self._nearest(self._holdings.payers_of(kind.process), Resource.WATCHES)
        own = _of_process(kind.process, kind.comm)
        if kind.exhausted == Exhausted.DESCRIPTORS:
            return own
        user = self._nearest(_opening_payers(kind.process), Resource.INSTANCES)
        return next((each for each in (user, own) if each is not None and each.is_met), None)

    def _of_full(self, full: FullUser, kind: Failure) -> Shortage:
        if self.shows(kind):
            return self._shortage(self._holdings.users[full.payer], _resource(kind))
        return Shortage(
            resource=_resource(kind),
            used=full.used,
            limit=full.limit,
            uid=full.uid,
            user=user_name(full.uid),
            userns=full.userns,
        )

    def _nearest(self, payers: Iterable[Payer], resource: Resource) -> Shortage | None:
        user = self._holdings.nearest(payers, resource)
        return self._shortage(user, resource) if user is not None else None

    def _shortage(self, user: UserUse, resource: Resource) -> Shortage:
        used, limit = use_of(user, resource)
        held = self._holdings.holders(user.payer, resource)
        return Shortage(
            resource=resource,
            used=used,
            limit=limit,
            uid=user.uid,
            user=user_name(user.uid),
            userns=user.userns,
            holders=tuple(map(self._holder, held[:_HOLDERS_SHOWN])),
            others=len(held[_HOLDERS_SHOWN:]),
        )

    def _holder(self, held: HeldBy) -> HolderShare:
        facts = self._processes.get(held.process)
        comm = facts.comm if facts is not None else _UNKNOWN
        return HolderShare(held.process.pid, comm, held.watches, held.instances)


class KeptShortages:
    """
    Those of the failures in a ledger, as they stood after the last such call: by the end of a trace
    who had it all may have let go, and others may have it.
    """

    def __init__(self, processes: ProcessTable) -> None:
        self._shortages = Shortages(processes)
        self._kept: dict[Failure, Shortage] = {}
        # how many of each there were when it was last looked into
        self._counts: dict[Failure, int] = {}
        self._seen = 0

    def lag(self, accounts: Accounts) -> bool:
        """Whether there are limits met of which no walk has told."""
        return len(accounts.failures) != self._seen and any(map(self.awaits, accounts.failures))

    def awaits(self, kind: Failure) -> bool:
        """Whether this is a limit met, and no walk has told of it yet."""
        is_told = kind.process is None or kind in self._counts
        return is_of_a_limit(kind.op, kind.errno) and not is_told

    def saw(self, walk: Walk, accounts: Accounts) -> None:
        """Look into what has failed since the last walk; `walk` is of all processes."""
        self._seen = len(accounts.failures)
        counts = {
            kind: count
            for kind, count in accounts.failures.items()
            if is_of_a_limit(kind.op, kind.errno)
        }
        again = [kind for kind, count in counts.items() if count != self._counts.get(kind)]
        self._counts = counts
        self._kept = {kind: self._kept[kind] for kind in counts if kind in self._kept}
        if again:
            self._shortages.saw(walk)
        for kind in again:
            found = self._shortages.of(kind, accounts.full_users.get(kind))
            if found is not None and (found.holders or kind not in self._kept):
                self._kept[kind] = found

    def of(self, failure: Failure) -> Shortage | None:
        return self._kept.get(failure)


def _opening_payers(process: Process) -> Iterable[Payer]:
    """Who would be charged for one more instance of the process, if it still runs."""
    facts = read_process(process.pid) if is_running(process) else None
    namespace = user_namespace(process.pid)
    return ((namespace, facts.uid),) if facts is not None and namespace is not None else ()


def _of_process(process: Process, comm: bytes) -> Shortage | None:
    found = descriptors_of(process.pid) if is_running(process) else None
    if found is None:
        return None
    holder = HolderShare(process.pid, comm, 0, 0)
    return Shortage(Resource.DESCRIPTORS, found.used, found.limit, holders=(holder,))


def _resource(kind: Failure) -> Resource:
    return Resource.WATCHES if kind.op == Op.ADD else Resource.INSTANCES


def _is_met(user: UserUse, resource: Resource) -> bool:
    used, limit = use_of(user, resource)
    return used >= limit


def is_of_a_limit(op: int, number: int) -> bool:
    """Whether a call fails with this errno for having no more of something."""
    return (op, number) in _OF_LIMITS


def failure_row(failure: Failure, count: int, shortage: Shortage | None = None) -> FailureRow:
    """With the errno's name and what it means."""
    return FailureRow(
        call=CALL_NAMES[Op(failure.op)],
        errno=errno_name(failure.errno),
        count=count,
        pid=failure.process.pid if failure.process is not None else None,
        comm=failure.comm,
        explanation=explanation(Op(failure.op), failure.errno, failure.exhausted),
        shortage=shortage,
    )
