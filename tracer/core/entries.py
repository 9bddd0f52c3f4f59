"""The entries of the ledger: instances and watches, as they come, stay and go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tracer.core.accounts import Accounts, ProcessAccount, Totals
from tracer.core.cause import Cause
from tracer.core.events import Instance, Process
from tracer.core.site import Share
from tracer.core.walk import Payer
from tracer.core.watch import InstanceAccount, Origin, Watch

CauseOf = Callable[[Watch], Cause]


class Entries:
    """
    What is live, and every count that follows from it.

    `keep_freed_by_exit` is for tracing one command: a watch that only the end of its process
    freed is kept in :attr:`freed_by_exit` and still counts as live; so is an instance.
    :attr:`marks` are the times (ns) between which rounds were.
    """

    def __init__(self, keep_freed_by_exit: bool = False) -> None:
        self.instances: dict[Instance, InstanceAccount] = {}
        self.accounts = Accounts()
        self.freed_by_exit: list[tuple[InstanceAccount, Watch]] = []
        self.instances_freed_by_exit: list[InstanceAccount] = []
        self.totals = Totals()
        self.marks: list[int] = []
        self._latest: dict[int, Instance] = {}
        self._keep_freed_by_exit = keep_freed_by_exit

    def watches(self) -> Iterator[tuple[InstanceAccount, Watch]]:
        """Everything that counts as live."""
        for account in self.instances.values():
            for watch in account.watches.values():
                yield account, watch
        yield from self.freed_by_exit

    def _enter(self, account: InstanceAccount, watch: Watch) -> None:
        account.watches[watch.wd] = watch
        if watch.place is None:
            account.without_target.add(watch.wd)
        watch.owner.live += 1
        watch.owner.baseline += watch.origin is Origin.BASELINE
        if watch.share is not None:
            watch.share.enter(watch.added_at)

    def _leave(self, account: InstanceAccount, watch: Watch, cause: Cause, at: int) -> None:
        self._take_out(account, watch)
        watch.owner.live -= 1
        watch.owner.removed[cause] += 1
        self.totals.removed[cause] += 1
        if watch.share is not None:
            watch.share.leave(at, watch.added_at, cause)

    def _disown(self, account: InstanceAccount, watch: Watch) -> None:
        """Take back the adoption of a watch whose call has now been seen."""
        self._take_out(account, watch)
        watch.owner.live -= 1

    def _count_passed(
        self, share: Share, process: ProcessAccount, cause: Cause, times: int = 1
    ) -> None:
        """Watches that came and went without being listed."""
        share.pass_by(cause, times)
        for counted in (process, self.totals):
            counted.added += times
            counted.removed[cause] += times

    def _take_out(self, account: InstanceAccount, watch: Watch) -> None:
        del account.watches[watch.wd]
        account.without_target.discard(watch.wd)

    def _instance(self, key: Instance, now: int) -> InstanceAccount:
        account = self.instances.get(key)
        if account is not None:
            return account
        key = self.recognized(key)
        account = self.instances.get(key)
        if account is None:
            account = self.instances[key] = InstanceAccount(key, key.gen or now)
            self._latest[key.group] = key
        return account

    def recognized(self, key: Instance) -> Instance:
        """
        The instance that the ledger knows by this key.

        The kernel side remembers only so many generations and tells 0 for one it forgot. As each
        instance that is made gets one, that is the latest with this address.
        """
        if key.gen or key in self.instances:
            return key
        return self._latest.get(key.group, key)

    def _close(self, account: InstanceAccount, cause_of: CauseOf, at: int) -> None:
        # a holder that closed it by itself has told no end
        holders = {holder.process for holder in account.holders}
        by_exit = bool(account.last_exit_at) and holders <= account.ended_holders
        for watch in list(account.watches.values()):
            if not by_exit:
                self._leave(account, watch, Cause.CLOSED, at)
            elif watch.at_exit != account.last_exit_at:
                self._leave(account, watch, cause_of(watch), at)
            elif self._keep_freed_by_exit and watch.origin is not Origin.BASELINE:
                self._take_out(account, watch)
                self.freed_by_exit.append((account, watch))
                if watch.share is not None:
                    watch.share.leave_by_exit(account.last_exit_at)
            else:
                self._leave(account, watch, Cause.CLOSED, at)
        self._end(account, by_exit, at)

    def _end(self, account: InstanceAccount, by_exit: bool, at: int) -> None:
        del self.instances[account.instance]
        if self._latest.get(account.instance.group) == account.instance:
            del self._latest[account.instance.group]
        share = account.opening_share
        if share is None:
            return
        if by_exit and self._keep_freed_by_exit:
            self.instances_freed_by_exit.append(account)
            share.leave_by_exit(account.last_exit_at)
        else:
            self.totals.closed += 1
            share.leave(at, account.opened_at, Cause.CLOSED)

    # rounds

    def begin_mark(self) -> None:
        """What comes and goes from now on until the mark is of no round."""
        for stock in self.accounts.stocks():
            stock.begin_mark()

    def mark(self, ts: int) -> None:
        """End a round, if there is one, and begin another; with all events up to `ts` applied."""
        for stock in self.accounts.stocks():
            stock.mark(len(self.marks))
        self.marks.append(ts)

    # processes

    def idle(self) -> list[Process]:
        """
        Those that have no watch and hold no instance, in the order in which they came.

        What only an exit freed counts as if it were there.
        """
        busy: set[Process] = set()
        for account in (*self.instances.values(), *self.instances_freed_by_exit):
            busy.update(holder.process for holder in account.holders)
            if account.opener is not None:
                busy.add(account.opener.process)
        return [
            process
            for process, account in self.accounts.processes.items()
            if not account.live and process not in busy
        ]

    def payers(self) -> set[Payer]:
        """Who is charged for the instances, as far as it is known."""
        payers = (account.payer for account in self.instances.values())
        return {payer for payer in payers if payer is not None}

    def fold(self, ended: Iterable[Process]) -> None:
        """Sum up by name what these did; only for those that are idle and have ended."""
        self.accounts.fold(ended)
