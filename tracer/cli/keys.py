"""Single keys, typed while something else is on the screen."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from contextlib import suppress
from typing import Any

# termios(3): iflag, oflag, cflag, lflag, …
_LOCAL_MODES = 3


class Keys:
    """
    Keys typed on standard input, while that is a terminal and inotrace is in its foreground.

    Use as a context manager: the terminal is as it was afterwards. Ctrl-C stays a signal. Nothing
    is changed before :meth:`typed` is asked.
    """

    def __init__(self) -> None:
        has_terminal = sys.stdin is not None and sys.stdin.isatty()
        self._fd = sys.stdin.fileno() if has_terminal else -1
        self._before: list[Any] | None = None

    def __enter__(self) -> Keys:
        self._heed()
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()

    @property
    def are_read(self) -> bool:
        """Whether there is a terminal to type on."""
        return self._before is not None and _in_foreground(self._fd)

    def give_back(self) -> None:
        """Have the terminal as it was, until it is asked again what was typed."""
        # it may be gone by now, or the shell's: inotrace was stopped, and goes on in the background
        if self._before is not None and _in_foreground(self._fd):
            with suppress(termios.error):
                termios.tcsetattr(self._fd, termios.TCSANOW, self._before)

    def typed(self) -> bytes:
        """What was typed since this was last asked."""
        if not self._heed() or not select.select([self._fd], [], [], 0)[0]:
            return b""
        try:
            return os.read(self._fd, 4096)
        except OSError:
            # the terminal is gone
            return b""

    def _heed(self) -> bool:
        """Have keys come one by one, also after the shell had the terminal; whether they do."""
        # who is in the background would be stopped for changing the terminal
        if not _in_foreground(self._fd):
            return False
        modes = termios.tcgetattr(self._fd)
        if modes[_LOCAL_MODES] & termios.ICANON:
            self._before = modes
            tty.setcbreak(self._fd, termios.TCSANOW)
        elif self._before is None:
            self._before = modes
        return True


def _in_foreground(fd: int) -> bool:
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
