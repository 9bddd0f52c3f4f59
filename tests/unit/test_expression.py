"""DWARF expressions: with numbers, with symbols, and the same with both."""

from __future__ import annotations

import time

import pytest
from frame_tables import sleb, uleb
from hypothesis import assume, given
from hypothesis import strategies as st

from tracer.stacks.elf import ElfError
from tracer.stacks.expression import Symbolic, dereferenced, evaluate

_WORD = (1 << 64) - 1
_REGISTERS = {6: 0x7FFF_0000_1000, 7: 0x7FFF_0000_0800, 16: 0x40_103B, 40: 0x5A5A}

words = st.integers(0, _WORD)


def _concrete(code: bytes, initial: int | None = None) -> int:
    value = evaluate(code, _REGISTERS.__getitem__, lambda at: ~at & _WORD, initial)
    assert isinstance(value, int) and 0 <= value <= _WORD
    return value


def _symbolic(code: bytes, initial: Symbolic | None = None) -> object:
    return evaluate(code, Symbolic, dereferenced, initial)


def _constant(number: int) -> bytes:
    return b"\x10" + uleb(number)


# --- with numbers ---


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("30", 0),
        ("4f", 31),
        ("08ff", 255),
        ("09ff", _WORD),
        ("0afeff", 0xFFFE),
        ("0bfeff", _WORD - 1),
        ("0cffffffff", 0xFFFFFFFF),
        ("0dffffffff", _WORD),
        ("0e" + "ff" * 8, _WORD),
        ("0f" + "fe" + "ff" * 7, _WORD - 1),
        ("1080 01", 128),
        ("117f", _WORD),
        ("7708", _REGISTERS[7] + 8),
        ("7678", _REGISTERS[6] - 8),
        ("922808", 0x5A62),
        ("770006", ~_REGISTERS[7] & _WORD),
        ("313213", 1),
        ("313212", 2),
        ("313214", 1),
        ("313216", 1),
        ("31311c", 0),
        ("30311c", _WORD),
        ("30 23 85 01", 133),
        ("96 3f 96", 15),
    ],
)
def test_values_are_those_of_the_standard(code: str, value: int) -> None:
    assert _concrete(bytes.fromhex(code)) == value


@pytest.mark.parametrize(
    ("operation", "left", "right", "value"),
    [
        (0x1A, 12, 10, 8),
        (0x21, 12, 10, 14),
        (0x27, 12, 10, 6),
        (0x1E, 1 << 63, 3, 1 << 63),
        (0x22, _WORD, 2, 1),
        (0x1C, 1, 2, _WORD),
        (0x24, 3, 63, 1 << 63),
        (0x24, 3, 64, 0),
        (0x24, 3, _WORD, 0),
        (0x25, 1 << 63, 63, 1),
        (0x25, 1 << 63, 64, 0),
        (0x26, 1 << 63, 62, _WORD - 1),
        (0x26, 1 << 63, _WORD, _WORD),
        (0x29, 5, 5, 1),
        (0x2E, 5, 5, 0),
        (0x2A, 5, 5, 1),
        (0x2A, _WORD, 0, 0),
        (0x2B, 0, _WORD, 1),
        (0x2C, _WORD, 0, 1),
        (0x2D, 0, _WORD, 0),
    ],
)
def test_operations_are_those_of_the_standard(
    operation: int, left: int, right: int, value: int
) -> None:
    assert _concrete(_constant(left) + _constant(right) + bytes([operation])) == value


def test_what_is_there_before_is_the_cfa() -> None:
    assert _concrete(b"\x23\x08", initial=16) == 24
    assert _concrete(b"", initial=0) == 0
    assert _symbolic(b"\x38\x1c", Symbolic("CFA")) == Symbolic("CFA", -8)


