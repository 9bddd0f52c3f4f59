"""``inotrace ls --watch``: the same again and again, until Ctrl-C."""

from __future__ import annotations

import sys
import time

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from tracer.cli.looking import Looking, lines, rendered
from tracer.cli.notices import notice
from tracer.cli.output import Output
from tracer.cli.signals import Stop, stop_on_signals
from tracer.views import ls as view

_STEP_S = 0.05
_HINT = "Ctrl-C ends"


def watch(looking: Looking, every_s: float) -> None:
    """On a terminal the screen is refreshed; into a pipe goes one block each time."""
    with stop_on_signals() as stop:
        if looking.shape.format_ == "table" and sys.stdout.isatty():
            _on_screen(looking, every_s, stop)
        else:
            _in_blocks(looking, every_s, stop)


def _on_screen(looking: Looking, every_s: float, stop: Stop) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    with Live(console=console, screen=True, auto_refresh=False) as screen:
        while not stop.requested:
            began = time.monotonic()
            snapshot = looking.look()
            shown = screen_lines(looking, snapshot, *console.size)
            screen.update(Group(*shown), refresh=True)
            _wait(began + every_s, stop)
    _tell(looking, ())


def screen_lines(looking: Looking, snapshot: view.Snapshot, width: int, height: int) -> list[Text]:
    """As much as fits the screen, what could not be seen included; the last line is a hint."""
    shown = [*lines(snapshot, looking.shape.by, width)]
    warnings = [Text(line, "yellow") for line in looking.missing]
    room = max(height - len(warnings) - 1, 1)
    if len(shown) > room:
        left = len(shown) - (room - 1)
        shown = [*shown[: room - 1], Text(f"and {left:,} more lines", "dim")]
    every = [*shown, *warnings, Text(_HINT, "dim")][-height:]
    for line in every:
        line.truncate(width)
    return every


def _in_blocks(looking: Looking, every_s: float, stop: Stop) -> None:
    told: tuple[str, ...] = ()
    with Output(None) as out:
        while not stop.requested:
            began = time.monotonic()
            text = rendered(looking.look(), looking.shape)
            # JSON is one object a line, which needs nothing between
            out.write(text if looking.shape.format_ == "json" else f"{_clock()}\n{text}\n")
            told = _tell(looking, told)
            _wait(began + every_s, stop)


def _tell(looking: Looking, told: tuple[str, ...]) -> tuple[str, ...]:
    """Once, not at each look."""
    for line in looking.missing:
        if line not in told:
            notice(line)
    return tuple(looking.missing)


def _wait(until: float, stop: Stop) -> None:
    while not stop.requested and (left := until - time.monotonic()) > 0:
        time.sleep(min(_STEP_S, left))


def _clock() -> str:
    return time.strftime("%H:%M:%S")
