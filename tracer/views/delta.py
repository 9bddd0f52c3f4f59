"""What differs between two reports or two outputs of ls, for people: the answer first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text

from tracer.core.delta import Change, Delta, Fate, ProcessDelta, SiteDelta, TargetDelta
from tracer.core.report import Unit
from tracer.core.stack import StackState
from tracer.views.columns import Column, aligned
from tracer.views.sites import NOUNS, amount
from tracer.views.stacks import place_name, stack_lines
from tracer.views.text import counted, printable, shortened, wrapped

_SITES_SHOWN = 10
_PROCESSES_SHOWN = 15
_TARGETS_SHOWN = 15
_STACK_INDENT = 8
_FATES = {
    Fate.GREW: ("grew", "grew"),
    Fate.SHRANK: ("shrank", "shrank"),
    Fate.NEW: ("is new", "are new"),
    Fate.GONE: ("is gone", "are gone"),
    Fate.SAME: ("has another verdict", "have another verdict"),
}
_RIGHT, _LEFT, _SHRINKING = Column(right=True), Column(), Column(shrink=True)


def delta_lines(delta: Delta, width: int, *, full_stacks: bool = False) -> Iterator[Text]:
    """The differences as lines no wider than `width` where anything can be shortened."""
    yield from _headline(delta, width)
    yield from _caveats(delta, width)
    for kind in Unit:
        sites = [site for site in delta.sites if site.kind is kind]
        yield from _sites(sites, kind, width, full_stacks)
    yield from _processes(delta, width)
    yield from _targets(delta, width)


# the answer


def _headline(delta: Delta, width: int) -> Iterator[Text]:
    if delta.is_empty:
        watches = amount(delta.watches.after, Unit.WATCHES)
        instances = amount(delta.instances.after, Unit.INSTANCES)
        yield Text(f"No difference: {watches} in {instances} in both.")
        return
    parts = [_total(delta.watches, Unit.WATCHES), *_in_words(delta)]
    if delta.instances.by:
        parts.insert(1, _total(delta.instances, Unit.INSTANCES))
    line = "   ".join(parts)
    lines = [line] if cell_len(line) <= width else parts
    yield from (Text(text, "" if i else "bold") for i, text in enumerate(lines))


def _total(change: Change, kind: Unit) -> str:
    unit = amount(change.after, kind)
    if not change.by:
        return f"{unit}, as before"
    noun = NOUNS[kind][abs(change.by) != 1]
    return f"{change.by:+,} {noun} ({change.before:,} → {change.after:,})"


def _in_words(delta: Delta) -> Iterator[str]:
    """Of reports the places, else the processes, and what became of how many."""
    if delta.of_reports:
        fates, noun = Counter(site.fate for site in delta.sites), ("place", "places")
    else:
        fates, noun = Counter(one.fate for one in delta.processes), ("process", "processes")
    told: list[str] = []
    for fate, words in _FATES.items():
        number = fates[fate]
        if number:
            what = f"{number:,}" if told else counted(number, *noun)
            told.append(f"{what} {words[number != 1]}")
    if told:
        yield ", ".join(told)


def _caveats(delta: Delta, width: int) -> Iterator[Text]:
    for name, caveats in (("A", delta.caveats_before), ("B", delta.caveats_after)):
        if caveats:
            yield from wrapped(f"Numbers of {name} may be off: {', '.join(caveats)}.", width)


# the sections


def _sites(sites: Sequence[SiteDelta], kind: Unit, width: int, full_stacks: bool) -> Iterator[Text]:
    if not sites:
        return
    yield from _title(f"BY PLACE, {kind.value}")
    shown = sites[:_SITES_SHOWN]
    rows = [
        (*_counts(site.live), _verdict(site), place_name(site.stack), printable(site.comm))
        for site in shown
    ]
    header = ("CHANGE", "A", "B", "VERDICT", "PLACE", "COMMAND")
    columns = (_RIGHT, _RIGHT, _RIGHT, _SHRINKING, _SHRINKING, _SHRINKING)
    first, *lines = _table(rows, columns, width, header)
    yield first
    for site, line in zip(shown, lines):
        yield line
        if full_stacks:
            yield from stack_lines(site.stack, width, _STACK_INDENT, full=True)
    yield from _more(len(sites) - len(shown))
    yield from _unsure_places(sites, width)


def _unsure_places(sites: Iterable[SiteDelta], width: int) -> Iterator[Text]:
    """How much of a stack was seen is part of what tells places apart."""
    unsure = sum(
        site.stack.state is StackState.TRUNCATED and site.fate in (Fate.NEW, Fate.GONE)
        for site in sites
    )
    if unsure:
        yield from wrapped(
            f"Of {counted(unsure, 'place')} that came or went the callers are unknown: the other "
            "file may have it under more or fewer frames.",
            width,
        )


def _verdict(site: SiteDelta) -> str:
    before, after = site.verdict_before, site.verdict_after
    if before is None or after is None:
        known = printable(before or after or "")
        return f"new, {known}" if before is None else f"gone, was {known}"
    if before == after:
        return printable(after)
    return f"{printable(before)} → {printable(after)}"


def _processes(delta: Delta, width: int) -> Iterator[Text]:
    if not delta.processes:
        return
    yield from _title("BY PROCESS, watches")
    shown = delta.processes[:_PROCESSES_SHOWN]
    header = ("CHANGE", "A", "B", "", "PID", "COMMAND", "INSTANCES", "ADDED")
    columns = (_RIGHT, _RIGHT, _RIGHT, _LEFT, _RIGHT, _SHRINKING, _RIGHT, _RIGHT)
    # ls does not know what was added
    number = len(header) if delta.of_reports else len(header) - 1
    rows = [_process_row(process)[:number] for process in shown]
    yield from _table(rows, columns[:number], width, header[:number])
    yield from _more(len(delta.processes) - len(shown))


def _process_row(process: ProcessDelta) -> tuple[str, ...]:
    comm = printable(process.comm)
    if process.pid is None:
        who = ("ended", f"{comm} ({_arrow(process.ended)})")
    else:
        who = (str(process.pid), comm)
    counts = (_arrow(process.instances), _arrow(process.added))
    return (*_counts(process.live), _came_or_went(process.fate), *who, *counts)


def _targets(delta: Delta, width: int) -> Iterator[Text]:
    if delta.targets:
        of_what = "watches added in the traces" if delta.of_reports else "watches"
        yield from _title(f"BY TARGET, {of_what}")
        shown = delta.targets[:_TARGETS_SHOWN]
        rows = [
            (*_counts(target.watches), _came_or_went(target.fate), _target_name(target))
            for target in shown
        ]
        columns = (_RIGHT, _RIGHT, _RIGHT, _LEFT, _SHRINKING)
        yield from _table(rows, columns, width, ("CHANGE", "A", "B", "", "TARGET"))
        yield from _more(len(delta.targets) - len(shown))
    yield from _unlisted(delta, width)


def _unlisted(delta: Delta, width: int) -> Iterator[Text]:
    sides = zip("AB", delta.unlisted)
    lacking = [f"{amount(n, Unit.WATCHES)} in {name}" for name, n in sides if n]
    if not lacking:
        return
    if not delta.targets:
        yield Text()
    yield from wrapped(
        f"The targets are not whole, those of {' and of '.join(lacking)} are not listed: one that "
        "seems to have come or gone may only be unlisted.",
        width,
    )


def _target_name(target: TargetDelta) -> str:
    if target.path is not None:
        return printable(target.path)
    if target.ino is None:
        return "not known"
    return f"inode {target.ino} on device {printable(target.dev or '?')}"


def _came_or_went(fate: Fate) -> str:
    return fate.value if fate in (Fate.NEW, Fate.GONE) else ""


def _title(text: str) -> Iterator[Text]:
    yield Text()
    yield Text(text, "bold")


def _counts(change: Change) -> tuple[str, str, str]:
    by = f"{change.by:+,}" if change.by else "0"
    return by, f"{change.before:,}", f"{change.after:,}"


def _arrow(change: Change) -> str:
    return f"{change.before:,} → {change.after:,}" if change.by else f"{change.after:,}"


def _table(
    rows: Iterable[Sequence[str]], columns: Sequence[Column], width: int, header: Sequence[str]
) -> Iterator[Text]:
    # what is wider than the line is cut at once: columns shrink by one cell at a time
    cut = [[shortened(text, width) for text in row] for row in rows]
    yield from aligned(cut, columns, width, header=header)


def _more(number: int) -> Iterator[Text]:
    if number:
        yield Text(f"and {number:,} more: -f json lists all", "dim")
