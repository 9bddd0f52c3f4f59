"""Places in the code with their verdicts: what needs action whole, the rest in a line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text

from tracer.core.cause import Cause
from tracer.core.report import Report, SiteRow, SuppressedRow, Unit, UserLimits
from tracer.core.verdict import Verdict
from tracer.views.columns import GAP, LEAST, Column, aligned
from tracer.views.namespaces import in_namespace
from tracer.views.stacks import place_name, stack_lines
from tracer.views.text import counted, printable, shortened, wrapped

# where the text begins, right of a label
LABEL = 6
_SITES_SHOWN = 10
_BRIEF_SITES_SHOWN = 5
_DESCRIPTORS_SHOWN = 5
_STYLES = {
    Verdict.LEAK: "bold red",
    Verdict.SUSPECT: "bold yellow",
    Verdict.INCONCLUSIVE: "bold yellow",
    Verdict.YOUNG: "bold",
    Verdict.HELD: "bold",
    Verdict.CLEAN: "bold green",
}
_WHOLE = (Verdict.LEAK, Verdict.SUSPECT, Verdict.INCONCLUSIVE, Verdict.YOUNG)
NOUNS = {Unit.WATCHES: ("watch", "watches"), Unit.INSTANCES: ("instance", "instances")}


def site_lines(report: Report, width: int, *, full_stacks: bool) -> Iterator[Text]:
    """All places, those that need action first."""
    for verdict in _WHOLE:
        yield from _full_sites(report, verdict, width, full_stacks)
    yield from _held(report, width)
    yield from _clean(report, width)
    yield from _suppressed(report.suppressed, width)


def amount(number: int, unit: Unit) -> str:
    """``1 watch``, ``2,000 instances``."""
    return counted(number, *NOUNS[unit])


def amounts(sites: Sequence[SiteRow], more_watches: int = 0) -> str:
    """What they have left, together: ``23 watches and 4 instances``."""
    live = dict.fromkeys(Unit, 0)
    for site in sites:
        live[site.unit] += site.live
    live[Unit.WATCHES] += more_watches
    return " and ".join(amount(number, unit) for unit, number in live.items() if number)


# --- whole ---


def _full_sites(report: Report, verdict: Verdict, width: int, full_stacks: bool) -> Iterator[Text]:
    sites = report.sites_with(verdict)
    for site in sites[:_SITES_SHOWN]:
        yield _label(site.verdict, _headline(site))
        yield from stack_lines(site.stack, width, LABEL, full=full_stacks)
        yield from _why(site, width)
        yield from _where(site, width)
        yield from _then(site, report.limits, width)
        yield Text()
    rest = sites[_SITES_SHOWN:]
    if rest:
        places = counted(len(rest), "more place")
        yield _label(verdict, f"{amounts(rest)} in {places}: -f json lists all")
        yield Text()


def verdict_word(verdict: Verdict) -> str:
    """As people are told it."""
    return "unsure" if verdict is Verdict.INCONCLUSIVE else verdict.value


def _label(verdict: Verdict, text: str) -> Text:
    label = verdict_word(verdict).upper()
    return Text.assemble((f"{label:<{LABEL - 1}} ", _STYLES[verdict]), text)


def _headline(site: SiteRow) -> str:
    live = amount(site.live, site.unit)
    gone = sum(site.removed.values())
    closes = site.unit is Unit.INSTANCES
    fate = "none ever closed" if closes else "none ever removed"
    if gone:
        by_call = gone == site.removed.get(Cause.CLOSED if closes else Cause.RM_WATCH)
        verb = "were closed" if closes else "were removed" if by_call else "are gone"
        fate = f"{gone:,} of {site.added:,} {verb}"
    if not site.added:
        fate = "not seen being added"
    return f"{live}, one place in {where_in(site)}, {fate}"


def where_in(site: SiteRow) -> str:
    """``agent[1173]``, ``agent (3 processes)``."""
    comm = printable(site.comm)
    if not site.pids:
        return comm
    if len(site.pids) == 1:
        return f"{comm}[{site.pids[0]}]"
    return f"{comm} ({len(site.pids):,} processes)"


def _labelled(label: str, text: str, width: int) -> Iterator[Text]:
    for i, line in enumerate(wrapped(text, width, indent=LABEL + 2, style="")):
        yield Text(f"  {label:<5} ").append(line.plain.strip()) if i == 0 else line


def _why(site: SiteRow, width: int) -> Iterator[Text]:
    for i, evidence in enumerate(site.evidence):
        yield from _labelled("why" if i == 0 else "", evidence.text, width)


def _where(site: SiteRow, width: int) -> Iterator[Text]:
    if site.unit is Unit.INSTANCES:
        yield from _descriptors(site, width)
        return
    targets = site.targets
    named = [target for target in targets if target.path is not None]
    if not named:
        return
    more = f"   and {site.live - 1:,} more" if site.live > 1 else ""
    path = shortened(printable(named[0].path or b""), max(width - 8 - len(more), 20))
    yield Text(f"  where {path}{more}")
    gone = sum(target.state == "gone" for target in targets)
    if gone and "target_gone" not in [evidence.kind for evidence in site.evidence]:
        yield Text(f"        {gone:,} of {len(targets):,} paths no longer exist")


def _descriptors(site: SiteRow, width: int) -> Iterator[Text]:
    """As `ls -l /proc/PID/fd` has them."""
    if not site.holders:
        return
    shown = site.holders[:_DESCRIPTORS_SHOWN]
    names = ", ".join(f"/proc/{holder.pid}/fd/{holder.fd}" for holder in shown)
    more = len(site.holders) - len(shown)
    yield from _labelled("where", names + (f" and {more:,} more" if more else ""), width)


def _then(site: SiteRow, limits: Sequence[UserLimits], width: int) -> Iterator[Text]:
    """What it costs when it goes on like this."""
    if site.verdict not in (Verdict.LEAK, Verdict.SUSPECT) or not site.per_hour:
        return
    text = f"{pace(site.per_hour)} at this pace"
    for user in limits:
        if user.payer == site.full_payer and site.full_in_s is not None:
            limit = amount(user.use(site.unit).limit, site.unit)
            name = f"{printable(user.user)}{in_namespace(user.userns)}"
            text = f"{pace(site.per_hour)}; {name} {_reaches(limit, site.full_in_s)}"
    yield from _labelled("then", text, width)


def _reaches(limit: str, full_in_s: float) -> str:
    if not full_in_s:
        return f"has reached the limit of {limit}"
    return f"reaches the limit of {limit} in about {about(full_in_s)}"


def pace(per_hour: float) -> str:
    """``+1,234 an hour``."""
    return f"{per_hour:+,.0f} an hour" if per_hour >= 1 else f"{per_hour * 24:+,.1f} a day"


_DAY_S = 86400


def about(seconds: float) -> str:
    """In one unit: it is an extrapolation."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * _DAY_S:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / _DAY_S:,.0f} days"


