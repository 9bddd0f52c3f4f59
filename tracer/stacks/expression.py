"""
DWARF expressions, as unwind tables use them: DWARF 5, 2.5 and 7.7.1.

One evaluator serves twice. With the registers of a stopped program it computes addresses; with
symbols in their place it finds out whether an expression is simple enough for a row.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from tracer.stacks.elf import ElfError
from tracer.stacks.leb import Cursor

_WORD = (1 << 64) - 1
_SIGN = 1 << 63
# Compilers need four.
_STACK_MAX = 64

_FIXED = {0x08: (1, False), 0x09: (1, True), 0x0A: (2, False), 0x0B: (2, True)}
_FIXED.update({0x0C: (4, False), 0x0D: (4, True), 0x0E: (8, False), 0x0F: (8, True)})
_DEREF, _CONSTU, _CONSTS, _DUP, _DROP, _OVER, _SWAP = 0x06, 0x10, 0x11, 0x12, 0x13, 0x14, 0x16
_MINUS, _PLUS, _PLUS_UCONST = 0x1C, 0x22, 0x23
_LIT0, _BREG0, _NUMBERS, _BREGX, _NOP = 0x30, 0x70, 32, 0x92, 0x96


def _signed(word: int) -> int:
    return word - (1 << 64) if word & _SIGN else word


_BINARY: dict[int, Callable[[int, int], int]] = {
    0x1A: lambda a, b: a & b,
    0x1E: lambda a, b: a * b,
    0x21: lambda a, b: a | b,
    0x24: lambda a, b: a << b if b < 64 else 0,
    0x25: lambda a, b: a >> b if b < 64 else 0,
    0x26: lambda a, b: _signed(a) >> min(b, 63),
    0x27: lambda a, b: a ^ b,
    0x29: lambda a, b: int(a == b),
    0x2A: lambda a, b: int(_signed(a) >= _signed(b)),
    0x2B: lambda a, b: int(_signed(a) > _signed(b)),
    0x2C: lambda a, b: int(_signed(a) <= _signed(b)),
    0x2D: lambda a, b: int(_signed(a) < _signed(b)),
    0x2E: lambda a, b: int(a != b),
}


class Symbolic(NamedTuple):
    """A register, or the word in memory there, plus a constant."""

    base: object
    offset: int = 0
    in_memory: bool = False

    def plus(self, number: int) -> Symbolic:
        if self.in_memory:
            raise ElfError("the sum of a word in memory")
        return self._replace(offset=self.offset + _signed(number & _WORD))


def dereferenced(value: object) -> Symbolic:
    """For :func:`evaluate` with symbols: the word there. Raises ElfError if none can tell where."""
    if not isinstance(value, Symbolic) or value.in_memory:
        raise ElfError("a word at an address that no register tells")
    return value._replace(in_memory=True)


def evaluate(
    code: bytes,
    register: Callable[[int], Any],
    read: Callable[[Any], Any],
    initial: Any = None,
) -> Any:
    """
    What is on top of the stack at the end: an int of 64 bits, or a Symbolic.

    `register` gives the value of a register, `read` the word at an address; `initial` is on the
    stack at the beginning unless it is None. Raises ElfError if it is malformed, or does
    with symbols what only numbers allow. There are no loops: it takes as long as it is.
    """
    cursor = Cursor(code)
    stack = [] if initial is None else [initial]
    while not cursor.at_end:
        try:
            _step(cursor, stack, register, read)
        except IndexError:
            raise ElfError("an expression without operands") from None
        if len(stack) > _STACK_MAX:
            raise ElfError("an expression that piles up")
    if not stack:
        raise ElfError("an expression without result")
    return stack[-1]


def _step(
    cursor: Cursor, stack: list[Any], register: Callable[[int], Any], read: Callable[[Any], Any]
) -> None:
    operation = cursor.byte()
    if operation in _FIXED:
        size, is_signed = _FIXED[operation]
        stack.append(cursor.integer(size, is_signed) & _WORD)
    elif _LIT0 <= operation < _LIT0 + _NUMBERS:
        stack.append(operation - _LIT0)
    elif _BREG0 <= operation < _BREG0 + _NUMBERS:
        stack.append(_sum(register(operation - _BREG0), cursor.sleb()))
    elif operation == _BREGX:
        number = cursor.uleb()
        stack.append(_sum(register(number), cursor.sleb()))
    elif operation == _DEREF:
        stack.append(read(stack.pop()))
    elif operation == _CONSTU:
        stack.append(cursor.uleb() & _WORD)
    elif operation == _CONSTS:
        stack.append(cursor.sleb() & _WORD)
    elif operation == _PLUS_UCONST:
        stack.append(_sum(stack.pop(), cursor.uleb()))
    elif operation != _NOP:
        _rearrange(operation, stack)


def _rearrange(operation: int, stack: list[Any]) -> None:
    if operation == _DUP:
        stack.append(stack[-1])
    elif operation == _OVER:
        stack.append(stack[-2])
    elif operation == _DROP:
        stack.pop()
    elif operation == _SWAP:
        stack[-1], stack[-2] = stack[-2], stack[-1]
    else:
        right, left = stack.pop(), stack.pop()
        stack.append(_combined(operation, left, right))


def _combined(operation: int, left: Any, right: Any) -> Any:
    if operation == _PLUS:
        return _sum(right, left) if isinstance(left, int) else _sum(left, right)
    if not isinstance(right, int):
        raise ElfError("an operation on two registers")
    if operation == _MINUS:
        return _sum(left, -right)
    if operation not in _BINARY or not isinstance(left, int):
        raise ElfError(f"operation {operation:#x}")
    return _BINARY[operation](left, right) & _WORD


def _sum(value: Any, number: Any) -> Any:
    if not isinstance(number, int):
        raise ElfError("the sum of two registers")
    return value.plus(number) if isinstance(value, Symbolic) else (value + number) & _WORD
