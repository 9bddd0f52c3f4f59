"""From the ledger to a report: frozen, named, and in the end judged."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from tracer.core.accounts import Failure, ProcessAccount
from tracer.core.events import Process
from tracer.core.exhaustion import growing, with_pace
from tracer.core.ledger import Ledger
from tracer.core.report import (
    AuditRow,
    EndedRow,
    FailureRow,
    HolderRow,
    Host,
    InstanceRow,
    PodRow,
    ProcessRow,
    Report,
    SiteRow,
    TraceSummary,
    Unit,
    Use,
    UserLimits,
)
from tracer.core.site import Site
from tracer.core.trend import Trend
from tracer.core.verdict import Verdict
from tracer.core.walk import Charge, Inode, Payer, UserUse, Walk
from tracer.core.watch import InstanceAccount
from tracer.judging import Judging, comm_of, site_id
from tracer.kernel.inodes import DentryNames, InodeState
from tracer.kernel.probe import Counters
from tracer.shortages import KeptShortages, failure_row
from tracer.targets.fate import Fates
from tracer.targets.pods import Pods, pod_uid_in
from tracer.targets.processes import ProcessTable
from tracer.targets.users import user_name

# How many processes that have ended are told apart; those before them are summed up by name.
_ENDED_MAX = 1024
# How long a pod may live at most without its name being learned.
_NAMES_EVERY_S = 5.0


class Snapshots:
    """
    Reports on one ledger and the time since this was made.

    `older_s`: watches younger than this are not judged. `mode` is how the kernel tells of calls,
    `truth` where the walks come from. `state_of` tells whether an inode was deleted,
    and `names_of` what the kernel calls it.
    `exits_are_told`: the kernel side tells what processes had when they ended.
    """

    def __init__(
        self,
        ledger: Ledger,
        processes: ProcessTable,
        *,
        older_s: float,
        mode: str,
        truth: str,
        state_of: Callable[[Inode], InodeState],
        exits_are_told: bool = False,
        names_of: Callable[[Inode], DentryNames | None] | None = None,
    ) -> None:
        self._ledger = ledger
        self._processes = processes
        self._older_s = older_s
        self._state_of = state_of
        self._names_of = names_of
        self._exits_are_told = exits_are_told
        self._began = time.monotonic_ns()
        self._users: tuple[UserUse, ...] = ()
        self._pods = Pods()
        self._named_at = 0.0
        self._trends: dict[tuple[Payer, Unit], Trend] = {}
        self._shortages = KeptShortages(processes)
        self._last_added: tuple[float, Mapping[Process, int]] = (time.monotonic(), {})
        self._host = Host(kernel=platform.release(), mode=mode, truth=truth)

    @property
    def has_new_failures(self) -> bool:
        """Whether a walk is wanted, while a limit that was met still is."""
        return self._shortages.lag(self._ledger.accounts)

    def saw_all(self, walk: Walk) -> None:
        """Take from this walk, of all processes, who has how much of a limit."""
        self._shortages.saw(walk, self._ledger.accounts)

    def saw(self, walk: Walk) -> None:
        """
        Take users and limits from this walk from now on; remember who holds instances.

        The ledger must have been reconciled with it: what then holds nothing may be summed up.
        """
        self._users = walk.users
        self._learn_names()
        self._follow(walk)
        for walked in walk.instances.values():
            for holder in walked.holders:
                self._remember(holder.process)
        idle = self._ledger.idle()
        if len(idle) > _ENDED_MAX:
            self._ledger.fold(self._processes.ended(idle)[:-_ENDED_MAX])

    def _follow(self, walk: Walk) -> None:
        before, self._trends = self._trends, {}
        for user in walk.users:
            for unit, used in ((Unit.WATCHES, user.watches), (Unit.INSTANCES, user.instances)):
                key = user.payer, unit
                self._trends[key] = before.get(key) or Trend()
                self._trends[key].note(walk.began, used)

    def _pace(self, payer: Payer, unit: Unit) -> float:
        trend = self._trends.get((payer, unit))
        return trend.per_hour if trend is not None else 0.0

    def _live_limits(self) -> tuple[UserLimits, ...]:
        return tuple(with_pace(_user_limits(user), self._pace) for user in self._users)

    def _learn_names(self) -> None:
        """Those of a pod are deleted with it."""
        if time.monotonic() - self._named_at >= _NAMES_EVERY_S:
            self._pods = self._pods.later()
            self._pods.learn()
            self._named_at = time.monotonic()

    def _remember(self, process: Process) -> None:
        facts = self._processes.get(process)
        account = self._ledger.accounts.processes.get(process)
        if facts is not None and account is not None:
            account.comm = account.comm or facts.comm

    def live(self, counters: Counters) -> Report:
        """
        How it stands now: processes with rates, sites by live watches, no verdicts.

        A round that has begun counts. A limit that was met is told once a walk has told who is
        full.
        """
        rates = self._rates()
        sites = [
            _live_row(site)
            for site in sorted(
                (site for site in self._ledger.accounts.sites.values() if site.left),
                key=lambda site: -site.left,
            )
        ]
        report = self._report(counters, False, self._process_rows(rates), sites)
        return replace(
            report,
            trace=replace(report.trace, rounds=len(self._ledger.marks)),
            limits=self._live_limits(),
            failures=self._failure_rows(self._shortages.awaits),
        )

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
        pods = Pods(self._pods)
        judging = Judging(
            self._ledger,
            self._processes,
            Fates(self._state_of, pods),
            older_s=self._older_s,
            ended=ended,
            exits_are_told=self._exits_are_told,
            names_of=self._names_of,
            pods=pods,
        )
        sites = judging.rows(map(_user_limits, self._users))
        processes = self._process_rows({}, judging)
        report = self._report(counters, complete, processes, sites)
        return replace(
            report,
            limits=growing(report.limits, sites),
            audit=tuple(map(_audit_row, uncounted)),
            pods=_pod_rows(report, pods),
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
                rounds=max(len(self._ledger.marks) - 1, 0),
                added=totals.added,
                updated=totals.updated,
                removed=dict(totals.removed),
                failed=sum(self._ledger.accounts.failures.values()),
                lost=counters.lost,
                healed=counters.lost - counters.unhealed,
                complete=complete and not totals.exits_truncated,
                unfollowed=counters.unfollowed,
                opened=totals.opened,
                closed=totals.closed,
            ),
            limits=tuple(map(_user_limits, self._users)),
            processes=processes,
            instances=tuple(map(self._instance_row, self._ledger.instances.values())),
            sites=tuple(sites),
            failures=self._failure_rows(),
            ended=self._ended_rows(),
        )

    def _failure_rows(
        self, but: Callable[[Failure], bool] = lambda _: False
    ) -> tuple[FailureRow, ...]:
        return tuple(
            failure_row(failure, count, self._shortages.of(failure))
            for failure, count in self._ledger.accounts.failures.most_common()
            if not but(failure)
        )

    def _rates(self) -> dict[Process, float]:
        now = time.monotonic()
        then, before = self._last_added
        added = {key: account.added for key, account in self._ledger.accounts.processes.items()}
        self._last_added = now, added
        elapsed = max(now - then, 1e-3)
        return {key: (count - before.get(key, 0)) / elapsed for key, count in added.items()}

    def _process_rows(
        self, rates: Mapping[Process, float], judging: Judging | None = None
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
        return tuple(self._process_row(account, instances, rates, judging) for account in accounts)

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
        judging: Judging | None,
    ) -> ProcessRow:
        facts = self._processes.get(account.process)
        belonging = self._processes.belonging(account.process)
        own = Verdict.HELD if account.live else Verdict.CLEAN
        leaked = 0
        if judging is not None:
            verdict = judging.verdicts.get(account.process, own)
            own = min(own, verdict, key=lambda one: one.rank)
            leaked = judging.leaked[account.process]
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
            leaked=leaked,
            rate=rates.get(account.process, 0.0),
            verdict=own,
            container=belonging.container if belonging is not None else None,
            pod=belonging.pod if belonging is not None else None,
            unit=belonging.unit if belonging is not None else None,
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
            queued=account.queue.length,
            opened_by=site_id(site.place) if site is not None else None,
        )

    def _comm(self, process: Process) -> bytes:
        return comm_of(process, self._ledger, self._processes)


def _pod_rows(report: Report, pods: Pods) -> tuple[PodRow, ...]:
    """Of its processes and targets."""
    uids = {process.pod for process in report.processes}
    uids.update(
        pod_uid_in(target.path)
        for site in report.sites
        for target in site.targets
        if target.path is not None
    )
    return tuple(PodRow(*pods.named(uid)) for uid in sorted(filter(None, uids)))


def _live_row(site: Site) -> SiteRow:
    return SiteRow(
        id=site_id(site.place),
        unit=Unit.INSTANCES if site.opens_instances else Unit.WATCHES,
        verdict=Verdict.YOUNG,
        comm=site.comm,
        pids=(),
        live=site.left,
        added=site.added,
        removed=dict(site.removed),
        per_round=(),
        stack=site.stack,
        evidence=(),
        targets=(),
    )


def _user_limits(user: UserUse) -> UserLimits:
    return UserLimits(
        uid=user.uid,
        user=user_name(user.uid),
        userns=user.userns,
        watches=Use(user.watches, user.watches_limit),
        instances=Use(user.instances, user.instances_limit),
        maker=user.maker,
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
