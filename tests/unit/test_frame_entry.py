"""Finding the unwind entry of a function: with an index, without one, and in hostile files."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
from frame_tables import (
    BASE,
    ENTRIES,
    ENTRIES_AT,
    INDEX,
    PC_RELATIVE,
    SEGMENT,
    TEXT,
    X86_START,
    address_of,
    cie,
    elf,
    entries,
    fde,
    frame_index,
    gcc,
    program,
    sleb,
    uleb,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.stacks.elf import PT_LOAD, BytesContent, ElfError, ElfFile
from tracer.stacks.frame_entry import FrameTable

_MIB = 1 << 20
_EMPTY = "int main(void) { return 0; }"
_ADVANCED = b"\x41\x0e\x10"


def _table(frames: bytes, index: bytes | None = None) -> FrameTable:
    return FrameTable(elf(program(frames, index)))


def _hits(table: FrameTable, *addresses: int) -> list[int | None]:
    """Where the functions at the addresses begin."""
    found = [table.find(address) for address in addresses]
    return [one.start if one is not None else None for one in found]


class _Counting(BytesContent):
    reads = 0

    def read(self, offset: int, size: int) -> bytes:
        self.reads += 1
        return super().read(offset, size)


# --- with and without an index ---


@pytest.mark.parametrize("is_indexed", [True, False])
def test_a_function_is_found_at_each_of_its_addresses(is_indexed: bool) -> None:
    """GIVEN two functions with a gap between them THEN what is in the gap has none."""
    frames, index = entries((TEXT + 64, 32, _ADVANCED), (TEXT, 16, b""))
    table = _table(frames, frame_index(index) if is_indexed else None)

    assert _hits(table, TEXT - 1, TEXT, TEXT + 15, TEXT + 16) == [None, TEXT, TEXT, None]
    inside = [None, TEXT + 64, TEXT + 64, None]
    assert _hits(table, TEXT + 63, TEXT + 64, TEXT + 95, TEXT + 96) == inside
    found = table.find(TEXT + 70)
    assert found is not None and found.size == 32
    assert found.instructions.startswith(_ADVANCED)
    assert found.cie.instructions.startswith(X86_START)
    assert found.cie[:3] == (1, -8, 16)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 40)), max_size=40), st.booleans())
def test_all_functions_are_found_wherever_they_are(
    spans: list[tuple[int, int]], is_indexed: bool
) -> None:
    """GIVEN functions with gaps WHEN looked for at any address THEN found or not, as laid out."""
    at, functions = TEXT, []
    for gap, size in spans:
        functions.append((at + gap, size, b""))
        at += gap + size
    frames, index = entries(*functions)
    table = _table(frames, frame_index(index) if is_indexed else None)

    for address in range(TEXT - 2, at + 2):
        owner: list[int | None] = [
            start for start, size, _ in functions if start <= address < start + size
        ]
        assert _hits(table, address) == (owner or [None])


@pytest.mark.parametrize("number", [511, 512, 513, 2000])
def test_large_indexes_are_searched_in_few_reads(number: int) -> None:
    """GIVEN more functions than are read at once THEN each is found in some ten reads."""
    functions = [(TEXT + 16 * at, 16, b"") for at in range(number)]
    common = cie()
    frames = common + b"".join(
        fde(b"", start, 16, at=len(common) + 24 * at, cie_at=0)
        for at, (start, _, _) in enumerate(functions)
    )
    pairs = [(start, len(common) + 24 * at) for at, (start, _, _) in enumerate(functions)]
    index = frame_index(pairs)
    content = _Counting(program(frames, index))
    table = FrameTable(ElfFile(content))
    for start, _, _ in functions:
        content.reads = 0
        found = table.find(start + 15)
        assert found is not None and found.start == start
        assert content.reads < 12


def test_an_empty_index_has_no_functions() -> None:
    assert _hits(_table(cie(), frame_index([])), 0, TEXT) == [None, None]


# --- forms of CIEs ---


def _one_function(common: bytes, pointers: bytes, *, augmented: bool = True) -> FrameTable:
    """A function whose start and size are written as `pointers`."""
    body = struct.pack("<I", len(common) + 4) + pointers + (b"\0" if augmented else b"")
    body += b"\x0e\x10" + bytes(-(len(body) + 6) % 8)
    return _table(common + struct.pack("<I", len(body)) + body)


@pytest.mark.parametrize(
    ("encoding", "pointers"),
    [
        (0x00, struct.pack("<QQ", TEXT, 16)),
        (0x04, struct.pack("<QQ", TEXT, 16)),
        (0x0C, struct.pack("<qq", TEXT, 16)),
        (0x03, struct.pack("<II", TEXT, 16)),
        (0x0B, struct.pack("<ii", TEXT, 16)),
        (0x01, uleb(TEXT) + uleb(16)),
        (0x09, sleb(TEXT) + sleb(16)),
    ],
)
def test_pointers_in_every_form(encoding: int, pointers: bytes) -> None:
    common = cie(extra=bytes([encoding]))

    assert _hits(_one_function(common, pointers), TEXT + 15, TEXT + 16) == [TEXT, None]


@pytest.mark.parametrize(
    ("letters", "extra"),
    [
        (b"zR", b"\x03"),
        (b"zPLR", b"\x9b" + bytes(4) + b"\x1b\x03"),
        (b"zPLR", b"\x00" + bytes(8) + b"\x1b\x03"),
        (b"zRS", b"\x03"),
        (b"zRB", b"\x03"),
        (b"zLR", b"\x1b\x03"),
        (b"zR?", b"\x03whatever"),
    ],
)
@pytest.mark.parametrize("version", [1, 3, 4])
def test_augmentations(letters: bytes, extra: bytes, version: int) -> None:
    common = cie(augmentation=letters, extra=extra, version=version)
    found = _one_function(common, struct.pack("<II", TEXT, 16)).find(TEXT)

    assert found is not None and found.start == TEXT
    assert found.cie.is_signal is (b"S" in letters)
    assert found.instructions.startswith(b"\x0e\x10")
    assert found.cie.instructions.startswith(X86_START)


def test_a_cie_without_augmentation() -> None:
    """GIVEN addresses as they are in old files THEN the FDE has no augmentation either."""
    pointers = struct.pack("<QQ", TEXT, 16)
    found = _one_function(cie(augmentation=b""), pointers, augmented=False).find(TEXT)

    assert found is not None and found.instructions.startswith(b"\x0e\x10")


@pytest.mark.parametrize(
    "common",
    [
        cie(version=2),
        cie(version=5),
        cie(augmentation=b"eh"),
        cie(extra=b""),
        cie(extra=b"\xff"),
        cie(extra=b"\x50"),
        cie(extra=b"\x9b"),
        cie(extra=b"\x05"),
        cie(augmentation=b"zPR", extra=b"\x9f\x03"),
        cie()[:4] + b"\x01\0\0\0" + cie()[8:],
        cie()[:9] + b"z" * (len(cie()) - 9),
        cie(X86_START + bytes(8 << 10)),
    ],
    ids=range(12),
)
def test_cies_that_nobody_writes_are_an_elf_error(common: bytes) -> None:
    """GIVEN an index, so that a table is there WHEN the function is looked for THEN an error."""
    entry = fde(b"", TEXT, 16, at=len(common), cie_at=0)
    table = _table(common + entry, frame_index([(TEXT, len(common))]))

    with pytest.raises(ElfError):
        table.find(TEXT)
    with pytest.raises(ElfError):
        _table(common + entry).find(TEXT)


# --- programs as gcc makes them ---


def test_a_program_without_an_index_is_read_through(tmp_path: Path) -> None:
    """GIVEN the same program, linked with and without .eh_frame_hdr THEN it has the same."""
    indexed = gcc(tmp_path, _EMPTY)
    plain = gcc(tmp_path, _EMPTY, "-Wl,--no-eh-frame-hdr")
    for path in (indexed, plain):
        table = FrameTable(elf(path.read_bytes()))
        start, size = address_of(path, "main")
        found = table.find(start + size - 1)
        assert found is not None and (found.start, found.size) == (start, size)
        assert table.find(start + size) is None or table.find(start + size) != found


def test_code_without_unwind_tables_has_none(tmp_path: Path) -> None:
    path = gcc(tmp_path, _EMPTY, "-fno-asynchronous-unwind-tables", "-fno-unwind-tables")
    start, size = address_of(path, "main")
    table = FrameTable(elf(path.read_bytes()))

    assert [table.find(start + at) for at in range(size)] == [None] * size
    # what the C library brought along has one
    assert table.find(elf(path.read_bytes()).entry) is not None


def test_a_program_with_no_table_at_all(tmp_path: Path) -> None:
    source = "void _start(void) { for (;;); }"
    path = gcc(tmp_path, source, "-nostdlib", "-static", "-fno-asynchronous-unwind-tables")

    with pytest.raises(ElfError):
        FrameTable(elf(path.read_bytes()))


def test_cold_parts_have_entries_of_their_own(tmp_path: Path) -> None:
    source = """
    int use(void *);
    void rare(void *) __attribute__((cold));
    int split(int n) {
        int few[4];
        use(few);
        if (n > 23) { rare(few); rare(&n); __builtin_abort(); }
        return use(few);
    }
    """
    path = gcc(tmp_path, source, "-shared", "-fPIC")
    start, size = address_of(path, "split.cold")
    table = FrameTable(elf(path.read_bytes()))

    found = table.find(start + size - 1)
    assert found is not None and (found.start, found.size) == (start, size)
    assert _hits(table, address_of(path, "split")[0]) == [address_of(path, "split")[0]]


# --- hostile ones ---


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"\x02" + frame_index([])[1:],
        frame_index([])[:2] + b"\xff\x3b" + bytes(8),
        frame_index([])[:3] + b"\xff" + bytes(8),
        frame_index([])[:3] + b"\x3c" + bytes(8),
        frame_index([(TEXT, 24)], count=1 << 31),
        frame_index([(TEXT, 24)], count=(1 << 32) - 1),
        frame_index([(TEXT, 24)])[:7],
        b"\x01\x1b\x0c\x3b" + bytes(4) + b"\xff" * 8,
        b"\x01\x1b\x01\x3b" + bytes(4) + b"\xff" * 50,
    ],
    ids=range(10),
)
def test_an_index_that_is_none_is_passed_over(index: bytes) -> None:
    """GIVEN an .eh_frame_hdr that makes no sense THEN the entries themselves are read."""
    frames, _ = entries((TEXT, 16, b""))

    assert _hits(_table(frames, index), TEXT + 3) == [TEXT]


def test_an_index_that_is_longer_than_the_file_is_an_elf_error() -> None:
    """GIVEN a segment of 2^63 bytes, and so many entries WHEN searched THEN an error, soon."""
    frames, index = entries((TEXT, 16, b""))
    content = bytearray(program(frames, frame_index(index)))
    head = struct.pack("<4B", 1, PC_RELATIVE, 0x04, 0x3B) + bytes(4) + struct.pack("<Q", 1 << 60)
    content[INDEX : INDEX + len(head)] = head
    struct.pack_into("<Q", content, 64 + 56 + 32, 1 << 63)
    table = FrameTable(elf(bytes(content)))

    begin = time.process_time()
    with pytest.raises(ElfError):
        table.find(TEXT)
    assert time.process_time() - begin < 0.1


def test_entries_of_the_index_that_lead_nowhere_are_an_elf_error() -> None:
    frames, _ = entries((TEXT, 16, b""))
    for place in (0, 4, -ENTRIES, 1 << 27, -(1 << 27)):
        with pytest.raises(ElfError):
            _table(frames, frame_index([(TEXT, place)])).find(TEXT)


def test_a_cie_that_points_to_itself_is_an_elf_error() -> None:
    """GIVEN entries that have each other as their CIE THEN there is no end to follow."""
    common = cie()
    at = len(common)
    first = fde(b"", TEXT, 16, at=at, cie_at=at + 24)
    second = fde(b"", TEXT + 16, 16, at=at + 24, cie_at=at)
    itself = fde(b"", TEXT + 32, 16, at=at + 48, cie_at=at + 48)
    pairs = [(TEXT, at), (TEXT + 16, at + 24), (TEXT + 32, at + 48)]
    table = _table(common + first + second + itself, frame_index(pairs))

    for start, _ in pairs:
        with pytest.raises(ElfError):
            table.find(start)


@pytest.mark.parametrize("size", [0, 3, 0x10001, 0x7FFFFFFF, 0xFFFFFFF0, 0xFFFFFFFF])
def test_sizes_of_entries_are_bounded(size: int) -> None:
    frames, index = entries((TEXT, 16, b""))
    at = index[0][1]
    frames = frames[:at] + struct.pack("<I", size) + frames[at + 4 :]

    with pytest.raises(ElfError):
        _table(frames, frame_index(index)).find(TEXT)


def test_a_large_table_without_an_index_is_not_read() -> None:
    with pytest.raises(ElfError):
        _table(cie() + bytes(2 * _MIB))


def test_tiny_entries_without_an_index_are_read_in_time() -> None:
    """GIVEN 40,000 entries and no index THEN reading ends soon, and keeps little."""
    common = cie()
    frames = common + b"".join(
        fde(b"", TEXT + 16 * at, 16, at=len(common) + 24 * at, cie_at=0) for at in range(40_000)
    )
    file = elf(program(frames))

    begin = time.process_time()
    table = FrameTable(file)
    assert time.process_time() - begin < 1
    assert _hits(table, TEXT + 100) == [TEXT + 96]


def test_entries_of_four_bytes_are_read_in_time() -> None:
    """GIVEN 100,000 entries too short to be any and no index THEN that is an error, soon."""
    begin = time.process_time()
    with pytest.raises(ElfError):
        _table(struct.pack("<II", 4, 1) * 100_000)
    assert time.process_time() - begin < 0.5


def _overlapping(number: int, size: int) -> bytes:
    """
    Entries that are small where the section has them, and long where they are loaded.

    Each of those begins eight bytes after the one before, as do the CIEs, which are as long as
    `size`, whose bytes are also the version and the augmentation.
    """
    assert size & 0xFFFF == 0x7A01
    region = (number * 8 + size) // 8 + 1
    loaded = (
        struct.pack("<II", size, 0) * region + struct.pack("<II", size, 8 * region + 4) * region
    )
    said = struct.pack("<II", 4, 1) * number
    content = bytearray(program(said, room=len(loaded)))
    at = len(content) - len(loaded)
    content[at:] = loaded
    struct.pack_into("<QQ", content, 64 + 8, at + 8 * region, ENTRIES_AT)
    before = SEGMENT.pack(PT_LOAD, 4, at, *[ENTRIES_AT - 8 * region] * 2, *[8 * region] * 2, 4096)
    content[64 + SEGMENT.size : 64 + 2 * SEGMENT.size] = before
    struct.pack_into("<H", content, 56, 2)
    return bytes(content)


def test_sections_that_are_loaded_elsewhere_are_not_read_over_and_over() -> None:
    """GIVEN 16,000 entries that overlap where they are loaded THEN they are no table, soon."""
    file = elf(_overlapping(16_000, 0x7A01))

    begin = time.process_time()
    with pytest.raises(ElfError):
        FrameTable(file)
    assert time.process_time() - begin < 0.5


@pytest.mark.parametrize("address", [-1, 0, BASE, 1 << 63, (1 << 64) - 1, 1 << 64])
def test_any_address_may_be_asked_for(address: int) -> None:
    frames, index = entries((TEXT, 16, b""))

    assert _hits(_table(frames, frame_index(index)), address) == [None]
    assert _hits(_table(frames), address) == [None]
