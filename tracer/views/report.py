"""The report that ends a trace, for people: the answer first, evidence in words."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from rich.text import Text

from tracer.core.accounts import Cause
from tracer.core.report import (
    AuditRow,
    EndedRow,
    FailureRow,
    ProcessRow,
    Report,
    SiteRow,
    UserLimits,
)
from tracer.core.verdict import Verdict, duration
from tracer.views.columns import Column, aligned
from tracer.views.stacks import place_name, stack_lines
from tracer.views.text import counted, printable, shortened

_SITES_SHOWN = 10
_BRIEF_SITES_SHOWN = 5
_PROCESSES_SHOWN = 15
_FAILURES_SHOWN = 8
_LABEL = 6
_ROOM_FOR_REASONS = 80
_STYLES = {
    Verdict.LEAK: "bold red",
    Verdict.POSSIBLE: "bold yellow",
    Verdict.INCONCLUSIVE: "bold yellow",
    Verdict.YOUNG: "bold",
    Verdict.HELD: "bold",
    Verdict.CLEAN: "bold green",
}
_LABELS = {
    Verdict.LEAK: "LEAK",
    Verdict.POSSIBLE: "MAYBE",
    Verdict.INCONCLUSIVE: "UNSURE",
    Verdict.YOUNG: "YOUNG",
    Verdict.HELD: "HELD",
    Verdict.CLEAN: "CLEAN",
}


def report_lines(report: Report, width: int, *, full_stacks: bool = False) -> Iterator[Text]:
    """The report as lines no wider than `width` where anything can be shortened."""
    yield from _flowed(_header(report), width)
    yield from _warnings(report, width)
    yield Text()
    for verdict in (Verdict.LEAK, Verdict.POSSIBLE, Verdict.INCONCLUSIVE, Verdict.YOUNG):
        yield from _full_sites(report.sites_with(verdict), width, full_stacks)
    yield from _held(report, width)
    yield from _clean(report, width)
    yield from _failures(report.failures, width)
    yield from _processes(report, width)
    yield from _limits(report.limits)


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
    return (
        Text.assemble(("inotrace", "bold"), f"  {duration(trace.seconds)}"),
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
        yield from _wrapped(
            f"{unhealed} did not fit the buffers: what was counted, by whom, and what exits "
            "freed may be short. The verdicts are inconclusive.",
            width,
        )
    if not trace.complete:
        yield from _wrapped(
            "The ledger could not be verified against the kernel's list at the end: "
            "the verdicts are inconclusive.",
            width,
        )
    if trace.unfollowed:
        unfollowed = counted(trace.unfollowed, "process", "processes")
        yield from _wrapped(
            f"{unfollowed} of the command could not be followed, too many ran at a time: "
            "the verdicts are inconclusive.",
            width,
        )
    for row in report.audit:
        yield from _wrapped(_audit(row), width)


def _audit(row: AuditRow) -> str:
    user, watches, instances = row.limits, row.limits.watches.used, row.limits.instances.used
    return (
        f"The kernel charges {printable(user.user)} for {counted(watches, 'watch', 'watches')} and "
        f"{counted(instances, 'instance')}, {row.watches:,} and {row.instances:,} were found: "
        f"{row.explanation}."
    )


def _wrapped(sentence: str, width: int, indent: int = 0, style: str = "yellow") -> Iterator[Text]:
    for line in textwrap.wrap(sentence, max(width - indent, 30)):
        yield Text(" " * indent).append(line, style)


# sites


def _full_sites(sites: Sequence[SiteRow], width: int, full_stacks: bool) -> Iterator[Text]:
    for site in sites[:_SITES_SHOWN]:
        yield _label(site.verdict, _headline(site))
        yield from stack_lines(site.stack, width, _LABEL, full=full_stacks)
        for i, evidence in enumerate(site.evidence):
            yield Text(f"  {'why' if i == 0 else '':<5} {evidence.text}")
        yield from _where(site, width)
        yield Text()
    if len(sites) > _SITES_SHOWN:
        rest = sites[_SITES_SHOWN:]
        watches = counted(sum(site.live for site in rest), "watch", "watches")
        yield _label(rest[0].verdict, f"{watches} in {len(rest):,} more places: -f json lists all")
        yield Text()


def _label(verdict: Verdict, text: str) -> Text:
    return Text.assemble((f"{_LABELS[verdict]:<{_LABEL - 1}} ", _STYLES[verdict]), text)


def _headline(site: SiteRow) -> str:
    live = counted(site.live, "watch", "watches")
    removed = sum(site.removed.values())
    fate = "none ever removed"
    if removed:
        by_call = removed == site.removed.get(Cause.RM_WATCH)
        fate = f"{removed:,} of {site.added:,} {'were removed' if by_call else 'are gone'}"
    if not site.added:
        fate = "not seen being added"
    return f"{live}, one place in {_where_in(site)}, {fate}"


def _where_in(site: SiteRow) -> str:
    comm = printable(site.comm)
    if not site.pids:
        return comm
    if len(site.pids) == 1:
        return f"{comm}[{site.pids[0]}]"
    return f"{comm} ({len(site.pids):,} processes)"


def _where(site: SiteRow, width: int) -> Iterator[Text]:
    targets = site.targets
    named = [target for target in targets if target.path is not None]
    if not named:
        return
    more = f"   and {site.live - 1:,} more" if site.live > 1 else ""
    path = shortened(printable(named[0].path or b""), max(width - 8 - len(more), 20))
    yield Text(f"  where {path}{more}")
    gone = sum(target.state == "gone" for target in targets)
    if gone:
        yield Text(f"        {gone:,} of {len(targets):,} paths no longer exist")


def _held(report: Report, width: int) -> Iterator[Text]:
    sites = report.sites_with(Verdict.HELD)
    live = sum(site.live for site in sites)
    if not live and not report.baseline:
        return
    before = f", {report.baseline:,} from before the trace" if report.baseline else ""
    places = f", {counted(len(sites), 'place')}" if sites else ""
    watches = counted(live + report.baseline, "watch", "watches")
    yield _label(Verdict.HELD, f"{watches}{places}{before}")
    yield from _brief(sites, [site.live for site in sites], width)


def _clean(report: Report, width: int) -> Iterator[Text]:
    sites = report.sites_with(Verdict.CLEAN)
    if sites:
        added = sum(site.added for site in sites)
        yield _label(Verdict.CLEAN, f"{added:,} added and removed, {counted(len(sites), 'place')}")
        yield from _brief(sites, [site.added for site in sites], width)
    elif not report.sites and not report.trace.added:
        yield _label(Verdict.CLEAN, "no watch was added during the trace")


def _brief(sites: Sequence[SiteRow], numbers: Sequence[int], width: int) -> Iterator[Text]:
    shown = list(zip(sites, numbers))[:_BRIEF_SITES_SHOWN]
    rows = [
        (f"{number:,}", place_name(site.stack), _where_in(site), _why(site))
        for site, number in shown
    ]
    columns = (
        Column(right=True),
        Column(shrink=True),
        Column(shrink=True, style="dim"),
        # half a reason is none
        Column(shrink=width < _ROOM_FOR_REASONS, style="dim"),
    )
    yield from aligned(rows, columns, width, indent=_LABEL)
    if len(sites) > len(shown):
        yield Text(f"{'':<{_LABEL}}and {counted(len(sites) - len(shown), 'more place')}", "dim")


def _why(site: SiteRow) -> str:
    return site.evidence[0].text if site.evidence and site.verdict is Verdict.HELD else ""


# the rest


def _failures(failures: Sequence[FailureRow], width: int) -> Iterator[Text]:
    if not failures:
        return
    yield Text()
    total = counted(sum(failure.count for failure in failures), "failed call")
    yield Text.assemble((f"{'FAILED':<{_LABEL}} ", "bold"), total)
    shown = failures[:_FAILURES_SHOWN]
    rows = [
        (
            f"{failure.count:,}",
            f"{failure.call} {failure.errno}",
            _caller(failure),
        )
        for failure in shown
    ]
    columns = (Column(right=True), Column(), Column(shrink=True))
    said = [failure.explanation for failure in shown]
    for line, text, following in zip(
        aligned(rows, columns, width, indent=_LABEL), said, [*said[1:], ""]
    ):
        yield line
        if text and text != following:
            yield from _wrapped(text, width, indent=_LABEL + 2, style="dim")


def _caller(failure: FailureRow) -> str:
    comm = printable(failure.comm)
    return comm if failure.pid is None else f"{comm}[{failure.pid}]"


def _processes(report: Report, width: int) -> Iterator[Text]:
    processes = all_processes(report)
    if not processes:
        return
    yield Text()
    shown = processes[:_PROCESSES_SHOWN]
    header = ("PID", "COMMAND", "LIVE", "BEFORE", "ADDED", "REMOVED", "INSTANCES", "VERDICT")
    right, left = Column(right=True), Column()
    columns = (right, Column(shrink=True), right, right, right, right, right, left)
    rows = [(*process_columns(process), _process_verdict(process)) for process in shown]
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
    return "holds" if process.live else "clean"


def _limits(limits: Iterable[UserLimits]) -> Iterator[Text]:
    first: Text | None = Text()
    for user in limits:
        if first is not None:
            yield first
            first = None
        yield Text(limit_sentence(user))


def limit_sentence(user: UserLimits) -> str:
    """How much of the two limits a user has."""
    return (
        f"{printable(user.user)} has {user.watches.used:,} of {user.watches.limit:,} watches "
        f"and {user.instances.used:,} of {user.instances.limit:,} instances"
    )
