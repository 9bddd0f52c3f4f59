"""``inotrace doctor``: what this machine allows, and what to do about the rest."""

from __future__ import annotations

import click

from tracer.cli.debug import debug_option
from tracer.cli.output import Output, chosen_format, output_options
from tracer.errors import EXIT_CLEAN, EXIT_ERROR
from tracer.kernel.diagnosis import diagnose
from tracer.views.doctor import as_json, doctor_lines
from tracer.views.text import rendered

# also in a file and a pipe: it is read by people
_WIDTH = 80


@click.command("doctor")
@output_options("table", "plain", "json")
@debug_option
@click.pass_context
def command(context: click.Context, format_: str, output: str | None, force: bool) -> int:
    """
    Tell what this machine allows: which modes work, why others do not, and what to do.

    Everything is tried, not guessed from versions, and nothing is changed. The exit code is 0 if
    tracing works in some mode. Without root, what needs it is not tried.
    """
    with Output(output, force) as out:
        diagnosis = diagnose()
        format_ = chosen_format(context)
        if format_ == "json":
            out.write(as_json(diagnosis))
        else:
            is_table = format_ == "table" and output is None
            width = None if is_table else _WIDTH
            stream = out.stream if is_table else None
            out.write(rendered(lambda columns: doctor_lines(diagnosis, columns), stream, width))
    return EXIT_CLEAN if diagnosis.can_trace else EXIT_ERROR
