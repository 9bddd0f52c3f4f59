"""
The header of Go's pclntab: which of its four layouts a program has, and where the parts are.

The magic numbers are those of go/src/internal/abi/symtab.go, the layouts those of
go/src/debug/gosym/pclntab.go, `pcHeader` in go/src/runtime/symtab.go, and `_func` and `inlinedCall`
in go/src/runtime/runtime2.go and symtabinl.go of the releases named below.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tracer.stacks.elf import ElfError, ElfFile, c_string

_MAGIC = struct.Struct("<IHBB")
_WORD = struct.Struct("<Q")
_OFFSET = struct.Struct("<I")
_PARTS = struct.Struct("<5Q")
_POINTER_BYTES = 8
# The smallest instruction in bytes, in which distances are counted: x86-64, aarch64.
_QUANTA = (1, 4)
# The largest seen are 20 MB for 100,000 functions.
TABLE_BYTES_MAX = 64 << 20
_FUNCTIONS_MAX = 1_000_000
_STRING_BYTES_MAX = 4096


class Layout(NamedTuple):
    """
    What differs from release to release.

    `function` has the fields name, pcsp, pcfile, pcln, npcdata, cuOffset (not before Go 1.16),
    flag and nfuncdata; `inlined` has the name and parentPc of an inlined call.
    """

    go: str
    parts_at: int
    entry: struct.Struct
    function: struct.Struct
    inlined: struct.Struct | None

    @property
    def is_relative(self) -> bool:
        """Functions are at distances from the start of Go's code, not at addresses (CL 351463)."""
        return self.entry.size == _OFFSET.size


_LAYOUTS = {
    0xFFFFFFFB: Layout("1.2", 0, _WORD, struct.Struct("<8xi8xIIIIxBxB"), None),
    0xFFFFFFFA: Layout(
        "1.16", 24, _WORD, struct.Struct("<8xi8xIIIIIxBxB"), struct.Struct("<12xII")
    ),
    0xFFFFFFF0: Layout(
        "1.18", 32, _OFFSET, struct.Struct("<4xi8xIIIIIxBxB"), struct.Struct("<12xII")
    ),
    0xFFFFFFF1: Layout(
        "1.20", 32, _OFFSET, struct.Struct("<4xi8xIIIII4xxBxB"), struct.Struct("<4xII4x")
    ),
}


class Table(NamedTuple):
    """Where in a file the pclntab is; offsets in it are in bytes from its first."""

    elf: ElfFile
    offset: int
    address: int
    size: int

    def read(self, at: int, size: int) -> bytes:
        """Raises ElfError if that is not all in the table."""
        if at < 0 or at + size > self.size:
            raise ElfError(f"{at:#x}+{size:#x} is outside of the pclntab")
        return self.elf.read(self.offset + at, size)

    def read_up_to(self, at: int, size: int) -> bytes:
        """What of that is in the table; raises ElfError if nothing is."""
        return self.read(at, min(size, max(self.size - at, 1)))

    def number(self, at: int) -> int:
        """Four bytes without a sign. Raises ElfError as `read`."""
        found: int = _OFFSET.unpack(self.read(at, _OFFSET.size))[0]
        return found

    def string(self, at: int) -> str:
        """Raises ElfError if it is outside, or longer than any name and path."""
        content = self.read_up_to(at, _STRING_BYTES_MAX)
        found = c_string(content, 0)
        if len(found) == len(content):
            raise ElfError("a string without an end")
        return found.decode(errors="replace")


class Header(NamedTuple):
    """Offsets of the parts in the table: names, files by unit, files, values by pc, functions."""

    layout: Layout
    quantum: int
    functions: int
    names: int
    units: int
    files: int
    values: int
    records: int
    entries: int


def read_header(table: Table) -> Header:
    """Raises ElfError if this is no pclntab, or one whose parts are outside of it."""
    magic, zero, quantum, pointer = _MAGIC.unpack(table.read(0, _MAGIC.size))
    layout = _LAYOUTS.get(magic)
    if layout is None or zero or quantum not in _QUANTA or pointer != _POINTER_BYTES:
        raise ElfError("no pclntab of a 64-bit program")
    functions = _WORD.unpack(table.read(_MAGIC.size, _WORD.size))[0]
    if not 0 < functions <= _FUNCTIONS_MAX:
        raise ElfError(f"a pclntab of {functions} functions")
    header = Header(layout, quantum, functions, *_parts(table, layout, functions))
    end = header.entries + (2 * functions + 1) * layout.entry.size
    if max(end, *header[3:]) > table.size:
        raise ElfError("a pclntab whose parts are outside of it")
    return header


def _parts(table: Table, layout: Layout, functions: int) -> tuple[int, ...]:
    if layout.parts_at:
        parts = _PARTS.unpack(table.read(layout.parts_at, _PARTS.size))
        return (*parts, parts[-1])
    # Go 1.2: all offsets count from the start, and the files follow the functions
    entries = _MAGIC.size + _WORD.size
    files = table.number(entries + (2 * functions + 1) * layout.entry.size)
    return 0, files, 0, 0, 0, entries
