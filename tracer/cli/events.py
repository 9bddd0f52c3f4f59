"""``inotrace events``: the stream of calls, one line each."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import chain

import click
from rich.console import Console

from tracer.cli.debug import debug_option
from tracer.cli.options import chosen_filter, duration_option, filter_options, mode_option
from tracer.cli.outcome import notice
from tracer.cli.output import Output, chosen_format, output_options
from tracer.cli.signals import Stop, stop_on_signals
from tracer.core.events import CallEvent, Event, Tally, TallyEvent
from tracer.core.order import Traced
from tracer.core.report import FailureRow
from tracer.explaining import Explainer
from tracer.feed import Feed
from tracer.kernel.hooks import Mode
from tracer.kernel.preflight import prepare
from tracer.kernel.truth import open_truth
from tracer.session import Filter
from tracer.stacks.collector import Stacks
from tracer.stacks.resolver import NoStacks, StackResolver
from tracer.targets.processes import ProcessTable
from tracer.views import events as view
from tracer.views.failures import failure_sentence

_STEP_S = 0.05


@click.command("events")
@filter_options
@click.option("-x", "--failed", is_flag=True, help="Only calls that failed.")
@click.option("--stack", is_flag=True, help="Show the user stack of each call, all frames.")
@duration_option
@mode_option
@output_options("table", "plain", "json")
@debug_option
@click.pass_context
def command(
    context: click.Context,
    pids: tuple[int, ...],
    user: str | None,
    name: str | None,
    cgroup: str | None,
    pod: str | None,
    failed: bool,
    stack: bool,
    duration: float | None,
    mode: Mode | None,
    format_: str,
    output: str | None,
    force: bool,
) -> None:
    """
    Print the inotify calls as they happen, until Ctrl-C or for -d SECONDS.

    One line a call: time, process, call, descriptor, result, mask names and path. Why a call
    failed is said once for each process, on standard error; in JSON, in the record.
    """
    filter_ = chosen_filter(pids, user, name, cgroup, pod)
    with stop_on_signals() as stop, Output(output, force) as out:
        printer = view.printer(chosen_format(context), Console().width, stacks=stack)
        prepare(notice, mode)
        _stream(
            filter_,
            out,
            printer,
            stop,
            only_failed=failed,
            stack=stack,
            duration=duration,
            mode=mode,
            # of JSON, it is in the records
            tells_failures=chosen_format(context) != "json",
        )


def _stream(
    filter_: Filter,
    out: Output,
    printer: view.Printer,
    stop: Stop,
    *,
    only_failed: bool,
    stack: bool,
    duration: float | None,
    mode: Mode | None,
    tells_failures: bool,
) -> None:
    stacks: StackResolver = Stacks() if stack else NoStacks()
    scope = filter_.scope(stacks=stack, removal_stacks=stack)
    processes = ProcessTable()
    printed = 0

    def show(events: Iterable[Traced]) -> None:
        nonlocal printed
        for _, event, call_stack in events:
            failure = _first(event, explainer)
            if isinstance(event, CallEvent) and (event.ret < 0 or not only_failed):
                out.append(printer.call(event, call_stack, failure.shortage if failure else None))
                printed += 1
            if failure is not None and tells_failures:
                notice(failure_sentence(failure))

    with Feed(scope, stacks, processes, mode) as feed, _explainer(feed, processes) as explainer:
        feed.attach()
        out.append(printer.header())
        ends = time.monotonic() + duration if duration is not None else float("inf")
        while not stop.requested and time.monotonic() < ends:
            time.sleep(min(_STEP_S, max(ends - time.monotonic(), 0)))
            if not feed.is_rushing:
                show(chain.from_iterable(feed.ready(within_s=_STEP_S)))
        show(feed.all_until(time.monotonic_ns()))
        lost = feed.probe.counters().lost - feed.recovered
    failures = explainer.counted()
    out.append(printer.footer(printed, lost, failures))
    out.commit()
    for line in view.repeated(failures) if tells_failures else ():
        notice(line)
    notice(view.summary(printed, lost))


def _first(event: Event, explainer: Explainer) -> FailureRow | None:
    if isinstance(event, CallEvent) and event.ret < 0:
        return explainer.first(event)
    if isinstance(event, TallyEvent) and event.tally is Tally.FAILURE:
        # of calls that found no room in a buffer, more than their number is lost
        return explainer.first(event.call, event.times)
    return None


def _explainer(feed: Feed, processes: ProcessTable) -> Explainer:
    return Explainer(lambda: open_truth(feed.probe.bpf, feed.attach), processes)
