"""The standard streams, any of which may be closed when inotrace begins."""

from __future__ import annotations

import os
import sys

_DESCRIPTORS = (0, 1, 2)


def open_missing() -> None:
    """
    Keep the numbers of closed standard streams from files that are opened later.

    A closed standard input or output stays None, and who needs it says so; what is said on a
    closed standard error is for nobody, and comes nowhere else.
    """
    for fd in _DESCRIPTORS:
        try:
            os.fstat(fd)
        except OSError:
            # gets the lowest number that is free; a command that is started finds it closed
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(  # noqa: SIM115 (for good)
            _DESCRIPTORS[2], "w", encoding="utf-8", errors="backslashreplace", closefd=False
        )