# --- with symbols ---


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("7708", Symbolic(7, 8)),
        ("7678", Symbolic(6, -8)),
        ("767806", Symbolic(6, -8, in_memory=True)),
        ("92 28 08", Symbolic(40, 8)),
        ("7708 38 22", Symbolic(7, 16)),
        ("38 7708 22", Symbolic(7, 16)),
        ("7708 38 1c", Symbolic(7, 0)),
        ("7708 23 08", Symbolic(7, 16)),
        ("7708 0f" + "f8" + "ff" * 7 + "22", Symbolic(7, 0)),
        ("31", 1),
    ],
)
def test_registers_stay_what_they_are(code: str, value: object) -> None:
    assert _symbolic(bytes.fromhex(code)) == value


@pytest.mark.parametrize(
    "code",
    [
        "7700 7600 22",
        "7700 7600 1c",
        "38 7700 1c",
        "7700 38 1a",
        "7700 7700 29",
        "7700 06 38 22",
        "7700 06 06",
        "38 06",
    ],
)
def test_what_only_numbers_allow_is_an_elf_error(code: str) -> None:
    with pytest.raises(ElfError):
        _symbolic(bytes.fromhex(code))


simple = st.one_of(
    st.builds(
        lambda register, offset: bytes([0x70 + register]) + sleb(offset),
        st.sampled_from([6, 7, 16]),
        st.integers(-(2**31), 2**31),
    ),
    st.integers(0, 31).map(lambda number: bytes([0x30 + number])),
    words.map(_constant),
    st.integers(-(2**63), 2**63 - 1).map(lambda number: b"\x11" + sleb(number)),
    st.integers(0, 2**31).map(lambda number: b"\x23" + uleb(number)),
    st.sampled_from([b"\x12", b"\x13", b"\x14", b"\x16", b"\x96", b"\x06"]),
    st.sampled_from([bytes([code]) for code in (0x1A, 0x1C, 0x1E, 0x21, 0x22, 0x24, 0x25, 0x2A)]),
)


@given(st.lists(simple, max_size=12).map(b"".join))
def test_symbols_mean_the_same_as_numbers(code: bytes) -> None:
    """GIVEN an expression simple enough for symbols THEN their values are those of numbers."""
    try:
        value = _symbolic(code)
    except ElfError:
        assume(False)
    if isinstance(value, Symbolic):
        assert isinstance(value.base, int)
        meant = _REGISTERS[value.base] + value.offset & _WORD
        value = ~meant & _WORD if value.in_memory else meant
    assert _concrete(code) == value


# --- hostile ones ---


@pytest.mark.parametrize(
    "code",
    [
        "",
        "96",
        "3013",
        "06",
        "12",
        "3014",
        "3016",
        "22",
        "3022",
        "08",
        "0e00000000000000",
        "10ff",
        "77",
        "9207",
        "2800",
        "2f00",
        "30301b",
        "301f",
        "3030ff",
        "a8",
    ],
)
def test_what_is_malformed_or_unheard_of_is_an_elf_error(code: str) -> None:
    with pytest.raises(ElfError):
        _concrete(bytes.fromhex(code))


@given(st.binary(max_size=80), st.none() | words)
def test_any_bytes_have_a_value_or_are_an_elf_error(code: bytes, initial: int | None) -> None:
    for register, read, first in (
        (lambda number: number, lambda at: at, initial),
        (Symbolic, dereferenced, None if initial is None else Symbolic("CFA")),
    ):
        try:
            value = evaluate(code, register, read, first)
        except ElfError:
            continue
        assert isinstance(value, Symbolic) or 0 <= value <= _WORD


def test_a_stack_does_not_grow_for_ever() -> None:
    with pytest.raises(ElfError):
        _concrete(b"\x30" * 60 * 1024)


@pytest.mark.parametrize(
    "code", [b"\x77\x00" + b"\x12\x13" * 30_719, b"\x3f" + b"\x12\x1e" * 30_719]
)
def test_a_long_expression_takes_as_long_as_it_is(code: bytes) -> None:
    """GIVEN 60 KiB of operations, or a number squared 30,000 times THEN that ends soon."""
    begin = time.process_time()
    _concrete(code)
    assert time.process_time() - begin < 0.5
