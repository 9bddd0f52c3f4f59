"""Options that several commands share."""

from __future__ import annotations

import math
import os
from typing import Any, Callable, TypeVar

import click

from tracer.core.wire import COMM_BYTES_MAX
from tracer.errors import EXIT_USAGE, InotraceError
from tracer.filter import Filter
from tracer.kernel.hooks import Mode
from tracer.kernel.procfs import shows_all_processes, thread_group
from tracer.targets.cgroups import Cgroup, find_cgroup
from tracer.targets.users import user_id

_Function = TypeVar("_Function", bound=Callable[..., Any])


def stacked(*options: Callable[[_Function], _Function]) -> Callable[[_Function], _Function]:
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
    """``-p``, ``-u``, ``-n``, ``--cgroup`` and ``--pod``: which processes are asked for."""
    return stacked(
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
        click.option(
            "--cgroup",
            metavar="PATH",
            help="Only processes in this cgroup or below it: its folder, or as /proc/PID/cgroup "
            "shows it.",
        ),
        click.option(
            "--pod",
            metavar="UID|NAME",
            help="Only processes of this pod: its uid, its name, or NAMESPACE/NAME.",
        ),
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


def chosen_filter(
    pids: tuple[int, ...],
    user: str | None,
    name: str | None,
    cgroup: str | None = None,
    pod: str | None = None,
) -> Filter:
    """Raises InotraceError for what is no process, cgroup or pod, or a user nobody knows."""
    if cgroup is not None and pod is not None:
        raise click.UsageError("--cgroup and --pod exclude each other: a pod is a cgroup.")
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
        cgroup=_chosen_cgroup(cgroup, pod),
    )


def _chosen_cgroup(cgroup: str | None, pod: str | None) -> Cgroup | None:
    if pod is not None:
        # what is seldom asked for takes long to import
        from tracer.targets.pods import Pods

        pods = Pods()
        cgroup = pods.cgroup(pods.find(pod))
    return find_cgroup(cgroup) if cgroup is not None else None


def _require_process(pid: int) -> None:
    group = thread_group(pid)
    if group is None and not shows_all_processes():
        raise InotraceError(f"no process {pid}, or /proc hides it (hidepid): run as root")
    if group is None:
        raise InotraceError(f"no process {pid}: it has ended, or the number is wrong")
    if group != pid:
        raise InotraceError(f"{pid} is a thread of process {group}: give that number")
