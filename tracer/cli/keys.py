"""Single keys, typed while something else is on the screen."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from typing import Any


class Keys:
    """
    Keys typed on standard input, if that is a terminal and inotrace is in its foreground.

    Use as a context manager: the terminal is as it was afterwards. Ctrl-C stays a signal.
    """

    def __init__(self) -> None:
        self._fd: int | None = None
        self._before: list[Any] = []

    def __enter__(self) -> Keys:
        # who is in the background would be stopped for changing the terminal
        if sys.stdin is not None and sys.stdin.isatty() and _in_foreground(sys.stdin.fileno()):
            self._fd = sys.stdin.fileno()
            self._before = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd, termios.TCSANOW)
        return self

    def __exit__(self, *_: object) -> None:
        # it may be gone by now, or the shell's: inotrace was stopped, and goes on in the background
        if self._fd is not None and _in_foreground(self._fd):
            termios.tcsetattr(self._fd, termios.TCSANOW, self._before)

    @property
    def are_read(self) -> bool:
        """Whether there is a terminal to type on."""
        return self._fd is not None

    def typed(self) -> bytes:
        """What was typed since this was last asked."""
        if self._fd is None or not _in_foreground(self._fd):
            return b""
        if not select.select([self._fd], [], [], 0)[0]:
            return b""
        try:
            return os.read(self._fd, 4096)
        except OSError:
            # the terminal is gone
            return b""


def _in_foreground(fd: int) -> bool:
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
