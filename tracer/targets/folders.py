"""Folders that are kept open, to ask for handles there: as many as one may have."""

from __future__ import annotations

import os
from collections import OrderedDict
from contextlib import suppress
from typing import NamedTuple

from tracer.core.events import Process
from tracer.targets.mounts import Vantage
from tracer.targets.path import Paths

# Each takes a descriptor, of which RLIMIT_NOFILE allows 1,024 as a rule.
_OPEN_MAX = 64


class Folder(NamedTuple):
    """A descriptor to read it by, and what stat(2) said of it when it was opened."""

    file: int
    found: os.stat_result


class Folders:
    """Opens folders as processes see them; those that were asked for last are open until `close`"""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._open: OrderedDict[tuple[Vantage, bytes], Folder | None] = OrderedDict()

    def close(self) -> None:
        while self._open:
            self._close_oldest()

    def of(self, process: Process, vantage: Vantage, path: bytes) -> Folder | None:
        """
        A folder by a path without symbolic links; None if it cannot be opened.

        The descriptor is good until another is asked for.
        """
        key = vantage, path
        if key in self._open:
            self._open.move_to_end(key)
        else:
            while len(self._open) >= _OPEN_MAX:
                self._close_oldest()
            self._open[key] = self._opened(process, path)
        return self._open[key]

    def _opened(self, process: Process, path: bytes) -> Folder | None:
        with suppress(OSError), self._paths.folder(process, path, to_read=True) as folder:
            found = os.fstat(folder)
            return Folder(os.dup(folder), found)
        return None

    def _close_oldest(self) -> None:
        _, folder = self._open.popitem(last=False)
        if folder is not None:
            os.close(folder.file)
