"""
Unwinding a stack from a copy of it, and the rows with which the kernel does it next time.

What the kernel walks by rows is walked here by the same rules, with all registers: so a frame
that is found by another register than the stack or frame pointer is found as well.
"""

from __future__ import annotations

import struct
import time
from typing import NamedTuple, Protocol, Union

from tracer.core.events import StackCopy, WalkEnd
from tracer.core.wire import EXACT_PC, FRAMES_MAX
from tracer.stacks.cfi import CfaRule, Kind, Rule, Rules
from tracer.stacks.elf import ElfError
from tracer.stacks.expression import evaluate
from tracer.stacks.registers import OWN, Registers
from tracer.stacks.row import UNKNOWN, Flag, From, Row
from tracer.stacks.row_compiler import compiled

_WORD = struct.Struct("<Q")
# Of this thread's own time. A program's first stack takes some milliseconds, on an emulated
# machine half a second; tables that were made to take longer are not read to their end.
_BUDGET_S = 1.0
_PAGE = 4096
_ADDRESS_MAX = (1 << 64) - 1


class Point(NamedTuple):
    """
    Where a frame is: a program counter, and the registers that are known there, by number.

    `is_exact`: the program was interrupted at `pc`; otherwise a call before `pc` has not returned.
    """

    pc: int
    is_exact: bool
    registers: dict[int, int]


class TableRules(NamedTuple):
    """What an unwind table says, and for which link-time address."""

    rules: Rules
    address: int


Leaving = Union[TableRules, Row]


class StackMemory(Protocol):
    """The stack as it was."""

    def word(self, address: int) -> int | None:
        """8 bytes as a number; None if they are not known."""


class Code(Protocol):
    """The program that runs."""

    def leaving(self, point: Point, stack: StackMemory) -> Leaving | None:
        """How to leave the frame there; None if nothing tells."""


class Unwinding(NamedTuple):
    """
    What came of it.

    `frames` are program counters that come after the first `kept` ones of the kernel's walk, and
    `end` says why there are no more. `rows` are those of all frames met, by the pc as the kernel
    has it.
    """

    kept: int
    frames: tuple[int, ...]
    end: WalkEnd
    guessed: bool
    rows: dict[int, Row]


class _Stop(Exception):
    def __init__(self, end: WalkEnd) -> None:
        super().__init__(end.name)
        self.end = end


class _Copy:
    """The copied part of a stack; `other_stack`: where the frames are now may be another."""

    def __init__(self, copy: StackCopy) -> None:
        self.other_stack = False
        self._content = copy.content
        self._base = copy.base
        self._is_cut = copy.is_cut
        self._present = copy.present
        # a copy that begins with a whole page has nothing before it
        self._first_page = (copy.base - 1) // _PAGE

    def word(self, address: int) -> int | None:
        offset = address - self._base
        if not 0 <= offset <= len(self._content) - _WORD.size:
            return None
        if not self._present >> address // _PAGE - self._first_page & 1:
            return None
        return int(_WORD.unpack_from(self._content, offset)[0])

    def need(self, address: int) -> int:
        found = self.word(address)
        if found is None:
            is_beyond = self.other_stack or (self._is_cut and address >= self._base)
            raise _Stop(WalkEnd.NOT_COPIED if is_beyond else WalkEnd.UNREADABLE)
        return found


def unwind(copy: StackCopy, code: Code, registers: Registers = OWN) -> Unwinding:
    """
    All frames: from the call on, or where that is not in the copy from where the walk ended.

    Never raises: a frame that cannot be left is the last one, and `end` says why.
    """
    return _Unwinder(copy, code, registers).run()


