"""
``INOTRACE_OPTIONS``: options from the environment; those of the command line win.

They are written as the sanitizers' in LSAN_OPTIONS: FlagParser::parse_flag in
sanitizer_flag_parser.cpp of LLVM's compiler-rt. Unlike there, a name that is not known is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import click
from click.core import ParameterSource

from tracer.errors import EXIT_USAGE, InotraceError

VARIABLE = "INOTRACE_OPTIONS"

# Which commands have an option: to ask them is to import bcc. A test compares.
COMMANDS_WITH = {
    "suppressions": ("run", "trace"),
    "error_exitcode": ("run", "trace"),
    "fail_on": ("run", "trace"),
    "older": ("run", "trace"),
    "settle": ("run",),
    "full_stacks": ("run", "trace", "diff", "demo"),
    "mode": ("run", "trace", "events", "demo"),
}

_BETWEEN = re.compile(r"[ ,:\n\t\r]*")
_SETTING = re.compile(
    r"""
    (?P<name> [^=\ ,:\n\t\r]+ ) =
    (?: '(?P<single> [^']* )' | "(?P<double> [^"]* )" | (?P<bare> (?!['"]) [^\ ,:\n\t\r]* ) )
    (?= [\ ,:\n\t\r] | \Z )
    """,
    re.VERBOSE,
)
_SHOWN_OF_REST = 40


def defaults(text: str) -> dict[str, dict[str, Any]]:
    """
    What the variable holds, as click's default_map: command, option's parameter, value.

    `name=value` with blanks, commas or colons in between, or these in a value in quotes. Of what
    is given twice the last counts. The values are texts that click has yet to check. Raises
    InotraceError.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, value in _settings(text):
        if name not in COMMANDS_WITH:
            raise _wrong(f"no option {name!r}: there are {', '.join(COMMANDS_WITH)}")
        for command in COMMANDS_WITH[name]:
            found.setdefault(command, {})[name] = value
    return found


def _settings(text: str) -> Iterator[tuple[str, str]]:
    at = _end(_BETWEEN.match(text))
    while at < len(text):
        setting = _SETTING.match(text, at)
        if setting is None:
            rest = text[at : at + _SHOWN_OF_REST]
            raise _wrong(f"{rest!r} does not begin with name=value, or a quote is not closed")
        yield setting["name"], setting["single"] or setting["double"] or setting["bare"] or ""
        at = _end(_BETWEEN.match(text, setting.end()))


def _end(between: re.Match[str] | None) -> int:
    # it matches nothing as well
    assert between is not None
    return between.end()


def _wrong(what: str) -> InotraceError:
    return InotraceError(f"{VARIABLE}: {what}", exit_code=EXIT_USAGE)


def with_source(error: click.ClickException) -> click.ClickException:
    """The same error, but it names the variable if a wrong value is from there."""
    if not isinstance(error, click.BadParameter) or error.ctx is None or error.param is None:
        return error
    source = error.ctx.get_parameter_source(error.param.name or "")
    if source is not ParameterSource.DEFAULT_MAP:
        return error
    where = f"{error.param.get_error_hint(error.ctx)} in {VARIABLE}"
    return click.BadParameter(error.message, error.ctx, error.param, where)
