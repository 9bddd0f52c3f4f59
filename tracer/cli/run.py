"""``inotrace run``: one command and its descendants, from before the first instruction."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress

import click

from tracer.cli.debug import debug_option
from tracer.cli.options import judging_options, mode_option
from tracer.cli.outcome import exit_code, notice, notice_refusal, print_report
from tracer.cli.output import Output, chosen_format, output_options
from tracer.cli.signals import HeldSignals, Stop, stop_on_signals, typed_interrupt
from tracer.command import Command
from tracer.kernel.hooks import Mode
from tracer.kernel.preflight import prepare
from tracer.session import Filter, Session
from tracer.stacks.collector import Stacks

_STEP_S = 0.02


@click.command("run", context_settings={"allow_interspersed_args": False})
@judging_options(older=0.0)
@mode_option
@output_options("table", "plain", "json")
@debug_option
@click.argument("argv", metavar="[--] CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def command(
    context: click.Context,
    older: float,
    full_stacks: bool,
    error_exitcode: int,
    mode: Mode | None,
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
    format_ = chosen_format(context, sys.stderr)
    with stop_on_signals() as stop, Output(output, force, stream=sys.stderr) as out:
        prepare(notice, mode)
        with Command(argv) as child, HeldSignals() as held, _session(child, older, mode) as session:
            notice_refusal(session.refusal)
            _start(child, stop, held)
            _follow(child, session, held)
            held.let_go()
            _wait_for_descendants(session, stop)
            report = session.finish()
        print_report(report, out, format_, full_stacks)
    return exit_code(report, error_exitcode, otherwise=child.exit_code)


def _session(child: Command, older: float, mode: Mode | None) -> Session:
    return Session(Filter(), Stacks(), older_s=older, descendants_of=child.pid, mode=mode)


def _start(child: Command, stop: Stop, held: HeldSignals) -> None:
    """Unless a signal came while tracing was prepared: then it ends without having begun."""
    early = held.next(within_s=0)
    if early is not None:
        stop.number = early.si_signo
    stop.leave_if_requested()
    child.release()


def _follow(child: Command, session: Session, held: HeldSignals) -> None:
    """Until the command has ended; signals are for the command."""
    while not child.poll():
        sent = held.next(within_s=_STEP_S)
        if sent is not None:
            _pass_on(child, sent)
        session.step()


def _pass_on(child: Command, sent: signal.struct_siginfo) -> None:
    # Ctrl-C reached the command as well
    if not typed_interrupt(sent):
        with suppress(ProcessLookupError):
            os.kill(child.pid, sent.si_signo)


def _wait_for_descendants(session: Session, stop: Stop) -> None:
    told = False
    while session.has_descendants() and not stop.requested:
        if not told:
            notice("the command has ended, some of its children have not; Ctrl-C stops waiting")
            told = True
        time.sleep(_STEP_S)
        session.step()
