"""``inotrace diff``: what came and what went, from one report or output of ls to another."""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import IO, Any

import click

from tracer.cli.debug import debug_option
from tracer.cli.output import Output, chosen_format, output_options
from tracer.core.delta import Delta, delta
from tracer.core.json_fields import KeptError
from tracer.core.kept import Kept
from tracer.core.kept_json import kept
from tracer.errors import InotraceError
from tracer.views.delta import delta_lines
from tracer.views.json_delta import delta_json

_STDIN = "-"
# a list of a million watches has a quarter of it
_BYTES_MAX = 1 << 30
_PORTION = 1 << 20
# the longest number that is kept anywhere is 2^64 - 1
_DIGITS_MAX = 20


@click.command("diff")
@click.argument("a", metavar="A.json")
@click.argument("b", metavar="B.json")
@click.option("--full-stacks", is_flag=True, help="Show the stack of each place.")
@output_options("table", "plain", "json")
@debug_option
@click.pass_context
def command(
    context: click.Context,
    a: str,
    b: str,
    full_stacks: bool,
    format_: str,
    output: str | None,
    force: bool,
) -> None:
    """
    Compare two reports, or two outputs of ls.

    What came, what went, and what grew or shrank from A to B: by place in the code (reports
    alone), by process and by what is watched. Both files are made with -f json, by trace, run or
    demo, or by ls; one of them may be "-" for standard input. Needs no privileges. The exit code
    is 0 also if they differ.
    """
    if a == b == _STDIN:
        raise InotraceError("standard input can be read once: name a file for A or B")
    format_ = chosen_format(context)
    differences = _compared(a, b)
    with Output(output, force) as out:
        if format_ == "json":
            out.write(delta_json(differences))
        else:
            out.write_lines(
                lambda width: delta_lines(differences, width, full_stacks=full_stacks), format_
            )


def _compared(a: str, b: str) -> Delta:
    try:
        return delta(_kept(a), _kept(b))
    except KeptError as error:
        raise InotraceError(f"cannot compare {a} with {b}: {error}") from error
    except MemoryError as error:
        raise InotraceError(f"{a} and {b} do not fit into memory: compare smaller ones") from error


def _kept(path: str) -> Kept:
    name = "standard input" if path == _STDIN else path
    try:
        return kept(_parsed(_content(path, name), name))
    except KeptError as error:
        raise InotraceError(
            f"{name}: {error}; give what trace, run or ls wrote with -f json"
        ) from error


def _parsed(content: bytes, name: str) -> object:
    try:
        return json.loads(content, parse_int=_whole_number, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InotraceError(
            f"{name} is not JSON ({_reason(error)}): give what trace, run or ls wrote with -f json"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return str(error)


def _whole_number(digits: str) -> int:
    # before Python 3.11 the time for a number is the square of its digits
    if len(digits) > _DIGITS_MAX:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number")


def _content(path: str, name: str) -> bytes:
    """All of a file, a pipe or standard input. Raises InotraceError, also if it is too large."""
    try:
        if path == _STDIN:
            return _read(_stdin(), name)
        with open(path, "rb") as file:
            _refuse_if_large(os.fstat(file.fileno()), name)
            return _read(file, name)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InotraceError(f"cannot read {name}: {reason}") from error


def _stdin() -> IO[bytes]:
    if sys.stdin is None:
        raise InotraceError("standard input is closed: name a file")
    return sys.stdin.buffer


def _refuse_if_large(status: os.stat_result, name: str) -> None:
    if stat.S_ISREG(status.st_mode) and status.st_size > _BYTES_MAX:
        raise _too_large(name)


def _read(file: IO[bytes], name: str) -> bytes:
    content = bytearray()
    while portion := file.read(_PORTION):
        content += portion
        if len(content) > _BYTES_MAX:
            raise _too_large(name)
    return bytes(content)


def _too_large(name: str) -> InotraceError:
    return InotraceError(
        f"{name} has more than {_BYTES_MAX >> 20:,} MiB: trace or list fewer processes, with -p"
    )
