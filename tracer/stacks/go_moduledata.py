"""
Where the pclntab of a Go program is, and where the addresses in it count from.

Go's linker gives the table a section; in an externally linked PIE before Go 1.26 it is somewhere
in .data.rel.ro. `moduledata` (go/src/runtime/symtab.go, go/src/cmd/link/internal/ld/symtab.go)
points at the table and tells the start of Go's code, from which all functions are counted: not
that of .text once C is linked in. The copy in the table's header is gone since Go 1.26.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from tracer.stacks.elf import (
    EM_AARCH64,
    EM_X86_64,
    PF_X,
    PT_LOAD,
    ElfError,
    ElfFile,
    Segment,
)
from tracer.stacks.go_header import TABLE_BYTES_MAX, Header, Table, read_header

_PT_DYNAMIC = 2
_PF_W = 2
_DT_RELA, _DT_RELASZ = 7, 8
# R_X86_64_RELATIVE, R_AARCH64_RELATIVE
_RELATIVE = {EM_X86_64: 8, EM_AARCH64: 1027}
_WORD = struct.Struct("<Q")
_PAIR = struct.Struct("<QQ")
_RELOCATION = struct.Struct("<QQQ")
_DYNAMIC_BYTES_MAX = 1 << 14
# A file is searched once; a million relocations are 24 MB.
_SCANNED_BYTES_MAX = 256 << 20
_RELOCATION_BYTES_MAX = 32 << 20
_CHUNK = _RELOCATION.size << 16
# Each pattern is there once or twice in a file that means no harm.
_CANDIDATES_MAX = 4
_OCCURRENCES_MAX = 256
_SECTIONS = (b".gopclntab", b".data.rel.ro.gopclntab")
# The magic number without its lowest byte, two zeros, the quantum, the size of a pointer.
_MAGIC = re.compile(rb"\xff\xff\xff\0\0[\1\4]\x08")

# Words of moduledata, from Go 1.18 on.
_NAMES, _ENTRIES, _TEXT = 1, 17, 22
# gofunc moved with covctrs in Go 1.20 and typedesclen in Go 1.27; epclntab follows since Go 1.26.
_INLINED_118, _INLINED_120, _INLINED_127, _TABLE_END_127 = 38, 40, 43, 44


class Module(NamedTuple):
    """A pclntab; addresses of where Go's code begins (or 0) and of its inlining trees."""

    table: Table
    header: Header
    text: int
    inlined: int


def find_module(elf: ElfFile) -> Module:
    """Raises ElfError if the file has no pclntab and moduledata that agree."""
    if elf.machine not in _RELATIVE:
        raise ElfError(f"Go for machine {elf.machine} is not known")
    for table in islice(_tables(elf), _CANDIDATES_MAX):
        try:
            return _module(table)
        except ElfError:
            continue
    raise ElfError("no pclntab")


def _tables(elf: ElfFile) -> Iterator[Table]:
    own = elf.section(*_SECTIONS)
    if own is not None:
        yield Table(elf, own.offset, own.address, min(own.size, TABLE_BYTES_MAX))
    elif _may_be_go(elf):
        # it is read-only data, which few linkers put next to code
        yield from _tables_in(elf, sorted(elf.segments, key=lambda segment: segment.flags & PF_X))


def _may_be_go(elf: ElfFile) -> bool:
    """Without sections nothing tells but the search."""
    return not elf.sections or any(section.name.startswith(b".go.") for section in elf.sections)


def _tables_in(elf: ElfFile, segments: Iterable[Segment]) -> Iterator[Table]:
    for segment, chunk_at, chunk in _loaded(elf, segments):
        for found in _MAGIC.finditer(chunk):
            at = chunk_at + found.start() - 1
            address = at - segment.offset + segment.address
            size = segment.offset + segment.file_size - at
            yield Table(elf, at, address, min(size, TABLE_BYTES_MAX))


def _loaded(elf: ElfFile, segments: Iterable[Segment]) -> Iterator[tuple[Segment, int, bytes]]:
    """What is loaded, piece by piece, each with the first word of the next."""
    left = _SCANNED_BYTES_MAX
    for segment in segments:
        if segment.kind == PT_LOAD:
            size = min(segment.file_size, left)
            left -= size
            for at, chunk in _chunks(elf, segment.offset, size, _WORD.size):
                yield segment, at, chunk


def _chunks(elf: ElfFile, offset: int, size: int, overlap: int = 0) -> Iterator[tuple[int, bytes]]:
    """Of offset and bytes: a part of the file piece by piece, with the first bytes of the next."""
    end = offset + size
    for at in range(offset, end, _CHUNK):
        chunk = elf.read_up_to(at, min(_CHUNK + overlap, end - at))
        if not chunk:
            return
        yield at, chunk


