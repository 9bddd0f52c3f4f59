"""``inotrace ls``: one look at what is watched, without tracing."""

from __future__ import annotations

import os
import sys

import click
from rich.console import Console
from rich.text import Text

from tracer.cli.debug import debug_option
from tracer.cli.options import chosen_filter, filter_options
from tracer.cli.outcome import notice
from tracer.cli.output import Output, chosen_format, output_options
from tracer.errors import InotraceError
from tracer.kernel.capabilities import LOOKING, missing, named
from tracer.kernel.procfs import ProcessFacts
from tracer.listing import Scan, scan, take_snapshot
from tracer.targets.users import user_name
from tracer.views import ls as view
from tracer.views.json_ls import as_json
from tracer.views.text import counted, text_console

# a file has no width of its own
_FILE_WIDTH = 160


@click.command("ls")
@click.argument("more_pids", metavar="[PID]...", nargs=-1, type=click.IntRange(min=1))
@filter_options
@click.option(
    "--by",
    type=click.Choice(view.GROUPINGS),
    default=view.GROUPINGS[0],
    show_default=True,
    help="One line for each. JSON always has everything.",
)
@output_options("table", "plain", "json")
@debug_option
@click.pass_context
def command(
    context: click.Context,
    more_pids: tuple[int, ...],
    pids: tuple[int, ...],
    user: str | None,
    name: str | None,
    cgroup: str | None,
    by: str,
    format_: str,
    output: str | None,
    force: bool,
) -> None:
    """
    List what is watched now, without tracing.

    Who has how many watches, most first: by process, by descriptor, or by what is watched. Needs
    no BPF, and no root for your own processes; as root it reads the kernel's own list, which keeps
    no program waiting. An instance shared by several processes or descriptors counts once in the
    totals.

    Unless a terminal shows it, the format is plain: records for grep and awk that begin with a
    digit, with blanks in names written \\x20.
    """
    filter_ = chosen_filter(pids + more_pids, user, name, cgroup)
    scanned = scan()
    hidden = scanned.hidden(filter_)
    _require_readable(filter_.pids, hidden)
    snapshot = take_snapshot(scanned, filter_)
    text = _rendered(snapshot, by, chosen_format(context), to_file=output is not None)
    # not before: until it is whole, a signal would leave a draft of the file
    with Output(output, force) as out:
        out.write(text)
    _tell_what_is_missing(scanned, hidden, scanned.changing(filter_))


def _require_readable(pids: frozenset[int], hidden: list[ProcessFacts]) -> None:
    if pids and len(hidden) == len(pids):
        first = hidden[0]
        raise InotraceError(
            f"cannot look into process {first.pid} of {user_name(first.uid)}: {_remedy()}"
        )


def _tell_what_is_missing(scan: Scan, hidden: list[ProcessFacts], changing: int) -> None:
    if changing:
        notice(f"{counted(changing, 'instance')} changed while being read: run ls again")
    if hidden:
        whose = "" if any(one.uid == os.geteuid() for one in hidden) else " of other users"
        processes = counted(len(hidden), "process", "processes")
        notice(f"cannot look into {processes}{whose}: {_remedy()}")
    if not scan.shows_all:
        notice("/proc is mounted with hidepid and hides other users: run as root to see all")
    if not scan.sharing_known:
        notice("kcmp is refused here: a shared instance counts once for each that holds it")


def _remedy() -> str:
    lacking = missing(LOOKING)
    if not lacking:
        return "a sandbox or security module refuses it"
    if os.geteuid() == 0:
        return f"root lacks {named(lacking)} here"
    return f"run as root to see all, or with {named(lacking)}"


def _rendered(snapshot: view.Snapshot, by: str, format_: str, to_file: bool) -> str:
    if format_ == "json":
        return as_json(snapshot)
    if format_ == "plain":
        return view.as_plain(snapshot, by)
    console = text_console(_FILE_WIDTH) if to_file else Console(file=sys.stdout, highlight=False)
    lines = view.table_lines(snapshot, by, console.width)
    with console.capture() as capture:
        console.print(Text("\n").join(lines), soft_wrap=True)
    return capture.get()
