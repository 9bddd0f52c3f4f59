"""From the ledger to a report: frozen, named, and in the end judged."""

from __future__ import annotations

import heapq
import platform
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

from tracer.core.accounts import (
    Failure,
    InstanceAccount,
    Origin,
    Place,
    ProcessAccount,
    Site,
    Watch,
)
from tracer.core.events import CALL_NAMES, Op, Process, errno_name, explanation
from tracer.core.ledger import Ledger
from tracer.core.report import (
    AuditRow,
    EndedRow,
    FailureRow,
    HolderRow,
    Host,
    InstanceRow,
    ProcessRow,
    Report,
    SiteRow,
    TargetRow,
    TraceSummary,
    Use,
    UserLimits,
)
from tracer.core.stack import missing
from tracer.core.verdict import Judgement, SiteHistory, Verdict, judge, unseen
from tracer.core.walk import Charge, UserUse, Walk
from tracer.kernel.probe import Counters
from tracer.targets.path import path_state
from tracer.targets.processes import ProcessTable
from tracer.targets.users import user_name

# How many processes that have ended are told apart; those before them are summed up by name.
_ENDED_MAX = 1024
# How many watches of a place are shown, each with the state of its path.
_TARGETS_MAX = 10_000
# Rank of sites in a report: what needs action first.
_ORDER = {verdict: rank for rank, verdict in enumerate(Verdict)}


