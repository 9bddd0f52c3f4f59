"""
The entries of .eh_frame, and finding the one of an address through .eh_frame_hdr.

Linux Standard Base, Core, "Exception Frames": a frame description entry (FDE) belongs to a
function, and a common information entry (CIE) to many of them.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from tracer.stacks.elf import PT_GNU_EH_FRAME, ElfError, ElfFile, Section
from tracer.stacks.leb import Cursor

_LENGTH = struct.Struct("<I")
_PAIR = struct.Struct("<ii")
# The largest FDE of a thousand programs and libraries, in gcc's cc1, has 20 KiB; the largest CIE 44
# bytes, and no file has more than 16 of those.
_ENTRY_BYTES_MAX = 1 << 15
_CIE_BYTES_MAX = 1 << 10
_CIES_MAX = 64
# Pairs that are read at once, when few enough are left.
_BLOCK_PAIRS = 512
# Without an index all entries are read: what is larger has one.
_UNINDEXED_BYTES_MAX = 1 << 20
_UNINDEXED_ENTRIES_MAX = 16384

# DW_EH_PE_*: how a pointer is written, and what it is relative to
_OMITTED, _INDIRECT = 0xFF, 0x80
_RELATIVE_TO_SELF, _RELATIVE_TO_TABLE = 0x10, 0x30
_SIZES = {0x00: (8, False), 0x02: (2, False), 0x03: (4, False), 0x04: (8, False)}
_SIZES.update({0x0A: (2, True), 0x0B: (4, True), 0x0C: (8, True)})
_ULEB, _SLEB = 0x01, 0x09
# what every linker writes: pairs of 32 bits, relative to the table
_SORTED_PAIRS = 0x3B
_WORD = (1 << 64) - 1


class Cie(NamedTuple):
    """What functions have in common; alignments are factors, `instructions` come first."""

    code_alignment: int
    data_alignment: int
    return_column: int
    pointer_encoding: int
    is_signal: bool
    has_augmentation: bool
    instructions: bytes

    def pointer(self, cursor: Cursor) -> int:
        """An absolute address as DW_CFA_set_loc has it. Raises ElfError if it is relative."""
        if self.pointer_encoding & 0x70:
            raise ElfError("a relative address among call frame instructions")
        return _encoded(cursor, self.pointer_encoding, 0)


class Fde(NamedTuple):
    """One function: its first address, its size in bytes, and how its frame changes."""

    start: int
    size: int
    instructions: bytes
    cie: Cie


class FrameTable:
    """
    The entries of one file.

    `find` reads what it needs, some ten reads for a function, and keeps only the CIEs. Raises
    ElfError if there is no table.
    """

    def __init__(self, elf: ElfFile) -> None:
        self._elf = elf
        self._cies: OrderedDict[int, Cie] = OrderedDict()
        self._index: _Index | None = None
        self._listed: list[tuple[int, int]] = []
        try:
            self._index = _Index(elf)
        except ElfError:
            self._listed = sorted(self._all_entries())

    def find(self, address: int) -> Fde | None:
        """The function at a link-time address; None if there is none. Raises ElfError."""
        if self._index is not None:
            at = self._index.entry_of(address)
        else:
            position = bisect_right(self._listed, (address, _WORD)) - 1
            at = self._listed[position][1] if position >= 0 else None
        if at is None:
            return None
        fde = self._fde(at)
        return fde if fde.start <= address < fde.start + fde.size else None

    def _all_entries(self) -> Iterator[tuple[int, int]]:
        section = self._elf.section(b".eh_frame")
        if section is None or section.size > _UNINDEXED_BYTES_MAX:
            raise ElfError("no .eh_frame, or a large one without index")
        # else entries could overlap where they are loaded, and be far larger than the section
        if self._elf.offset_of(section.address) != section.offset:
            raise ElfError("an .eh_frame that is loaded from elsewhere")
        for address, is_cie in islice(self._entries(section), _UNINDEXED_ENTRIES_MAX):
            if not is_cie:
                yield self._fde(address).start, address

    def _entries(self, section: Section) -> Iterator[tuple[int, bool]]:
        content = self._elf.section_bytes(section, _UNINDEXED_BYTES_MAX)
        at = 0
        while at + 2 * _LENGTH.size <= len(content):
            (size,) = _LENGTH.unpack_from(content, at)
            if not size:
                return
            yield section.address + at, not any(content[at + 4 : at + 8])
            at += _LENGTH.size + size

    def _body(self, address: int, most: int) -> tuple[Cursor, int]:
        """An entry without its length, and the address of what comes after that."""
        offset = self._elf.offset_of(address)
        if offset is None:
            raise ElfError("an entry of .eh_frame outside of the file")
        (size,) = _LENGTH.unpack(self._elf.read(offset, _LENGTH.size))
        if not _LENGTH.size <= size <= most:
            raise ElfError(f"an entry of .eh_frame of {size} bytes")
        body = self._elf.read(offset + _LENGTH.size, size)
        return Cursor(body), address + _LENGTH.size

    def _fde(self, address: int) -> Fde:
        cursor, body_at = self._body(address, _ENTRY_BYTES_MAX)
        to_cie = cursor.integer(4)
        if not to_cie:
            raise ElfError("a CIE where an FDE should be")
        cie = self._cie(body_at - to_cie)
        start = _encoded(cursor, cie.pointer_encoding, body_at)
        size = _encoded(cursor, cie.pointer_encoding & 0x0F, 0)
        if cie.has_augmentation:
            cursor.block()
        return Fde(start, size, cursor.take(cursor.end - cursor.at), cie)

    def _cie(self, address: int) -> Cie:
        cie = self._cies.get(address)
        if cie is None:
            cursor, body_at = self._body(address, _CIE_BYTES_MAX)
            cie = self._cies[address] = _decoded_cie(cursor, body_at)
            if len(self._cies) > _CIES_MAX:
                self._cies.popitem(last=False)
        return cie


class _Index:
    """
    .eh_frame_hdr, "Exception Frame Header": pairs (first address, FDE), sorted.

    Raises ElfError if there is none, or not in the form that linkers write.
    """

    def __init__(self, elf: ElfFile) -> None:
        self._elf = elf
        segment = elf.segment(PT_GNU_EH_FRAME)
        if segment is None:
            raise ElfError("no .eh_frame_hdr")
        self._address = segment.address
        cursor = Cursor(elf.read(segment.offset, min(segment.file_size, 64)))
        version, frame, count, table = cursor.take(4)
        if version != 1 or count == _OMITTED or table != _SORTED_PAIRS:
            raise ElfError("an .eh_frame_hdr of another form")
        _encoded(cursor, frame, segment.address, segment.address)
        self._count = _encoded(cursor, count, segment.address, segment.address)
        self._pairs_at = segment.offset + cursor.at
        if self._count * _PAIR.size > segment.file_size:
            raise ElfError(f"an .eh_frame_hdr of {self._count} entries")

    def entry_of(self, address: int) -> int | None:
        """The address of the FDE that may be of `address`; None if that is below all."""
        wanted = address - self._address
        low, high = 0, self._count
        while high - low > _BLOCK_PAIRS:
            middle = (low + high) // 2
            if self._pairs(middle, 1)[0][0] <= wanted:
                low = middle
            else:
                high = middle
        pairs = self._pairs(low, high - low)
        position = bisect_right([start for start, _ in pairs], wanted) - 1
        return pairs[position][1] + self._address if position >= 0 else None

    def _pairs(self, first: int, number: int) -> list[tuple[int, int]]:
        at = self._pairs_at + first * _PAIR.size
        return list(_PAIR.iter_unpack(self._elf.read(at, number * _PAIR.size)))


def _decoded_cie(cursor: Cursor, body_at: int) -> Cie:
    if cursor.integer(4):
        raise ElfError("an FDE where a CIE should be")
    version = cursor.byte()
    if version not in (1, 3, 4):
        raise ElfError(f"a CIE of version {version}")
    augmentation = cursor.string()
    if version == 4:
        # sizes of addresses and of segment selectors
        cursor.take(2)
    code_alignment, data_alignment = cursor.uleb(), cursor.sleb()
    return_column = cursor.byte() if version == 1 else cursor.uleb()
    encoding = 0
    if augmentation.startswith(b"z"):
        extra = Cursor(cursor.block())
        encoding = _pointer_encoding(augmentation[1:], extra)
    elif augmentation:
        raise ElfError(f"augmentation {augmentation!r}")
    return Cie(
        code_alignment,
        data_alignment,
        return_column,
        encoding,
        is_signal=b"S" in augmentation,
        has_augmentation=bool(augmentation),
        instructions=cursor.take(cursor.end - cursor.at),
    )


def _pointer_encoding(letters: bytes, extra: Cursor) -> int:
    encoding = 0
    for letter in letters:
        if letter == ord("R"):
            encoding = extra.byte()
        elif letter == ord("P"):
            _encoded(extra, extra.byte() & 0x0F, 0)
        elif letter == ord("L"):
            extra.byte()
        elif letter not in b"SB":
            # what an unknown letter means for what follows, nobody can tell
            break
    return encoding


def _encoded(cursor: Cursor, encoding: int, at: int, table: int = 0) -> int:
    """A pointer; `at` is the address of the cursor's first byte, `table` that of the index."""
    if encoding == _OMITTED:
        return 0
    own_address = at + cursor.at
    form, relative = encoding & 0x0F, encoding & 0x70
    if encoding & _INDIRECT or relative not in (0, _RELATIVE_TO_SELF, _RELATIVE_TO_TABLE):
        raise ElfError(f"a pointer written as {encoding:#x}")
    if form in _SIZES:
        value = cursor.integer(*_SIZES[form])
    elif form in (_ULEB, _SLEB):
        value = cursor.uleb() if form == _ULEB else cursor.sleb()
    else:
        raise ElfError(f"a pointer written as {encoding:#x}")
    if relative == _RELATIVE_TO_SELF:
        value += own_address
    elif relative == _RELATIVE_TO_TABLE:
        value += table
    return value & _WORD
