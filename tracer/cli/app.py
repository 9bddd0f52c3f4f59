"""The command group, and the one place where an error becomes a line and an exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from importlib import import_module
from typing import Any

import click

from tracer import __version__
from tracer.cli.debug import Debug, debug_option
from tracer.cli.environment import VARIABLE, defaults, with_source
from tracer.cli.streams import open_missing
from tracer.errors import EXIT_ERROR, InotraceError

# name -> (module, one line for --help); loaded when used, since bcc takes long to import
_COMMANDS = {
    "trace": ("tracer.cli.trace", "Trace until Ctrl-C, then list leak candidates by stack."),
    "run": ("tracer.cli.run", "Trace one command and its descendants."),
    "events": ("tracer.cli.events", "Print the inotify calls as they happen."),
    "ls": ("tracer.cli.ls", "List what is watched now, without tracing."),
    "limits": ("tracer.cli.limits", "Show who has how much of which limit, and how to raise it."),
    "diff": ("tracer.cli.diff", "Compare two reports, or two outputs of ls."),
    "doctor": ("tracer.cli.doctor", "Tell what this machine allows, and what to do."),
    "demo": ("tracer.cli.demo", "Trace a built-in workload that leaks 23 watches."),
}
_DEFAULT = "trace"


class CommandGroup(click.Group):
    """Loads commands on demand; options without a command belong to ``trace``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = import_module(_COMMANDS[name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {"-h", "--help", "--version"}
        first = next((arg for arg in args if arg != "--debug"), None)
        if first is None or (first.startswith("-") and first not in own):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # whoever read our output has had enough; Python would complain again at shutdown
            if sys.stdout is not None:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="inotrace", message="%(prog)s %(version)s")
@debug_option
def cli() -> None:
    """
    Find inotify watch leaks.

    Without a command: trace. Run it, reproduce the problem, press Ctrl-C, and read which code
    added watches and never removed them.
    """


def collect_seldom() -> None:
    """Have Python look for cycles seldom."""
    # a ledger is many small objects and no cycles: looking for some takes a third of its time
    gc.set_threshold(200_000, 50, 1_000)


def main() -> int:
    """Run the command line; the exit code is for sys.exit."""
    open_missing()
    collect_seldom()
    debug = Debug()
    try:
        given = defaults(os.environ.get(VARIABLE, ""))
        code = cli.main(prog_name="inotrace", standalone_mode=False, obj=debug, default_map=given)
        return code if isinstance(code, int) else 0
    except InotraceError as error:
        return _fail(error, debug.on)
    except click.exceptions.Abort:
        return 128 + signal.SIGINT
    except click.ClickException as error:
        with_source(error).show()
        return error.exit_code
    except Exception as error:
        if debug.on:
            raise
        kind = type(error).__name__
        print(f"inotrace: internal error ({kind}: {error}); --debug shows where", file=sys.stderr)
        return EXIT_ERROR


def _fail(error: InotraceError, debug: bool) -> int:
    print(f"inotrace: {error}", file=sys.stderr)
    if debug:
        traceback.print_exc()
        if error.detail:
            print(error.detail, file=sys.stderr)
    return error.exit_code