class Snapshots:
    """
    Reports on one ledger and the time since this was made.

    `older_s`: watches younger than this are not judged. `mode` is how the kernel tells of calls,
    `truth` where the walks come from.
    """

    def __init__(
        self, ledger: Ledger, processes: ProcessTable, *, older_s: float, mode: str, truth: str
    ) -> None:
        self._ledger = ledger
        self._processes = processes
        self._older_s = older_s
        self._began = time.monotonic_ns()
        self._users: tuple[UserUse, ...] = ()
        self._last_added: tuple[float, Mapping[Process, int]] = (time.monotonic(), {})
        self._host = Host(kernel=platform.release(), mode=mode, truth=truth)

    def saw(self, walk: Walk) -> None:
        """
        Take users and limits from this walk from now on; remember who holds instances.

        The ledger must have been reconciled with it: what then holds nothing may be summed up.
        """
        self._users = walk.users
        for walked in walk.instances.values():
            for holder in walked.holders:
                self._remember(holder.process)
        idle = self._ledger.idle()
        if len(idle) > _ENDED_MAX:
            self._ledger.fold(self._processes.ended(idle)[:-_ENDED_MAX])

    def _remember(self, process: Process) -> None:
        facts = self._processes.get(process)
        account = self._ledger.accounts.processes.get(process)
        if facts is not None and account is not None:
            account.comm = account.comm or facts.comm

    def live(self, counters: Counters) -> Report:
        """How it stands now: processes with rates, sites by live watches, no verdicts."""
        rates = self._rates()
        sites = [
            self._site_row(site, _unjudged())
            for site in sorted(
                (site for site in self._ledger.accounts.sites.values() if site.live),
                key=lambda site: -site.live,
            )
        ]
        return self._report(counters, False, self._process_rows(rates, {}), sites)

    def judged(
        self, counters: Counters, complete: bool, asked_at: int, uncounted: Iterable[Charge] = ()
    ) -> Report:
        """
        The end of the trace: every site with its verdict, evidence and targets.

        `asked_at` (CLOCK_MONOTONIC, ns) is where it ends, unless all traced processes ended before.
        `uncounted` are the users with whom the kernel's counters and its list disagree.
        """
        # a command is judged as it stood when it ended, not when that was noticed
        all_ended = self._ledger.last_exit_at if not self._ledger.instances else None
        ended = all_ended or asked_at
        left: dict[int, list[Watch]] = defaultdict(list)
        not_seen: dict[Process, list[Watch]] = defaultdict(list)
        for _, watch in self._ledger.watches():
            if watch.site is not None:
                left[id(watch.site)].append(watch)
            elif watch.origin is Origin.UNKNOWN:
                not_seen[watch.owner.process].append(watch)
        sites = []
        leaked: Counter[Process] = Counter()
        for site in self._ledger.accounts.sites.values():
            watches = left[id(site)]
            if not site.added:
                continue
            judgement = self._judge(site, watches, ended)
            if judgement.verdict is Verdict.LEAK:
                leaked.update(watch.owner.process for watch in watches)
            sites.append(self._site_row(site, judgement, watches, ended))
        for watches in not_seen.values():
            sites.append(self._unseen_row(watches, ended))
        sites.sort(key=lambda site: (_ORDER[site.verdict], -site.live, -site.added))
        report = self._report(counters, complete, self._process_rows({}, leaked), sites)
        return replace(report, audit=tuple(map(_audit_row, uncounted)))

    def _judge(self, site: Site, watches: Iterable[Watch], ended: int) -> Judgement:
        return judge(
            SiteHistory(
                live_added_at=[watch.added_at for watch in watches],
                freed_by_exit=site.freed_by_exit,
                removed=site.removed,
                judged_until=ended - int(self._older_s * 1e9),
                older_s=self._older_s,
            )
        )

    def _report(
        self,
        counters: Counters,
        complete: bool,
        processes: tuple[ProcessRow, ...],
        sites: Iterable[SiteRow],
    ) -> Report:
        totals = self._ledger.totals
        return Report(
            host=self._host,
            trace=TraceSummary(
                seconds=(time.monotonic_ns() - self._began) / 1e9,
                rounds=0,
                added=totals.added,
                updated=totals.updated,
                removed=dict(totals.removed),
                failed=sum(self._ledger.accounts.failures.values()),
                lost=counters.lost,
                healed=counters.lost - counters.unhealed,
                complete=complete and not totals.exits_truncated,
                unfollowed=counters.unfollowed,
            ),
            limits=tuple(map(_user_limits, self._users)),
            processes=processes,
            instances=tuple(map(self._instance_row, self._ledger.instances.values())),
            sites=tuple(sites),
            failures=tuple(
                _failure_row(failure, count)
                for failure, count in self._ledger.accounts.failures.most_common()
            ),
            ended=self._ended_rows(),
        )

    def _rates(self) -> dict[Process, float]:
        now = time.monotonic()
        then, before = self._last_added
        added = {key: account.added for key, account in self._ledger.accounts.processes.items()}
        self._last_added = now, added
        elapsed = max(now - then, 1e-3)
        return {key: (count - before.get(key, 0)) / elapsed for key, count in added.items()}

    def _process_rows(
        self, rates: Mapping[Process, float], leaked: Mapping[Process, int]
    ) -> tuple[ProcessRow, ...]:
        instances = Counter(
            process
            for account in self._ledger.instances.values()
            for process in {holder.process for holder in account.holders}
        )
        accounts = sorted(
            self._ledger.accounts.processes.values(),
            key=lambda account: (-account.live, -account.added),
        )
        return tuple(self._process_row(account, instances, rates, leaked) for account in accounts)

    def _ended_rows(self) -> tuple[EndedRow, ...]:
        rows = (
            EndedRow(
                comm=comm,
                processes=ended.processes,
                added=ended.added,
                updated=ended.updated,
                failed=ended.failed,
                removed=dict(ended.removed),
                baseline=ended.baseline,
            )
            for comm, ended in self._ledger.accounts.ended.items()
        )
        return tuple(sorted(rows, key=lambda row: -row.added))

    def _process_row(
        self,
        account: ProcessAccount,
        instances: Mapping[Process, int],
        rates: Mapping[Process, float],
        leaked: Mapping[Process, int],
    ) -> ProcessRow:
        facts = self._processes.get(account.process)
        return ProcessRow(
            pid=account.process.pid,
            comm=account.comm or (facts.comm if facts is not None else b"?"),
            exe=facts.exe if facts is not None else None,
            uid=facts.uid if account.uid is None and facts is not None else account.uid,
            added=account.added,
            updated=account.updated,
            failed=account.failed,
            removed=dict(account.removed),
            live=account.live,
            baseline=account.baseline,
            instances=instances.get(account.process, 0),
            leaked=leaked.get(account.process, 0),
            rate=rates.get(account.process, 0.0),
        )

    def _instance_row(self, account: InstanceAccount) -> InstanceRow:
        site = account.opening_site
        return InstanceRow(
            id=f"{account.instance.group:x}.{account.instance.gen:x}",
            holders=tuple(
                HolderRow(holder.process.pid, holder.fd, self._comm(holder.process))
                for holder in account.holders
            ),
            watches=len(account.watches),
            queued=account.queued,
            opened_by=site_id(site.place) if site is not None else None,
        )

    def _comm(self, process: Process) -> bytes:
        account = self._ledger.accounts.processes.get(process)
        if account is not None and account.comm:
            return account.comm
        facts = self._processes.get(process)
        return facts.comm if facts is not None else b"?"

    def _site_row(
        self, site: Site, judgement: Judgement, watches: Sequence[Watch] = (), ended: int = 0
    ) -> SiteRow:
        return SiteRow(
            id=site_id(site.place),
            verdict=judgement.verdict,
            comm=site.comm,
            pids=tuple(sorted({watch.owner.process.pid for watch in watches})),
            live=site.live,
            added=site.added,
            removed=dict(site.removed),
            per_round=(),
            stack=site.stack,
            evidence=judgement.evidence,
            targets=self._targets(watches, ended),
        )

    def _unseen_row(self, watches: Sequence[Watch], ended: int) -> SiteRow:
        owner = watches[0].owner
        comm = self._comm(owner.process)
        stack = missing("inotrace did not see them being added")
        freed = sum(
            watch.owner is owner and watch.site is None for _, watch in self._ledger.freed_by_exit
        )
        place = Place(int(Op.ADD), comm, owner.process, stack.reason)
        judgement = unseen(len(watches), freed)
        return SiteRow(
            id=site_id(place),
            verdict=judgement.verdict,
            comm=comm,
            pids=(owner.process.pid,),
            live=len(watches),
            added=0,
            removed={},
            per_round=(),
            stack=stack,
            evidence=judgement.evidence,
            targets=self._targets(watches, ended),
        )

    def _targets(self, watches: Sequence[Watch], ended: int) -> tuple[TargetRow, ...]:
        # the oldest first, and no more than anyone reads: each is looked up
        oldest = heapq.nsmallest(_TARGETS_MAX, watches, key=lambda watch: watch.added_at)
        return tuple(
            TargetRow(
                path=watch.path,
                target=watch.target,
                pid=watch.owner.process.pid,
                wd=watch.wd,
                age_s=max(ended - watch.added_at, 0) / 1e9,
                state=path_state(watch.owner.process.pid, watch.path, watch.target),
            )
            for watch in oldest
        )


