"""What tracing commands do with a report: judge it, print it, turn it into an exit code."""

from __future__ import annotations

import sys
from functools import wraps
from typing import Any, Callable, NamedTuple, TypeVar

import click

from tracer.cli.notices import notice as notice
from tracer.cli.options import Seconds, stacked
from tracer.cli.output import Output
from tracer.cli.suppressing import Suppressing, suppressing, suppressions_of
from tracer.core.report import Report
from tracer.core.verdict import Verdict
from tracer.errors import EXIT_CLEAN, EXIT_INCONCLUSIVE, EXIT_LEAK
from tracer.views.github import github_lines
from tracer.views.json_report import report_json
from tracer.views.report import report_lines
from tracer.views.sites import amounts
from tracer.views.text import counted

_Function = TypeVar("_Function", bound=Callable[..., Any])
_FAILING = {
    None: (),
    Verdict.LEAK: (Verdict.LEAK,),
    Verdict.SUSPECT: (Verdict.LEAK, Verdict.SUSPECT),
}


class Reporting(NamedTuple):
    """
    How a report is shown, what in it does not count, and what fails: a leak, or a suspect as well,
    or nothing at all if `fail_on` is None.
    """

    full_stacks: bool = False
    suppressing: Suppressing | None = None
    gen_suppressions: bool = False
    fail_on: Verdict | None = None
    error_exitcode: int = EXIT_LEAK

    def exit_code(self, report: Report, otherwise: int = EXIT_CLEAN) -> int:
        """
        `error_exitcode` if something fails, 3 if nothing can be said, else `otherwise`.

        What was lost may have been the removals of what looks leaked. A watch whose call was not
        seen takes nothing from a leak elsewhere, but without one it may be the leak.
        """
        if self.fail_on is None:
            return otherwise
        if not report.conclusive:
            return EXIT_INCONCLUSIVE
        if report.sites_with(*_FAILING[self.fail_on]):
            return self.error_exitcode
        return EXIT_INCONCLUSIVE if report.has_unsure else otherwise


def reporting_options(older: float, fail_on: str | None) -> Callable[[_Function], _Function]:
    """
    Options about the verdicts; the function gets ``older`` and ``reporting``.

    `older` and `fail_on` are the defaults.
    """
    options = stacked(
        click.option(
            "--older",
            metavar="SECONDS",
            type=Seconds(min=0),
            default=older,
            show_default=True,
            help="Do not judge watches younger than this.",
        ),
        click.option("--full-stacks", is_flag=True, help="Show all frames, the libraries' too."),
        click.option(
            "--fail-on",
            type=click.Choice([Verdict.LEAK.value, Verdict.SUSPECT.value]),
            default=fail_on,
            show_default=fail_on is not None,
            help="What ends inotrace with --error-exitcode; suspect: a leak as well.",
        ),
        click.option(
            "--error-exitcode",
            metavar="N",
            type=click.IntRange(0, 255),
            default=EXIT_LEAK,
            show_default=True,
            help="Exit code for what --fail-on says.",
        ),
        click.option(
            "--suppressions",
            metavar="FILE",
            help="What is known, and does not count: lines of leak:PATTERN, as LeakSanitizer's.",
        ),
        click.option(
            "--gen-suppressions",
            is_flag=True,
            help="Print such a line for each leak and suspect, on standard error.",
        ),
    )

    def decorate(function: _Function) -> _Function:
        @wraps(function)
        def collected(*args: Any, **given: Any) -> Any:
            file, chosen = given.pop("suppressions"), given.pop("fail_on")
            given["reporting"] = Reporting(
                full_stacks=given.pop("full_stacks"),
                suppressing=suppressing(file) if file is not None else None,
                gen_suppressions=given.pop("gen_suppressions"),
                fail_on=Verdict(chosen) if chosen is not None else None,
                error_exitcode=given.pop("error_exitcode"),
            )
            return function(*args, **given)

        return options(collected)  # type: ignore[return-value]

    return decorate


def notice_refusal(refusal: str) -> None:
    """What it means that the kernel's list is not read by the iterator, if it is not."""
    if refusal:
        notice(
            f"{refusal}: reading /proc/PID/fdinfo instead, which holds up a program with very many "
            "watches while it adds or removes some"
        )


def conclude(report: Report, output: Output, format_: str, reporting: Reporting) -> Report:
    """
    Print the report, with what is suppressed set apart; it is returned so.

    Raises InotraceError if the file cannot be written.
    """
    if reporting.suppressing is not None:
        report = reporting.suppressing.applied(report)
    print_report(report, output, format_, full_stacks=reporting.full_stacks)
    if reporting.gen_suppressions:
        for line in suppressions_of(report):
            print(line, file=sys.stderr)
    return report


def print_report(report: Report, output: Output, format_: str, *, full_stacks: bool) -> None:
    """Raises InotraceError if the file cannot be written."""
    if format_ == "json":
        output.write(report_json(report))
    elif format_ == "github":
        output.write("".join(f"{line}\n" for line in github_lines(report)))
    else:
        output.write_lines(
            lambda width: report_lines(report, width, full_stacks=full_stacks), format_
        )
    if output.path is not None:
        notice(f"{summary(report)}; the report is in {output.path}")


def summary(report: Report) -> str:
    """The answer in one line."""
    if not report.conclusive:
        return "inconclusive: records were lost or the ledger was not verified"
    leaks, suspects = report.sites_with(Verdict.LEAK), report.sites_with(Verdict.SUSPECT)
    beside = f"; {amounts(suspects)} suspect" if suspects else ""
    if leaks:
        return f"{amounts(leaks)} leaked at {counted(len(leaks), 'place')}{beside}"
    if report.has_unsure:
        unsure = sum(site.live for site in report.sites_with(Verdict.INCONCLUSIVE))
        return f"inconclusive: {counted(unsure, 'watch', 'watches')} not seen being added{beside}"
    return f"no leak found{beside}"
