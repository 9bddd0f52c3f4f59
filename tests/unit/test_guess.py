"""Frames of code without unwind tables: what the code proves, and what is a guess and says so."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.stacks.guess import guessed
from tracer.stacks.registers import AARCH64, X86_64
from tracer.stacks.row import Flag, From, Row
from tracer.stacks.unwinder import Point

_SP = 0x7FFC_0000_1000
_RBP, _RSP = 6, 7
# musl: inotify_add_watch, which called the system; the program's function that called it
_LEAF, _CALLER, _OTHER, _STUB, _SLOT = 0x7F0000, 0x401000, 0x402000, 0x403000, 0x404000
_IN_LEAF = _LEAF + 0x12
_CALL_BYTES = 5
_BY_SCAN = Row(From.SP, 8, From.CFA, -8, flags=Flag.GUESSED)
_BY_FRAME_POINTER = Row(From.FP, 16, From.CFA, -8, From.CFA, -16)


def _call(at: int, to: int) -> bytes:
    return b"\xe8" + struct.pack("<i", to - at - _CALL_BYTES)


class _Code:
    """Pieces of code by address; what a piece begins with is the start of a function."""

    def __init__(self, pieces: dict[int, bytes], data: dict[int, bytes] | None = None) -> None:
        self._pieces = {start: piece.ljust(0x100, b"\x90") for start, piece in pieces.items()}
        self._data = data or {}
        self.is_named = True
        self.reads = 0
        self.lookups = 0

    def read(self, address: int, size: int) -> bytes:
        self.reads += 1
        for start, piece in [*self._pieces.items(), *self._data.items()]:
            if start <= address and address + size <= start + len(piece):
                return piece[address - start : address - start + size]
        return b""

    def function_start(self, address: int) -> int | None:
        self.lookups += 1
        return self._start(address) if self.is_named else None

    def is_code(self, address: int) -> bool:
        return self._start(address) is not None

    def _start(self, address: int) -> int | None:
        found = [
            start for start, piece in self._pieces.items() if start <= address < start + len(piece)
        ]
        return found[0] if found else None


class _Stack:
    def __init__(self, *words: int) -> None:
        self._words = words

    def word(self, address: int) -> int | None:
        at, rest = divmod(address - _SP, 8)
        return self._words[at] if not rest and 0 <= at < len(self._words) else None


def _musl() -> _Code:
    """A leaf without a frame, what calls it at +0x20, and what is called through a pointer."""
    pieces = {
        _LEAF: bytes.fromhex("48 63 ff 48 63 d2 b8 fe 00 00 00 0f 05"),
        _CALLER: b"\x90" * 0x20 + _call(_CALLER + 0x20, _LEAF),
        _OTHER: b"\x90" * 0x20 + b"\xff\xd0" + b"\x90" * 0xE + _call(_OTHER + 0x30, _CALLER),
    }
    return _Code(pieces)


_CALLED_LEAF = _CALLER + 0x20 + _CALL_BYTES
_CALLED_POINTER = _OTHER + 0x22
_CALLED_CALLER = _OTHER + 0x30 + _CALL_BYTES


def _row(
    stack: _Stack,
    code: _Code,
    *,
    pc: int = _IN_LEAF,
    is_exact: bool = True,
    fp: int = 0,
    is_jit: bool = False,
) -> Row | None:
    point = Point(pc, is_exact, {_RSP: _SP, _RBP: fp})
    return guessed(point, stack, code, X86_64, is_jit)


def _scanned(words: int) -> Row:
    return _BY_SCAN._replace(cfa_offset=8 * words)


# --- the scan ---


def test_a_call_of_the_function_itself_is_the_caller() -> None:
    """GIVEN older return addresses on the stack WHEN scanned THEN the one that called it counts."""
    stack = _Stack(0x2323, _CALLED_POINTER, _CALLED_CALLER, _CALLED_LEAF, 23)

    assert _row(stack, _musl()) == _scanned(4)


def test_a_function_without_a_name_is_called_somewhat_before() -> None:
    code = _musl()
    code.is_named = False

    assert _row(_Stack(_CALLED_POINTER, _CALLED_LEAF), code) == _scanned(2)
    # 64 KiB further on it is another
    pieces = {
        _LEAF: b"",
        _CALLER: b"\x90" * 0x20 + _call(_CALLER + 0x20, _LEAF - 0x10000),
        _OTHER: b"\x90" * 0x20 + b"\xff\xd0",
    }
    far = _Code(pieces)
    far.is_named = False
    assert _row(_Stack(_CALLED_POINTER, _CALLED_LEAF), far) == _scanned(1)


@pytest.mark.parametrize("stub", ["ff25", "f2ff25", "f30f1efaff25", "f30f1efaf2ff25"])
def test_a_call_through_a_linkage_table_is_proven_by_its_slot(stub: str) -> None:
    """GIVEN a program that calls libc by a PLT WHEN the slot leads to the function THEN proven."""
    head = bytes.fromhex(stub)
    piece = head + struct.pack("<i", _SLOT - _STUB - len(head) - 4)
    pieces = {
        _LEAF: b"",
        _CALLER: b"\x90" * 0x20 + _call(_CALLER + 0x20, _STUB),
        _OTHER: b"\x90" * 0x20 + b"\xff\xd0",
        _STUB: piece,
    }
    stack = _Stack(_CALLED_POINTER, _CALLED_LEAF)

    assert _row(stack, _Code(pieces, {_SLOT: struct.pack("<Q", _LEAF)})) == _scanned(2)
    # what leads to another function, or cannot be read, proves nothing
    assert _row(stack, _Code(pieces, {_SLOT: struct.pack("<Q", _OTHER)})) == _scanned(1)
    assert _row(stack, _Code(pieces)) == _scanned(1)


def test_a_call_of_something_else_is_only_the_last_resort() -> None:
    """GIVEN no call of the function itself WHEN scanned THEN the first that follows a call."""
    stack = _Stack(_OTHER + 0x11, _CALLED_POINTER, _CALLED_CALLER)

    assert _row(stack, _musl()) == _scanned(2)


def test_a_frame_pointer_comes_before_the_last_resort() -> None:
    """GIVEN a caller by rbp and one by the stack, neither proven THEN the one by rbp."""
    stack = _Stack(_CALLED_POINTER, 0, _SP + 64, _CALLED_POINTER)
    row = _row(stack, _musl(), is_exact=False, fp=_SP + 16)

    assert row == _BY_FRAME_POINTER._replace(flags=Flag.GUESSED)


def test_a_proven_call_comes_before_a_frame_pointer() -> None:
    stack = _Stack(_CALLED_LEAF, 0, _SP + 64, _CALLED_POINTER)

    assert _row(stack, _musl(), is_exact=False, fp=_SP + 16) == _scanned(1)


def test_jits_have_frame_pointers() -> None:
    """GIVEN made code that calls by what looks proven WHEN it has a frame pointer THEN that."""
    stack = _Stack(_CALLED_LEAF, 0, _SP + 64, _CALLED_POINTER)
    row = _row(stack, _musl(), is_exact=False, fp=_SP + 16, is_jit=True)

    assert row == _BY_FRAME_POINTER._replace(flags=Flag.GUESSED)


@pytest.mark.parametrize("fp", [0, _SP - 8, _SP + 8, _SP + 24, _SP + 800, (1 << 64) - 8])
def test_a_frame_pointer_that_leads_to_no_call_is_none(fp: int) -> None:
    stack = _Stack(_CALLED_POINTER, 0, 0, 0x2323)

    assert _row(stack, _musl(), is_exact=False, fp=fp, is_jit=True) == _scanned(1)


def test_where_the_program_was_interrupted_it_may_have_no_frame_pointer_yet() -> None:
    stack = _Stack(_CALLED_POINTER, 0, _SP + 64, _CALLED_POINTER)

    assert _row(stack, _musl(), fp=_SP + 16) == _scanned(1)


def test_no_guess_at_all() -> None:
    assert _row(_Stack(), _musl()) is None
    assert _row(_Stack(1, 2, 3, _LEAF + 3), _musl()) is None
    assert (
        guessed(Point(_LEAF, True, {31: _SP}), _Stack(_CALLED_LEAF), _musl(), AARCH64, False)
        is None
    )


# --- what the code proves ---


def test_code_that_sets_up_a_frame_pointer_is_no_guess() -> None:
    """GIVEN push %rbp; mov %rsp,%rbp WHEN a call comes later THEN rbp, and no mark of a guess."""
    code = _Code({_LEAF: bytes.fromhex("f30f1efa 55 4889e5"), _CALLER: b""})

    assert _row(_Stack(), code, is_exact=False, fp=_SP + 64) == _BY_FRAME_POINTER
    # as its first instruction says nothing of where it was interrupted
    assert _row(_Stack(), code, is_exact=True, fp=_SP + 64) is None
    # and a call before that had no frame pointer
    assert _row(_Stack(), code, pc=_LEAF + 7, is_exact=False, fp=_SP + 64) is None
    # one below the stack pointer is used for something else
    assert _row(_Stack(), code, is_exact=False, fp=_SP - 8) is None
    code.is_named = False
    assert _row(_Stack(), code, is_exact=False, fp=_SP + 64) is None


_SETUP = bytes.fromhex("55 4889e5")
_FURTHER = 0x900


@pytest.mark.parametrize(
    ("before", "is_named", "words"),
    [
        (_SETUP, False, None),
        # which has a name, and so a beginning without one
        (_SETUP, True, 1),
        # what is between two functions ends the first
        (_SETUP + b"\xcc" * 16, False, 1),
        (b"", False, 1),
    ],
    ids=["set up", "named", "another function's", "not set up"],
)
def test_a_function_without_a_name_may_have_set_up_a_frame_pointer(
    before: bytes, is_named: bool, words: int | None
) -> None:
    """GIVEN a call that looks proven, and a frame pointer THEN the code before says which."""
    pieces = {
        _LEAF: b"\x90" * 0x850 + before.ljust(0xB0, b"\x89"),
        _CALLER: b"\x90" * 0x20 + _call(_CALLER + 0x20, _LEAF),
        _OTHER: b"\x90" * 0x20 + b"\xff\xd0",
    }
    code = _Code(pieces)
    code.is_named = is_named
    stack = _Stack(_CALLED_LEAF, 0, _SP + 64, _CALLED_POINTER)
    row = _row(stack, code, pc=_LEAF + _FURTHER, is_exact=False, fp=_SP + 16)

    by_frame_pointer = _BY_FRAME_POINTER._replace(flags=Flag.GUESSED)
    assert row == (by_frame_pointer if words is None else _scanned(words))


@pytest.mark.parametrize("is_exact", [True, False])
def test_what_handlers_return_to_leads_to_what_was_interrupted(is_exact: bool) -> None:
    code = _Code({_LEAF: bytes.fromhex("48c7c00f0000000f05")})

    assert _row(_Stack(), code, pc=_LEAF, is_exact=is_exact) == Row(
        From.SP,
        160,
        From.SP,
        168,
        From.SP,
        120,
        Flag.CFA_IN_MEMORY | Flag.SIGNAL | Flag.OTHER_STACK,
    )


def test_trampolines_of_python_have_two_words() -> None:
    code = _Code({_LEAF: bytes.fromhex("f30f1efa 4883ec08 ffd1 4883c408 c3")})

    assert _row(_Stack(), code, pc=_LEAF + 10, is_exact=False) == Row(From.SP, 16, From.CFA, -8)
    assert _row(_Stack(), code, pc=_LEAF + 9, is_exact=False) is None


# --- hostile programs ---


def test_a_stack_of_return_addresses_is_not_looked_through_for_ever() -> None:
    """GIVEN a deep stack on which every word follows a call THEN as many are read as agreed on."""
    code = _musl()
    assert _row(_Stack(*[_CALLED_CALLER] * 10_000), code) == _scanned(1)
    assert code.reads < 4 * 576
    assert _row(_Stack(*[0] * 600, _CALLED_LEAF), code) is None


def test_the_function_that_is_left_is_looked_up_once() -> None:
    """GIVEN many calls on the stack, all of something else THEN names are asked for a few times."""
    code = _musl()
    assert _row(_Stack(*[_CALLED_CALLER] * 576), code) == _scanned(1)
    assert code.lookups < 5


class _Hostile:
    """Answers anything at any address."""

    def __init__(self, code: bytes, start: int | None) -> None:
        self._code = code
        self._start = start

    def read(self, address: int, size: int) -> bytes:
        return self._code[:size] if len(self._code) >= size else b""

    def function_start(self, address: int) -> int | None:
        return self._start

    def is_code(self, address: int) -> bool:
        return True


words = st.integers(0, (1 << 64) - 1)


@given(
    st.lists(words, max_size=20),
    st.binary(max_size=64)
    | st.sampled_from([b"\x90\x90\xe8" + b"\x7f" * 60, b"\xff\x25" + b"\xff" * 60]),
    st.none() | words,
    words,
    words,
    st.booleans(),
    st.booleans(),
)
def test_nothing_is_raised_whatever_is_there(
    stack: list[int],
    content: bytes,
    start: int | None,
    pc: int,
    fp: int,
    is_exact: bool,
    is_jit: bool,
) -> None:
    point = Point(pc, is_exact, {_RSP: _SP, _RBP: fp})
    row = guessed(point, _Stack(*stack), _Hostile(content, start), X86_64, is_jit)
    assert row is None or len(row.packed()) == 16
