"""The report that ends a trace, for people: the answer first, evidence in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.text import Text

from tracer.core.cause import Cause
from tracer.core.evidence import duration
from tracer.core.report import (
    AuditRow,
    EndedRow,
    ProcessRow,
    Report,
    Use,
    UserLimits,
)
from tracer.core.shortage import NEAR, UNLIMITED, share_of
from tracer.views.columns import GAP, Column, aligned, natural_width
from tracer.views.failures import failure_lines
from tracer.views.namespaces import in_namespace
from tracer.views.sites import about, pace, site_lines, verdict_word
from tracer.views.text import counted, printable, wrapped

_PROCESSES_SHOWN = 15
_PROCESS_HEADER: tuple[str, ...] = (
    "PID",
    "COMMAND",
    "LIVE",
    "BEFORE",
    "ADDED",
    "REMOVED",
    "INSTANCES",
    "VERDICT",
)
# what the name of a pod or unit is told by, shortened
_PLACE_LEAST = 14
# as container runtimes show an id, which is a hash, and --pod takes a uid
_ID_SHOWN, _HASH_DIGITS, _UID_SHOWN = 12, 64, 8
# of more users the first would be lost from sight
_LIMITS_SHOWN = 8


def report_lines(report: Report, width: int, *, full_stacks: bool = False) -> Iterator[Text]:
    """The report as lines no wider than `width` where anything can be shortened."""
    yield from _flowed(_header(report), width)
    yield from _warnings(report, width)
    yield Text()
    yield from site_lines(report, width, full_stacks=full_stacks)
    yield from failure_lines(report.failures, width)
    yield from _processes(report, width)
    yield from _limits(report.limits, width)


# the header


def _header(report: Report) -> Sequence[Text]:
    trace, host = report.trace, report.host
    removed = trace.removed.get(Cause.RM_WATCH, 0)
    otherwise = sum(trace.removed.values()) - removed
    counts = f"{trace.added:,} added  {removed:,} removed  {otherwise:,} gone otherwise  "
    unhealed = trace.lost - trace.healed
    lost = Text(f"{unhealed:,} lost", "bold red" if unhealed else "")
    if trace.healed:
        lost.append(f", {trace.healed:,} healed", "")
    equal = (
        Text("ledger = kernel", "green") if trace.complete else Text("ledger ≠ kernel", "bold red")
    )
    rounds = f", {counted(trace.rounds, 'round')}" if trace.rounds else ""
    return (
        Text.assemble(("inotrace", "bold"), f"  {duration(trace.seconds)}{rounds}"),
        Text(f"{printable(host.kernel)}, {host.mode}"),
        Text(counts).append_text(lost),
        equal,
    )


def _flowed(parts: Sequence[Text], width: int) -> Iterator[Text]:
    """The parts on one line, or on several when they do not fit."""
    line = Text()
    for part in parts:
        if line and line.cell_len + 3 + part.cell_len > width:
            yield line
            line = Text("          ")
        elif line:
            line.append("   ")
        line.append_text(part)
    yield line


def _warnings(report: Report, width: int) -> Iterator[Text]:
    trace = report.trace
    if trace.lost > trace.healed:
        unhealed = counted(trace.lost - trace.healed, "record")
        yield from wrapped(
            f"{unhealed} did not fit the buffers: what was counted, by whom, and what exits "
            "freed may be short. The verdicts are inconclusive.",
            width,
        )
    if not trace.complete:
        yield from wrapped(
            "The ledger could not be verified against the kernel's list at the end: "
            "the verdicts are inconclusive.",
            width,
        )
    if trace.unfollowed:
        unfollowed = counted(trace.unfollowed, "process", "processes")
        yield from wrapped(
            f"{unfollowed} of the command could not be followed, too many ran at a time: "
            "the verdicts are inconclusive.",
            width,
        )
    for row in report.audit:
        yield from wrapped(_audit(row), width)


def _audit(row: AuditRow) -> str:
    user, watches, instances = row.limits, row.limits.watches.used, row.limits.instances.used
    return (
        f"The kernel charges {printable(user.user)} for {counted(watches, 'watch', 'watches')} and "
        f"{counted(instances, 'instance')}, {row.watches:,} and {row.instances:,} were found: "
        f"{row.explanation}."
    )


# the rest


def _processes(report: Report, width: int) -> Iterator[Text]:
    processes = all_processes(report)
    if not processes:
        return
    yield Text()
    shown = processes[:_PROCESSES_SHOWN]
    right, left = Column(right=True), Column()
    columns = [right, Column(shrink=True), right, right, right, right, right, left]
    rows = [(*process_columns(process), _process_verdict(process)) for process in shown]
    pods = {pod.uid: pod.name for pod in report.pods}
    places = [_place(process, pods) for process in shown]
    header = _PROCESS_HEADER
    if any(places) and natural_width((header, *rows)) + GAP + _PLACE_LEAST <= width:
        header = (*header, "WHERE")
        columns.append(Column(shrink=True))
        rows = [(*row, place) for row, place in zip(rows, places)]
    yield from aligned(rows, columns, width, header=header)
    yield from more_processes(processes[len(shown) :])


def all_processes(report: Report) -> list[ProcessRow | EndedRow]:
    """One by one and summed up, in one order."""
    return sorted((*report.processes, *report.ended), key=_by_use)


def _by_use(process: ProcessRow | EndedRow) -> tuple[int, int]:
    live = process.live if isinstance(process, ProcessRow) else 0
    return -live, -process.added


def process_columns(process: ProcessRow | EndedRow) -> tuple[str, ...]:
    """A process as columns, up to its instances."""
    if isinstance(process, EndedRow):
        name = f"{printable(process.comm)} ({process.processes:,})"
        who, live, instances = ("ended", name), 0, 0
    else:
        who = str(process.pid), printable(process.comm)
        live, instances = process.live, process.instances
    return (
        *who,
        f"{live:,}",
        f"{process.baseline:,}",
        f"{process.added:,}",
        f"{sum(process.removed.values()):,}",
        f"{instances:,}",
    )


def _place(process: ProcessRow | EndedRow, pods: Mapping[str, str | None]) -> str:
    """What it runs in: the pod, else the container, else the unit."""
    if isinstance(process, EndedRow):
        return ""
    if process.pod is not None:
        return printable(pods.get(process.pod) or f"pod {process.pod[:_UID_SHOWN]}")
    if process.container is not None:
        name = process.container
        return printable(name[:_ID_SHOWN] if len(name) == _HASH_DIGITS else name)
    return printable(process.unit or "")


def more_processes(hidden: Sequence[ProcessRow | EndedRow]) -> Iterator[Text]:
    """A line that says how many are not shown."""
    number = sum(row.processes if isinstance(row, EndedRow) else 1 for row in hidden)
    if number:
        yield Text(f"and {counted(number, 'more process', 'more processes')}", "dim")


def _process_verdict(process: ProcessRow | EndedRow) -> str:
    if isinstance(process, EndedRow):
        return "clean"
    if process.leaked:
        return f"{process.leaked:,} leaked"
    return verdict_word(process.verdict)


def _limits(limits: Sequence[UserLimits], width: int) -> Iterator[Text]:
    if limits:
        yield Text()
    for user in limits[:_LIMITS_SHOWN]:
        yield from wrapped(limit_sentence(user), width, style=limit_style(user))
    if len(limits) > _LIMITS_SHOWN:
        yield Text(f"and {counted(len(limits) - _LIMITS_SHOWN, 'more user')}", "dim")


def limit_sentence(user: UserLimits) -> str:
    """How much of the two limits a user has, and when they are met at this pace."""
    who = f"{printable(user.user)}{in_namespace(user.userns)}"
    return (
        f"{who} has {_use(user.watches, 'watch', 'watches')}{_growth(user.watches)} "
        f"and {_use(user.instances, 'instance', 'instances')}{_growth(user.instances)}"
    )


def limit_style(user: UserLimits) -> str:
    """A warning for a user who is near to a limit."""
    nearest = max(share_of(use.used, use.limit) for use in (user.watches, user.instances))
    return "bold red" if nearest >= 1 else "yellow" if nearest >= NEAR else ""


def _use(use: Use, one: str, several: str) -> str:
    if use.limit >= UNLIMITED:
        return counted(use.used, one, several)
    return f"{use.used:,} of {use.limit:,} {several}"


def _growth(use: Use) -> str:
    if use.full_in_s is None:
        return ""
    when = f"full in about {about(use.full_in_s)}" if use.used < use.limit else "full"
    return f" ({pace(use.per_hour)}: {when})"
