"""Calls are told from other instructions, as the assembler of each processor writes them."""

from __future__ import annotations

import pytest

from tracer.kernel.machine_code import LONGEST_CALL, ends_in_call

_AARCH64 = {
    "bl label": ("0b000094", True),
    "bl label, backwards": ("fbffff97", True),
    "blr x3": ("60003fd6", True),
    "blr x30": ("c0033fd6", True),
    "blraaz x5": ("bf083fd6", True),
    "blrabz x5": ("bf0c3fd6", True),
    "blraa x5, x6": ("a6083fd7", True),
    "blrab x7, sp": ("ff0c3fd7", True),
    "nop": ("1f2003d5", False),
    "br x3": ("60001fd6", False),
    "ret": ("c0035fd6", False),
    "retaa": ("ff0b5fd6", False),
    "b label": ("01000014", False),
}
_X86 = {
    "call label": ("e800000000", True),
    "call *%rax": ("ffd0", True),
    "call *8(%rbp)": ("ff5508", True),
    "call *0x1000(%rip)": ("ff1500100000", True),
    "call *0x1000(%rax,%rbx,8)": ("ff94d800100000", True),
    "jmp label": ("e900000000", False),
    "jmp *%rax": ("ffe0", False),
    "ret": ("c3", False),
}


@pytest.mark.parametrize(("code", "is_call"), _AARCH64.values(), ids=_AARCH64)
def test_aarch64(code: str, is_call: bool) -> None:
    assert ends_in_call(_padded(code), "aarch64") == is_call


@pytest.mark.parametrize(("code", "is_call"), _X86.values(), ids=_X86)
def test_x86_64(code: str, is_call: bool) -> None:
    assert ends_in_call(_padded(code), "x86_64") == is_call


def _padded(code: str) -> bytes:
    return bytes.fromhex(code).rjust(LONGEST_CALL, b"\x90")
