"""The executable mappings of a process: which file, and where in it, an address belongs to."""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from typing import NamedTuple

# proc(5), /proc/pid/maps; the path is what follows the last column, blanks included
_EXECUTABLE = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) ..x. ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*)$",
    re.MULTILINE,
)
ANONYMOUS = b"[anon]"
VDSO = b"[vdso]"
_MAPPINGS_MAX = 65536


class Mapping(NamedTuple):
    """
    Executable memory from `start` to `end`.

    `offset` is where in the file it begins, in bytes; `ino` is 0 where there is no file. `name` is
    the path as the kernel tells it, or a name in brackets.
    """

    start: int
    end: int
    offset: int
    dev: int
    ino: int
    name: bytes

    def file_offset(self, address: int) -> int:
        return address - self.start + self.offset


class Mappings:
    """As they were at one moment, in order of address."""

    def __init__(self, ranges: list[Mapping]) -> None:
        self.all = ranges
        self._starts = [mapping.start for mapping in ranges]

    def find(self, address: int) -> Mapping | None:
        """The one that has code at `address`."""
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address >= self.all[at].end:
            return None
        return self.all[at]


def read_mappings(pid: int) -> Mappings:
    """Raises OSError if the process is gone or may not be read."""
    with open(f"/proc/{pid}/maps", "rb") as file:
        return Mappings(parse_maps(file.read()))


def parse_maps(text: bytes) -> list[Mapping]:
    """The executable mappings in the text of /proc/PID/maps."""
    found = []
    for start, end, offset, major, minor, ino, name in _EXECUTABLE.findall(text)[:_MAPPINGS_MAX]:
        device = os.makedev(int(major, 16), int(minor, 16))
        found.append(
            Mapping(
                int(start, 16), int(end, 16), int(offset, 16), device, int(ino), name or ANONYMOUS
            )
        )
    return found