class _Unwinder:
    def __init__(self, copy: StackCopy, code: Code, registers: Registers) -> None:
        self._code = code
        self._stack = _Copy(copy)
        self._registers = registers
        self._rows: dict[int, Row] = {}
        self._guessed = False
        self._kept = 0
        self._point = self._start(copy)

    def _start(self, copy: StackCopy) -> Point:
        """At the call if its stack was copied, since all registers are known there."""
        numbers = self._registers
        sp = copy.registers[numbers.sp]
        if copy.base == sp:
            known = dict(enumerate(copy.registers[: numbers.pc]))
            return Point(copy.registers[numbers.pc], True, known)
        self._kept = copy.frames
        return Point(copy.pc, copy.is_exact, {numbers.sp: copy.sp, numbers.fp: copy.fp})

    def run(self) -> Unwinding:
        frames: list[int] = []
        end = WalkEnd.TOO_DEEP
        begin = time.thread_time()
        while self._kept + len(frames) < FRAMES_MAX:
            frames.append(self._point.pc)
            try:
                self._point = self._caller()
            except _Stop as stop:
                end = stop.end
                break
            if time.thread_time() - begin > _BUDGET_S:
                end = WalkEnd.TOO_SLOW
                # or each call from there would cost as much
                self._remember(self._point, UNKNOWN)
                break
        return Unwinding(self._kept, tuple(frames), end, self._guessed, self._rows)

    def _caller(self) -> Point:
        point = self._point
        leaving = self._code.leaving(point, self._stack)
        self._remember(point, leaving)
        if leaving is None or leaving == UNKNOWN:
            raise _Stop(WalkEnd.UNKNOWN)
        try:
            if isinstance(leaving, Row):
                caller = self._by_row(point, leaving)
            else:
                caller = self._by_rules(point, *leaving)
        except ElfError:
            raise _Stop(WalkEnd.UNKNOWN) from None
        except KeyError:
            # a register, of which only some are known where the walk ended
            raise _Stop(WalkEnd.NOT_COPIED if self._kept else WalkEnd.UNKNOWN) from None
        if not caller.pc:
            raise _Stop(WalkEnd.OUTERMOST)
        return caller

    def _remember(self, point: Point, leaving: Leaving | None) -> None:
        row = UNKNOWN if leaving is None else leaving
        if isinstance(row, TableRules):
            row = compiled(row.rules, self._registers, row.address)
        self._guessed |= bool(row.flags & Flag.GUESSED)
        self._rows[point.pc | EXACT_PC if point.is_exact else point.pc] = row

    # the same as leave_frame() in bpf/unwind.c

    def _by_row(self, point: Point, row: Row) -> Point:
        if row.cfa_from is From.NOTHING:
            raise _Stop(WalkEnd.OUTERMOST)
        numbers, known = self._registers, dict(point.registers)
        bases = {From.SP: known[numbers.sp]}
        if numbers.fp in known:
            bases[From.FP] = known[numbers.fp]
        self._stack.other_stack |= bool(row.flags & Flag.OTHER_STACK)
        cfa = bases[row.cfa_from] + row.cfa_offset & _ADDRESS_MAX
        if row.flags & Flag.CFA_IN_MEMORY:
            cfa = self._stack.need(cfa)
        bases[From.CFA] = cfa
        if row.ra_from is From.LINK:
            if numbers.link is None:
                raise _Stop(WalkEnd.UNKNOWN)
            ra = known[numbers.link]
        else:
            ra = self._stack.need(bases[row.ra_from] + row.ra_offset)
        if row.fp_from is not From.NOTHING:
            at = bases[row.fp_from] + row.fp_offset
            known[numbers.fp] = self._stack.need(at)
        elsewhere = bool(row.flags & Flag.OTHER_STACK)
        self._must_ascend(point, cfa, row.ra_from is From.LINK, elsewhere)
        known[numbers.sp] = cfa
        return self._called_from(ra, known, bool(row.flags & Flag.SIGNAL))

    def _by_rules(self, point: Point, rules: Rules, address: int) -> Point:
        column = rules.return_column
        return_rule = rules.registers.get(column)
        if return_rule is not None and return_rule.kind is Kind.UNDEFINED:
            raise _Stop(WalkEnd.OUTERMOST)
        numbers, known = self._registers, {**point.registers, self._registers.pc: address}
        cfa = self._cfa(rules.cfa, known)
        caller = dict(point.registers)
        caller[numbers.sp] = cfa
        for number, rule in rules.registers.items():
            value = self._value(rule, number, cfa, known)
            if value is None:
                caller.pop(number, None)
            else:
                caller[number] = value
        caller.setdefault(numbers.sp, cfa)
        is_in_link = return_rule is None or return_rule.kind is Kind.SAME
        # a handler may have a stack of its own
        self._stack.other_stack |= rules.is_signal
        self._must_ascend(point, cfa, is_in_link, rules.is_signal)
        return self._called_from(caller[column], caller, rules.is_signal)

    def _called_from(self, ra: int, known: dict[int, int], is_signal: bool) -> Point:
        numbers = self._registers
        if numbers.link is not None and not is_signal:
            known.pop(numbers.link, None)
        known.pop(numbers.pc, None)
        return Point(numbers.code_address(ra), is_signal, known)

    def _must_ascend(self, point: Point, cfa: int, has_no_frame: bool, elsewhere: bool) -> None:
        sp = point.registers[self._registers.sp]
        if not elsewhere and (cfa < sp or (cfa == sp and not has_no_frame)):
            raise _Stop(WalkEnd.BACKWARD)

    def _cfa(self, rule: CfaRule | bytes, known: dict[int, int]) -> int:
        if isinstance(rule, CfaRule):
            return known[rule.register] + rule.offset & _ADDRESS_MAX
        return int(evaluate(rule, known.__getitem__, self._stack.need))

    def _value(self, rule: Rule, number: int, cfa: int, known: dict[int, int]) -> int | None:
        kind, operand = rule
        if kind is Kind.UNDEFINED:
            return None
        if kind is Kind.SAME:
            return known.get(number)
        if isinstance(operand, bytes):
            value = int(evaluate(operand, known.__getitem__, self._stack.need, cfa))
            return self._stack.need(value) if kind is Kind.EXPRESSION else value
        if kind is Kind.REGISTER:
            return known[operand]
        value = cfa + operand & _ADDRESS_MAX
        return self._stack.need(value) if kind is Kind.OFFSET else value
