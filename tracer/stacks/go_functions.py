"""
Functions of Go's pclntab, and the values that it has for each of their instructions.

See "Go 1.2 Runtime Symbol Table" (golang.org/s/go12symtab), `_func` in
go/src/runtime/runtime2.go, `pcvalue` and `step` in go/src/runtime/symtab.go. Nothing is kept but
what was asked for last: a look-up reads some 20 words and the tables of one function.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from functools import lru_cache
from typing import NamedTuple

from tracer.stacks.elf import ElfError
from tracer.stacks.go_header import Header, Table
from tracer.stacks.go_moduledata import Module

# Most tables have less than 300 bytes; 20 KB is the most that cmd/compile has.
_VALUES_BYTES = (512, 8 << 10, 64 << 10)
_FUNCTIONS_KEPT = 256
_VALUES_KEPT = 16


class Function(NamedTuple):
    """
    One `_func`: [start, end) are addresses, where padding counts as part of the function.

    The rest are offsets in the tables, and `data_at` where the record's own lists begin.
    """

    start: int
    end: int
    name: int
    sp: int
    file: int
    line: int
    value_tables: int
    unit: int
    flags: int
    data_tables: int
    data_at: int


class Values:
    """A value for each instruction of a function."""

    def __init__(self, ends: array[int], values: array[int]) -> None:
        self._ends = ends
        self._values = values

    def at(self, offset: int) -> int | None:
        """Of the instruction `offset` bytes into the function; None beyond its end."""
        run = bisect_right(self._ends, offset)
        return self._values[run] if offset >= 0 and run < len(self._values) else None


class Functions:
    """The functions of one program."""

    def __init__(self, module: Module) -> None:
        self._table = module.table
        self._header = module.header
        self._text = module.text
        self._entries = _Entries(module.table, module.header)
        layout = module.header.layout
        # entry and record of a function, and the entry of the next one
        self._row = struct.Struct("<3Q" if not layout.is_relative else "<3I")
        # caches of each instance, which end with it
        self.find = lru_cache(_FUNCTIONS_KEPT)(self._find)
        self.values = lru_cache(_VALUES_KEPT)(self._values)

    def _find(self, address: int) -> Function | None:
        """The function or the padding after it; raises ElfError if the table is broken."""
        at = address - self._text
        index = bisect_right(self._entries, at) - 1
        if not 0 <= index < self._header.functions:
            return None
        row_at = self._header.entries + index * 2 * self._header.layout.entry.size
        entry, record, following = self._row.unpack(self._table.read(row_at, self._row.size))
        if not entry <= at < following:
            raise ElfError("functions out of order")
        return self._read(self._text + entry, self._text + following, record)

    def _read(self, start: int, end: int, record: int) -> Function:
        layout = self._header.layout
        at = self._header.records + record
        name, sp, file, line, values, *unit, flags, data = layout.function.unpack(
            self._table.read(at, layout.function.size)
        )
        data_at = at + layout.function.size
        # one list of files for all before Go 1.16
        first_file = unit[0] if unit else 0
        return Function(start, end, name, sp, file, line, values, first_file, flags, data, data_at)

    def _values(self, at: int) -> Values | None:
        """What begins at an offset in the table of values; raises ElfError if it has no end."""
        if not at:
            return None
        for size in _VALUES_BYTES:
            content = self._table.read_up_to(self._header.values + at, size)
            try:
                return _decoded(content, self._header.quantum)
            except IndexError:
                continue
        raise ElfError("a table of values without an end")

    def name(self, offset: int) -> str:
        """Raises ElfError if that is no name."""
        found = self._table.string(self._header.names + offset)
        if not found:
            raise ElfError("a function without a name")
        return found

    def file(self, function: Function, number: int) -> str | None:
        """A file of the unit that the function is from; None if the linker left it out."""
        at = self._table.number(self._header.units + 4 * (function.unit + number))
        return None if at == 0xFFFFFFFF else self._table.string(self._header.files + at)


class _Entries:
    """Entry points in ascending order, then the end of the last; each is read when asked for."""

    def __init__(self, table: Table, header: Header) -> None:
        self._table = table
        self._header = header
        self._entry = header.layout.entry

    def __len__(self) -> int:
        return self._header.functions + 1

    def __getitem__(self, index: int) -> int:
        at = self._header.entries + index * 2 * self._entry.size
        entry: int = self._entry.unpack(self._table.read(at, self._entry.size))[0]
        return entry


def _decoded(content: bytes, quantum: int) -> Values:
    """Raises IndexError if the content ends before the table, ElfError if it makes no sense."""
    ends, values = array("Q"), array("i")
    value, end, at = -1, 0, 0
    while True:
        change, at = _varint(content, at)
        if not change and ends:
            return Values(ends, values)
        distance, at = _varint(content, at)
        value += change >> 1 ^ -(change & 1)
        end += distance * quantum
        if not -(1 << 31) <= value < 1 << 31:
            raise ElfError(f"a value of {value}")
        ends.append(end)
        values.append(value)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number of at most 32 bits, and where the next begins."""
    number = 0
    for shift in range(0, 35, 7):
        byte = content[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFFFFFF, at
    raise ElfError("a number of more than 32 bits")
