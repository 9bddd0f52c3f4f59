"""The executable mappings of a process: which file, and where in it, an address belongs to."""

from __future__ import annotations

import re
from bisect import bisect_right
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


class Mappings:
    """
    As they were at one moment.

    Raises OSError if the process is gone or may not be read.
    """

    def __init__(self, pid: int) -> None:
        with open(f"/proc/{pid}/maps", "rb") as file:
            self._ranges = parse_maps(file.read())
        self._starts = [start for start, _, _, _ in self._ranges]

    def modules(self) -> dict[bytes, int]:
        """The files that code comes from, each with the address of some of it."""
        return {module: start for start, _, _, module in self._ranges if module != _ANONYMOUS}

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


def parse_maps(text: bytes) -> list[tuple[int, int, int, bytes]]:
    """(start, end, file offset, path) of executable mappings, in order of address."""
    return [
        (int(start, 16), int(end, 16), int(offset, 16), path or _ANONYMOUS)
        for start, end, offset, path in _EXECUTABLE.findall(text)
    ]
