"""The live screen: one snapshot as lines that fit the terminal."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence

from rich.text import Text

from tracer.core.evidence import duration
from tracer.core.report import EndedRow, FailureRow, ProcessRow, Report, SiteRow, UserLimits
from tracer.views.columns import Column, aligned
from tracer.views.failures import brief_failures
from tracer.views.report import (
    all_processes,
    limit_sentence,
    limit_style,
    more_processes,
    process_columns,
)
from tracer.views.stacks import place_name
from tracer.views.text import printable, wrapped

_SITES = 6
_LIMITS = 3
# they take so much of the screen at most
_LIMITS_SHARE = 6
_FAILURES = 3
# title, gaps, headings and the hint
_FIXED_LINES = 9
_LEAST_PROCESSES = 3

_RIGHT = Column(right=True)
_PROCESS_HEADER = ("PID", "COMMAND", "LIVE", "BEFORE", "ADDED", "REMOVED", "INSTANCES", "ADDS/S")
_PROCESS_COLUMNS = (_RIGHT, Column(shrink=True), *[_RIGHT] * 6)
_SITE_COLUMNS = (
    _RIGHT,
    _RIGHT,
    Column(style="dim"),
    Column(shrink=True),
    Column(shrink=True, style="dim"),
)


class LiveHint(str, enum.Enum):
    """What one can do while the screen is shown."""

    KEYS = "m begins a round, Ctrl-C ends with the report"
    SIGNAL = "Ctrl-C ends with the report"


def live_lines(
    report: Report, width: int, height: int, hint: LiveHint = LiveHint.SIGNAL
) -> Iterator[Text]:
    """The snapshot in at most `height` lines of at most `width` cells."""
    limits = _limits(report.limits, width, height)
    room = height - _FIXED_LINES - len(limits)
    # a place and a failure at least
    failures = _failures(report.failures, width, max(room - _LEAST_PROCESSES - 1, 1))
    room -= len(failures)
    sites = report.sites[: max(min(_SITES, room - _LEAST_PROCESSES), 1)]
    processes = max(room - len(sites), _LEAST_PROCESSES)
    lines = [
        _title(report),
        Text(),
        *_processes(all_processes(report), processes, width),
        Text(),
        *_sites(sites, width),
        *failures,
        Text(),
        *limits,
        Text(),
    ]
    for line in [*lines[: height - 1], Text(hint.value, "dim")][:height]:
        line.truncate(width)
        yield line


def _title(report: Report) -> Text:
    trace = report.trace
    removed = sum(trace.removed.values())
    return Text.assemble(
        ("inotrace", "bold"),
        f"  {duration(trace.seconds)}{_round(trace.rounds)}   "
        f"{trace.added:,} added  {removed:,} gone  ",
        (f"{trace.lost:,} lost", "bold red" if trace.lost else ""),
    )


def _round(number: int) -> str:
    return f"  round {number:,}" if number else ""


def _processes(processes: Sequence[ProcessRow | EndedRow], room: int, width: int) -> Iterator[Text]:
    if not processes:
        yield Text("no process uses inotify yet", "dim")
        return
    shown = processes if len(processes) <= room else processes[: room - 1]
    rows = [(*process_columns(process), _rate(process)) for process in shown]
    yield from aligned(rows, _PROCESS_COLUMNS, width, header=_PROCESS_HEADER)
    yield from more_processes(processes[len(shown) :])


def _rate(process: ProcessRow | EndedRow) -> str:
    return f"{process.rate:,.1f}" if isinstance(process, ProcessRow) and process.rate else ""


def _sites(sites: Sequence[SiteRow], width: int) -> Iterator[Text]:
    if not sites:
        yield Text("no place in the code has added a watch that is still there", "dim")
        return
    rows = [
        (
            f"{site.live:,}",
            f"{site.added:,}",
            site.unit.value,
            place_name(site.stack),
            printable(site.comm),
        )
        for site in sites
    ]
    yield from aligned(rows, _SITE_COLUMNS, width, header=("LIVE", "ADDED", "", "FROM", "IN"))


def _limits(limits: Sequence[UserLimits], width: int, height: int) -> list[Text]:
    """Whole sentences, of the first user at least and of others if they leave room."""
    lines: list[Text] = []
    for user in limits[:_LIMITS]:
        more = list(wrapped(limit_sentence(user), width, style=limit_style(user)))
        if lines and len(lines) + len(more) > max(height // _LIMITS_SHARE, _LIMITS):
            break
        lines += more
    return lines


def _failures(failures: Sequence[FailureRow], width: int, most: int) -> list[Text]:
    """A blank line and the commonest kinds, limits that were met before all others."""
    if not failures:
        return []
    shown = sorted(failures, key=lambda row: (row.shortage is None, -row.count))
    return [Text(), *brief_failures(shown[: min(most, _FAILURES)], width)]
