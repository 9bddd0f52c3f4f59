"""``inotrace limits``: who has how much of which limit, and how to raise it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from tracer.cli.debug import debug_option
from tracer.cli.notices import limitations, notice, remedy
from tracer.cli.output import Output, chosen_format, output_options
from tracer.limits import Look, look_at_limits
from tracer.listing import Scan
from tracer.targets.users import user_id
from tracer.views.json_limits import as_json
from tracer.views.limits_table import as_plain, table_lines
from tracer.views.text import counted, rendered

# a file has no width of its own
_FILE_WIDTH = 160


@click.command("limits")
@click.option("-u", "--user", metavar="USER", help="Only this user, by name or number.")
@output_options("table", "plain", "json")
@debug_option
@click.pass_context
def command(
    context: click.Context,
    user: str | None,
    format_: str,
    output: str | None,
    force: bool,
) -> None:
    """
    Show who has how much of which limit, and how to raise it.

    Watches and instances are limited for each user by itself, and in a user namespace for whoever
    made it, too. As root it reads the kernel's own counters, otherwise it counts what you may look
    into. It prints how to raise a limit, now and for good, and changes nothing.

    Unless a terminal shows it, the format is plain: records for grep and awk that begin with a
    digit, and all else in lines that begin with #.
    """
    look = look_at_limits(user_id(user) if user is not None else None)
    text = _rendered(look, chosen_format(context), to_file=output is not None)
    # not before: until it is whole, a signal would leave a draft of the file
    with Output(output, force) as out:
        out.write(text)
    for line in _unseen(look.counted) if look.counted is not None else ():
        notice(line)


def _rendered(look: Look, format_: str, to_file: bool) -> str:
    if format_ == "json":
        return as_json(look.limits)
    if format_ == "plain":
        return as_plain(look.limits)
    stream = None if to_file else sys.stdout
    width = _FILE_WIDTH if to_file else None
    return rendered(lambda fit: table_lines(look.limits, fit), stream, width)


def _unseen(scan: Scan) -> Iterator[str]:
    yield "the kernel's own counters cannot be read here: this is what /proc shows"
    if scan.refused:
        processes = counted(len(scan.refused), "process", "processes")
        yield f"cannot look into {processes}: {remedy()}"
    yield from limitations(scan)
