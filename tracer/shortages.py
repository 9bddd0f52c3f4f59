"""Which limit a call met that the kernel refused for having no more."""

from __future__ import annotations

import errno
from collections.abc import Iterable

from tracer.core.accounts import Accounts, Failure
from tracer.core.events import CALL_NAMES, Exhausted, Op, Process, errno_name, explanation
from tracer.core.holdings import HeldBy, Holdings, use_of
from tracer.core.report import FailureRow
from tracer.core.shortage import HolderShare, Resource, Shortage
from tracer.core.walk import Payer, UserUse, Walk
from tracer.kernel.descriptors import descriptors_of
from tracer.kernel.procfs import user_namespace
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

    def of(
        self, op: int, number: int, process: Process, uid: int | None, exhausted: int = 0
    ) -> Shortage | None:
        """
        What a call of the user `uid` had none left of when it failed with this errno; None if that
        is not why, or cannot be told. `exhausted` is one of Exhausted.
        """
        if (op, number) == (Op.ADD, errno.ENOSPC):
            return self._of_user(Resource.WATCHES, self._payers(process, uid))
        if (op, number) != (Op.INIT, errno.EMFILE):
            return None
        if exhausted == Exhausted.DESCRIPTORS:
            return self._of_process(process)
        found = self._of_user(Resource.INSTANCES, self._opening_payers(process, uid))
        if exhausted == Exhausted.INSTANCES or (found is not None and found.is_met):
            return found
        return self._of_process(process)

    def _opening_payers(self, process: Process, uid: int | None) -> Iterable[Payer]:
        """Who would be charged for one more instance of the process."""
        facts = self._processes.meet(process.pid) if is_running(process) else None
        namespace = user_namespace(process.pid)
        payer = (namespace, facts.uid) if facts is not None and namespace is not None else None
        return (payer,) if payer in self._holdings.users else self._payers(process, uid)

    def _payers(self, process: Process, uid: int | None) -> Iterable[Payer]:
        """Who is charged for what the process has, else the user wherever it has something."""
        held = self._holdings.payers_of(process)
        return held or (self._holdings.of_uid(uid) if uid is not None else ())

    def _of_user(self, resource: Resource, payers: Iterable[Payer]) -> Shortage | None:
        user = self._holdings.nearest(payers, resource)
        return self._shortage(user, resource) if user is not None else None

    def _shortage(self, user: UserUse, resource: Resource) -> Shortage:
        used, limit = use_of(user, resource)
        held = self._holdings.holders((user.userns, user.uid), resource)
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

    def _of_process(self, process: Process) -> Shortage | None:
        found = descriptors_of(process.pid) if is_running(process) else None
        if found is None:
            return None
        holder = self._holder(HeldBy(process, 0, 0))
        return Shortage(Resource.DESCRIPTORS, found.used, found.limit, holders=(holder,))


class KeptShortages:
    """
    Those of the failures in a ledger, as they stood when the limit was last seen met: by the end
    of a trace who had it all may have let go.
    """

    def __init__(self, processes: ProcessTable) -> None:
        self._shortages = Shortages(processes)
        self._kept: dict[Failure, Shortage] = {}
        self._seen = 0
        self._looked_into: frozenset[Failure] = frozenset()

    def lag(self, accounts: Accounts) -> bool:
        """Whether there are limits met of which no walk has told."""
        return len(accounts.failures) != self._seen and any(map(self.awaits, accounts.failures))

    def awaits(self, kind: Failure) -> bool:
        """Whether this is a limit met, and no walk has told of it yet."""
        is_told = kind.process is None or kind in self._looked_into
        return is_of_a_limit(kind.op, kind.errno) and not is_told

    def saw(self, walk: Walk, accounts: Accounts) -> None:
        """Look at the failures again; `walk` is of all processes."""
        self._seen = len(accounts.failures)
        wanted = [kind for kind in accounts.failures if is_of_a_limit(kind.op, kind.errno)]
        self._looked_into = frozenset(wanted)
        if wanted:
            self._shortages.saw(walk)
        self._kept = {failure: self._kept[failure] for failure in wanted if failure in self._kept}
        for failure in wanted:
            found = self._find(failure, accounts)
            known = self._kept.get(failure)
            if found is not None and (known is None or found.is_met or not known.is_met):
                self._kept[failure] = found

    def of(self, failure: Failure) -> Shortage | None:
        return self._kept.get(failure)

    def _find(self, failure: Failure, accounts: Accounts) -> Shortage | None:
        process = failure.process
        if process is None:
            return None
        account = accounts.processes.get(process)
        uid = account.uid if account is not None else None
        op, number = failure.op, failure.errno
        return self._shortages.of(op, number, process, uid, failure.exhausted)


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
