"""From what is left in the ledger at the end to judged rows of a report."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

from tracer.core.events import Op, Process
from tracer.core.exhaustion import with_time_left
from tracer.core.findings import LEAST_QUEUE_RISES, UNREAD_NS, Findings
from tracer.core.growth import History
from tracer.core.ledger import Ledger
from tracer.core.report import HolderRow, SiteRow, TargetRow, Unit, UserLimits
from tracer.core.site import Place, Share, Site, Stock
from tracer.core.stack import missing
from tracer.core.verdict import (
    Judgement,
    ShareHistory,
    SiteHistory,
    Verdict,
    judge,
    unseen,
)
from tracer.core.walk import Inode, Payer
from tracer.core.watch import InstanceAccount, Origin, Watch
from tracer.kernel.inodes import DentryNames
from tracer.kernel.procfs import is_stopped
from tracer.target_rows import Shown, TargetRows
from tracer.targets.fate import Fate, Fates
from tracer.targets.pods import Pods
from tracer.targets.processes import ProcessTable

# How many watches of a place are shown and looked up, the oldest first.
_TARGETS_MAX = 10_000
_REASONS = {
    Fate.DELETED: "deleted",
    Fate.UNMOUNTED: "on filesystems that are mounted nowhere",
    Fate.UNREACHABLE: "on filesystems that only other namespaces see",
    Fate.POD_REMOVED: "in pods that were removed",
    Fate.CGROUP_REMOVED: "cgroups that were removed",
    Fate.PATH_GONE: "nowhere to be found by their path",
}


class _Left(NamedTuple):
    """
    A watch, or an instance as a whole. `lives` is False for what only an exit freed, which is
    judged as it stood then.
    """

    share: Share
    since: int
    account: InstanceAccount
    watch: Watch | None
    lives: bool


_BySite = Mapping[int, Sequence[_Left]]


class Judging:
    """
    The verdicts at one moment, `ended` (CLOCK_MONOTONIC, ns).

    After :meth:`rows`, `leaked` counts the watches that each process leaks, and `verdicts` has the
    worst verdict of each.
    """

    def __init__(
        self,
        ledger: Ledger,
        processes: ProcessTable,
        fates: Fates,
        *,
        older_s: float,
        ended: int,
        exits_are_told: bool,
        pods: Pods | None = None,
        names_of: Callable[[Inode], DentryNames | None] | None = None,
    ) -> None:
        self._pods = pods or Pods()
        self._ledger = ledger
        self._processes = processes
        self._fates = fates
        self._target_rows = TargetRows(fates.paths, names_of, fates.state_of, ended)
        self._older_s = older_s
        self._ended = ended
        self._exits_are_told = exits_are_told
        self.leaked: Counter[Process] = Counter()
        self.verdicts: dict[Process, Verdict] = {}

    def rows(self, limits: Iterable[UserLimits]) -> tuple[SiteRow, ...]:
        """Every site, and what was not seen being added: what needs action first, by its cost."""
        left = self._left()
        rows = [
            self._row(site, left.get(id(site), ()))
            for site in self._ledger.accounts.sites.values()
            if site.added
        ]
        rows += map(self._unseen_row, self._unseen().values())
        rows.sort(key=lambda row: (row.verdict.rank, -row.live, -row.per_hour, -row.added))
        return tuple(with_time_left(rows, limits))

    # what is left

    def _left(self) -> _BySite:
        left: dict[int, list[_Left]] = defaultdict(list)
        for one in (*self._left_watches(), *self._left_instances()):
            left[id(one.share.site)].append(one)
        for ones in left.values():
            ones.sort(key=lambda one: one.since)
        return left

    def _left_watches(self) -> Iterator[_Left]:
        freed = {id(watch) for _, watch in self._ledger.freed_by_exit}
        for account, watch in self._ledger.watches():
            if watch.share is not None:
                lives = id(watch) not in freed
                yield _Left(watch.share, watch.added_at, account, watch, lives)

    def _left_instances(self) -> Iterator[_Left]:
        for lives, accounts in (
            (True, self._ledger.instances.values()),
            (False, self._ledger.instances_freed_by_exit),
        ):
            for account in accounts:
                if account.opening_share is not None:
                    yield _Left(account.opening_share, account.opened_at, account, None, lives)

    def _unseen(self) -> Mapping[Process, Sequence[Watch]]:
        unseen: dict[Process, list[Watch]] = defaultdict(list)
        for _, watch in self._ledger.watches():
            if watch.share is None and watch.origin is Origin.UNKNOWN:
                unseen[watch.owner.process].append(watch)
        return unseen

    # verdicts

    def _row(self, site: Site, left: Sequence[_Left]) -> SiteRow:
        shown = heapq.nsmallest(_TARGETS_MAX, left, key=lambda one: one.since)
        fates = {id(one): self._fate(one) for one in shown}
        judgement = judge(self._history(site, left, fates))
        self._count(site, left, judgement)
        return SiteRow(
            id=site_id(site.place),
            unit=Unit.INSTANCES if site.opens_instances else Unit.WATCHES,
            verdict=judgement.verdict,
            comm=site.comm,
            pids=tuple(sorted({one.share.process.pid for one in left})),
            live=len(left),
            added=site.added,
            removed=dict(site.removed),
            per_round=self._nets(site),
            stack=site.stack,
            evidence=judgement.evidence,
            targets=self._targets(shown, fates),
            holders=self._holders(shown),
            # what has ended goes on at no pace
            per_hour=judgement.per_hour if any(one.lives for one in left) else 0.0,
            payer=_payer(left),
        )

    def _history(self, site: Site, left: Sequence[_Left], fates: Mapping[int, Fate]) -> SiteHistory:
        by_process: dict[Process, list[_Left]] = defaultdict(list)
        for one in left:
            by_process[one.share.process].append(one)
        return SiteHistory(
            shares=[self._share(ones[0].share, ones, fates) for ones in by_process.values()],
            total=self._total(site, left),
            freed_by_exit=site.freed_by_exit,
            removed=site.removed,
            findings=self._findings(left, fates),
            exits_are_told=self._exits_are_told,
            older_s=self._older_s,
            opens_instances=site.opens_instances,
        )

    def _share(
        self, share: Share, left: Sequence[_Left], fates: Mapping[int, Fate]
    ) -> ShareHistory:
        # one that has ended is judged by its own life, and not by rounds that it did not see
        has_ended = bool(share.ended_at) and not share.live
        account = self._ledger.accounts.processes.get(share.process)
        return ShareHistory(
            process=share.process,
            history=History(
                left_since=[one.since for one in left],
                removed=share.removed,
                longest_life=share.longest_life,
                course=share.course,
                until=self._until(share.ended_at if has_ended else self._ended),
                nets=() if has_ended else self._nets(share),
                rounds_ns=self._rounds_ns(),
            ),
            findings=self._findings(left, fates),
            is_replacement=(
                not share.site.opens_instances
                and account is not None
                and 0 < account.live <= account.baseline
            ),
        )

    def _total(self, site: Site, left: Sequence[_Left]) -> History:
        return History(
            left_since=[one.since for one in left if one.lives],
            removed=sum(site.removed.values()) + site.freed_by_exit,
            longest_life=max(_lives(site, left), default=0),
            course=site.course,
            until=self._until(self._ended),
            nets=self._nets(site),
            rounds_ns=self._rounds_ns(),
        )

    def _until(self, ended: int) -> int:
        return ended - int(self._older_s * 1e9)

    def _nets(self, stock: Stock) -> tuple[int, ...]:
        """What came and stayed in each round."""
        marks = [*stock.at_marks, *[0] * (len(self._ledger.marks) - len(stock.at_marks))]
        return tuple(after - before for before, after in zip(marks, marks[1:]))

    def _rounds_ns(self) -> int:
        marks = self._ledger.marks
        return marks[-1] - marks[1] if len(marks) > 1 else 0

    def _count(self, site: Site, left: Sequence[_Left], judgement: Judgement) -> None:
        for process, verdict in judgement.of_processes.items():
            self._note(process, verdict)
        if not site.opens_instances:
            self.leaked.update(
                one.share.process
                for one in left
                if judgement.of_processes[one.share.process] is Verdict.LEAK
            )

    def _note(self, process: Process, verdict: Verdict) -> None:
        known = self.verdicts.get(process, verdict)
        self.verdicts[process] = min(known, verdict, key=lambda one: one.rank)

    # findings

    def _findings(self, left: Sequence[_Left], fates: Mapping[int, Fate]) -> Findings:
        old = [one for one in left if one.lives and one.since <= self._until(self._ended)]
        gone = Counter(fates[id(one)] for one in old if id(one) in fates)
        unread = [one for one in old if self._is_unread(one.account)]
        empty = [one.account for one in old if one.watch is None and not one.account.watches]
        processes = {one.share.process for one in old}
        on = Counter(_places(old))
        return Findings(
            number=len(old),
            checked=sum(id(one) in fates for one in old),
            gone={self._reason(fate, old, fates): gone[fate] for fate in _REASONS if gone[fate]},
            unread=len(unread),
            unread_full=sum(one.account.queue.is_full is True for one in unread),
            unread_events=sum(
                {id(one.account): one.account.queue.length for one in unread}.values()
            ),
            without_watch=len(empty),
            failed_adds=sum(account.failed_adds > 0 for account in empty),
            orphans=sum(map(self._processes.is_orphan, processes)),
            processes=len(processes),
            repeated=sum(on.values()) - len(on),
            most_on_one=max(on.values(), default=0),
        )

    def _reason(self, fate: Fate, left: Iterable[_Left], fates: Mapping[int, Fate]) -> str:
        """With the pods that were removed, as far as paths tell them."""
        gone = (one.watch for one in left if fates.get(id(one)) is fate)
        paths = (watch.path for watch in gone if watch is not None and watch.path is not None)
        pods = self._pods.in_paths(paths) if fate is Fate.POD_REMOVED else ""
        return f"{_REASONS[fate]} ({pods})" if pods else _REASONS[fate]

    def _is_unread(self, account: InstanceAccount) -> bool:
        """Nobody reads, though more comes, and not because all that could are stopped."""
        if not account.unread_since or self._ended - account.unread_since < UNREAD_NS:
            return False
        rises = account.queue_rises >= LEAST_QUEUE_RISES
        comes = rises and self._ended - account.queue_rose_at < UNREAD_NS
        return bool(comes or account.queue.is_full) and not all(
            is_stopped(holder.process.pid) for holder in account.holders
        )

    def _fate(self, one: _Left) -> Fate:
        # what only an exit freed may have been deleted after it
        if not one.lives:
            return Fate.UNKNOWN
        watch = one.watch
        if watch is None:
            return Fate.THERE
        holders = [holder.process for holder in one.account.holders]
        return self._fates.of(one.share.process, watch.path, watch.inode, holders)

    # rows

    def _targets(self, shown: Sequence[_Left], fates: Mapping[int, Fate]) -> tuple[TargetRow, ...]:
        return self._target_rows.of(
            [
                Shown(one.watch, fates[id(one)], one.account.holders)
                for one in shown
                if one.watch is not None
            ]
        )

    def _holders(self, shown: Sequence[_Left]) -> tuple[HolderRow, ...]:
        """Of instances, the descriptors."""
        return tuple(
            HolderRow(holder.process.pid, holder.fd, self._comm(holder.process))
            for one in shown
            if one.watch is None
            for holder in one.account.holders
        )

    def _unseen_row(self, watches: Sequence[Watch]) -> SiteRow:
        owner = watches[0].owner
        comm = self._comm(owner.process)
        stack = missing("inotrace did not see them being added")
        freed = sum(
            watch.owner is owner and watch.share is None for _, watch in self._ledger.freed_by_exit
        )
        place = Place(int(Op.ADD), comm, owner.process, stack.reason)
        judgement = unseen(len(watches), freed)
        self._note(owner.process, judgement.verdict)
        oldest = heapq.nsmallest(_TARGETS_MAX, watches, key=lambda watch: watch.added_at)
        return SiteRow(
            id=site_id(place),
            unit=Unit.WATCHES,
            verdict=judgement.verdict,
            comm=comm,
            pids=(owner.process.pid,),
            live=len(watches),
            added=0,
            removed={},
            per_round=(),
            stack=stack,
            evidence=judgement.evidence,
            targets=self._target_rows.of([Shown(watch, Fate.UNKNOWN) for watch in oldest]),
        )

    def _comm(self, process: Process) -> bytes:
        return comm_of(process, self._ledger, self._processes)


def comm_of(process: Process, ledger: Ledger, processes: ProcessTable) -> bytes:
    """The name of a process as it was last seen."""
    account = ledger.accounts.processes.get(process)
    if account is not None and account.comm:
        return account.comm
    facts = processes.get(process)
    return facts.comm if facts is not None else b"?"


def site_id(place: Place) -> str:
    """
    Twelve hexadecimal digits that are the same for the same place in every trace.

    Without frames there is no place but the process, and it is not the same in the next trace.
    """
    return sha256(repr(tuple(place)).encode()).hexdigest()[:12]


def _lives(site: Site, left: Iterable[_Left]) -> Iterator[int]:
    """How long those lived that are gone, at most; also those that went by an exit."""
    yield site.longest_life
    yield from (one.share.ended_at - one.since for one in left if not one.lives)


def _places(left: Iterable[_Left]) -> Iterator[tuple[Process, int]]:
    """What each watch is on, as far as that is known."""
    for one in left:
        if one.watch is not None and one.watch.place is not None:
            yield one.share.process, one.watch.place


def _payer(left: Iterable[_Left]) -> Payer | None:
    """Who is charged for most of it."""
    payers = Counter(one.account.payer for one in left if one.account.payer is not None)
    return payers.most_common(1)[0][0] if payers else None
