"""Rows say what unwind tables say, or that they cannot: by hand, and of real programs."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest
from frame_tables import TEXT, address_of, block, cie, elf, entries, frame_index, gcc, program, uleb
from hypothesis import given
from hypothesis import strategies as st

from tracer.core.wire import UNWIND_ROW
from tracer.stacks.cfi import CfaRule, Kind, Rule, Rules, rules_at
from tracer.stacks.elf import EM_AARCH64, ElfError, ElfFile
from tracer.stacks.expression import evaluate
from tracer.stacks.frame_entry import FrameTable
from tracer.stacks.registers import AARCH64, X86_64, Registers
from tracer.stacks.row import NEEDS_REGISTERS, OUTERMOST, Flag, From, Row
from tracer.stacks.row_compiler import compiled

_WORD = (1 << 64) - 1
_PUSHED = (From.CFA, -8)
# DW_CFA_offset(rip) at CFA-8 and nothing else
_RA = {16: Rule(Kind.OFFSET, -8)}


def _row(cfa: CfaRule | bytes, rules: dict[int, Rule], registers: Registers = X86_64) -> Row:
    column = 16 if registers is X86_64 else 30
    return compiled(Rules(cfa, rules, column, False), registers, 0x1020)


def _at(file: ElfFile, address: int, registers: Registers = X86_64) -> Row | None:
    fde = FrameTable(file).find(address)
    return None if fde is None else compiled(rules_at(fde, address), registers, address)


# --- by hand ---


@pytest.mark.parametrize(
    ("cfa", "rules", "row"),
    [
        (CfaRule(7, 8), {}, Row(From.SP, 8, *_PUSHED)),
        (CfaRule(6, 16), {6: Rule(Kind.OFFSET, -16)}, Row(From.FP, 16, *_PUSHED, From.CFA, -16)),
        (CfaRule(7, 64), {6: Rule(Kind.SAME)}, Row(From.SP, 64, *_PUSHED)),
        (CfaRule(7, 64), {6: Rule(Kind.UNDEFINED)}, Row(From.SP, 64, *_PUSHED)),
        (CfaRule(7, 64), {3: Rule(Kind.VALUE_EXPRESSION, b"")}, Row(From.SP, 64, *_PUSHED)),
        (b"\x77\x08", {}, Row(From.SP, 8, *_PUSHED)),
        (b"\x76\x78\x06", {}, Row(From.FP, -8, *_PUSHED, flags=Flag.CFA_IN_MEMORY)),
        (
            b"\x76\x78\x06",
            {6: Rule(Kind.EXPRESSION, b"\x76\x00")},
            Row(From.FP, -8, *_PUSHED, From.FP, 0, Flag.CFA_IN_MEMORY),
        ),
        (
            CfaRule(7, 64),
            {16: Rule(Kind.EXPRESSION, b"\x23\x10"), 6: Rule(Kind.EXPRESSION, b"\x77\x20")},
            Row(From.SP, 64, From.CFA, 16, From.SP, 32),
        ),
    ],
)
def test_rows_say_what_rules_say(cfa: CfaRule | bytes, rules: dict[int, Rule], row: Row) -> None:
    assert _row(cfa, {**_RA, **rules}) == row


def test_a_frame_without_caller_is_the_outermost() -> None:
    assert _row(CfaRule(7, 8), {16: Rule(Kind.UNDEFINED)}) == OUTERMOST


@pytest.mark.parametrize(
    ("cfa", "rules"),
    [
        (CfaRule(3, 8), _RA),
        (b"\x73\x08", _RA),
        (b"\x77\x00\x06\x06", _RA),
        (b"\x77\x00\x76\x00\x22", _RA),
        (b"\x31", _RA),
        (b"\x80\x00", _RA),
        (b"", _RA),
        (b"\xff", _RA),
        (CfaRule(7, 1 << 31), _RA),
        (CfaRule(7, -(1 << 31)), _RA),
        (CfaRule(7, _WORD), _RA),
        (CfaRule(7, 8), {}),
        (CfaRule(7, 8), {16: Rule(Kind.SAME)}),
        (CfaRule(7, 8), {16: Rule(Kind.REGISTER, 3)}),
        (CfaRule(7, 8), {16: Rule(Kind.VALUE_OFFSET, -8)}),
        (CfaRule(7, 8), {16: Rule(Kind.VALUE_EXPRESSION, b"\x77\x00")}),
        (CfaRule(7, 8), {16: Rule(Kind.EXPRESSION, b"\x77\x00\x06")}),
        (CfaRule(7, 8), {16: Rule(Kind.EXPRESSION, b"\x73\x00")}),
        (CfaRule(7, 8), {16: Rule(Kind.OFFSET, 1 << 66)}),
        (CfaRule(7, 8), {**_RA, 6: Rule(Kind.REGISTER, 3)}),
        (CfaRule(7, 8), {**_RA, 6: Rule(Kind.OFFSET, 1 << 31)}),
    ],
    ids=range(21),
)
def test_what_a_row_cannot_say_needs_registers(
    cfa: CfaRule | bytes, rules: dict[int, Rule]
) -> None:
    assert _row(cfa, rules) == NEEDS_REGISTERS


_rules = st.builds(
    Rule, st.sampled_from(Kind), st.integers(-(1 << 70), 1 << 70) | st.binary(max_size=12)
).filter(lambda rule: isinstance(rule.operand, bytes) == rule.kind.name.endswith("EXPRESSION"))


@given(
    st.builds(CfaRule, st.integers(0, 40), st.integers(-(1 << 70), 1 << 70))
    | st.binary(max_size=12),
    st.dictionaries(st.sampled_from([3, 6, 7, 16, 30]), _rules),
    st.sampled_from([X86_64, AARCH64]),
)
def test_any_rules_have_a_row_that_can_be_sent(
    cfa: CfaRule | bytes, rules: dict[int, Rule], registers: Registers
) -> None:
    assert len(_row(cfa, rules, registers).packed()) == UNWIND_ROW.size


# --- what gcc and linkers make ---

_USE = """
__attribute__((noinline)) void use(void *p) { __asm__ volatile("" :: "r"(p) : "memory"); }
int main(int n, char **v) { return n; }
"""


def _inside(path: Path, name: str) -> set[Row | None]:
    """The rows of a function."""
    file = elf(path.read_bytes())
    start, size = address_of(path, name)
    return {_at(file, start + offset) for offset in range(size)}


def test_a_realigned_stack_keeps_its_cfa_in_memory(tmp_path: Path) -> None:
    """GIVEN arguments on the stack, which gcc reaches by a saved register THEN the CFA is there."""
    source = (
        _USE
        + """
    int realigned(int a, int b, int c, int d, int e, int f, int g, int n) {
        int wide[16] __attribute__((aligned(64)));
        use(wide); use(__builtin_alloca(n)); use(wide);
        return g + wide[3];
    }
    """
    )
    rows = _inside(gcc(tmp_path, source), "realigned")

    in_memory = {row for row in rows if row is not None and row.flags & Flag.CFA_IN_MEMORY}
    assert {(row.cfa_from, row.ra_from, row.ra_offset) for row in in_memory} == {
        (From.FP, From.CFA, -8)
    }
    assert all(row.cfa_offset < 0 for row in in_memory)
    # what the saved rbp is measured from is rbp as well, since the CFA is further away
    assert {(row.fp_from, row.fp_offset) for row in in_memory} == {(From.FP, 0)}
    assert Row(From.SP, 8, *_PUSHED) in rows


def test_a_function_with_alloca_keeps_its_cfa_by_rbp(tmp_path: Path) -> None:
    source = _USE + "int growing(int n) { use(__builtin_alloca(n)); return n; }"
    rows = _inside(gcc(tmp_path, source), "growing")

    assert Row(From.FP, 16, *_PUSHED, From.CFA, -16) in rows
    assert None not in rows and NEEDS_REGISTERS not in rows


def test_entries_of_a_plt_are_right_on_both_sides_of_their_push(tmp_path: Path) -> None:
    """GIVEN lazy binding WHEN a slot has pushed its number, at byte 11 THEN the CFA is further."""
    source = '#include <stdio.h>\nint main(void) { return puts("23"); }'
    path = gcc(tmp_path, source, "-Wl,-z,lazy", "-fcf-protection=none")
    file = elf(path.read_bytes())
    plt = file.section(b".plt")
    assert plt is not None and plt.size == 32

    slot = [_at(file, plt.address + 16 + offset) for offset in range(16)]
    assert slot == [Row(From.SP, 8, *_PUSHED)] * 11 + [Row(From.SP, 16, *_PUSHED)] * 5
    first = [_at(file, plt.address + offset) for offset in (0, 5, 6, 15)]
    assert first == [Row(From.SP, 16, *_PUSHED)] * 2 + [Row(From.SP, 24, *_PUSHED)] * 2


def test_the_outermost_function_of_a_program(tmp_path: Path) -> None:
    path = gcc(tmp_path, _USE)
    file = elf(path.read_bytes())

    assert {_at(file, file.entry + offset) for offset in (0, 1, 20)} == {OUTERMOST}


def _libc() -> ElfFile:
    if platform.machine() != "x86_64":
        pytest.skip("registers of x86-64")
    for line in Path("/proc/self/maps").read_text().splitlines():
        if re.fullmatch(r"libc[.-].*", Path(line.split()[-1]).name):
            return elf(Path(line.split()[-1]).read_bytes())
    pytest.skip("this Python has no C library of its own")


def test_handlers_of_signals_return_to_what_was_interrupted() -> None:
    """GIVEN glibc's __restore_rt WHEN its row is made THEN it leads into the saved registers."""
    file = _libc()
    text = file.section(b".text")
    assert text is not None
    at = file.section_bytes(text, 1 << 24).find(bytes.fromhex("48c7c00f0000000f05"))
    if at < 0:
        pytest.skip("this C library has another sigreturn")

    row = _at(file, text.address + at)
    assert row == Row(
        From.SP,
        160,
        From.SP,
        168,
        From.SP,
        120,
        Flag.CFA_IN_MEMORY | Flag.SIGNAL | Flag.OTHER_STACK,
    )
    # glibc has it begin a byte early, for unwinders that look up the call before
    assert _at(file, text.address + at - 1) == row


