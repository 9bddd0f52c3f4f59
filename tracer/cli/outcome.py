"""What tracing commands do with a report: print it, sum it up, turn it into an exit code."""

from __future__ import annotations

import sys

from tracer.cli.output import Output
from tracer.core.report import Report
from tracer.core.verdict import Verdict
from tracer.errors import EXIT_CLEAN, EXIT_INCONCLUSIVE
from tracer.views.json_report import report_json
from tracer.views.report import report_lines
from tracer.views.text import counted, rendered

# a file and a pipe have no width of their own: nothing is shortened there
_PLAIN_WIDTH = 400


def notice(text: str) -> None:
    """Something about the trace that is no part of its data."""
    print(f"inotrace: {text}", file=sys.stderr, flush=True)


def notice_refusal(refusal: str) -> None:
    """What it means that the kernel's list is not read by the iterator, if it is not."""
    if refusal:
        notice(
            f"{refusal}: reading /proc/PID/fdinfo instead, which holds up a program with very many "
            "watches while it adds or removes some"
        )


def print_report(report: Report, output: Output, format_: str, full_stacks: bool) -> None:
    """Raises InotraceError if the file cannot be written."""
    if format_ == "json":
        output.write(report_json(report))
    else:
        is_table = format_ == "table" and output.path is None
        width = None if is_table else _PLAIN_WIDTH
        output.write(
            rendered(
                lambda console_width: report_lines(report, console_width, full_stacks=full_stacks),
                output.stream if is_table else None,
                width,
            )
        )
    if output.path is not None:
        notice(f"{summary(report)}; the report is in {output.path}")


def summary(report: Report) -> str:
    """The answer in one line."""
    leaks = report.sites_with(Verdict.LEAK)
    if not report.conclusive:
        return "inconclusive: records were lost or the ledger was not verified"
    if leaks:
        watches = counted(sum(site.live for site in leaks), "watch", "watches")
        return f"{watches} leaked at {counted(len(leaks), 'place')}"
    if report.has_unsure:
        unsure = sum(site.live for site in report.sites_with(Verdict.INCONCLUSIVE))
        return f"inconclusive: {counted(unsure, 'watch', 'watches')} not seen being added"
    return "no leak found"


def exit_code(report: Report, leak: int, otherwise: int = EXIT_CLEAN) -> int:
    """
    `leak` if there is one, 3 if nothing can be said, else `otherwise`.

    What was lost may have been the removals of what looks leaked. A watch whose call was not
    seen takes nothing from a leak elsewhere, but without one it may be the leak.
    """
    if not report.conclusive:
        return EXIT_INCONCLUSIVE
    if report.has_leak:
        return leak
    return EXIT_INCONCLUSIVE if report.has_unsure else otherwise
