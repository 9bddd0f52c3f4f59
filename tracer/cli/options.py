"""Options that several commands share."""

from __future__ import annotations

import math
import os
from typing import Any, Callable, TypeVar

import click

from tracer.core.wire import COMM_BYTES_MAX
from tracer.errors import EXIT_LEAK, EXIT_USAGE, InotraceError
from tracer.kernel.hooks import Mode
from tracer.kernel.procfs import thread_group
from tracer.session import Filter
from tracer.targets.users import user_id

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _stacked(*options: Callable[[_Function], _Function]) -> Callable[[_Function], _Function]:
    def decorate(function: _Function) -> _Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class Seconds(click.FloatRange):
    """A time that is a number, neither infinite nor NaN."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = float(super().convert(value, param, ctx))
        # what is kept of a time is nanoseconds
        if not math.isfinite(seconds * 1e9):
            self.fail(f"{value!r} is not a finite number of seconds.", param, ctx)
        return seconds


def duration_option(function: _Function) -> _Function:
    """``-d``: when to stop without Ctrl-C."""
    return click.option(
        "-d",
        "--duration",
        metavar="SECONDS",
        type=Seconds(min=0, min_open=True),
        help="Stop by itself after this time.",
    )(function)


def filter_options(function: _Function) -> _Function:
    """``-p``, ``-u`` and ``-n``: which processes are asked for."""
    return _stacked(
        click.option(
            "-p",
            "--pid",
            "pids",
            metavar="PID",
            multiple=True,
            type=click.IntRange(min=1),
            help="Only this process (repeatable).",
        ),
        click.option("-u", "--user", metavar="USER", help="Only this user, by name or number."),
        click.option("-n", "--name", metavar="NAME", help="Only commands that contain NAME."),
    )(function)


def mode_option(function: _Function) -> _Function:
    """``--mode``: the function gets a Mode, or None for auto."""
    return click.option(
        "--mode",
        type=click.Choice(["auto", *(mode.value for mode in Mode)]),
        default="auto",
        show_default=True,
        callback=lambda _context, _option, name: None if name == "auto" else Mode(name),
        help="How the kernel tells of calls and removals: 'inotrace doctor' explains.",
    )(function)


def chosen_filter(pids: tuple[int, ...], user: str | None, name: str | None) -> Filter:
    """Raises InotraceError for what is no process, or a user nobody knows."""
    comm = os.fsencode(name or "")
    if len(comm) > COMM_BYTES_MAX:
        raise InotraceError(
            f"-n {name}: the kernel keeps {COMM_BYTES_MAX} bytes of a command's name, give a part",
            exit_code=EXIT_USAGE,
        )
    for pid in pids:
        _require_process(pid)
    return Filter(
        pids=frozenset(pids),
        uid=user_id(user) if user is not None else None,
        name=comm,
    )


def _require_process(pid: int) -> None:
    group = thread_group(pid)
    if group is None:
        raise InotraceError(f"no process {pid}: it has ended, or the number is wrong")
    if group != pid:
        raise InotraceError(f"{pid} is a thread of process {group}: give that number")


def judging_options(older: float) -> Callable[[_Function], _Function]:
    """How the report is judged and shown; `older` is the default of ``--older``."""
    return _stacked(
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
            "--error-exitcode",
            metavar="N",
            type=click.IntRange(0, 255),
            default=EXIT_LEAK,
            show_default=True,
            help="Exit code when a leak was found.",
        ),
    )
