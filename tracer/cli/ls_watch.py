"""``inotrace ls --watch``: the same again and again, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.text import Text

from tracer.cli.looking import Looking, lines, rendered
from tracer.cli.notices import notice
from tracer.cli.output import Output
from tracer.cli.screen import Screen, has_screen
from tracer.cli.signals import Stop, stop_on_signals
from tracer.views import ls as view

_STEP_S = 0.05
_HINT = "Ctrl-C ends"


def watch(looking: Looking, every_s: float) -> None:
    """On a terminal the screen is refreshed; into a pipe goes one block each time."""
    with stop_on_signals() as stop:
        if looking.shape.format_ == "table" and has_screen():
            _on_screen(looking, every_s, stop)
        else:
            _in_blocks(looking, every_s, stop)


def _on_screen(looking: Looking, every_s: float, stop: Stop) -> None:
    with Screen() as screen:
        while not stop.requested and not screen.is_gone:
            began = time.monotonic()
            snapshot = looking.look()
            screen.draw(screen_lines(looking, snapshot, *screen.size))
            _wait(began + every_s, stop, screen.keep)
    _tell(looking, set())


def screen_lines(looking: Looking, snapshot: view.Snapshot, width: int, height: int) -> list[Text]:
    """As much as fits the screen, what could not be seen included; the last line is a hint."""
    shown = [*lines(snapshot, looking.shape.by, width)]
    warnings = [Text(unseen.text, "yellow") for unseen in looking.missing]
    room = max(height - len(warnings) - 1, 1)
    if len(shown) > room:
        left = len(shown) - (room - 1)
        shown = [*shown[: room - 1], Text(f"and {left:,} more lines", "dim")]
    every = [*shown, *warnings, Text(_HINT, "dim")][-height:]
    for line in every:
        line.truncate(width)
    return every


def _in_blocks(looking: Looking, every_s: float, stop: Stop) -> None:
    told: set[str] = set()
    with Output(None) as out:
        while not stop.requested:
            began = time.monotonic()
            text = rendered(looking.look(), looking.shape)
            # JSON is one object a line, which needs nothing between
            out.write(text if looking.shape.format_ == "json" else f"{_clock()}\n{text}\n")
            _tell(looking, told)
            _wait(began + every_s, stop)


def _tell(looking: Looking, told: set[str]) -> None:
    """What is of no kind that was told before."""
    for kind, text in looking.missing:
        if kind not in told:
            notice(text)
            told.add(kind)


def _wait(until: float, stop: Stop, keep: Callable[[], None] = lambda: None) -> None:
    while not stop.requested and (left := until - time.monotonic()) > 0:
        time.sleep(min(_STEP_S, left))
        keep()


def _clock() -> str:
    return time.strftime("%H:%M:%S")
