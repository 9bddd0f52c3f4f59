"""
Each layout of Go's tables, and such that lie: what is broken is not known, and soon.

All on programs in miniature, so that layouts are tested which no compiler here makes.
"""

from __future__ import annotations

import struct
import time

import go_table
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tracer.stacks.elf import BytesContent, ElfError, ElfFile
from tracer.stacks.gopclntab import GoFrame, GoTable

_TABLE = 0x200
_SMALL = range(go_table.TEXT - 8, go_table.TEXT + go_table.SIZE + 8, 7)


@pytest.mark.parametrize("release", go_table.RELEASES)
def test_each_layout(release: str) -> None:
    table = GoTable(ElfFile(BytesContent(go_table.program(release))))
    start, end = go_table.TEXT, go_table.TEXT + go_table.SIZE

    assert table.frames(start) == (GoFrame("main.run", "/src/run.go", 10),)
    assert table.frames(end - 1) == (GoFrame("main.run", "/src/run.go", 13),)
    assert [table.covers(at) for at in (start - 1, start, end - 1, end)] == [0, 1, 1, 0]
    assert [table.cfa_offset(start + at) for at in (0, 3, 4, 59, 60)] == [8, 8, 32, 32, 8]
    assert [table.frame_pointer_offset(start + at) for at in (3, 4)] == [None, -16]


@pytest.mark.parametrize("release", go_table.RELEASES[1:])
def test_inlined_calls_of_each_layout(release: str) -> None:
    table = GoTable(ElfFile(BytesContent(go_table.program(release))))

    assert [table.frames(go_table.TEXT + at) for at in (15, 16, 31, 32)] == [
        (GoFrame("main.run", "/src/run.go", 12),),
        *[(GoFrame("main.call", "/src/run.go", 71), GoFrame("main.run", "/src/run.go", 12))] * 2,
        (GoFrame("main.run", "/src/run.go", 13),),
    ]


def test_lines_are_left_out_where_inlined_calls_cannot_be_told() -> None:
    """GIVEN Go before 1.16 WHEN a function may have inlined calls THEN it has no line."""
    content = go_table.program("1.2", data_lists=5)
    table = GoTable(ElfFile(BytesContent(content)))

    assert table.frames(go_table.TEXT) == (GoFrame("main.run", None, None),)


@pytest.mark.parametrize("release", go_table.RELEASES)
def test_any_cut(release: str) -> None:
    content = go_table.program(release)
    for size in range(0, len(content), 13):
        go_table.ask(content[:size], _SMALL)


@settings(max_examples=503, deadline=go_table.DEADLINE)
@given(
    st.sampled_from(go_table.RELEASES),
    st.lists(st.tuples(st.integers(0, 0xD00), go_table.WORDS, st.sampled_from("BIQ")), min_size=1),
)
@example("1.20", [(_TABLE + 8, 1_000_000, "Q")])
@example("1.20", [(_TABLE + 8, 1 << 63, "Q")])
@example("1.2", [(_TABLE + 8, 1_000_000, "Q")])
@example("1.20", [(0xC00 + 64 + 32, 1 << 62, "Q")])
def test_any_words(release: str, changes: list[tuple[int, int, str]]) -> None:
    content = bytearray(go_table.program(release))
    for at, word, size in changes:
        field = struct.Struct(f"<{size}")
        if at + field.size <= len(content):
            field.pack_into(content, at, word & (1 << 8 * field.size) - 1)
    go_table.ask(bytes(content), _SMALL)


@pytest.mark.parametrize("release", go_table.RELEASES[1:])
@pytest.mark.parametrize("parent_pc", [16, 64, 0x7FFFFFFF, -1])
def test_inlined_calls_that_never_end(release: str, parent_pc: int) -> None:
    """GIVEN a call that is inlined into itself WHEN asked THEN there is the function, no line."""
    table = GoTable(ElfFile(BytesContent(go_table.program(release, parent_pc=parent_pc))))

    assert table.frames(go_table.TEXT + 20) == (GoFrame("main.run", None, None),)


@pytest.mark.parametrize("release", go_table.RELEASES)
@pytest.mark.parametrize(
    "lines",
    [
        b"\xff" * 64,
        b"\x80" * 64 + b"\1",
        b"\2\0" * 64,
        b"\xfe\xff\xff\xff\x0f\1" * 2 + b"\0",
        go_table.values((0, 64)),
        go_table.values((-7, 64)),
        b"\0",
    ],
)
def test_lines_that_make_no_sense(release: str, lines: bytes) -> None:
    table = GoTable(ElfFile(BytesContent(go_table.program(release, lines=lines))))

    assert table.frames(go_table.TEXT) == (GoFrame("main.run", None, None),)
    assert table.cfa_offset(go_table.TEXT) == 8


def test_a_table_of_values_has_a_limit() -> None:
    """GIVEN a megabyte that never ends WHEN asked THEN only its begin was read."""
    content = go_table.program("1.18")
    elf = bytearray(content)
    section = 0xC00 + 64
    endless = len(elf)
    elf += b"\2\1" * (1 << 19)
    struct.pack_into("<Q", elf, section + 32, len(elf) - _TABLE)
    # the function's table of sp
    struct.pack_into("<I", elf, _TABLE + 0x220 + 16, endless - _TABLE - 0xC0)
    table = GoTable(ElfFile(BytesContent(bytes(elf))))
    before = time.process_time()

    assert not table.covers(go_table.TEXT)
    assert time.process_time() - before < 1


def test_many_segments_of_nothing_but_pointers_are_searched_once() -> None:
    """GIVEN 128 segments that are the same 8 MiB WHEN searched THEN not all of them are."""
    segments = 128
    header = bytearray(go_table.program("1.20")[:64])
    data_at = 64 + 56 * segments
    size = 8 << 20
    segment = struct.pack("<IIQQQQQQ", 1, 6, data_at, data_at, data_at, size, size, 4096)
    struct.pack_into("<QQ", header, 32, 64, 0)
    struct.pack_into("<HHHHH", header, 54, 56, segments, 64, 0, 0)
    table = go_table.program("1.20")[_TABLE : _TABLE + 0x300]
    pointers = struct.pack("<Q", data_at) * ((size - len(table)) // 8)
    content = bytes(header) + segment * segments + table + pointers
    before = time.process_time()

    with pytest.raises(ElfError):
        GoTable(ElfFile(BytesContent(content)))
    assert time.process_time() - before < 10
