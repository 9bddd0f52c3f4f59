"""Call frame instructions: each for itself, and all of libc against what readelf makes of them."""

from __future__ import annotations

import platform
import re
import shutil
import struct
import subprocess
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from frame_tables import block, gcc, sleb, uleb
from hypothesis import given
from hypothesis import strategies as st

from tracer.stacks.cfi import CfaRule, Kind, Rule, Rules, rules_at
from tracer.stacks.elf import ElfError, ElfFile, FileContent
from tracer.stacks.frame_entry import Cie, Fde, FrameTable

_START, _SIZE = 0x1000, 0x100
_RBX, _RBP, _RSP, _RA = 3, 6, 7, 16
_PROLOGUE = b"\x0c\x07\x08\x90\x01"
_WORD = (1 << 64) - 1


def _function(
    instructions: bytes,
    *,
    common: bytes = _PROLOGUE,
    encoding: int = 0,
    code_alignment: int = 1,
    size: int = _SIZE,
) -> Fde:
    cie = Cie(code_alignment, -8, _RA, encoding, False, True, common)
    return Fde(_START, size, instructions, cie)


def _rules(instructions: bytes, offset: int = 0, **how: int) -> Rules:
    return rules_at(_function(instructions, **how), _START + offset)  # type: ignore[arg-type]


def _cfas(instructions: bytes, *offsets: int, **how: int) -> list[object]:
    return [_rules(instructions, offset, **how).cfa for offset in offsets]


# --- one at a time ---


def test_what_all_functions_have_in_common() -> None:
    """GIVEN a function without instructions THEN the CIE's are its rules."""
    assert _rules(b"") == Rules(CfaRule(_RSP, 8), {_RA: Rule(Kind.OFFSET, -8)}, _RA, False)


@pytest.mark.parametrize(
    ("advance", "delta"),
    [
        (b"\x44", 4),
        (b"\x02\xff", 255),
        (b"\x03\x34\x00", 0x34),
        (b"\x04\x34\x00\x00\x00", 0x34),
        (b"\x01" + struct.pack("<Q", _START + 0x34), 0x34),
    ],
    ids=["advance_loc", "advance_loc1", "advance_loc2", "advance_loc4", "set_loc"],
)
def test_rules_hold_from_an_address_on(advance: bytes, delta: int) -> None:
    before, after = CfaRule(_RSP, 8), CfaRule(_RSP, 16)

    assert _cfas(advance + b"\x0e\x10", 0, delta - 1, delta) == [before, before, after]


def test_advances_count_in_code_alignments() -> None:
    before, after = CfaRule(_RSP, 8), CfaRule(_RSP, 16)

    assert _cfas(b"\x44\x0e\x10", 15, 16, code_alignment=4) == [before, after]


@pytest.mark.parametrize(
    ("instructions", "cfa"),
    [
        (b"\x0c\x06\x10", CfaRule(_RBP, 16)),
        (b"\x12\x06\x7e", CfaRule(_RBP, 16)),
        (b"\x0d\x06", CfaRule(_RBP, 8)),
        (b"\x0e\x80\x01", CfaRule(_RSP, 128)),
        (b"\x13\x7c", CfaRule(_RSP, 32)),
        (b"\x0f\x03\x76\x78\x06", b"\x76\x78\x06"),
    ],
    ids=["def_cfa", "sf", "register", "offset", "offset_sf", "expression"],
)
def test_cfas(instructions: bytes, cfa: object) -> None:
    assert _rules(instructions).cfa == cfa


@pytest.mark.parametrize(
    ("instructions", "rule"),
    [
        (b"\x83\x02", Rule(Kind.OFFSET, -16)),
        (b"\x05\x03\x02", Rule(Kind.OFFSET, -16)),
        (b"\x11\x03\x7e", Rule(Kind.OFFSET, 16)),
        (b"\x14\x03\x02", Rule(Kind.VALUE_OFFSET, -16)),
        (b"\x15\x03\x7e", Rule(Kind.VALUE_OFFSET, 16)),
        (b"\x09\x03\x0c", Rule(Kind.REGISTER, 12)),
        (b"\x08\x03", Rule(Kind.SAME)),
        (b"\x07\x03", Rule(Kind.UNDEFINED)),
        (b"\x10\x03\x02\x77\x08", Rule(Kind.EXPRESSION, b"\x77\x08")),
        (b"\x16\x03\x02\x77\x08", Rule(Kind.VALUE_EXPRESSION, b"\x77\x08")),
        (b"\x83\x02\xc3", None),
        (b"\x83\x02\x06\x03", None),
        (b"\x00\x2d\x2e\x10", None),
    ],
)
def test_rules_of_a_register(instructions: bytes, rule: Rule | None) -> None:
    assert _rules(instructions).registers.get(_RBX) == rule


