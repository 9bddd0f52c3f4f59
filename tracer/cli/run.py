"""``inotrace run``: a command, and what it or a daemon that it pokes does meanwhile."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress

import click
from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table

from tracer.cli.debug import debug_option
from tracer.cli.options import Seconds, chosen_filter, filter_options, mode_option
from tracer.cli.outcome import (
    Reporting,
    conclude,
    notice,
    notice_refusal,
    reporting_options,
    summary,
)
from tracer.cli.output import Output, chosen_format, output_options
from tracer.cli.signals import HeldSignals, Stop, stop_on_signals, typed_interrupt
from tracer.command import Child, Command
from tracer.errors import EXIT_CLEAN, EXIT_INCONCLUSIVE
from tracer.kernel.hooks import Mode
from tracer.kernel.preflight import prepare
from tracer.kernel.procfs import thread_group
from tracer.session import ROUNDS_MAX, Filter, Session
from tracer.stacks.collector import Stacks

_STEP_S = 0.02
# A round is over when the lowest number of watches was the same in so many times in a row. What a
# daemon is poked to do, and removals that only a comparison with the kernel finds, come within
# some tenths of a second; what a busy one adds and removes all the time does not change the lowest.
_CALM_S = 0.25
_CALM_TIMES = 3
# What never rests is not waited for.
_SETTLE_MAX_S = 10.0
_BAR_WIDTH = 30


@click.command("run", context_settings={"allow_interspersed_args": False})
@click.option(
    "-r",
    "--rounds",
    metavar="ROUNDS",
    type=click.IntRange(1, ROUNDS_MAX),
    default=1,
    show_default=True,
    help="Run CMD so often, and report what each round leaves.",
)
@click.option(
    "--settle",
    metavar="SECONDS",
    type=Seconds(min=0),
    help="Wait so long after each round; by default until the number of watches is calm.",
)
@filter_options
@click.option("--all", "everyone", is_flag=True, help="Trace all processes, not only CMD's.")
@reporting_options(older=0.0, fail_on="leak")
@mode_option
@output_options("table", "plain", "json", "github")
@debug_option
@click.argument("argv", metavar="[--] CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def command(
    context: click.Context,
    rounds: int,
    settle: float | None,
    pids: tuple[int, ...],
    user: str | None,
    name: str | None,
    cgroup: str | None,
    pod: str | None,
    everyone: bool,
    older: float,
    reporting: Reporting,
    mode: Mode | None,
    format_: str,
    output: str | None,
    force: bool,
    argv: tuple[str, ...],
) -> int:
    """
    Trace CMD and all its descendants, from before its first instruction.

    With -p, -u, -n, --cgroup, --pod or --all, trace these processes instead while CMD runs: the
    leak is often in a daemon that a scenario only pokes. With -r 4 or more, a place that grows in
    each round after the first is a leak.

    CMD keeps standard input, output and error; the report goes to standard error, or to -o. The
    exit code is 23 for a leak, 3 if inconclusive, else CMD's own. Of CMD's processes, a watch that
    only their end freed counts as live.
    """
    format_ = chosen_format(context, sys.stderr)
    others = _others(chosen_filter(pids, user, name, cgroup, pod), everyone)
    with stop_on_signals() as stop, Output(output, force, stream=sys.stderr) as out:
        program = Command(argv)
        prepare(notice, mode)
        with HeldSignals() as held, _session(others, older, mode) as session:
            notice_refusal(session.refusal)
            scenario = Scenario(program, session, stop, held, others)
            code = scenario.run(rounds, settle)
            report = session.finish()
        report = conclude(report, out, format_, reporting)
    if output is None and format_ != "json":
        notice(summary(report))
    verdict = reporting.exit_code(report, otherwise=code)
    return EXIT_INCONCLUSIVE if scenario.has_lost_daemon and verdict == EXIT_CLEAN else verdict


def _others(filter_: Filter, everyone: bool) -> Filter | None:
    """Whom to trace instead of the command."""
    if everyone and filter_ != Filter():
        raise click.UsageError("--all goes with none of -p, -u, -n, --cgroup and --pod.")
    return None if filter_ == Filter() and not everyone else filter_


def _session(others: Filter | None, older: float, mode: Mode | None) -> Session:
    follow = others is None
    return Session(others or Filter(), Stacks(), older_s=older, follow=follow, mode=mode)


class Scenario:
    """
    A command that is run while a session traces it, or `others`.

    `has_lost_daemon`: one of those that were named has ended, and what it had with it.
    """

    def __init__(
        self,
        program: Command,
        session: Session,
        stop: Stop,
        held: HeldSignals,
        others: Filter | None,
    ) -> None:
        self._program = program
        self._session = session
        self._stop = stop
        self._held = held
        self._daemons = others.pids if others is not None else frozenset()
        self._is_stopped = False
        # that came when there was no command to take it
        self._signal = 0
        self.has_lost_daemon = False

    def run(self, rounds: int, settle: float | None) -> int:
        """So often, or until it is stopped; the first exit code that is not 0."""
        if settle is None and rounds == 1 and self._session.follows:
            # its end is the end of all that it did
            settle = 0.0
        if rounds > 1:
            self._session.mark()
        self._leave_if_stopped()
        code = 0
        done = 0
        while done < rounds and not self._is_stopped and not self.has_lost_daemon:
            if rounds > 1:
                _show_round(done + 1, rounds)
            ended = self._round(settle)
            code = code or ended
            if rounds > 1 and not self._is_stopped:
                self._session.mark()
            done += not self._is_stopped or rounds == 1
        if done < rounds:
            notice(f"stopped after {done:,} of {rounds:,} rounds")
        self._held.let_go()
        self._wait_for_descendants()
        return code or (128 + self._signal if self._signal else 0)

    def _round(self, settle: float | None) -> int:
        """Run the command once, and wait until what it poked is done; its exit code."""
        child = self._started()
        self._follow(child)
        self._settle(settle)
        for pid in self._daemons:
            if thread_group(pid) is None:
                notice(f"process {pid} has ended: what it leaked went with it")
                self.has_lost_daemon = True
        return child.exit_code

    def _leave_if_stopped(self) -> None:
        """A signal that came while tracing was prepared ends inotrace, and nothing was started."""
        early = self._held.next(within_s=0)
        if early is not None:
            self._stop.number = early.si_signo
        self._stop.leave_if_requested()

    def _started(self) -> Child:
        with self._session.spawning():
            return self._program.start()

    def _follow(self, child: Child) -> None:
        """Until the command has ended; signals are for the command."""
        while not child.poll():
            sent = self._held.next(within_s=_STEP_S)
            if sent is not None:
                self._is_stopped = True
                _pass_on(child, sent)
            self._session.step()

    def _settle(self, seconds: float | None) -> None:
        """For so long; None: until the number of watches does not change any more."""
        ends = time.monotonic() + (_SETTLE_MAX_S if seconds is None else seconds)
        lows: list[int] = []
        while time.monotonic() < ends and not self._is_stopped:
            lows.append(self._lowest(until=min(time.monotonic() + _CALM_S, ends)))
            is_calm = len(set(lows[-_CALM_TIMES:])) == 1 and len(lows) >= _CALM_TIMES
            if seconds is None and is_calm:
                return

    def _lowest(self, until: float) -> int:
        """The lowest number of watches and instances until then, or until a signal comes."""
        low = self._session.net
        while time.monotonic() < until and not self._is_stopped:
            sent = self._held.next(within_s=min(_STEP_S, max(until - time.monotonic(), 0)))
            if sent is not None:
                self._is_stopped, self._signal = True, sent.si_signo
            self._session.step()
            low = min(low, self._session.net)
        return low

    def _wait_for_descendants(self) -> None:
        told = False
        while self._session.has_descendants() and not self._stop.requested:
            if not told:
                notice("the command has ended, some of its children have not; Ctrl-C stops waiting")
                told = True
            time.sleep(_STEP_S)
            self._session.step()


def _pass_on(child: Child, sent: signal.struct_siginfo) -> None:
    # Ctrl-C reached the command as well
    if not typed_interrupt(sent):
        with suppress(ProcessLookupError):
            os.kill(child.pid, sent.si_signo)


def _show_round(number: int, rounds: int) -> None:
    """A line of its own each time: what the command prints comes below it."""
    text = f"round {number:,} of {rounds:,}"
    if not sys.stderr.isatty():
        notice(text)
        return
    line = Table.grid(padding=(0, 2))
    done = ProgressBar(total=rounds, completed=number - 1, width=_BAR_WIDTH)
    line.add_row(f"inotrace: {text}", done)
    Console(stderr=True, highlight=False).print(line)
