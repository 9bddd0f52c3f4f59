"""The live ledgers for a pipe: a line for each process that changed."""

from __future__ import annotations

from collections.abc import Iterator

from tracer.core.report import FailureRow, ProcessRow, Report
from tracer.views.failures import failure_sentence
from tracer.views.text import counted, printable

_FORMAT = "{:<8} {:>7} {:<15} {:>9} {:>9} {:>9} {:>9} {:>6}"
HEADER = _FORMAT.format("TIME", "PID", "COMMAND", "LIVE", "BEFORE", "ADDED", "REMOVED", "FAILED")

# of more kinds of failures at once only the number is told
_FAILURES_SHOWN = 8

_Counts = tuple[int, int, int, int]


def change_lines(before: Report | None, after: Report, clock: str) -> Iterator[str]:
    """
    Lines under HEADER for the processes of `after` that are not as in `before`, and one for each
    new kind of failure.
    """
    known = {process.pid: _counts(process) for process in before.processes} if before else {}
    for process in after.processes:
        if known.get(process.pid) != _counts(process):
            yield _line(process, clock)
    yield from _new_failures(before, after, clock)
    if after.trace.lost > (before.trace.lost if before else 0):
        yield f"{clock} {after.trace.lost} records lost so far"


def _new_failures(before: Report | None, after: Report, clock: str) -> Iterator[str]:
    known = {_kind(failure) for failure in before.failures} if before else set()
    # those without a pid are of processes that have ended, and were told of before
    new = [one for one in after.failures if one.pid is not None and _kind(one) not in known]
    for failure in new[:_FAILURES_SHOWN]:
        yield f"{clock} {failure_sentence(failure)}"
    if new[_FAILURES_SHOWN:]:
        yield f"{clock} and {counted(len(new[_FAILURES_SHOWN:]), 'more kind')} of failed calls"


def _kind(failure: FailureRow) -> tuple[object, ...]:
    return failure.call, failure.errno, failure.explanation, failure.pid, failure.comm


def _counts(process: ProcessRow) -> _Counts:
    return process.live, process.added, sum(process.removed.values()), process.failed


def _line(process: ProcessRow, clock: str) -> str:
    live, added, removed, failed = _counts(process)
    comm = printable(process.comm)
    return _FORMAT.format(clock, process.pid, comm, live, process.baseline, added, removed, failed)
