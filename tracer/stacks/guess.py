"""
Leaving frames of code that has no unwind table: C libraries built without, JITs, assembly.

What the code itself proves is taken first. Then a guess must at least lead to an instruction after
a call, and is marked as one.
"""

from __future__ import annotations

from typing import Protocol

from tracer.stacks.machine_code import (
    LONGEST_CALL,
    PLT_STUB_BYTES,
    PROLOGUE_BYTES,
    PUSH_BYTES,
    SIGNAL_RETURN_BYTES,
    TRAMPOLINE_BYTES,
    called_address,
    ends_in_call,
    is_python_trampoline,
    linkage_slot,
    may_keep_frame_pointer,
    returns_from_signal,
    saves_frame_pointer,
    sets_up_frame_pointer,
)
from tracer.stacks.registers import Registers
from tracer.stacks.row import Flag, From, Row
from tracer.stacks.unwinder import Point, StackMemory

_WORD = 8
# Words of the stack that are looked through: no function of musl's keeps more than PATH_MAX there.
_SCANNED_WORDS = 576
# A function of which nothing tells the size is taken to be no longer.
_FUNCTION_BYTES_MAX = 1 << 16
# How far back the beginning of such a function is looked for.
_SEARCHED_BYTES = 2048
# arch/x86/include/uapi/asm/sigcontext.h, from the ucontext on which a handler returns: the
# interrupted stack pointer, program counter and frame pointer
_SIGNAL_SP, _SIGNAL_PC, _SIGNAL_FP = 160, 168, 120

_BY_FRAME_POINTER = Row(From.FP, 2 * _WORD, From.CFA, -_WORD, From.CFA, -2 * _WORD)
_FROM_SIGNAL = Row(
    From.SP,
    _SIGNAL_SP,
    From.SP,
    _SIGNAL_PC,
    From.SP,
    _SIGNAL_FP,
    Flag.CFA_IN_MEMORY | Flag.SIGNAL | Flag.OTHER_STACK,
)
_FROM_TRAMPOLINE = Row(From.SP, 2 * _WORD, From.CFA, -_WORD)


class CodeMemory(Protocol):
    """The code of a program."""

    def read(self, address: int, size: int) -> bytes:
        """Exactly so many bytes, or none."""

    def function_start(self, address: int) -> int | None:
        """Where the function at an address begins, if that is known."""

    def is_code(self, address: int) -> bool:
        """Whether anything there can be executed."""


def guessed(
    point: Point, stack: StackMemory, code: CodeMemory, registers: Registers, is_jit: bool
) -> Row | None:
    """The row for the frame at `point`; None if not even a guess is to be had. x86-64 only."""
    if registers.link is not None:
        return None
    proven = _proven(point, code, registers)
    if proven is not None:
        return proven
    by_frame_pointer = None if point.is_exact else _by_frame_pointer(point, stack, code, registers)
    if by_frame_pointer is not None and (is_jit or _may_keep_frame_pointer(point, code)):
        return by_frame_pointer
    return (
        _by_scan(point, stack, code, registers, only_proven=True)
        or by_frame_pointer
        or _by_scan(point, stack, code, registers, only_proven=False)
    )


def _proven(point: Point, code: CodeMemory, registers: Registers) -> Row | None:
    if returns_from_signal(code.read(point.pc, SIGNAL_RETURN_BYTES)):
        return _FROM_SIGNAL
    if point.is_exact:
        return None
    if is_python_trampoline(code.read(point.pc - TRAMPOLINE_BYTES, TRAMPOLINE_BYTES)):
        return _FROM_TRAMPOLINE
    start = code.function_start(point.pc - 1)
    if start is None or not start < point.pc:
        return None
    if point.registers.get(registers.fp, 0) < point.registers[registers.sp]:
        return None
    prologue = code.read(start, min(point.pc - start, PROLOGUE_BYTES))
    return _BY_FRAME_POINTER if sets_up_frame_pointer(prologue) else None


def _may_keep_frame_pointer(point: Point, code: CodeMemory) -> bool:
    """By the code before, of a function that begins nobody knows where."""
    before = code.read(point.pc - _SEARCHED_BYTES, _SEARCHED_BYTES)
    return code.function_start(point.pc - 1) is None and may_keep_frame_pointer(before)


def _by_frame_pointer(
    point: Point, stack: StackMemory, code: CodeMemory, registers: Registers
) -> Row | None:
    fp, sp = point.registers.get(registers.fp, 0), point.registers[registers.sp]
    ra = stack.word(fp + _WORD) if fp >= sp else None
    if ra is None or not _follows_call(ra, code):
        return None
    return _BY_FRAME_POINTER._replace(flags=Flag.GUESSED)


def _by_scan(
    point: Point,
    stack: StackMemory,
    code: CodeMemory,
    registers: Registers,
    only_proven: bool,
) -> Row | None:
    """By the first word on the stack that a call has left there, if it called this function."""
    sp = point.registers[registers.sp]
    start = code.function_start(point.pc - 1)
    for at in range(_SCANNED_WORDS):
        word = stack.word(sp + at * _WORD)
        if word is None:
            return None
        if not code.is_code(word - 1):
            continue
        if _called(word, point.pc, start, code) if only_proven else _follows_call(word, code):
            return _scanned_row(at, start, code)
    return None


def _scanned_row(words: int, start: int | None, code: CodeMemory) -> Row:
    """The return address is so many words up; `start` is where the function begins, if known."""
    row = Row(From.SP, (words + 1) * _WORD, From.CFA, -_WORD, flags=Flag.GUESSED)
    if start is not None and saves_frame_pointer(code.read(start, PUSH_BYTES)):
        return row._replace(fp_from=From.CFA, fp_offset=-2 * _WORD)
    # what it did with the frame pointer is unknown; most leave it alone
    return row


def _follows_call(address: int, code: CodeMemory) -> bool:
    before = code.read(address - LONGEST_CALL, LONGEST_CALL)
    return bool(before) and ends_in_call(before)


def _called(return_address: int, pc: int, start: int | None, code: CodeMemory) -> bool:
    """
    Whether the call before `return_address` is of the function that `pc` is in.

    That begins at `start`, if it is known where.
    """
    before = code.read(return_address - LONGEST_CALL, LONGEST_CALL)
    called = called_address(before, return_address) if before else None
    if called is None:
        return False
    slot = linkage_slot(code.read(called, PLT_STUB_BYTES), called)
    if slot is not None:
        called = int.from_bytes(code.read(slot, _WORD), "little")
    if start is not None:
        return called == start
    return called < pc < called + _FUNCTION_BYTES_MAX