class _Stack:
    """Registers and memory that are all different, wherever they are asked for."""

    sp, fp = 0x7FFF_1000, 0x7FFF_2000

    def register(self, number: int) -> int:
        return {7: self.sp, 6: self.fp}.get(number, 0x1000 * number)

    def word(self, address: int) -> int:
        return address * 0x9E3779B97F4A7C15 & _WORD


def _left_by_row(row: Row, stack: _Stack) -> tuple[int, int, int]:
    """CFA, return address and caller's frame pointer, as bpf/unwind.c has them."""
    bases = {From.SP: stack.sp, From.FP: stack.fp}
    cfa = bases[row.cfa_from] + row.cfa_offset
    bases[From.CFA] = cfa = stack.word(cfa) if row.flags & Flag.CFA_IN_MEMORY else cfa
    ra = stack.word(bases[row.ra_from] + row.ra_offset & _WORD)
    if row.fp_from is From.NOTHING:
        return cfa, ra, stack.fp
    return cfa, ra, stack.word(bases[row.fp_from] + row.fp_offset & _WORD)


def _left_by_rules(rules: Rules, stack: _Stack, address: int) -> tuple[int, int, int]:
    def register(number: int) -> int:
        return address if number == 16 else stack.register(number)

    def saved(rule: Rule | None) -> int:
        if rule is None or rule.kind in (Kind.SAME, Kind.UNDEFINED):
            return stack.fp
        if isinstance(rule.operand, bytes):
            return stack.word(evaluate(rule.operand, register, stack.word, cfa))
        return stack.word(cfa + rule.operand & _WORD)

    if isinstance(rules.cfa, CfaRule):
        cfa = register(rules.cfa.register) + rules.cfa.offset
    else:
        cfa = evaluate(rules.cfa, register, stack.word)
    return cfa, saved(rules.registers[16]), saved(rules.registers.get(6))


