"""The live ledgers for a pipe: a line for each process that changed."""

from __future__ import annotations

from collections.abc import Iterator

from tracer.core.report import ProcessRow, Report
from tracer.views.text import printable

_FORMAT = "{:<8} {:>7} {:<15} {:>9} {:>9} {:>9} {:>9} {:>6}"
HEADER = _FORMAT.format("TIME", "PID", "COMMAND", "LIVE", "BEFORE", "ADDED", "REMOVED", "FAILED")

_Counts = tuple[int, int, int, int]


def change_lines(before: Report | None, after: Report, clock: str) -> Iterator[str]:
    """Lines under HEADER for the processes of `after` that are not as in `before`."""
    known = {process.pid: _counts(process) for process in before.processes} if before else {}
    for process in after.processes:
        if known.get(process.pid) != _counts(process):
            yield _line(process, clock)
    if after.trace.lost > (before.trace.lost if before else 0):
        yield f"{clock} {after.trace.lost} records lost so far"


def _counts(process: ProcessRow) -> _Counts:
    return process.live, process.added, sum(process.removed.values()), process.failed


def _line(process: ProcessRow, clock: str) -> str:
    live, added, removed, failed = _counts(process)
    comm = printable(process.comm)
    return _FORMAT.format(clock, process.pid, comm, live, process.baseline, added, removed, failed)
