"""
The ledger: which watches exist, who added them from where, and what became of the others.

Keyed by (instance, watch descriptor). Closed watches live on only as counts, so that memory
follows what is live and not what has happened.
"""

from __future__ import annotations

from collections import deque

from tracer.core.accounts import ProcessAccount
from tracer.core.cause import Cause
from tracer.core.comparison import Difference, InFlight, difference, missing_instances
from tracer.core.departures import Departure, Departures
from tracer.core.entries import CauseOf, Entries
from tracer.core.events import (
    IN_MASK_ADD,
    IN_ONESHOT,
    CallEvent,
    ClosedEvent,
    GoneEvent,
    Instance,
    LastEvent,
    Op,
    Tally,
    TallyEvent,
)
from tracer.core.stack import Stack
from tracer.core.walk import HolderFd, KernelWatch, Payer, Walk, WatchRows
from tracer.core.watch import InstanceAccount, Origin, Watch, place_of

# How long a removed descriptor is remembered, so that its add, should it arrive late, does not
# come back to life. Far above the order's slack.
_REMEMBER_NS = 100_000_000


def _unknown(_: Watch) -> Cause:
    return Cause.UNKNOWN


class Ledger(Entries):
    """
    Fed with events in order of time, and with walks of the kernel's list.

    :attr:`last_exit_at` is when a process last ended that had watches.
    """

    def __init__(self, keep_freed_by_exit: bool = False) -> None:
        super().__init__(keep_freed_by_exit)
        self.last_exit_at: int | None = None
        self._has_baseline = False
        self._in_flight = InFlight()
        self._removals: deque[tuple[int, InstanceAccount, int]] = deque()
        self._departures = Departures()

    # events

    def apply(self, event: CallEvent, stack: Stack) -> None:
        """One finished call; `stack` is its symbolized stack."""
        caller = event.caller
        account = self.accounts.caller(caller)
        if event.ret < 0:
            self._fail(event, account)
        elif not caller.instance.group:
            # another thread closed the descriptor meanwhile: the next walk tells what remained
            return
        elif self._departures and (
            departure := self._departures.of(self.recognized(caller.instance), _wd_of(event))
        ):
            self._apply_late(event, account, stack, departure)
        elif caller.op == Op.INIT:
            self._open(event, account, stack)
        elif caller.op == Op.ADD:
            self._add(event, account, stack)
        else:
            self._remove_by_call(event)

    def apply_tally(self, event: TallyEvent, stack: Stack) -> None:
        """Calls that a buffer refused, and that left nothing but their number."""
        caller = event.call.caller
        account = self.accounts.caller(caller)
        if event.tally is Tally.FAILURE:
            self.accounts.fail(event.call, account, event.times)
        elif event.tally is Tally.UPDATE:
            account.updated += event.times
            self.totals.updated += event.times
        else:
            share = self.accounts.share(stack, caller, account)
            self._count_passed(share, account, Cause.RM_WATCH, event.times)

    def apply_last(self, event: LastEvent) -> None:
        """The watches that an instance still had when a process holding it ended."""
        if event.wds or event.truncated:
            self.last_exit_at = max(self.last_exit_at or 0, event.ts)
        # also of an instance that no event or walk has told of: its watches are not known
        self.totals.exits_truncated += event.truncated
        account = self.instances.get(self.recognized(event.instance))
        if account is None:
            return
        account.ended_holders.add(event.process)
        account.last_exit_at = max(account.last_exit_at, event.ts)
        for wd in event.wds:
            watch = account.watches.get(wd)
            if watch is not None:
                watch.at_exit = event.ts

    def apply_gone(self, event: GoneEvent, cause: Cause) -> None:
        """A watch went without a traced call."""
        key = self.recognized(event.instance)
        account = self.instances.get(key)
        watch = account.watches.get(event.wd) if account is not None else None
        departure = Departure(cause, event.ts, was_live=watch is not None)
        self._departures.note(key, event.wd, departure)
        if account is not None:
            # a walk that began before it still lists the watch
            account.removed_at[event.wd] = event.ts
            self._removals.append((event.ts, account, event.wd))
            if watch is not None:
                self._leave(account, watch, cause, event.ts)

    def apply_closed(self, event: ClosedEvent) -> None:
        """An instance went with all its watches."""
        key = self.recognized(event.instance)
        account = self.instances.get(key)
        live = frozenset(account.watches) if account is not None else frozenset()
        self._departures.note(key, None, Departure(Cause.CLOSED, event.ts, live=live))
        if account is None:
            return
        closer = {one.process for one in account.holders if one.process.pid == event.tgid}
        if closer - account.ended_holders:
            # closed by a process that goes on: what ended before did not free the watches
            account.last_exit_at = 0
        self._close(account, _unknown, event.ts)

    def _apply_late(
        self, event: CallEvent, process: ProcessAccount, stack: Stack, departure: Departure
    ) -> None:
        """A call that ended, or was told, only after what it speaks of had gone."""
        if event.caller.op == Op.INIT:
            self.accounts.share(stack, event.caller, process).pass_by(Cause.CLOSED, 1)
            self.totals.opened += 1
            self.totals.closed += 1
        if event.caller.op != Op.ADD:
            return
        if departure.was_live:
            process.updated += 1
            self.totals.updated += 1
            return
        share = self.accounts.share(stack, event.caller, process)
        self._count_passed(share, process, departure.cause)
        departure = departure._replace(was_live=True, ts=event.ts)
        self._departures.note(self.recognized(event.caller.instance), event.wd, departure)

    def forget_removals(self, before: int) -> None:
        """Drop the memory of removals that no late event can contradict any more."""
        horizon = before - _REMEMBER_NS
        self._departures.forget(horizon)
        while self._removals and self._removals[0][0] < horizon:
            ts, account, wd = self._removals.popleft()
            if account.removed_at.get(wd) == ts:
                del account.removed_at[wd]

    def _fail(self, event: CallEvent, process: ProcessAccount) -> None:
        self.accounts.fail(event, process)
        caller = event.caller
        if caller.op == Op.ADD and caller.instance.group:
            account = self.instances.get(self.recognized(caller.instance))
            if account is not None:
                account.failed_adds += 1

    def _open(self, event: CallEvent, process: ProcessAccount, stack: Stack) -> None:
        caller = event.caller
        account = self._instance(caller.instance, event.ts)
        account.opener = process
        if account.opening_share is None:
            account.opening_share = self.accounts.share(stack, caller, process)
            account.opening_share.site.added += 1
            account.opening_share.enter(event.ts)
            self.totals.opened += 1
        account.holders = (HolderFd(caller.process, event.ret),)
        if event.ino:
            account.payer = event.ino, event.dev

    def _add(self, event: CallEvent, process: ProcessAccount, stack: Stack) -> None:
        ts, wd = event.ts, event.ret
        account = self._instance(event.caller.instance, ts)
        watch = account.watches.get(wd)
        if watch is not None and _was_found_first(watch, event):
            self._disown(account, watch)
        elif watch is not None:
            watch.touched = max(watch.touched, ts)
            watch.is_oneshot = bool(event.arg & IN_ONESHOT) or (
                watch.is_oneshot and bool(event.arg & IN_MASK_ADD)
            )
            process.updated += 1
            self.totals.updated += 1
            return
        share = self.accounts.share(stack, event.caller, process)
        if account.removed_at.get(wd, 0) > ts:
            # its removal was drained before it
            self._count_passed(share, process, Cause.RM_WATCH)
            return
        share.site.added += 1
        process.added += 1
        self.totals.added += 1
        watch = Watch(wd, Origin.TRACED, process, ts, event.arg, share, event.path)
        if event.inode:
            watch.place = place_of(event.inode, event.ino, event.dev, event.detail)
        self._enter(account, watch)

    def _remove_by_call(self, event: CallEvent) -> None:
        ts, wd = event.ts, event.wd
        account = self._instance(event.caller.instance, ts)
        account.removed_at[wd] = ts
        self._removals.append((ts, account, wd))
        watch = account.watches.get(wd)
        # without a watch: its add is still to come, or a walk has counted it as gone
        if watch is not None and watch.touched <= ts:
            self._leave(account, watch, Cause.RM_WATCH, ts)

    # the kernel's list

    def difference(self, walk: Walk, *, exact: bool = False) -> Difference:
        """What the kernel says otherwise."""
        return difference(self.instances, walk, self._in_flight, self._departures, exact)

    def payers_of_missing(self, walk: Walk) -> set[Payer]:
        """Who is charged for instances that a walk did not find, if they live."""
        missing = missing_instances(self.instances, walk)
        return {account.payer for account in missing if account.payer is not None}

    def reconcile(
        self,
        walk: Walk,
        *,
        baseline: bool = False,
        exact: bool = False,
        cause_of: CauseOf = _unknown,
    ) -> Difference:
        """
        Make the ledger say what the kernel says; returns what had to change.

        Call it with all events up to ``walk.ended`` applied. What the first walk finds, or one
        with `baseline`, was there before the trace. `cause_of` tells why a watch went of which
        no event has told.
        """
        change = self.difference(walk, exact=exact)
        for account in change.closed:
            self._close(account, cause_of, _gone_at(account, walk))
        for account, watch in change.gone:
            self._leave(account, watch, cause_of(watch), _gone_at(account, walk))
        origin = Origin.BASELINE if baseline or not self._has_baseline else Origin.UNKNOWN
        for key, wd, kernel_watch in change.unlisted:
            self._adopt(walk, key, wd, kernel_watch, origin)
        if baseline or not self._has_baseline:
            self._in_flight.was_there(walk)
        self._has_baseline = True
        self._refresh(walk)
        return change

    def _adopt(
        self, walk: Walk, key: Instance, wd: int, kernel_watch: KernelWatch, origin: Origin
    ) -> None:
        walked = walk.instances[key]
        account = self._instance(key, 0 if origin is Origin.BASELINE else walk.began)
        owner = account.opener or self.accounts.process(walked.holders[0].process)
        watch = Watch(wd, origin, owner, walk.began, kernel_watch.mask, inode=kernel_watch.inode)
        self._enter(account, watch)

    def _refresh(self, walk: Walk) -> None:
        for key, walked in walk.instances.items():
            account = self._instance(key, walk.began)
            account.holders = walked.holders
            account.seen_at = walk.began
            account.payer = walked.payers[0] if walked.payers else account.payer
            # an instance may outlive any number of processes that held it
            account.ended_holders &= {holder.process for holder in walked.holders}
            account.look_at_queue(walked.queue, walk.began)
            if account.without_target and walked.watches is not None:
                self._learn_targets(account, walked.watches)

    def _learn_targets(self, account: InstanceAccount, watches: WatchRows) -> None:
        for wd, kernel_watch in watches.only(account.without_target.copy()):
            account.without_target.discard(wd)
            account.watches[wd].place = place_of(*kernel_watch.inode)


def _gone_at(account: InstanceAccount, walk: Walk) -> int:
    """When something went of which only the next walk tells: halfway, for want of better."""
    return (max(account.seen_at, account.opened_at) + walk.began) // 2


def _wd_of(event: CallEvent) -> int | None:
    return None if event.caller.op == Op.INIT else event.wd


def _was_found_first(watch: Watch, event: CallEvent) -> bool:
    """Whether a walk found the watch while the call that adds it was still running."""
    return watch.origin is Origin.UNKNOWN and event.ts - watch.added_at < _REMEMBER_NS
