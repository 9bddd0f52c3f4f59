"""Options that several commands share."""

from __future__ import annotations

import os
from typing import Any, Callable, TypeVar

import click

from tracer.core.wire import COMM_BYTES_MAX
from tracer.errors import EXIT_LEAK, EXIT_USAGE, InotraceError
from tracer.session import Filter
from tracer.targets.users import user_id

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _stacked(*options: Callable[[_Function], _Function]) -> Callable[[_Function], _Function]:
    def decorate(function: _Function) -> _Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def filter_options(function: _Function) -> _Function:
    """``-p``, ``-u`` and ``-n``: whom to trace."""
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


def chosen_filter(pids: tuple[int, ...], user: str | None, name: str | None) -> Filter:
    """Raises InotraceError for a process that is not there or a user nobody knows."""
    comm = os.fsencode(name or "")
    if len(comm) > COMM_BYTES_MAX:
        raise InotraceError(
            f"-n {name}: the kernel keeps {COMM_BYTES_MAX} bytes of a command's name, give a part",
            exit_code=EXIT_USAGE,
        )
    for pid in pids:
        if not os.path.exists(f"/proc/{pid}"):
            raise InotraceError(f"no process {pid}: it may have ended; see 'inotrace ls'")
    return Filter(
        pids=frozenset(pids),
        uid=user_id(user) if user is not None else None,
        name=comm,
    )


def judging_options(older: float) -> Callable[[_Function], _Function]:
    """How the report is judged and shown; `older` is the default of ``--older``."""
    return _stacked(
        click.option(
            "--older",
            metavar="SECONDS",
            type=click.FloatRange(min=0),
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
