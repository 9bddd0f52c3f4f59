"""
Function symbols of one program or library: which function an address is in.

The format is that of the System V ABI, gabi chapter 4, "Symbol Table". The file is a stranger's, so
a table is as large as was agreed on here, whatever the file says; what does not fit has no name.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate, compress
from operator import add
from typing import NamedTuple

from tracer.stacks.elf import (
    SHF_COMPRESSED,
    SHT_DYNSYM,
    SHT_NOBITS,
    SHT_SYMTAB,
    BytesContent,
    ElfError,
    ElfFile,
    Section,
)

_ENTRY_BYTES = 24
_FUNCTION_KINDS = (2, 10)  # STT_FUNC, STT_GNU_IFUNC
_IS_FUNCTION = bytes(info & 0xF in _FUNCTION_KINDS for info in range(256))
# STB_GLOBAL and STB_GNU_UNIQUE, STB_WEAK, STB_LOCAL; bindings of other systems come last
_RANKS = {1: 0, 10: 0, 2: 1, 0: 2}
_RANK_OF_OTHERS = 3
# from SHN_LORESERVE on: absolute and common symbols, which are not relocated with the code
_RESERVED_INDEX = 0xFF00
# what ends beyond is no address of a process, and all sums stay below 64 bits
_ADDRESS_END = 1 << 63

# All tables of one file together; node has 186,000 symbols and 13 MB of names, libLLVM's debug
# file some 300,000. So a file costs at most 32 MB of symbols and 64 MiB of names.
_SYMBOLS_MAX = 1_000_000
_NAMES_BYTES_MAX = 64 << 20
# A longer name, or one that the limit cut off, is none.
_NAME_BYTES_MAX = 16 << 10
# Symbols that are looked at before an address has no name: folded functions share their address.
_STEPS_MAX = 4096

# `xz -8` takes 33 MiB to unpack. Fedora's libpython has 30 kB that unpack to 160.
_PACKED_BYTES_MAX = 8 << 20
_UNPACKED_BYTES_MAX = 32 << 20
_UNPACKING_BYTES_MAX = 40 << 20


class Symbol(NamedTuple):
    """A function; start is a link-time address, size in bytes."""

    name: bytes
    start: int
    size: int


class _Candidate(NamedTuple):
    """
    A symbol and what makes it better than an alias, in this order: the least is the best.

    perf's choose_best_symbol in tools/perf/util/symbol.c has the same order but the last.
    """

    rank: int
    has_no_size: bool
    underscores: int
    name_size: int
    symbol: Symbol


class _Functions:
    """The functions of one symbol section, sorted by address; 32 bytes each and the names."""

    def __init__(self, entries: bytes, names: bytes) -> None:
        self._names = names
        heads, starts, sizes = _columns(entries)
        # pays for itself when sorting: Python compares numbers of a list faster than of an array
        order = sorted(range(len(starts)), key=starts.tolist().__getitem__)
        self._heads = array("Q", map(heads.__getitem__, order))
        self._starts = array("Q", map(starts.__getitem__, order))
        self._sizes = array("Q", map(sizes.__getitem__, order))
        # up to where this function and all before it reach: behind that there is only a gap
        self._reach = array("Q", accumulate(map(add, self._starts, self._sizes), max))

    def around(self, address: int) -> Iterator[_Candidate]:
        """Those that contain the address, and begin at the same place: the innermost."""
        innermost = None
        last = bisect_right(self._starts, address) - 1
        for at in range(last, max(-1, last - _STEPS_MAX), -1):
            start = self._starts[at]
            if self._reach[at] <= address or innermost not in (None, start):
                return
            if address - start < self._sizes[at]:
                innermost = start
                yield from self._candidate(at)

    def beginning_at(self, address: int) -> Iterator[_Candidate]:
        first = bisect_left(self._starts, address)
        for at in range(first, min(len(self._starts), first + _STEPS_MAX)):
            if self._starts[at] != address:
                return
            yield from self._candidate(at)

    @property
    def memory(self) -> int:
        columns = (self._heads, self._starts, self._sizes, self._reach)
        return len(self._names) + sum(len(column) * column.itemsize for column in columns)

    def _candidate(self, at: int) -> Iterator[_Candidate]:
        head, size = self._heads[at], self._sizes[at]
        name = _name(self._names, head & 0xFFFFFFFF)
        if name:
            underscores = len(name) - len(name.lstrip(b"_"))
            rank = _RANKS.get(head >> 36 & 0xF, _RANK_OF_OTHERS)
            symbol = Symbol(name, self._starts[at], size)
            yield _Candidate(rank, size == 0, underscores, len(name), symbol)


class SymbolTable:
    """
    The functions of a file, and of files that describe the same build, as its debug file does.

    Reads .symtab, .dynsym, and the .symtab and .dynsym inside of .gnu_debugdata ("MiniDebugInfo").
    A file that has none of them, or broken ones, has no functions. Addresses are link-time ones.
    Reading takes about 1 us a function; the files are not needed afterwards.
    """

    def __init__(self, *files: ElfFile) -> None:
        self._tables: list[_Functions] = []
        self._symbols_left = _SYMBOLS_MAX
        self._names_left = _NAMES_BYTES_MAX
        for file in files:
            self._read(file)
            packed = _packed_file(file)
            if packed is not None:
                self._read(packed)

    def find(self, address: int) -> Symbol | None:
        """
        The innermost function that has this address between its start and its end.

        A function without a size contains no address. Of several names for the same start a global
        one is taken, then a weak one, then the one with the fewest underscores before it, then the
        shortest.
        """
        found = [candidate for table in self._tables for candidate in table.around(address)]
        if not found:
            return None
        innermost = max(candidate.symbol.start for candidate in found)
        return min(one for one in found if one.symbol.start == innermost).symbol

    def begins_at(self, address: int) -> bytes | None:
        """The name of the function that starts exactly there, whether or not it has a size."""
        found = [candidate for table in self._tables for candidate in table.beginning_at(address)]
        return min(found).symbol.name if found else None

    @property
    def memory(self) -> int:
        """Bytes that this keeps, to the nearest kilobyte."""
        return sum(table.memory for table in self._tables)

    def _read(self, file: ElfFile) -> None:
        for kind in (SHT_SYMTAB, SHT_DYNSYM):
            section = next((one for one in file.sections if one.kind == kind), None)
            if section is None or section.link >= len(file.sections):
                continue
            entries = _content(file, section, self._symbols_left * _ENTRY_BYTES)
            names = _content(file, file.sections[section.link], self._names_left)
            self._symbols_left -= len(entries) // _ENTRY_BYTES
            self._names_left -= len(names)
            self._tables.append(_Functions(entries, names))


def _columns(entries: bytes) -> tuple[array[int], array[int], array[int]]:
    """
    Of each function that is defined: name, kind and section in one number, start, and size.

    As columns instead of one object for each entry, which would take four times as long.
    """
    rows = memoryview(entries[: len(entries) // _ENTRY_BYTES * _ENTRY_BYTES])
    is_function = bytes(rows[4::_ENTRY_BYTES]).translate(_IS_FUNCTION)
    numbers = rows.cast("Q")
    columns = [array("Q", compress(numbers[column::3], is_function)) for column in range(3)]
    is_defined = [
        0 < head >> 48 < _RESERVED_INDEX and start + size < _ADDRESS_END
        for head, start, size in zip(*columns)
    ]
    heads, starts, sizes = (array("Q", compress(column, is_defined)) for column in columns)
    return heads, starts, sizes


def _content(file: ElfFile, section: Section, most: int) -> bytes:
    """The first `most` bytes of a section; none if they are not in the file as they are."""
    if section.kind == SHT_NOBITS or section.flags & SHF_COMPRESSED:
        return b""
    return file.read_up_to(section.offset, min(section.size, most))


def _name(names: bytes, at: int) -> bytes:
    """Without the version that linkers append in .symtab (`memcpy@@GLIBC_2.14`); empty if none."""
    end = names.find(b"\0", at, at + _NAME_BYTES_MAX)
    name = names[at:end] if end >= 0 else b""
    return name.split(b"@", 1)[0]


def _packed_file(file: ElfFile) -> ElfFile | None:
    """What .gnu_debugdata holds: GDB's manual, "Debugging information in a special section"."""
    section = file.section(b".gnu_debugdata")
    if section is None or section.size > _PACKED_BYTES_MAX:
        return None
    try:
        return ElfFile(BytesContent(_unpacked(_content(file, section, _PACKED_BYTES_MAX))))
    except ElfError:
        return None


def _unpacked(packed: bytes) -> bytes:
    """What xz packed; empty if that is broken or too large."""
    try:
        # a Python may be built without it
        import lzma
    except ImportError:
        return b""
    try:
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_UNPACKING_BYTES_MAX)
        unpacked = decompressor.decompress(packed, max_length=_UNPACKED_BYTES_MAX)
    except (lzma.LZMAError, MemoryError):
        return b""
    return unpacked if decompressor.eof else b""
