"""``inotrace run``: one command and its descendants, from before the first instruction."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

import click

from tracer.cli.options import judging_options
from tracer.cli.outcome import exit_code, notice, print_report
from tracer.cli.output import Output, output_options
from tracer.cli.signals import Stop, stop_on_signals
from tracer.command import Command
from tracer.kernel.preflight import prepare
from tracer.kernel.symbols import BccStacks
from tracer.session import Filter, Session

_STEP_S = 0.02


@click.command("run", context_settings={"allow_interspersed_args": False})
@judging_options(older=0.0)
@output_options("table", "plain", "json")
@click.argument("argv", metavar="[--] CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
def command(
    older: float,
    full_stacks: bool,
    error_exitcode: int,
    format_: str,
    output: str | None,
    force: bool,
    argv: tuple[str, ...],
) -> int:
    """
    Trace CMD and all its descendants, from before its first instruction.

    CMD keeps standard input, output and error; the report goes to standard error, or to -o. The
    exit code is 23 for a leak, 3 if inconclusive, else CMD's own. A watch that only the end of
    its process freed counts as live.
    """
    with Output(output, force, stream=sys.stderr) as out:
        prepare(notice)
        child = Command(argv)
        try:
            session = Session(Filter(), BccStacks(), older_s=older, descendants_of=child.pid)
        except BaseException:
            child.end()
            raise
        with session:
            _follow(child, session)
            report = session.finish()
        print_report(report, out, format_, full_stacks)
    return exit_code(report, error_exitcode, otherwise=child.exit_code)


def _follow(child: Command, session: Session) -> None:
    """Until the last process has ended, or a signal says not to wait for the others."""
    with stop_on_signals(lambda number: _pass_on(child, number)):
        child.release()
        while not child.poll():
            time.sleep(_STEP_S)
            session.step()
    with stop_on_signals() as stop:
        _wait_for_descendants(session, stop)


def _wait_for_descendants(session: Session, stop: Stop) -> None:
    told = False
    while session.has_descendants() and not stop.requested:
        if not told:
            notice("the command has ended, some of its children have not; Ctrl-C stops waiting")
            told = True
        time.sleep(_STEP_S)
        session.step()


def _pass_on(child: Command, number: int) -> None:
    # the terminal sends Ctrl-C to the command as well: only others need passing on
    if not (number == 2 and os.isatty(0)):
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)
