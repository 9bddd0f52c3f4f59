"""``inotrace trace``: live ledgers, and in the end the leak report by stack."""

from __future__ import annotations

import sys
import time
from typing import Callable

import click

from tracer.cli.debug import debug_option
from tracer.cli.keys import Keys
from tracer.cli.options import chosen_filter, duration_option, filter_options, mode_option
from tracer.cli.outcome import Reporting, conclude, notice, notice_refusal, reporting_options
from tracer.cli.output import Output, chosen_format, output_options, print_on
from tracer.cli.screen import Screen, has_screen
from tracer.cli.signals import MarkSignals, Stop, stop_on_signals
from tracer.core.report import Report
from tracer.kernel.hooks import Mode
from tracer.kernel.preflight import prepare
from tracer.session import ROUNDS_MAX, Session
from tracer.stacks.collector import Stacks
from tracer.views.live import LiveHint, live_lines
from tracer.views.plain import HEADER, change_lines

_STEP_S = 0.05
_SCREEN_EVERY_S = 0.25
_LINES_EVERY_S = 1.0
_MARK_KEY = b"m"
# of which nothing may come before the report
_FOR_PROGRAMS = ("json", "github")


@click.command("trace")
@filter_options
@duration_option
@reporting_options(older=5.0, fail_on=None)
@mode_option
@output_options("table", "plain", "json", "github")
@debug_option
@click.pass_context
def command(
    context: click.Context,
    pids: tuple[int, ...],
    user: str | None,
    name: str | None,
    cgroup: str | None,
    pod: str | None,
    duration: float | None,
    older: float,
    reporting: Reporting,
    mode: Mode | None,
    format_: str,
    output: str | None,
    force: bool,
) -> int:
    """
    Trace who adds and removes watches, until Ctrl-C or for -d SECONDS.

    A terminal shows the ledgers live, a pipe gets a line for each process that changes. The
    report comes at the end: leak candidates first, by the code that added the watches.

    The key m, or SIGUSR1, begins a round by hand: press it before each time you repeat what you
    suspect, and the report tells what each round left behind.
    """
    format_ = chosen_format(context)
    filter_ = chosen_filter(pids, user, name, cgroup, pod)
    with stop_on_signals() as stop, Output(output, force) as out, MarkSignals() as marks:
        prepare(notice, mode)
        with Session(filter_, Stacks(), older_s=older, mode=mode) as session:
            notice_refusal(session.refusal)
            Watching(session, stop, marks, duration).show(format_, on_screen=has_screen())
            report = session.finish()
        report = conclude(report, out, format_, reporting)
    return reporting.exit_code(report)


class Watching:
    """A session that is shown while it goes on, until it is stopped or for some time."""

    def __init__(
        self, session: Session, stop: Stop, marks: MarkSignals, duration: float | None
    ) -> None:
        self._session = session
        self._stop = stop
        self._marks = marks
        self._keys: Keys | None = None
        self._duration = duration

    def show(self, format_: str, on_screen: bool) -> None:
        if format_ in _FOR_PROGRAMS:
            notice("tracing; Ctrl-C ends it")
            self._until_stopped(_LINES_EVERY_S, lambda: None, _notice_round)
        elif on_screen:
            self._on_screen()
        else:
            self._in_lines()
        self._session.end_round()

    def _on_screen(self) -> None:
        # in a pipe, the keys are for whoever reads from it
        with Keys() as keys, Screen(before_stop=keys.give_back) as screen:
            self._keys = keys

            def show() -> None:
                width, height = screen.size
                hint = LiveHint.KEYS if keys.are_read else LiveHint.SIGNAL
                screen.draw(live_lines(self._session.live(), width, height, hint))

            show()
            self._until_stopped(_SCREEN_EVERY_S, show, lambda _: show())

    def _in_lines(self) -> None:
        before: Report | None = None

        def show() -> None:
            nonlocal before
            report = self._session.live()
            _say("".join(f"{line}\n" for line in change_lines(before, report, _clock())))
            before = report

        def show_round(number: int) -> None:
            show()
            _say(f"{_clock()} round {number} begins\n")

        _say(f"{HEADER}\n")
        show()
        self._until_stopped(_LINES_EVERY_S, show, show_round)
        _say("\n")

    def _until_stopped(
        self, every_s: float, show: Callable[[], None], show_round: Callable[[int], None]
    ) -> None:
        duration = self._duration
        ends = time.monotonic() + duration if duration is not None else float("inf")
        next_show = time.monotonic() + every_s
        while not self._stop.requested and time.monotonic() < ends:
            time.sleep(min(_STEP_S, max(ends - time.monotonic(), 0)))
            self._session.step()
            if self._is_mark_wanted():
                show_round(self._session.mark())
            if time.monotonic() >= next_show:
                show()
                next_show = time.monotonic() + every_s

    def _is_mark_wanted(self) -> bool:
        """Several at once are one: nothing can have been repeated in between."""
        typed = self._keys.typed() if self._keys is not None else b""
        is_asked = self._marks.take() or _MARK_KEY in typed
        return is_asked and self._session.rounds < ROUNDS_MAX


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _say(text: str) -> None:
    """Beside a report that goes to a file, for whoever looks on."""
    if sys.stdout is not None:
        print_on(sys.stdout, text)


def _notice_round(number: int) -> None:
    notice(f"round {number} begins")
