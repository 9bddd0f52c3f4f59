"""
Call frame information: at a program counter, where the caller's registers are.

The sections .eh_frame and .eh_frame_hdr are described in the Linux Standard Base, Core, chapters
"Exception Frames" and "DWARF Extensions", the instructions in DWARF 5, 6.4.2 and 7.24.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, Union

from tracer.stacks.elf import ElfError
from tracer.stacks.frame_entry import Cie, Fde
from tracer.stacks.leb import Cursor

# Compilers nest one deep.
_REMEMBERED_MAX = 32
_REGISTERS_MAX = 128
# Of all expressions that hold at one address; glibc's signal frame, which has the most, has 60.
_EXPRESSIONS_BYTES_MAX = 1024

_ADVANCE_LOC, _OFFSET, _RESTORE = 0x40, 0x80, 0xC0
_NOP, _SET_LOC = 0x00, 0x01
_ADVANCES = {0x02: 1, 0x03: 2, 0x04: 4}
_OFFSET_EXTENDED, _RESTORE_EXTENDED, _UNDEFINED, _SAME_VALUE = 0x05, 0x06, 0x07, 0x08
_REGISTER, _REMEMBER_STATE, _RESTORE_STATE = 0x09, 0x0A, 0x0B
_DEF_CFA, _DEF_CFA_REGISTER, _DEF_CFA_OFFSET, _DEF_CFA_EXPRESSION = 0x0C, 0x0D, 0x0E, 0x0F
_EXPRESSION, _OFFSET_EXTENDED_SF = 0x10, 0x11
_DEF_CFA_SF, _DEF_CFA_OFFSET_SF = 0x12, 0x13
_VAL_OFFSET, _VAL_OFFSET_SF, _VAL_EXPRESSION = 0x14, 0x15, 0x16
# on aarch64 the return address is signed from here on, or no longer
_NEGATE_RA_STATE, _GNU_ARGS_SIZE = 0x2D, 0x2E


class Kind(enum.Enum):
    """What a rule says of a register of the caller."""

    UNDEFINED = "cannot be had"
    SAME = "has not changed"
    OFFSET = "in memory, at CFA + operand"
    VALUE_OFFSET = "is CFA + operand"
    REGISTER = "is in the register that the operand numbers"
    EXPRESSION = "in memory, where the operand computes"
    VALUE_EXPRESSION = "is what the operand computes"


class Rule(NamedTuple):
    kind: Kind
    operand: int | bytes = 0


class CfaRule(NamedTuple):
    """The CFA is the value of a register plus an offset in bytes."""

    register: int
    offset: int


Cfa = Union[CfaRule, bytes, None]


class Rules(NamedTuple):
    """
    All that is known at one address.

    `cfa` is a CfaRule or a DWARF expression. A register without a rule has not changed.
    `return_column` is the register whose rule tells the return address; in a signal frame that is
    where the caller was interrupted.
    """

    cfa: CfaRule | bytes
    registers: dict[int, Rule]
    return_column: int
    is_signal: bool


class _State:
    """The rules while the instructions up to an address are carried out."""

    def __init__(self, cie: Cie, location: int) -> None:
        self._cie = cie
        self.location = location
        self.cfa: Cfa = None
        self.rules: dict[int, Rule] = {}
        self._initial: dict[int, Rule] = {}
        self._remembered: list[tuple[Cfa, dict[int, Rule]]] = []

    def run(self, instructions: bytes, until: int) -> None:
        """Stop before what holds only beyond the address `until`."""
        cursor = Cursor(instructions)
        while not cursor.at_end:
            if not self._carry_out(cursor, until):
                return
            if len(self.rules) > _REGISTERS_MAX or len(self._remembered) > _REMEMBERED_MAX:
                raise ElfError("frame rules that pile up")

    def begin_function(self) -> None:
        """What the CIE says is what functions restore."""
        self._initial = dict(self.rules)

    def _carry_out(self, cursor: Cursor, until: int) -> bool:
        """One instruction; False if it is for later addresses."""
        code = cursor.byte()
        operand = code & 0x3F
        if code & 0xC0 == _ADVANCE_LOC:
            return self._advance(operand, until)
        if code in _ADVANCES:
            return self._advance(cursor.integer(_ADVANCES[code]), until)
        if code == _SET_LOC:
            self.location = self._cie.pointer(cursor)
            return self.location <= until
        if code & 0xC0 == _OFFSET:
            self._at_offset(operand, cursor.uleb())
        elif code & 0xC0 == _RESTORE:
            self._restore(operand)
        elif _DEF_CFA <= code <= _DEF_CFA_EXPRESSION or code in (_DEF_CFA_SF, _DEF_CFA_OFFSET_SF):
            self._define_cfa(code, cursor)
        elif code == _REMEMBER_STATE:
            self._remembered.append((self.cfa, dict(self.rules)))
        elif code == _RESTORE_STATE:
            if not self._remembered:
                raise ElfError("a state is restored that was not remembered")
            self.cfa, self.rules = self._remembered.pop()
        elif code == _GNU_ARGS_SIZE:
            cursor.uleb()
        elif code not in (_NOP, _NEGATE_RA_STATE):
            self._set_rule(code, cursor.uleb(), cursor)
        return True

    def _advance(self, delta: int, until: int) -> bool:
        self.location += delta * self._cie.code_alignment
        return self.location <= until

    def _at_offset(self, register: int, factored: int) -> None:
        self.rules[register] = Rule(Kind.OFFSET, factored * self._cie.data_alignment)

    def _restore(self, register: int) -> None:
        if register in self._initial:
            self.rules[register] = self._initial[register]
        else:
            self.rules.pop(register, None)

    def _define_cfa(self, code: int, cursor: Cursor) -> None:
        if code == _DEF_CFA_EXPRESSION:
            self.cfa = cursor.block()
        elif code == _DEF_CFA:
            self.cfa = CfaRule(cursor.uleb(), cursor.uleb())
        elif code == _DEF_CFA_SF:
            self.cfa = CfaRule(cursor.uleb(), cursor.sleb() * self._cie.data_alignment)
        elif not isinstance(self.cfa, CfaRule):
            raise ElfError("half of the CFA is changed where there is no whole")
        elif code == _DEF_CFA_REGISTER:
            self.cfa = self.cfa._replace(register=cursor.uleb())
        elif code == _DEF_CFA_OFFSET:
            self.cfa = self.cfa._replace(offset=cursor.uleb())
        else:
            self.cfa = self.cfa._replace(offset=cursor.sleb() * self._cie.data_alignment)

    def _set_rule(self, code: int, register: int, cursor: Cursor) -> None:
        if code == _OFFSET_EXTENDED:
            self._at_offset(register, cursor.uleb())
        elif code == _OFFSET_EXTENDED_SF:
            self._at_offset(register, cursor.sleb())
        elif code == _RESTORE_EXTENDED:
            self._restore(register)
        elif code == _SAME_VALUE:
            self.rules[register] = Rule(Kind.SAME)
        elif code == _UNDEFINED:
            self.rules[register] = Rule(Kind.UNDEFINED)
        elif code == _REGISTER:
            self.rules[register] = Rule(Kind.REGISTER, cursor.uleb())
        elif code in (_VAL_OFFSET, _VAL_OFFSET_SF):
            factored = cursor.uleb() if code == _VAL_OFFSET else cursor.sleb()
            self.rules[register] = Rule(Kind.VALUE_OFFSET, factored * self._cie.data_alignment)
        elif code in (_EXPRESSION, _VAL_EXPRESSION):
            kind = Kind.EXPRESSION if code == _EXPRESSION else Kind.VALUE_EXPRESSION
            self.rules[register] = Rule(kind, cursor.block())
        else:
            raise ElfError(f"call frame instruction {code:#x}")


def rules_at(fde: Fde, address: int) -> Rules:
    """
    The rules at an address of the function.

    Raises ElfError if the instructions are malformed.
    """
    state = _State(fde.cie, fde.start)
    state.run(fde.cie.instructions, until=fde.start)
    state.begin_function()
    state.run(fde.instructions, until=address)
    if state.cfa is None:
        raise ElfError("a frame without CFA")
    operands = [state.cfa, *(rule.operand for rule in state.rules.values())]
    if sum(len(one) for one in operands if isinstance(one, bytes)) > _EXPRESSIONS_BYTES_MAX:
        raise ElfError("expressions that pile up")
    return Rules(state.cfa, state.rules, fde.cie.return_column, fde.cie.is_signal)
