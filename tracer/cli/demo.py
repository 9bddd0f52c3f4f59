"""``inotrace demo``: a workload that leaks 23 watches, traced and judged."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import click
from rich.console import Console

from tracer.cli.debug import debug_option
from tracer.cli.options import mode_option
from tracer.cli.outcome import notice, print_report
from tracer.cli.output import Output, chosen_format, output_options
from tracer.cli.signals import Stop, stop_on_signals
from tracer.command import Command
from tracer.core.report import Report
from tracer.core.stack import own_frames
from tracer.core.verdict import Verdict
from tracer.errors import InotraceError
from tracer.kernel.hooks import Mode
from tracer.kernel.preflight import prepare
from tracer.session import Filter, Session
from tracer.stacks.collector import Stacks

_SOURCE = Path(__file__).parents[1] / "demo" / "agent.c"
# what it calls is to be found by its name: nothing inlined, and no call instead of a return
_FLAGS = ("-O1", "-fno-optimize-sibling-calls")
_STEP_S = 0.05
# what the agent does: (function, verdict, live, added and removed)
_PLANTED = (
    ("watch_pod_secret", Verdict.LEAK, 23, 0),
    ("watch_node_config", Verdict.HELD, 5, 0),
    ("watch_pod_volume", Verdict.CLEAN, 0, 17),
)


@click.command("demo")
@click.option("--full-stacks", is_flag=True, help="Show all frames, the libraries' too.")
@mode_option
@output_options("table", "plain", "json")
@debug_option
@click.pass_context
def command(
    context: click.Context,
    full_stacks: bool,
    mode: Mode | None,
    format_: str,
    output: str | None,
    force: bool,
) -> int:
    """
    Trace a built-in node agent that churns 23 pods and forgets one watch for each.

    The exit code is 0 if the report found what was planted: 23 watches leaked, 17 balanced, 5
    held.
    """
    with stop_on_signals() as stop, Output(output, force) as out:
        prepare(notice, mode)
        with tempfile.TemporaryDirectory(prefix="inotrace-demo-") as folder:
            agent = _compiled(Path(folder), stop)
            report = _traced(agent, Path(folder), stop, mode)
        print_report(report, out, chosen_format(context), full_stacks=full_stacks)
    missed = _missed(report)
    if missed:
        raise InotraceError(f"the demo did not find what it planted: {missed}")
    return 0


def _compiled(folder: Path, stop: Stop) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise InotraceError("the demo needs a C compiler: install gcc and the C library's headers")
    agent = folder / "agent"
    built = subprocess.run(
        [compiler, *_FLAGS, "-o", os.fspath(agent), os.fspath(_SOURCE)],
        capture_output=True,
        text=True,
        check=False,
    )
    # Ctrl-C ends the compiler as well, which is no failure of it
    stop.leave_if_requested()
    if built.returncode:
        raise InotraceError(
            "the demo's workload does not compile: are the C library's headers installed?",
            detail=built.stderr,
        )
    return agent


def _traced(agent: Path, folder: Path, stop: Stop, mode: Mode | None) -> Report:
    work = folder / "work"
    work.mkdir()
    progress, agents_end = socket.socketpair()
    program = Command([os.fspath(agent), os.fspath(work)], stdout=agents_end.fileno())
    session = Session(Filter(), Stacks(), older_s=0.0, follow=True, mode=mode)
    with progress, agents_end, session:
        with session.spawning():
            child = program.start()
        agents_end.close()
        try:
            _follow(progress, session, stop)
            return session.finish()
        finally:
            child.end()


def _follow(progress: socket.socket, session: Session, stop: Stop) -> None:
    """Show the agent's progress until it has churned its last pod, which closes the socket."""
    with Console(stderr=True).status("the agent starts") as status:
        while not stop.requested:
            is_told = bool(select.select([progress], [], [], _STEP_S)[0])
            text = progress.recv(4096) if is_told else b""
            if is_told and not text:
                return
            session.step()
            if is_told:
                status.update(text.decode().splitlines()[-1])
                # one that died meanwhile is met as such
                with suppress(BrokenPipeError):
                    progress.send(b"\n")


def _missed(report: Report) -> str:
    """What the report should have said of the planted sites and did not."""
    found = {
        (own_frames(site.stack)[0].function, site.verdict, site.live, sum(site.removed.values()))
        for site in report.sites
        if site.stack.frames
    }
    missed = [planted for planted in _PLANTED if planted not in found]
    return "; ".join(
        f"{function}: {live} live, {removed} removed, {verdict.value}"
        for function, verdict, live, removed in missed
    )
