"""``inotrace trace``: live ledgers, and in the end the leak report by stack."""

from __future__ import annotations

import sys
import time
from typing import Callable

import click
from rich.console import Console, Group
from rich.live import Live

from tracer.cli.debug import debug_option
from tracer.cli.options import (
    chosen_filter,
    duration_option,
    filter_options,
    judging_options,
    mode_option,
)
from tracer.cli.outcome import exit_code, notice, notice_refusal, print_report
from tracer.cli.output import Output, chosen_format, output_options
from tracer.cli.signals import Stop, stop_on_signals
from tracer.core.report import Report
from tracer.errors import EXIT_CLEAN
from tracer.kernel.hooks import Mode
from tracer.kernel.preflight import prepare
from tracer.session import Session
from tracer.stacks.collector import Stacks
from tracer.views.live import live_lines
from tracer.views.plain import HEADER, change_lines

_STEP_S = 0.05
_SCREEN_EVERY_S = 0.25
_LINES_EVERY_S = 1.0


@click.command("trace")
@filter_options
@duration_option
@judging_options(older=5.0)
@click.option("--fail-on", type=click.Choice(["leak"]), help="Exit with 23 if one was found.")
@mode_option
@output_options("table", "plain", "json")
@debug_option
@click.pass_context
def command(
    context: click.Context,
    pids: tuple[int, ...],
    user: str | None,
    name: str | None,
    duration: float | None,
    older: float,
    full_stacks: bool,
    error_exitcode: int,
    fail_on: str | None,
    mode: Mode | None,
    format_: str,
    output: str | None,
    force: bool,
) -> int:
    """
    Trace who adds and removes watches, until Ctrl-C or for -d SECONDS.

    A terminal shows the ledgers live, a pipe gets a line for each process that changes. The
    report comes at the end: leak candidates first, by the code that added the watches.
    """
    format_ = chosen_format(context)
    filter_ = chosen_filter(pids, user, name)
    with stop_on_signals() as stop, Output(output, force) as out:
        prepare(notice, mode)
        with Session(filter_, Stacks(), older_s=older, mode=mode) as session:
            notice_refusal(session.refusal)
            _watch(session, stop, duration, format_, on_screen=sys.stdout.isatty())
            report = session.finish()
        print_report(report, out, format_, full_stacks)
    return exit_code(report, error_exitcode) if fail_on else EXIT_CLEAN


def _watch(
    session: Session, stop: Stop, duration: float | None, format_: str, on_screen: bool
) -> None:
    if format_ == "json":
        notice("tracing; Ctrl-C ends it")
        _until_stopped(session, stop, duration, _LINES_EVERY_S, lambda: None)
    elif on_screen:
        _on_screen(session, stop, duration)
    else:
        _in_lines(session, stop, duration)


def _on_screen(session: Session, stop: Stop, duration: float | None) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    with Live(console=console, screen=True, auto_refresh=False) as screen:

        def show() -> None:
            size = console.size
            lines = live_lines(session.live(), size.width, size.height)
            screen.update(Group(*lines), refresh=True)

        show()
        _until_stopped(session, stop, duration, _SCREEN_EVERY_S, show)


def _in_lines(session: Session, stop: Stop, duration: float | None) -> None:
    before: Report | None = None

    def show() -> None:
        nonlocal before
        report = session.live()
        for line in change_lines(before, report, time.strftime("%H:%M:%S")):
            print(line)
        sys.stdout.flush()
        before = report

    print(HEADER, flush=True)
    show()
    _until_stopped(session, stop, duration, _LINES_EVERY_S, show)
    print()


def _until_stopped(
    session: Session,
    stop: Stop,
    duration: float | None,
    every_s: float,
    show: Callable[[], None],
) -> None:
    ends = time.monotonic() + duration if duration is not None else float("inf")
    next_show = time.monotonic() + every_s
    while not stop.requested and time.monotonic() < ends:
        time.sleep(min(_STEP_S, max(ends - time.monotonic(), 0)))
        session.step()
        if time.monotonic() >= next_show:
            show()
            next_show = time.monotonic() + every_s
