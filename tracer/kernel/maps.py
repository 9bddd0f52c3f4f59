"""The executable mappings of a process: which file, and where in it, an address belongs to."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

# proc(5), /proc/pid/maps; the path is what follows the last column, blanks included
_EXECUTABLE = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) ..x. ([0-9a-f]+) [0-9a-f]+:[0-9a-f]+ \d+ *(.*)$", re.MULTILINE
)
_ANONYMOUS = b"[anon]"


class Place(NamedTuple):
    """A file as the kernel names it, and the offset in bytes from its start."""

    module: bytes
    offset: int


class FileIdentity(NamedTuple):
    """Which file, whatever its name: as stat(2) has it, with the time of its last change."""

    dev: int
    ino: int
    changed_ns: int


class MappedFile(NamedTuple):
    """A file that code comes from, and a path that leads to it while the process lives."""

    identity: FileIdentity
    path: bytes


class Mappings:
    """
    As they were at one moment.

    Raises OSError if the process is gone or may not be read.
    """

    def __init__(self, pid: int) -> None:
        with open(f"/proc/{pid}/maps", "rb") as file:
            self._ranges = parse_maps(file.read())
        self._starts = [start for start, _, _, _ in self._ranges]
        self.files = dict(self._mapped_files(pid))

    def _mapped_files(self, pid: int) -> Iterator[tuple[bytes, MappedFile]]:
        for start, end, _, module in self._ranges:
            # leads to the file itself, also if it was deleted or is in another mount namespace
            path = b"/proc/%d/map_files/%x-%x" % (pid, start, end)
            identity = file_identity(path)
            if identity is not None:
                yield module, MappedFile(identity, path)

    def find(self, address: int) -> Place | None:
        """Where the code at `address` comes from; None if there is no code."""
        at = bisect_right(self._starts, address) - 1
        if at < 0:
            return None
        start, end, offset, module = self._ranges[at]
        if address >= end:
            return None
        # without a file, only the address itself says where it is
        return Place(module, address - start + offset if module != _ANONYMOUS else address)


def file_identity(path: bytes) -> FileIdentity | None:
    """None if there is no such file, or it may not be looked at."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return FileIdentity(found.st_dev, found.st_ino, found.st_ctime_ns)


def parse_maps(text: bytes) -> list[tuple[int, int, int, bytes]]:
    """(start, end, file offset, path) of executable mappings, in order of address."""
    return [
        (int(start, 16), int(end, 16), int(offset, 16), path or _ANONYMOUS)
        for start, end, offset, path in _EXECUTABLE.findall(text)
    ]