def site_id(place: Place) -> str:
    """
    Twelve hexadecimal digits that are the same for the same place in every trace.

    Without frames there is no place but the process, and it is not the same in the next trace.
    """
    return sha256(repr(tuple(place)).encode()).hexdigest()[:12]


def _user_limits(user: UserUse) -> UserLimits:
    return UserLimits(
        uid=user.uid,
        user=user_name(user.uid),
        userns=user.userns,
        watches=Use(user.watches, user.watches_limit),
        instances=Use(user.instances, user.instances_limit),
    )


def _audit_row(charge: Charge) -> AuditRow:
    more = charge.user.instances > charge.instances or charge.user.watches > charge.watches
    return AuditRow(
        limits=_user_limits(charge.user),
        watches=charge.watches,
        instances=charge.instances,
        explanation=(
            "an instance on its way through a socket, or held by the kernel alone"
            if more
            else "instances closed or watches removed while they were counted"
        ),
    )


def _unjudged() -> Judgement:
    return Judgement(Verdict.YOUNG, ())


def _failure_row(failure: Failure, count: int) -> FailureRow:
    return FailureRow(
        call=CALL_NAMES[Op(failure.op)],
        errno=errno_name(failure.errno),
        count=count,
        pid=failure.process.pid if failure.process is not None else None,
        comm=failure.comm,
        explanation=explanation(Op(failure.op), failure.errno, failure.exhausted),
    )