def _module(table: Table) -> Module:
    header = read_header(table)
    if not header.layout.is_relative:
        return Module(table, header, 0, 0)
    relocations = _Relocations(table.elf)
    for place in _places(table, relocations):
        words = _Words(table.elf, relocations, place)
        if words[_NAMES] == table.address + header.names and (
            words[_ENTRIES] == header.functions + 1
        ):
            return Module(table, header, words[_TEXT], _inlined(words, table, header))
    raise ElfError("no moduledata")


def _inlined(words: _Words, table: Table, header: Header) -> int:
    address = words[_inlined_at(words, table, header)]
    if table.elf.offset_of(address) is None:
        raise ElfError("no inlining trees")
    return address


def _inlined_at(words: _Words, table: Table, header: Header) -> int:
    if header.layout.go == "1.18":
        return _INLINED_118
    if table.address < words[_TABLE_END_127] <= table.address + table.size:
        return _INLINED_127
    return _INLINED_120


def _places(table: Table, relocations: _Relocations) -> Iterator[int]:
    """Addresses of pointers at the table: moduledata begins with one."""
    yield from islice(_in_data(table), _CANDIDATES_MAX)
    yield from islice(relocations.places_of(table.address), _CANDIDATES_MAX)


def _in_data(table: Table) -> Iterator[int]:
    """Addresses of what can be changed at run time and holds the address of the table."""
    pattern = _WORD.pack(table.address)
    writable = [segment for segment in table.elf.segments if segment.flags & _PF_W]
    for segment, chunk_at, chunk in _loaded(table.elf, writable):
        for found in _occurrences(chunk, pattern):
            address = chunk_at + found - segment.offset + segment.address
            if not address % _WORD.size:
                yield address


def _occurrences(content: bytes, pattern: bytes) -> Iterator[int]:
    at = -1
    for _ in range(_OCCURRENCES_MAX):
        at = content.find(pattern, at + 1)
        if at < 0:
            return
        yield at


class _Relocations:
    """The pointers that the dynamic linker sets; none if the file needs no such linker."""

    def __init__(self, elf: ElfFile) -> None:
        self._elf = elf
        self._kind = _RELATIVE[elf.machine]
        self._offset, self._size = self._table()

    def places_of(self, target: int) -> Iterator[int]:
        """Addresses of pointers at `target`."""
        for row in self._rows(_PAIR.pack(self._kind, target), _WORD.size):
            yield row[0]

    def target_at(self, place: int) -> int:
        """The address that the pointer at `place` gets, 0 if there is none."""
        rows = self._rows(_PAIR.pack(place, self._kind), 0)
        return next((row[2] for row in rows), 0)

    def _rows(self, pattern: bytes, at: int) -> Iterator[tuple[int, int, int]]:
        for _, chunk in _chunks(self._elf, self._offset, self._size):
            for found in _occurrences(chunk, pattern):
                row_at = found - at
                if row_at % _RELOCATION.size == 0 and row_at + _RELOCATION.size <= len(chunk):
                    yield _RELOCATION.unpack_from(chunk, row_at)

    def _table(self) -> tuple[int, int]:
        dynamic = self._elf.segment(_PT_DYNAMIC)
        if dynamic is None:
            return 0, 0
        size = min(dynamic.file_size, _DYNAMIC_BYTES_MAX)
        content = self._elf.read_up_to(dynamic.offset, size)
        tags = dict(_PAIR.iter_unpack(content[: len(content) & -_PAIR.size]))
        offset = self._elf.offset_of(tags.get(_DT_RELA, 0))
        size = min(tags.get(_DT_RELASZ, 0), _RELOCATION_BYTES_MAX)
        return (0, 0) if offset is None else (offset, size)


class _Words:
    """Words of moduledata as they are once the program runs, but not moved."""

    def __init__(self, elf: ElfFile, relocations: _Relocations, address: int) -> None:
        self._elf = elf
        self._relocations = relocations
        self._address = address

    def __getitem__(self, index: int) -> int:
        """
        Raises ElfError if the file has no such word.

        Linkers that leave a pointer zero have its value in the relocation alone.
        """
        address = self._address + index * _WORD.size
        offset = self._elf.offset_of(address)
        if offset is None:
            raise ElfError(f"moduledata at {self._address:#x} is not in the file")
        word: int = _WORD.unpack(self._elf.read(offset, _WORD.size))[0]
        return word or self._relocations.target_at(address)
