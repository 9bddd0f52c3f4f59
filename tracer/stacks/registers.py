"""
The registers that unwinding needs, by their numbers in DWARF.

System V ABI, AMD64 supplement, figure 3.36; DWARF for the Arm 64-bit Architecture, 4.1.
"""

from __future__ import annotations

import platform
from typing import NamedTuple

from tracer.stacks.elf import EM_AARCH64, EM_X86_64


class Registers(NamedTuple):
    """
    Of one processor.

    `pc` is where a StackCopy has the program counter, `link` what holds the return address of a
    function that has not saved it; None: calls push it. `code_bits` of an address of code count.
    """

    elf_machine: int
    sp: int
    fp: int
    pc: int
    link: int | None
    code_bits: int = 64

    def code_address(self, word: int) -> int:
        """Without what may be signed into it."""
        return word & ((1 << self.code_bits) - 1)


X86_64 = Registers(EM_X86_64, sp=7, fp=6, pc=16, link=None)
AARCH64 = Registers(EM_AARCH64, sp=31, fp=29, pc=32, link=30, code_bits=48)
OWN = AARCH64 if platform.machine() == "aarch64" else X86_64
