"""``--debug``, before the command or after it."""

from __future__ import annotations

import os
from typing import Any, Callable, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Debug:
    """Whether an error shows all that is known of it; the object of the click context."""

    def __init__(self) -> None:
        self.on = bool(os.environ.get("INOTRACE_DEBUG"))


def debug_option(function: _Function) -> _Function:
    """It reaches whoever reports the error, not the function."""
    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_turn_on,
        help="On an error, show the traceback and BCC's messages.",
    )(function)


def _turn_on(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Debug).on = True