# --- brief ---


def _held(report: Report, width: int) -> Iterator[Text]:
    sites = report.sites_with(Verdict.HELD)
    if not sites and not report.baseline:
        return
    before = f", {report.baseline:,} from before the trace" if report.baseline else ""
    places = f", {counted(len(sites), 'place')}" if sites else ""
    yield _label(Verdict.HELD, f"{amounts(sites, report.baseline)}{places}{before}")
    yield from _brief(sites, [site.live for site in sites], width)


def _clean(report: Report, width: int) -> Iterator[Text]:
    sites = report.sites_with(Verdict.CLEAN)
    if sites:
        passed = [
            f"{sum(site.added for site in sites if site.unit is unit):,} {verb}"
            for unit, verb in (
                (Unit.WATCHES, "added and removed"),
                (Unit.INSTANCES, "opened and closed"),
            )
            if any(site.unit is unit for site in sites)
        ]
        yield _label(Verdict.CLEAN, f"{', '.join(passed)}, {counted(len(sites), 'place')}")
        yield from _brief(sites, [site.added for site in sites], width)
    elif not report.sites and not report.trace.added:
        yield _label(Verdict.CLEAN, "no watch was added during the trace")


def _brief(sites: Sequence[SiteRow], numbers: Sequence[int], width: int) -> Iterator[Text]:
    if not sites:
        return
    # an instance is seldom of interest while its watches are not
    ordered = sorted(zip(sites, numbers), key=lambda one: one[0].unit is Unit.INSTANCES)
    shown = ordered[:_BRIEF_SITES_SHOWN]
    rows = [
        (
            f"{number:,}",
            _place(site),
            where_in(site),
            _reason(site),
        )
        for site, number in shown
    ]
    columns = (
        Column(right=True),
        Column(shrink=True),
        Column(shrink=True, style="dim"),
        # half a reason is none
        Column(shrink=not _has_room_for_reasons(rows, width), style="dim"),
    )
    yield from aligned(rows, columns, width, indent=LABEL)
    if len(sites) > len(shown):
        yield Text(f"{'':<{LABEL}}and {counted(len(sites) - len(shown), 'more place')}", "dim")


def _place(site: SiteRow) -> str:
    name = place_name(site.stack)
    return f"{name} (instances)" if site.unit is Unit.INSTANCES else name


def _has_room_for_reasons(rows: Sequence[Sequence[str]], width: int) -> bool:
    """Beside names that are cut as short as they may be."""
    number, _, _, reason = (max(map(cell_len, texts)) for texts in zip(*rows))
    return LABEL + number + 2 * LEAST + 3 * GAP + reason <= width


def _reason(site: SiteRow) -> str:
    return site.evidence[0].text if site.evidence and site.verdict is Verdict.HELD else ""


def _suppressed(rows: Sequence[SuppressedRow], width: int) -> Iterator[Text]:
    if not rows:
        return
    yield Text.assemble(("SUPPRESSED ", "bold"), "known, and not counted")
    columns = (Column(right=True), Column(), Column(shrink=True))
    cells = [
        (
            " and ".join(
                amount(number, unit)
                for unit, number in ((Unit.WATCHES, row.watches), (Unit.INSTANCES, row.instances))
                if number
            ),
            counted(row.places, "place"),
            printable(f"leak:{row.pattern}"),
        )
        for row in rows
    ]
    yield from aligned(cells, columns, width, indent=LABEL)