def test_what_is_restored_is_what_the_cie_says() -> None:
    """GIVEN a rule in the CIE and another in the function WHEN restored THEN it is the CIE's."""
    assert _rules(b"\x90\x04\xd0").registers[_RA] == Rule(Kind.OFFSET, -8)


def test_remembered_states_come_back_whole() -> None:
    """GIVEN an epilogue in the middle of a function THEN what follows has the frame again."""
    body = b"\x41\x0e\x10\x83\x02\x41\x0a\xc3\x0e\x08\x41\x0b"

    states = [_rules(body, offset) for offset in range(4)]
    outside, inside = CfaRule(_RSP, 8), CfaRule(_RSP, 16)
    assert [state.cfa for state in states] == [outside, inside, outside, inside]
    saved = Rule(Kind.OFFSET, -16)
    assert [state.registers.get(_RBX) for state in states] == [None, saved, None, saved]


@pytest.mark.parametrize(
    "instructions",
    [
        b"\x0b",
        b"\x0a\x0b\x0b",
        b"\x17",
        b"\x3f",
        b"\x03\x00",
        b"\x83",
        b"\x0f\x05\x77",
        b"\x10\x03\xff\xff\xff\xff\x0f",
        b"\x0f\x01\x30\x0d\x06",
        b"\x0f\x01\x30\x0e\x06",
        b"\x83" + b"\xff" * 10_000,
        b"\x01\x00",
    ],
    ids=range(12),
)
def test_malformed_instructions_are_an_elf_error(instructions: bytes) -> None:
    with pytest.raises(ElfError):
        _rules(instructions)


def test_a_frame_needs_a_cfa() -> None:
    with pytest.raises(ElfError):
        rules_at(_function(b"\x83\x02", common=b""), _START)


def test_a_relative_address_among_instructions_is_refused() -> None:
    with pytest.raises(ElfError):
        _rules(b"\x01" + bytes(8), encoding=0x1B)


# --- hostile ones ---


@given(st.binary(max_size=120), st.binary(max_size=40), st.integers(0, _WORD))
def test_any_bytes_are_rules_or_an_elf_error(body: bytes, common: bytes, address: int) -> None:
    try:
        rules = rules_at(_function(body, common=common), address)
    except ElfError:
        return
    assert isinstance(rules.cfa, (CfaRule, bytes))
    assert len(rules.registers) <= 129


_KIB = 1024
_PILED_UP = {
    "remember_state": b"\x0a" * 60 * _KIB,
    "registers": b"".join(b"\x05" + uleb(number) + b"\x01" for number in range(15 * _KIB)),
    "an expression": b"\x0f" + block(b"\x96" * 60 * _KIB),
    "many expressions": b"".join(
        b"\x10" + uleb(number) + block(b"\x96" * 100) for number in range(20)
    ),
}
_LONG = {
    "nops": bytes(64 * _KIB),
    "there and back": b"\x0a\x0b" * 32 * _KIB,
    "the same register": b"\x07\x03" * 32 * _KIB,
    "with 120 registers, there and back": b"".join(
        b"\x05" + uleb(number) + b"\x01" for number in range(120)
    )
    + b"\x0a\x0b" * 32 * _KIB,
}


@pytest.mark.parametrize("instructions", _PILED_UP.values(), ids=_PILED_UP)
def test_what_piles_up_is_an_elf_error(instructions: bytes) -> None:
    with pytest.raises(ElfError):
        _rules(instructions)


@pytest.mark.parametrize("instructions", _LONG.values(), ids=_LONG)
def test_the_longest_function_takes_no_time_and_no_memory(instructions: bytes) -> None:
    begin = time.process_time()
    _rules(instructions)
    assert time.process_time() - begin < 0.5
    tracemalloc.start()
    _rules(instructions)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_huge_numbers_are_but_numbers() -> None:
    huge = uleb(_WORD)
    rules = _rules(b"\x0c" + huge + huge + b"\x05" + huge + huge + b"\x11\x03" + sleb(-(1 << 63)))

    assert rules.cfa == CfaRule(_WORD, _WORD)
    assert rules.registers[_RBX] == Rule(Kind.OFFSET, 1 << 66)


# --- against readelf ---

