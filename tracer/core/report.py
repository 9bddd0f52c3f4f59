"""What views are given: frozen, complete, and free of anything that still changes."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from tracer.core.cause import Cause
from tracer.core.evidence import Evidence
from tracer.core.shortage import UNLIMITED, Shortage
from tracer.core.stack import Stack
from tracer.core.verdict import Verdict
from tracer.core.walk import Payer, Target


class Unit(str, enum.Enum):
    """What a place makes."""

    WATCHES = "watches"
    INSTANCES = "instances"


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
    the kernel at the end. `opened` and `closed` count instances. `unfollowed` descendants of the
    command were not traced: too many ran at a time.
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
    unfollowed: int = 0
    opened: int = 0
    closed: int = 0


@dataclass(frozen=True)
class Use:
    """Grown by `per_hour` of late."""

    used: int
    limit: int
    per_hour: float = 0.0

    @property
    def full_in_s(self) -> float | None:
        """When there is no more, at this pace; None if it does not grow, or there is no limit."""
        if self.per_hour <= 0 or self.limit >= UNLIMITED:
            return None
        return max(self.limit - self.used, 0) / self.per_hour * 3600


@dataclass(frozen=True)
class UserLimits:
    """
    A user's use of the two limits; `userns` is the inode number of the user namespace, and `maker`
    (userns, uid) is who made that and is charged for it all as well.
    """

    uid: int
    user: str
    userns: int
    watches: Use
    instances: Use
    maker: Payer | None = None

    @property
    def payer(self) -> Payer:
        return self.userns, self.uid

    def use(self, unit: Unit) -> Use:
        return self.watches if unit is Unit.WATCHES else self.instances


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
class PodRow:
    """
    A pod that processes or targets are of. `namespace` and `name` are None if they are not known.

    `exists` is False if nothing of it is left on this node, None if that cannot be told.
    """

    uid: str
    namespace: str | None
    name: str | None
    exists: bool | None


@dataclass(frozen=True)
class ProcessRow:
    """
    One process. `exe`, `comm` are raw bytes; `rate` is adds per second of late.

    `leaked` are watches; `verdict` is the worst that it has anywhere. `container`, `pod` (a uid,
    see Report.pods) and `unit` (of systemd) are what it was in when first met, if in any.
    """

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
    verdict: Verdict = Verdict.CLEAN
    container: str | None = None
    pod: str | None = None
    unit: str | None = None


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
    leads elsewhere), "gone" (nowhere), "unverified" (it cannot be looked up from here). `fate` is
    one of tracer.targets.fate.Fate: why it is gone for its holder, if it is. `resolved_by` is one
    of tracer.targets.locate.How: how the path was found, "unresolved" if it does not lead there.
    `path_pid` is the process that sees or passed the path.
    """

    path: bytes | None
    target: Target | None
    pid: int
    wd: int
    age_s: float
    state: str
    fate: str = ""
    resolved_by: str = "unresolved"
    path_pid: int | None = None


@dataclass(frozen=True)
class SiteRow:
    """
    A place in the code: what it added or opened, what is left, and the verdict on it.

    `targets` are the oldest of the `live` watches, not all of them if they are very many; of
    instances, `holders` are the descriptors. It grows by `per_hour`, `payer` (see UserLimits) has
    it, and at the pace of all that `full_payer` is charged for, the limit of that one is met in
    `full_in_s` seconds: it is `payer`, or made a namespace that this is in.
    `suppressed_by` is a pattern of the user's.
    """

    id: str
    unit: Unit
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
    holders: tuple[HolderRow, ...] = ()
    per_hour: float = 0.0
    payer: Payer | None = None
    full_payer: Payer | None = None
    full_in_s: float | None = None
    suppressed_by: str | None = None


@dataclass(frozen=True)
class FailureRow:
    """
    A kind of failed call, with the errno's name and what it means.

    `pid` is None for several processes that have ended, and go by `comm`. `shortage` is what there
    was no more of, if that is why and is known.
    """

    call: str
    errno: str
    count: int
    pid: int | None
    comm: bytes
    explanation: str
    shortage: Shortage | None = None


@dataclass(frozen=True)
class SuppressedRow:
    """A pattern of the user's that was used, where it is written, and what it matched."""

    pattern: str
    written_at: str
    places: int
    watches: int
    instances: int


@dataclass(frozen=True)
class Report:
    """
    One moment of a trace; the last one is judged.

    `processes` are those that run, and the latest that ended; `ended` sums up the others. `audit`
    is empty where the kernel's counters agree with what was found. `suppressed` lists what kept
    sites from counting.
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
    suppressed: tuple[SuppressedRow, ...] = ()
    pods: tuple[PodRow, ...] = ()

    @property
    def live(self) -> int:
        return sum(process.live for process in self.processes)

    @property
    def baseline(self) -> int:
        """Watches from before the trace that are still there; a process counts all it had."""
        return self.live - sum(site.live for site in self.sites if site.unit is Unit.WATCHES)

    def sites_with(self, *verdicts: Verdict) -> tuple[SiteRow, ...]:
        """Those that are not suppressed."""
        return tuple(
            site for site in self.sites if site.verdict in verdicts and not site.suppressed_by
        )

    @property
    def has_unsure(self) -> bool:
        """Whether there are watches of which it is not known who added them."""
        return bool(self.sites_with(Verdict.INCONCLUSIVE))

    @property
    def conclusive(self) -> bool:
        """Nothing was lost for good, and the ledger is the kernel's own list."""
        trace = self.trace
        return trace.complete and trace.lost == trace.healed and not trace.unfollowed
