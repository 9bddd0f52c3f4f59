"""``--suppressions`` and ``--gen-suppressions``: files that name what is known to leak."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from tracer.core.report import ProcessRow, Report, SiteRow, SuppressedRow, Unit
from tracer.core.suppressions import (
    SIZE_MAX,
    Suppression,
    SuppressionError,
    Suppressions,
    parse,
    suggestion,
)
from tracer.core.verdict import Verdict
from tracer.errors import EXIT_USAGE, InotraceError

_COUNTING = (Verdict.LEAK, Verdict.SUSPECT)


class Suppressing:
    """What the user's file keeps from counting. `name` is the file's."""

    def __init__(self, name: str, suppressions: tuple[Suppression, ...]) -> None:
        self._name = name
        self._suppressions = Suppressions(suppressions)

    def applied(self, report: Report) -> Report:
        """The report with the leaks and suspects marked that a pattern fits."""
        used: dict[Suppression, list[SiteRow]] = defaultdict(list)
        sites = []
        for site in report.sites:
            found = self._match(site)
            if found is not None:
                site = replace(site, suppressed_by=found.pattern)
                used[found].append(site)
            sites.append(site)
        rows = (self._row(one, used[one]) for one in sorted(used, key=lambda one: one.line))
        processes = (_without(process, sites) for process in report.processes)
        return replace(
            report,
            sites=tuple(sites),
            suppressed=tuple(rows),
            processes=tuple(processes) if used else report.processes,
        )

    def _match(self, site: SiteRow) -> Suppression | None:
        if site.verdict not in _COUNTING:
            return None
        return self._suppressions.match(site.stack, [target.path for target in site.targets])

    def _row(self, one: Suppression, sites: list[SiteRow]) -> SuppressedRow:
        return SuppressedRow(
            pattern=one.pattern,
            written_at=f"{self._name}:{one.line}",
            places=len(sites),
            watches=sum(site.live for site in sites if site.unit is Unit.WATCHES),
            instances=sum(site.live for site in sites if site.unit is Unit.INSTANCES),
        )


def _without(process: ProcessRow, sites: list[SiteRow]) -> ProcessRow:
    """A process as it is without what is suppressed, as far as rows of sites can tell."""
    own = [site for site in sites if process.pid in site.pids]
    known = sum(
        target.pid == process.pid
        for site in own
        if site.suppressed_by and site.verdict is Verdict.LEAK
        for target in site.targets
    )
    held = Verdict.HELD if process.live else Verdict.CLEAN
    rest = min(
        (held, *(site.verdict for site in own if not site.suppressed_by)),
        key=lambda one: one.rank,
    )
    # others of the same places may be worse than this process
    verdict = max(process.verdict, rest, key=lambda one: one.rank)
    return replace(process, leaked=max(process.leaked - known, 0), verdict=verdict)


def suppressing(name: str) -> Suppressing:
    """Read a file of suppressions. Raises InotraceError (EXIT_USAGE) for what is wrong in it."""
    try:
        with open(name, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return Suppressing(name, parse(file.read(SIZE_MAX + 1), name))
    except OSError as error:
        raise InotraceError(
            f"cannot read suppressions from {name}: {error.strerror}", exit_code=EXIT_USAGE
        ) from error
    except SuppressionError as error:
        raise InotraceError(f"suppressions: {error}", exit_code=EXIT_USAGE) from error


def suppressions_of(report: Report) -> Iterable[str]:
    """The lines for leaks and suspects that count; a comment where none fits just that place."""
    return dict.fromkeys(map(_suggested, report.sites_with(*_COUNTING)))


def _suggested(site: SiteRow) -> str:
    line = suggestion(site.stack, [target.path for target in site.targets])
    return line if line is not None else f"# {site.id}: nothing tells it from other places"
