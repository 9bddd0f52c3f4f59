"""Numbers of variable length are read as they were written, and never beyond their block."""

from __future__ import annotations

from typing import Callable

import pytest
from frame_tables import block, sleb, uleb
from hypothesis import given
from hypothesis import strategies as st

from tracer.stacks.elf import ElfError
from tracer.stacks.leb import Cursor

_READS: dict[str, Callable[[Cursor], object]] = {
    "uleb": Cursor.uleb,
    "sleb": Cursor.sleb,
    "block": Cursor.block,
    "string": Cursor.string,
    "byte": Cursor.byte,
    "word": lambda cursor: cursor.integer(4),
    "signed word": lambda cursor: cursor.integer(8, True),
}


@pytest.mark.parametrize(
    ("content", "value"), [("02", 2), ("7f", 127), ("8001", 128), ("8101", 129), ("b964", 12857)]
)
def test_unsigned_numbers_of_the_standard(content: str, value: int) -> None:
    """DWARF 5, table C.1"""
    assert Cursor(bytes.fromhex(content)).uleb() == value


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("02", 2),
        ("7e", -2),
        ("ff00", 127),
        ("817f", -127),
        ("8001", 128),
        ("807f", -128),
        ("8101", 129),
        ("ff7e", -129),
    ],
)
def test_signed_numbers_of_the_standard(content: str, value: int) -> None:
    """DWARF 5, table C.2"""
    assert Cursor(bytes.fromhex(content)).sleb() == value


@given(st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=300))
def test_what_was_written_is_read(unsigned: int, signed: int, content: bytes) -> None:
    cursor = Cursor(uleb(unsigned) + sleb(signed) + block(content) + b"name\0\x2a")

    assert (cursor.uleb(), cursor.sleb(), cursor.block()) == (unsigned, signed, content)
    assert (cursor.string(), cursor.byte(), cursor.at_end) == (b"name", 0x2A, True)


def test_padded_numbers_are_what_they_were() -> None:
    """GIVEN numbers that an assembler padded WHEN read THEN the padding changes nothing."""
    assert Cursor(b"\x85\x80\x80\x80\x00").uleb() == 5
    assert Cursor(b"\xfb\xff\xff\xff\x7f").sleb() == -5


def test_integers_of_fixed_size() -> None:
    assert Cursor(b"\xfe\xff").integer(2) == 0xFFFE
    assert Cursor(b"\xfe\xff").integer(2, True) == -2


@pytest.mark.parametrize("read", _READS.values(), ids=_READS)
def test_nothing_is_read_beyond_the_end(read: Callable[[Cursor], object]) -> None:
    """GIVEN a block that ends before its content does WHEN read THEN that is an error."""
    with pytest.raises(ElfError):
        read(Cursor(b""))
    with pytest.raises(ElfError):
        read(Cursor(b"\x81\x82\x03\x00\x00\x00\x00\x00\x00", at=3, end=3))
    with pytest.raises(ElfError):
        read(Cursor(bytes(23), at=24))


def test_a_number_without_end_is_refused_at_once() -> None:
    cursor = Cursor(b"\xff" * 10_000)

    with pytest.raises(ElfError):
        cursor.uleb()
    assert cursor.at < 64


def test_a_string_without_end_is_refused() -> None:
    with pytest.raises(ElfError):
        Cursor(b"augmentation\0", end=12).string()


@pytest.mark.parametrize("size", [2, 2**32, 2**64 - 1, 2**100])
def test_a_block_of_any_size_is_refused_if_it_is_not_there(size: int) -> None:
    with pytest.raises(ElfError):
        Cursor(uleb(size) + b"x").block()


def test_a_negative_size_does_not_go_back() -> None:
    cursor = Cursor(b"abc", at=2)

    with pytest.raises(ElfError):
        cursor.take(-1)
    assert cursor.at == 2


@given(st.binary(max_size=64), st.lists(st.sampled_from(sorted(_READS)), max_size=8))
def test_any_bytes_are_read_or_refused(content: bytes, reads: list[str]) -> None:
    cursor = Cursor(content)
    for name in reads:
        before = cursor.at
        try:
            _READS[name](cursor)
        except ElfError:
            return
        assert before < cursor.at <= len(content)
