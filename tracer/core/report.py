"""What views are given: frozen, complete, and free of anything that still changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tracer.core.accounts import Cause
from tracer.core.stack import Stack
from tracer.core.verdict import Evidence, Verdict
from tracer.core.walk import Target


@dataclass(frozen=True)
class Host:
    """`mode` is how the calls are seen, `truth` where the kernel's own list comes from."""

    kernel: str
    mode: str
    truth: str


@dataclass(frozen=True)
class TraceSummary:
    """
    `removed` by cause over all sites. `lost` records did not fit the buffers; `healed` of them were
    taken back from where the kernel side keeps them. `complete`: the ledger was verified equal to
    the kernel at the end. `unfollowed` descendants of the command were not traced: too many ran at
    a time.
    """

    seconds: float
    rounds: int
    added: int
    updated: int
    removed: Mapping[Cause, int]
    failed: int
    lost: int
    healed: int
    complete: bool
    command: str | None = None
    unfollowed: int = 0


@dataclass(frozen=True)
class Use:
    used: int
    limit: int


@dataclass(frozen=True)
class UserLimits:
    """A user's use of the two limits; `userns` is the inode number of the user namespace."""

    uid: int
    user: str
    userns: int
    watches: Use
    instances: Use


@dataclass(frozen=True)
class AuditRow:
    """
    A user whom the kernel charges for more or less than is in any process's descriptors.

    `limits` are the kernel's counters; `watches` and `instances` are what was found.
    """

    limits: UserLimits
    watches: int
    instances: int
    explanation: str


@dataclass(frozen=True)
class ProcessRow:
    """One process. `exe`, `comm` are raw bytes; `rate` is adds per second of late."""

    pid: int
    comm: bytes
    exe: bytes | None
    uid: int | None
    added: int
    updated: int
    failed: int
    removed: Mapping[Cause, int]
    live: int
    baseline: int
    instances: int
    leaked: int = 0
    rate: float = 0.0


@dataclass(frozen=True)
class EndedRow:
    """Processes of one name that have ended and hold nothing: as many as `processes`."""

    comm: bytes
    processes: int
    added: int
    updated: int
    failed: int
    removed: Mapping[Cause, int]
    baseline: int


@dataclass(frozen=True)
class HolderRow:
    pid: int
    fd: int
    comm: bytes


@dataclass(frozen=True)
class InstanceRow:
    """`id` is unique in this report; `opened_by` is the id of a site, None if before the trace."""

    id: str
    holders: tuple[HolderRow, ...]
    watches: int
    queued: int
    opened_by: str | None


@dataclass(frozen=True)
class TargetRow:
    """
    One live watch. `state`: "verified" (the path leads to the watched inode now), "changed" (it
    leads elsewhere), "gone" (nowhere), "unverified" (it cannot be looked up from here).
    """

    path: bytes | None
    target: Target | None
    pid: int
    wd: int
    age_s: float
    state: str


@dataclass(frozen=True)
class SiteRow:
    """
    A place in the code: what it added, what is left, and the verdict on it.

    `targets` are the oldest of the `live` watches; not all of them if they are very many.
    """

    id: str
    verdict: Verdict
    comm: bytes
    pids: tuple[int, ...]
    live: int
    added: int
    removed: Mapping[Cause, int]
    per_round: tuple[int, ...]
    stack: Stack
    evidence: tuple[Evidence, ...]
    targets: tuple[TargetRow, ...]


@dataclass(frozen=True)
class FailureRow:
    """
    A kind of failed call, with the errno's name and what it means.

    `pid` is None for several processes that have ended, and go by `comm`.
    """

    call: str
    errno: str
    count: int
    pid: int | None
    comm: bytes
    explanation: str


@dataclass(frozen=True)
class Report:
    """
    One moment of a trace; the last one is judged.

    `processes` are those that run, and the latest that ended; `ended` sums up the others. `audit`
    is empty where the kernel's counters agree with what was found.
    """

    host: Host
    trace: TraceSummary
    limits: tuple[UserLimits, ...]
    processes: tuple[ProcessRow, ...]
    instances: tuple[InstanceRow, ...]
    sites: tuple[SiteRow, ...]
    failures: tuple[FailureRow, ...]
    ended: tuple[EndedRow, ...] = ()
    audit: tuple[AuditRow, ...] = ()

    @property
    def live(self) -> int:
        return sum(process.live for process in self.processes)

    @property
    def baseline(self) -> int:
        """Watches from before the trace that are still there; a process counts all it had."""
        return self.live - sum(site.live for site in self.sites)

    def sites_with(self, verdict: Verdict) -> tuple[SiteRow, ...]:
        return tuple(site for site in self.sites if site.verdict is verdict)

    @property
    def has_leak(self) -> bool:
        return bool(self.sites_with(Verdict.LEAK))

    @property
    def has_unsure(self) -> bool:
        """Whether there are watches of which it is not known who added them."""
        return bool(self.sites_with(Verdict.INCONCLUSIVE))

    @property
    def conclusive(self) -> bool:
        """Nothing was lost for good, and the ledger is the kernel's own list."""
        trace = self.trace
        return trace.complete and trace.lost == trace.healed and not trace.unfollowed