_ENTRY = re.compile(r"FDE cie=\S+ pc=([0-9a-f]+)\.\.([0-9a-f]+)")
_NAMES = {"rax": 0, "rdx": 1, "rcx": 2, "rbx": 3, "rsi": 4, "rdi": 5, "rbp": 6, "rsp": 7}
_NAMES.update({f"r{number}": number for number in range(8, 16)})
_SAMPLED = 7

_SOURCE = """
#include <alloca.h>
int use(void *);
__attribute__((noinline)) int realigned(int n) {
    int wide[16] __attribute__((aligned(64)));
    return use(wide) + use(alloca(n));
}
__attribute__((noinline)) int deep(int a, int b, int c, int d) {
    int few[4] = {a, b, c, d};
    if (__builtin_expect(use(few), 0)) return use(&a) + use(&b) * use(&c) - use(&d);
    return use(few) + b;
}
__attribute__((noinline)) int use(void *p) { __asm__ volatile("" :: "r"(p) : "memory"); return 0; }
int main(int argc, char **argv) { return realigned(argc) + deep(argc, 2, 3, 4); }
"""


# an address, and by the columns of readelf what holds from there on
_Row = tuple[int, dict[str, str]]


def _told(path: Path) -> Iterator[tuple[int, int, list[_Row]]]:
    """Every FDE that readelf interprets: its first address, its end, and its rows."""
    readelf = shutil.which("readelf") or pytest.skip("readelf is missing (Debian: binutils)")
    command = [readelf, "--debug-dump=frames-interp", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    for part in done.stdout.split("\n\n"):
        lines = part.splitlines()
        found = _ENTRY.search(lines[0]) if lines else None
        if found and len(lines) > 2:
            columns = lines[1].split()[1:]
            # of a register its number and its name: r1 (rdx)
            rows = [re.sub(r" \(\w+\)", "", line).split() for line in lines[2:]]
            by_column = [(int(row[0], 16), dict(zip(columns, row[1:]))) for row in rows]
            yield int(found[1], 16), int(found[2], 16), by_column


def _agrees(rule: Rule | None, told: str | None) -> bool:
    """readelf has "u" for what the function has no rule for, if another row has one."""
    if rule is None or rule.kind is Kind.UNDEFINED:
        return told in (None, "u")
    if rule.kind is Kind.SAME:
        return told == "s"
    if rule.kind is Kind.OFFSET and isinstance(rule.operand, int):
        return told == f"c{rule.operand:+d}"
    if rule.kind is Kind.VALUE_OFFSET and isinstance(rule.operand, int):
        return told == f"v{rule.operand:+d}"
    if rule.kind is Kind.REGISTER:
        return told == f"r{rule.operand!r}"
    return told == ("vexp" if rule.kind is Kind.VALUE_EXPRESSION else "exp")


def _compared(path: Path, every: int) -> int:
    """How many rows were the same."""
    compared = 0
    with path.open("rb") as file:
        table = FrameTable(ElfFile(FileContent(file.fileno())))
        for number, (start, end, rows) in enumerate(_told(path)):
            if number % every:
                continue
            fde = table.find(start)
            assert fde is not None and (fde.start, fde.start + fde.size) == (start, end)
            for at, (address, columns) in enumerate(rows):
                until = rows[at + 1][0] if at + 1 < len(rows) else end
                # the same from here on to the last byte before the next row
                for where in {address, max(address, until - 1)}:
                    _compare(rules_at(fde, where), columns, f"{path} {where:#x}")
                    compared += 1
    return compared


def _compare(rules: Rules, columns: dict[str, str], where: str) -> None:
    if isinstance(rules.cfa, CfaRule):
        register = next(name for name, one in _NAMES.items() if one == rules.cfa.register)
        assert columns["CFA"] == f"{register}{rules.cfa.offset:+d}", where
    else:
        assert columns["CFA"] == "exp", where
    assert _agrees(rules.registers.get(_RA), columns.get("ra")), where
    for name, number in _NAMES.items():
        assert _agrees(rules.registers.get(number), columns.get(name)), f"{where} {name}"


def _libc() -> Path:
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = Path(line.split()[-1])
        if re.fullmatch(r"libc[.-].*", path.name):
            return path
    pytest.skip("this Python has no C library of its own")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="registers of x86-64")
def test_rules_of_the_c_library_are_those_of_readelf() -> None:
    """GIVEN every seventh function of libc THEN all rules at all rows are those of readelf."""
    assert _compared(_libc(), _SAMPLED) > 1000


def test_rules_of_a_small_program_are_those_of_readelf(tmp_path: Path) -> None:
    assert _compared(gcc(tmp_path, _SOURCE, "-freorder-blocks-and-partition"), 1) > 20
