"""What one processor is made of has its named places."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
_OF_X86 = re.compile(r"x86|ia32|\b(orig_ax|regs\.[a-d]x|regs\.[ds]i|ctx->[ad]?[xi])\b")
# A new processor is added here and nowhere else.
_PLACES = {
    "bpf/entry.c",  # system call numbers and registers
    "bpf/include/linux/types.h",  # struct pt_regs
    "tracer/kernel/hooks.py",  # the entry points' names
    "tracer/kernel/ring.py",  # in what order memory is read
    "tracer/kernel/system_call.py",  # the numbers of system calls
    "tracer/stacks/go_header.py",  # how Go counts addresses
    "tracer/stacks/gopclntab.py",  # where Go keeps a return address
    "tracer/stacks/guess.py",  # what a signal leaves on the stack
    "tracer/stacks/machine_code.py",  # what a call instruction looks like
}


def test_only_named_places_know_a_processor() -> None:
    """GIVEN all of the product WHEN searched for x86 THEN it is in the named places alone."""
    files = [
        *CHECKOUT.glob("tracer/**/*.py"),
        *CHECKOUT.glob("bpf/**/*.[ch]"),
    ]
    found = {str(file.relative_to(CHECKOUT)) for file in files if _OF_X86.search(file.read_text())}
    assert found == _PLACES
