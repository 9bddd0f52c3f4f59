"""``inotrace ls``: one look at what is watched, without tracing, or one after the other."""

from __future__ import annotations

import click

from tracer.cli.debug import debug_option
from tracer.cli.looking import TREE, Looking, Shape, rendered
from tracer.cli.notices import notice
from tracer.cli.options import Seconds, chosen_filter, filter_options
from tracer.cli.output import Output, chosen_format, output_options
from tracer.listing import Lister
from tracer.views.ls import GROUPINGS

_WATCH_EVERY_S = 2.0
# a larger number is rather a PID
_WATCH_MAX_S = 3600


@click.command("ls")
@click.argument("more_pids", metavar="[PID]...", nargs=-1, type=click.IntRange(min=1))
@filter_options
@click.option(
    "--by",
    type=click.Choice(GROUPINGS),
    help="One line for each; process by default. JSON always has everything.",
)
@click.option(
    "--tree", is_flag=True, help="Users, their processes, instances, and what is watched."
)
@click.option(
    "--duplicates",
    is_flag=True,
    help="Only targets that are watched more than once; by target unless you choose another.",
)
@click.option(
    "--watch",
    "every",
    metavar="[SECONDS]",
    type=Seconds(min=0.1, max=_WATCH_MAX_S),
    is_flag=False,
    flag_value=_WATCH_EVERY_S,
    help="Look again every 2 seconds, or so many, until Ctrl-C.",
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
    pod: str | None,
    by: str | None,
    tree: bool,
    duplicates: bool,
    every: float | None,
    format_: str,
    output: str | None,
    force: bool,
) -> None:
    """
    List what is watched now, without tracing.

    Who has how many watches, most first: by process, by descriptor, by user, by pod, by what is
    watched (with its path), or as a tree of all that. Needs no BPF, and no root for your own
    processes; as root it reads the kernel's own list, which keeps no program waiting. An instance
    shared by several processes or descriptors counts once in the totals.

    Unless a terminal shows it, the format is plain: records for grep and awk that begin with a
    digit, with blanks in names written \\x20.
    """
    if tree and by is not None:
        raise click.UsageError("--tree and --by exclude each other.")
    if every is not None and output is not None:
        raise click.UsageError("--watch and -o exclude each other: a file appears once.")
    default = "target" if duplicates else GROUPINGS[0]
    shape = Shape(TREE if tree else by or default, duplicates, chosen_format(context))
    filter_ = chosen_filter(pids + more_pids, user, name, cgroup, pod)
    with Lister(names=shape.shows_paths) as lister:
        looking = Looking(lister, filter_, shape)
        if every is not None:
            # most looks are not on a screen
            from tracer.cli.ls_watch import watch

            watch(looking, every)
            return
        snapshot = looking.look()
    text = rendered(snapshot, shape, to_file=output is not None)
    # not before: until it is whole, a signal would leave a draft of the file
    with Output(output, force) as out:
        out.write(text)
    for unseen in looking.missing:
        notice(unseen.text)
