"""Where functions of the kernel lie, from /proc/kallsyms."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

_KALLSYMS = Path("/proc/kallsyms")


class KernelSymbols:
    """
    The kernel's own symbols, in order of address as the file has them.

    Addresses are zero without the right to see them (kernel.kptr_restrict).
    """

    def __init__(self, text: bytes) -> None:
        self._text = text

    def __contains__(self, name: str) -> bool:
        return next(self._lines_of(name), None) is not None

    def address(self, name: str) -> int:
        """0 if it is unknown or hidden."""
        at = next(self._lines_of(name), None)
        return self._address_at(at) if at is not None else 0

    def ranges(self, name: str) -> list[range]:
        """The code of a function, that which the compiler split off (``name.cold``) included."""
        lines = [*self._lines_of(name), *self._lines_of(name, split_off=True)]
        visible = [at for at in lines if self._address_at(at)]
        return [range(self._address_at(at), self._end_after(at)) for at in visible]

    def _lines_of(self, name: str, split_off: bool = False) -> Iterator[int]:
        """Where the lines that end in this name begin."""
        wanted = f" {name}{'.' if split_off else ''}".encode()
        at = self._text.find(wanted)
        while at >= 0:
            if split_off or self._text[at + len(wanted) : at + len(wanted) + 1] in (b"\n", b""):
                yield self._text.rfind(b"\n", 0, at) + 1
            at = self._text.find(wanted, at + 1)

    def _address_at(self, line: int) -> int:
        return int(self._text[line : self._text.index(b" ", line)], 16)

    def _end_after(self, line: int) -> int:
        """Where the next function begins: several names may share an address."""
        begin = self._address_at(line)
        while True:
            line = self._text.find(b"\n", line) + 1
            if not line or line >= len(self._text):
                # the last one: no function is larger than a page and nothing comes after it
                return begin + mmap.PAGESIZE
            address = self._address_at(line)
            if address != begin:
                return address


@lru_cache(maxsize=1)
def kernel_symbols() -> KernelSymbols:
    """Of the running kernel; its code does not move. Nothing, if /proc does not tell."""
    try:
        text = _KALLSYMS.read_bytes()
    except OSError:
        text = b""
    # what follows are modules, which have no part in inotify
    return KernelSymbols(text.partition(b"\t")[0])
