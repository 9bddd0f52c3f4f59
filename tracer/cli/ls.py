"""``inotrace ls``: one look at what is watched, from /proc alone."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import click
from rich.console import Console
from rich.text import Text

from tracer.cli.output import Output, chosen_format, output_options
from tracer.errors import InotraceError
from tracer.kernel.fdinfo import (
    FdWatch,
    HeldFd,
    can_compare_files,
    group_shared,
    inotify_fds,
    read_watches,
)
from tracer.kernel.procfs import (
    ProcessFacts,
    holds_no_files,
    read_process,
    running_pids,
    shows_all_processes,
    thread_group,
    user_namespace,
)
from tracer.targets.users import sysctl_limits, user_id, user_name
from tracer.views import ls as view
from tracer.views.text import counted, text_console

# who holds an instance, and its watches
_Held = tuple[tuple[HeldFd, ...], tuple[FdWatch, ...]]
# a file has no width of its own
_FILE_WIDTH = 160


@dataclass(frozen=True)
class Selection:
    """Which processes are asked for; what is not given lets every process through."""

    pids: frozenset[int] = frozenset()
    uid: int | None = None
    name: bytes = b""

    def includes(self, process: ProcessFacts) -> bool:
        return (
            (not self.pids or process.pid in self.pids)
            and (self.uid is None or process.uid == self.uid)
            and self.name in process.comm
        )


class Scan(NamedTuple):
    """One walk through /proc: who holds instances, and whom we may not look into."""

    processes: dict[int, ProcessFacts]
    instances: list[_Held]
    refused: list[ProcessFacts]
    shows_all: bool
    sharing_known: bool


@click.command("ls")
@click.argument("pids", metavar="[PID]...", nargs=-1, type=click.IntRange(min=1))
@click.option(
    "-p",
    "--pid",
    "more_pids",
    metavar="PID",
    multiple=True,
    type=click.IntRange(min=1),
    help="Only this process (repeatable; the same as PID).",
)
@click.option("-u", "--user", metavar="USER", help="Only processes of this user, name or number.")
@click.option("-n", "--name", metavar="NAME", default="", help="Only commands that contain NAME.")
@click.option(
    "--by",
    type=click.Choice(view.GROUPINGS),
    default=view.GROUPINGS[0],
    show_default=True,
    help="One line for each. JSON always has everything.",
)
@output_options("table", "plain", "json")
def command(
    pids: tuple[int, ...],
    more_pids: tuple[int, ...],
    user: str | None,
    name: str,
    by: str,
    format_: str,
    output: str | None,
    force: bool,
) -> None:
    """
    List what is watched now, without tracing.

    Who has how many watches, most first: by process, by descriptor, or by what is watched. Needs
    no BPF, and no root for your own processes. An instance shared by several processes or
    descriptors counts once in the totals.

    Unless a terminal shows it, the format is plain: records for grep and awk that begin with a
    digit, with blanks in names written \\x20.
    """
    selection = Selection(
        frozenset(pids + more_pids), None if user is None else user_id(user), os.fsencode(name)
    )
    chosen = chosen_format(click.get_current_context())
    with Output(output, force) as out:
        _require_running(selection.pids)
        scan = scan_proc()
        hidden = [process for process in scan.refused if selection.includes(process)]
        _require_readable(selection.pids, hidden)
        snapshot = take_snapshot(scan, selection)
        out.write(_rendered(snapshot, by, chosen, to_file=output is not None))
    _tell_what_is_missing(scan, hidden)


def scan_proc() -> Scan:
    """Look into every process: sharing and use per user can be told only from all of them."""
    processes: dict[int, ProcessFacts] = {}
    held: list[HeldFd] = []
    refused: list[ProcessFacts] = []
    for pid in running_pids():
        try:
            fds = inotify_fds(pid)
        except ProcessLookupError:
            continue
        except PermissionError:
            refused.extend(_with_files(pid))
            continue
        facts = read_process(pid) if fds else None
        if facts is not None:
            processes[pid] = facts
            held.extend(HeldFd(pid, fd) for fd in fds)
    sharing_known = len(held) < 2 or can_compare_files()
    groups = group_shared(held) if sharing_known else [(one,) for one in held]
    instances, also_refused = _read_instances(groups)
    refused.extend(processes[pid] for pid in also_refused)
    return Scan(processes, instances, refused, shows_all_processes(), sharing_known)


def take_snapshot(scan: Scan, selection: Selection) -> view.Snapshot:
    """The part of a scan that is asked for."""
    pids = {pid for pid, process in scan.processes.items() if selection.includes(process)}
    instances = tuple(
        view.Instance(
            number, tuple(_holder(scan.processes[one.pid], one.fd) for one in holders), watches
        )
        for number, (holders, watches) in enumerate(scan.instances, 1)
        if any(one.pid in pids for one in holders)
    )
    holding = {holder.pid for instance in instances for holder in instance.holders}
    return view.Snapshot(
        kernel=os.uname().release,
        complete=not any(selection.includes(process) for process in scan.refused)
        and (scan.shows_all or bool(selection.pids)),
        sharing_known=scan.sharing_known,
        pids=frozenset(pids & holding),
        instances=instances,
        usage=count_usage(scan),
    )


def count_usage(scan: Scan) -> tuple[view.Usage, ...]:
    """
    Watches and instances per user namespace and user, most watches first.

    The kernel charges whoever made the instance; we take its first holder for that.
    """
    counts: defaultdict[tuple[int | None, int], list[int]] = defaultdict(list)
    for holders, watches in scan.instances:
        uid = scan.processes[holders[0].pid].uid
        counts[user_namespace(holders[0].pid), uid].append(len(watches))
    hidden = {process.uid for process in scan.refused}
    usage = [
        _usage(userns, uid, sizes, uid not in hidden) for (userns, uid), sizes in counts.items()
    ]
    return tuple(sorted(usage, key=lambda one: (-one.watches, one.uid, one.userns or 0)))


def _usage(userns: int | None, uid: int, sizes: list[int], complete: bool) -> view.Usage:
    # /proc/sys shows the limits of our own user namespace only
    limits = sysctl_limits() if userns == user_namespace(os.getpid()) else None
    return view.Usage(
        uid=uid,
        user=user_name(uid),
        userns=userns,
        watches=sum(sizes),
        watches_limit=limits and limits.watches,
        instances=len(sizes),
        instances_limit=limits and limits.instances,
        complete=complete,
    )


def _read_instances(groups: Iterable[tuple[HeldFd, ...]]) -> tuple[list[_Held], set[int]]:
    """The instances, and the processes that may no longer be looked into."""
    instances: list[_Held] = []
    refused: set[int] = set()
    for holders in groups:
        for at, one in enumerate(holders):
            try:
                watches = read_watches(*one)
            except PermissionError:
                refused.add(one.pid)
                continue
            if watches is not None:
                # those before it have closed theirs
                instances.append((holders[at:], watches))
                break
    return instances, refused


def _with_files(pid: int) -> list[ProcessFacts]:
    facts = None if holds_no_files(pid) else read_process(pid)
    return [] if facts is None else [facts]


def _holder(process: ProcessFacts, fd: int) -> view.Holder:
    return view.Holder(process.pid, fd, user_name(process.uid), process.comm, process.exe)


def _require_running(pids: Iterable[int]) -> None:
    for pid in sorted(pids):
        group = thread_group(pid)
        if group is None:
            raise InotraceError(f"no process {pid}: it has ended, or the number is wrong")
        if group != pid:
            raise InotraceError(f"{pid} is a thread of process {group}: give that number")


def _require_readable(pids: frozenset[int], hidden: list[ProcessFacts]) -> None:
    if pids and len(hidden) == len(pids):
        first = hidden[0]
        raise InotraceError(
            f"cannot look into process {first.pid} of {user_name(first.uid)}: {_remedy()}"
        )


def _tell_what_is_missing(scan: Scan, hidden: list[ProcessFacts]) -> None:
    if hidden:
        whose = "" if any(one.uid == os.geteuid() for one in hidden) else " of other users"
        processes = counted(len(hidden), "process", "processes")
        _notice(f"cannot look into {processes}{whose}: {_remedy()}")
    if not scan.shows_all:
        _notice("/proc is mounted with hidepid and hides other users: run as root to see all")
    if not scan.sharing_known:
        _notice("kcmp is refused here: a shared instance counts once for each that holds it")


def _notice(text: str) -> None:
    click.echo(f"inotrace: {text}", err=True)


def _remedy() -> str:
    if os.geteuid() == 0:
        return "a sandbox or security module refuses it"
    return "run as root to see all"


def _rendered(snapshot: view.Snapshot, by: str, format_: str, to_file: bool) -> str:
    if format_ == "json":
        return view.as_json(snapshot)
    if format_ == "plain":
        return view.as_plain(snapshot, by)
    console = text_console(_FILE_WIDTH) if to_file else Console(file=sys.stdout, highlight=False)
    lines = view.table_lines(snapshot, by, console.width)
    with console.capture() as capture:
        console.print(Text("\n").join(lines), soft_wrap=True)
    return capture.get()
