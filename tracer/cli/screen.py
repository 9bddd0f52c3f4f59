"""The other screen that a terminal has, drawn anew as a whole; the shell's is left as it was."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress

from rich.console import Console
from rich.segment import Segment, Segments
from rich.text import Text

from tracer.cli.output import encodable, print_on
from tracer.errors import InotraceError

# console_codes(4)
_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = b"\x1b[m\x1b[?25h\x1b[?1049l"
_HOME, _ERASE_LINE, _ERASE_BELOW = "\x1b[H", "\x1b[2K", "\x1b[J"


def has_screen() -> bool:
    """Whether standard output is a terminal, and one that does more than print lines."""
    if sys.stdout is None or not sys.stdout.isatty():
        return False
    console = Console(file=sys.stdout)
    return console.is_terminal and not console.is_dumb_terminal


class Screen:
    """
    The screen of standard output, which has one. Use as a context manager.

    It is entered when something is drawn, and left while inotrace is stopped, as by Ctrl-Z:
    `before_stop` is called then. In the background nothing is drawn, the terminal is the shell's.
    `is_gone`: there is no terminal any more.
    """

    def __init__(self, before_stop: Callable[[], None] = lambda: None) -> None:
        self._console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
        self._before_stop = before_stop
        self._lines: list[Text] = []
        self._is_entered = False
        self._is_drawn = True
        self._is_drawing = False
        self._is_stop_wanted = False
        self.is_gone = False

    def __enter__(self) -> Screen:
        self._before = signal.getsignal(signal.SIGTSTP)
        # what was ignored when inotrace began stays so
        if self._before != signal.SIG_IGN:
            signal.signal(signal.SIGTSTP, self._stop_soon)
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()
        signal.signal(signal.SIGTSTP, self._before)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, as they are now."""
        return self._console.size

    def draw(self, lines: Iterable[Text]) -> None:
        """Have these lines on the screen, and nothing else; what does not fit is cut."""
        self._lines = [*lines]
        self._is_drawn = False
        self.keep()

    def keep(self) -> None:
        """Draw them again if they are not there any more, as after a stop."""
        if self._is_drawn or self.is_gone or not _is_in_foreground():
            return
        frame = self._frame()
        self._is_drawing = True
        try:
            self._write(frame)
        finally:
            self._is_drawing = False
        if self._is_stop_wanted:
            self._stop()

    def _write(self, frame: str) -> None:
        enter = "" if self._is_entered else _ENTER
        self._is_entered = self._is_drawn = True
        try:
            print_on(sys.stdout, enter + frame)
        except InotraceError:
            self.is_gone = True

    def _frame(self) -> str:
        width, height = self.size
        segments: list[Segment] = []
        for line in self._lines[:height]:
            segments += (*self._fitted(line, width), Segment.line())
        with self._console.capture() as capture:
            self._console.print(Segments(segments), end="", crop=False)
        # after the last column it would erase what is in it
        lines = [_ERASE_LINE + line for line in capture.get().split("\n")[:-1]]
        below = [_ERASE_BELOW] if len(lines) < height else []
        return _HOME + "\r\n".join(lines + below)

    def _fitted(self, line: Text, width: int) -> list[Segment]:
        # in a terminal that is not UTF-8, an ellipsis takes more room than it had
        shown = [
            segment._replace(text=encodable(segment.text, sys.stdout))
            # render() leaves out the style of the whole, which a span keeps
            for segment in Text().append_text(line).render(self._console)
        ]
        return Segment.adjust_line_length(shown, width, pad=False)

    def _leave(self) -> None:
        if self._is_entered:
            self._is_entered = self._is_drawn = False
            # not through the stream, which a signal may come in the middle of
            with suppress(OSError):
                os.write(sys.stdout.fileno(), _LEAVE)

    def _stop_soon(self, *_: object) -> None:
        if self._is_drawing:
            self._is_stop_wanted = True
        else:
            self._stop()

    def _stop(self) -> None:
        self._is_stop_wanted = False
        self._leave()
        self._before_stop()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        # the kernel stops none of whom no shell could continue
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._stop_soon)


def _is_in_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.stdout.fileno()) == os.getpgrp()
    except OSError:
        # not the terminal that we are controlled by: there is no background
        return True
