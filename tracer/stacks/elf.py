"""
Reading one ELF file of a traced program: where code and tables are, and which build it is.

The format is that of elf(5) and the System V ABI, gabi chapters 4 and 5. The file belongs to a
stranger: it may be cut short, lie about every size, and change while it is read. So nothing is
mapped into memory, each read is as large as what was read before can vouch for, and whatever does
not fit raises ElfError.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple, Protocol

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_NOTE = struct.Struct("<III")
# 64 bits, little-endian, the only version there is
_IDENTITY = b"\x7fELF\x02\x01\x01"
_BUILD_ID = 3  # NT_GNU_BUILD_ID
_EXTENDED_NUMBER = 0xFFFF
# Linkers make some ten segments and some fifty sections; -ffunction-sections shows in objects only.
_SEGMENTS_MAX = 128
_SECTIONS_MAX = 4096
_NAMES_BYTES_MAX = 1 << 20
_NAME_BYTES_MAX = 256
_NOTES_BYTES_MAX = 1 << 16
_BUILD_ID_BYTES_MAX = 64
_PAGE = 4096

PT_LOAD, PT_NOTE, PT_GNU_EH_FRAME = 1, 4, 0x6474E550
PF_X = 1
SHT_SYMTAB, SHT_NOBITS, SHT_DYNSYM = 2, 8, 11
SHF_COMPRESSED = 0x800
EM_X86_64, EM_AARCH64 = 62, 183


class ElfError(ValueError):
    """A file that is no such ELF file, or contradicts itself."""


class Content(Protocol):
    """Bytes that can be read in any order."""

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on; fewer where the content ends."""


class FileContent:
    """What an open file has; the descriptor stays the caller's. A read that fails is empty."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._fd, size, offset)
        except (OSError, OverflowError, ValueError):
            return b""


class BytesContent:
    """What is in memory already, as the vDSO and unpacked sections are."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    is_within_reach = True

    def read(self, offset: int, size: int) -> bytes:
        return self._content[offset : offset + size] if offset >= 0 else b""


class Segment(NamedTuple):
    """One program header; sizes and offsets in bytes."""

    kind: int
    flags: int
    offset: int
    address: int
    file_size: int


class Section(NamedTuple):
    """One section header; sizes and offsets in bytes."""

    name: bytes
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int


class ElfFile:
    """
    The headers of an ELF file. Raises ElfError if it is none of 64 bits, little-endian.

    Addresses are those of the file, before it is relocated to where it runs.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        header = self.read(0, _HEADER.size)
        if not header.startswith(_IDENTITY):
            raise ElfError("no ELF file of 64 bits, little-endian")
        (
            _,
            self.kind,
            self.machine,
            _,
            self.entry,
            segments_at,
            self._sections_at,
            _,
            _,
            segment_size,
            segments,
            self._section_size,
            self._sections,
            self._names_index,
        ) = _HEADER.unpack(header)
        if segment_size != _SEGMENT.size or segments > _SEGMENTS_MAX:
            raise ElfError(f"{segments} program headers of {segment_size} bytes")
        self.segments = tuple(self._read_segments(segments_at, segments))

    def read(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes of the file. Raises ElfError if it has no such bytes."""
        content = self._content.read(offset, size)
        if len(content) != size:
            raise ElfError(f"the file ends before {offset:#x}+{size:#x}")
        return content

    def read_up_to(self, offset: int, size: int) -> bytes:
        """At most `size` bytes of the file, fewer at its end."""
        return self._content.read(offset, size)

    def section_bytes(self, section: Section, most: int) -> bytes:
        """
        What a section holds.

        Raises ElfError if that is compressed, not in the file, or of more than `most` bytes.
        """
        if section.kind == SHT_NOBITS or section.flags & SHF_COMPRESSED or section.size > most:
            raise ElfError(f"section {section.name!r} cannot be read")
        return self.read(section.offset, section.size)

    def address_of(self, file_offset: int) -> int | None:
        """
        The address at which this byte of the file is loaded, None if it is not.

        A mapping begins and ends at pages, so it has bytes that no segment claims.
        """
        for segment in self.segments:
            begin = segment.offset & -_PAGE
            if (
                segment.kind == PT_LOAD
                and begin <= file_offset < segment.offset + segment.file_size
            ):
                return file_offset - segment.offset + segment.address
        return None

    def offset_of(self, address: int) -> int | None:
        """Where in the file the byte at `address` is, None if it is not."""
        for segment in self.segments:
            if (
                segment.kind == PT_LOAD
                and segment.address <= address < segment.address + segment.file_size
            ):
                return address - segment.address + segment.offset
        return None

    def segment(self, kind: int) -> Segment | None:
        """The first of a kind."""
        return next((segment for segment in self.segments if segment.kind == kind), None)

    def section(self, *names: bytes) -> Section | None:
        """The first that has one of the names; None if there is none, or no section header."""
        return next((section for section in self.sections if section.name in names), None)

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """All sections; none if their headers are missing or make no sense."""
        try:
            return tuple(self._read_sections())
        except ElfError:
            return ()

    @cached_property
    def build_id(self) -> str | None:
        """As hexadecimal digits; None if the linker left none."""
        for segment in self.segments:
            if segment.kind == PT_NOTE:
                found = self._build_id_in(segment)
                if found:
                    return found
        return None

    def _read_segments(self, at: int, number: int) -> Iterator[Segment]:
        for kind, flags, offset, address, _, file_size, _, _ in _SEGMENT.iter_unpack(
            self.read(at, number * _SEGMENT.size)
        ):
            yield Segment(kind, flags, offset, address, file_size)

    def _read_sections(self) -> Iterator[Section]:
        number, names_index = self._sections, self._names_index
        if self._section_size != _SECTION.size or not self._sections_at:
            return
        first = _SECTION.unpack(self.read(self._sections_at, _SECTION.size))
        # numbers that do not fit the header are in the first section: elf(5), e_shnum
        number = number or first[5]
        names_index = first[6] if names_index == _EXTENDED_NUMBER else names_index
        if not names_index < number <= _SECTIONS_MAX:
            raise ElfError(f"{number} sections, names in {names_index}")
        rows = list(_SECTION.iter_unpack(self.read(self._sections_at, number * _SECTION.size)))
        names = self.read(rows[names_index][4], min(rows[names_index][5], _NAMES_BYTES_MAX))
        for name, kind, flags, address, offset, size, link, _, _, _ in rows:
            own_name = c_string(names[name : name + _NAME_BYTES_MAX], 0)
            yield Section(own_name, kind, flags, address, offset, size, link)

    def _build_id_in(self, segment: Segment) -> str | None:
        notes = self.read_up_to(segment.offset, min(segment.file_size, _NOTES_BYTES_MAX))
        at = 0
        while at + _NOTE.size <= len(notes):
            name_size, size, kind = _NOTE.unpack_from(notes, at)
            name_at = at + _NOTE.size
            begin = name_at + (name_size + 3 & ~3)
            if kind == _BUILD_ID and notes[name_at : name_at + name_size] == b"GNU\0":
                found = notes[begin : begin + size]
                return found.hex() if 0 < size == len(found) <= _BUILD_ID_BYTES_MAX else None
            at = begin + (size + 3 & ~3)
        return None


def c_string(table: bytes, offset: int) -> bytes:
    """The string that begins at `offset`, up to its NUL; what has none is cut at the end."""
    end = table.find(b"\0", offset)
    return table[offset:end] if end >= 0 else table[offset:]