def test_all_of_libc_has_rows_that_say_the_same() -> None:
    """GIVEN the first and last byte of every function of libc THEN a row leads where rules do."""
    file, stack = _libc(), _Stack()
    table = FrameTable(file)
    text = file.section(b".text")
    assert text is not None
    compared = 0
    at = text.address
    while at < text.address + text.size:
        fde = table.find(at)
        if fde is None:
            at += 16 - at % 16
            continue
        for address in (at, at + fde.size // 2, fde.start + fde.size - 1):
            rules = rules_at(fde, address)
            row = compiled(rules, X86_64, address)
            if row.cfa_from not in (From.REGISTERS, From.NOTHING):
                assert _left_by_row(row, stack) == _left_by_rules(rules, stack, address)
                compared += 1
        at = fde.start + fde.size
    assert compared > 3000


# --- aarch64 ---

_ARM_START = b"\x0c\x1f\x00"


def _arm(instructions: bytes, offset: int) -> Row | None:
    common = cie(_ARM_START, code_alignment=4, data_alignment=-8, return_column=30)
    frames, index = entries((TEXT, 64, instructions), common=common)
    file = elf(program(frames, frame_index(index), machine=EM_AARCH64))
    return _at(file, TEXT + offset, AARCH64)


def test_a_leaf_has_its_return_address_in_the_link_register() -> None:
    assert _arm(b"", 0) == Row(From.SP, 0, From.LINK, 0)


def test_a_frame_of_aarch64_as_compilers_write_it() -> None:
    """GIVEN paciasp; stp x29, x30, [sp, -32]!; mov x29, sp; ... ldp; autiasp; ret"""
    body = (
        b"\x41\x2d"  # the return address is signed from here on
        b"\x41\x0e\x20\x9d\x04\x9e\x03"  # CFA is sp+32, x29 at CFA-32, x30 at CFA-24
        b"\x41\x0d\x1d"  # CFA is x29+32
        b"\x41\x0a\x0c\x1f\x00\xdd\xde\x2d"  # all restored
        b"\x41\x0b"
    )
    framed = (From.CFA, -24, From.CFA, -32)

    assert _arm(body, 4) == Row(From.SP, 0, From.LINK, 0)
    assert _arm(body, 8) == Row(From.SP, 32, *framed)
    assert _arm(body, 12) == Row(From.FP, 32, *framed)
    assert _arm(body, 16) == Row(From.SP, 0, From.LINK, 0)
    assert _arm(body, 20) == Row(From.FP, 32, *framed)


def test_the_outermost_function_of_aarch64() -> None:
    assert _arm(b"\x07\x1e", 0) == OUTERMOST


def test_a_return_address_elsewhere_is_no_link_register() -> None:
    """GIVEN the signal trampoline of aarch64, whose return address is in column 96 THEN no LINK."""
    common = cie(_ARM_START, code_alignment=4, return_column=96)
    frames, index = entries((TEXT, 64, b""), common=common)
    file = elf(program(frames, frame_index(index), machine=EM_AARCH64))

    assert _at(file, TEXT, AARCH64) == NEEDS_REGISTERS


def test_an_expression_may_be_long() -> None:
    frames, index = entries((TEXT, 64, b"\x0f" + block(b"\x77" + uleb(8) + b"\x96" * 1000)))

    assert _at(elf(program(frames, frame_index(index))), TEXT) == Row(From.SP, 8, *_PUSHED)


def test_code_without_an_entry_has_no_row() -> None:
    frames, index = entries((TEXT, 64, b""))
    file = elf(program(frames, frame_index(index)))

    assert _at(file, TEXT + 64) is None
    with pytest.raises(ElfError):
        FrameTable(elf(program(b"")[:0x8000]))
