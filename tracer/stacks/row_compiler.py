"""From the rules of unwind tables to rows for the kernel."""

from __future__ import annotations

from tracer.stacks.cfi import CfaRule, Kind, Rule, Rules
from tracer.stacks.elf import ElfError
from tracer.stacks.expression import Symbolic, dereferenced, evaluate
from tracer.stacks.registers import Registers
from tracer.stacks.row import NEEDS_REGISTERS, OUTERMOST, Flag, From, Row, fits

_CFA = Symbolic("CFA")


def compiled(rules: Rules, registers: Registers, address: int) -> Row:
    """
    The row that says the same as the rules at a link-time `address`.

    NEEDS_REGISTERS if none does: where more than the stack and frame pointer counts.
    """
    rule = rules.registers.get(rules.return_column)
    if rule is not None and rule.kind is Kind.UNDEFINED:
        return OUTERMOST
    try:
        return _Compiler(registers, address).row(rules)
    except ElfError:
        return NEEDS_REGISTERS


class _Compiler:
    """Raises ElfError where a row cannot say it."""

    def __init__(self, registers: Registers, address: int) -> None:
        self._registers = registers
        self._address = address

    def row(self, rules: Rules) -> Row:
        cfa = self._cfa(rules.cfa)
        cfa_from = self._from(cfa)
        if cfa_from is From.CFA:
            raise ElfError("a CFA that depends on itself")
        ra_from, ra_offset = self._return_address(rules)
        fp_from, fp_offset = self._saved(rules.registers.get(self._registers.fp))
        if not fits(cfa.offset, ra_offset, fp_offset):
            raise ElfError("a frame of gigabytes")
        flags = Flag.CFA_IN_MEMORY if cfa.in_memory else Flag.NONE
        if rules.is_signal:
            # which may run on a stack of its own
            flags |= Flag.SIGNAL | Flag.OTHER_STACK
        return Row(cfa_from, cfa.offset, ra_from, ra_offset, fp_from, fp_offset, flags)

    def _cfa(self, cfa: CfaRule | bytes) -> Symbolic:
        if isinstance(cfa, CfaRule):
            return Symbolic(cfa.register, cfa.offset)
        return self._evaluated(cfa, None)

    def _return_address(self, rules: Rules) -> tuple[From, int]:
        rule = rules.registers.get(rules.return_column)
        if rule is None or rule.kind is Kind.SAME:
            if rules.return_column != self._registers.link:
                raise ElfError("a return address that is nowhere")
            return From.LINK, 0
        return self._saved(rule)

    def _saved(self, rule: Rule | None) -> tuple[From, int]:
        """Where in memory a register of the caller is; NOTHING: it has not changed."""
        # one that cannot be had is one that nobody needs: the caller does not unwind by it
        if rule is None or rule.kind in (Kind.SAME, Kind.UNDEFINED):
            return From.NOTHING, 0
        if rule.kind is Kind.OFFSET and isinstance(rule.operand, int):
            return From.CFA, rule.operand
        if rule.kind is Kind.EXPRESSION and isinstance(rule.operand, bytes):
            place = self._evaluated(rule.operand, _CFA)
            if not place.in_memory:
                return self._from(place), place.offset
        raise ElfError("a register that is not in memory")

    def _evaluated(self, expression: bytes, initial: Symbolic | None) -> Symbolic:
        value = evaluate(expression, self._register, dereferenced, initial)
        if not isinstance(value, Symbolic):
            raise ElfError("a fixed address")
        return value

    def _register(self, number: int) -> Symbolic | int:
        # only the low bits are ever asked for, which are the same wherever the code is loaded
        return self._address if number == self._registers.pc else Symbolic(number)

    def _from(self, value: Symbolic) -> From:
        names = {self._registers.sp: From.SP, self._registers.fp: From.FP, _CFA.base: From.CFA}
        if value.base not in names:
            raise ElfError("a frame found by another register")
        return names[value.base]
