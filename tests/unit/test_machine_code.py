"""Instructions are told apart as the assembler of each processor writes them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.stacks.machine_code import (
    LONGEST_CALL,
    PLT_STUB_BYTES,
    PROLOGUE_BYTES,
    SIGNAL_RETURN_BYTES,
    TRAMPOLINE_BYTES,
    called_address,
    ends_in_call,
    is_python_trampoline,
    linkage_slot,
    returns_from_signal,
    sets_up_frame_pointer,
)

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
    "call *%r12": ("41ffd4", True),
    "call *(%rbx)": ("ff13", True),
    "call *8(%rbp)": ("ff5508", True),
    "call *8(%rsp)": ("ff542408", True),
    "call *0x1000(%rip)": ("ff1500100000", True),
    "call *0x1000(%rax,%rbx,8)": ("ff94d800100000", True),
    "jmp label": ("e900000000", False),
    "jmp *%rax": ("ffe0", False),
    "push (%rbx)": ("ff33", False),
    "ret": ("c3", False),
    "syscall": ("0f05", False),
}
_AT = 0x401000
_REL32 = struct.Struct("<i")


@pytest.mark.parametrize(("code", "is_call"), _AARCH64.values(), ids=_AARCH64)
def test_aarch64(code: str, is_call: bool) -> None:
    assert ends_in_call(_padded(code), "aarch64") == is_call


@pytest.mark.parametrize(("code", "is_call"), _X86.values(), ids=_X86)
def test_x86_64(code: str, is_call: bool) -> None:
    assert ends_in_call(_padded(code), "x86_64") == is_call


def _padded(code: str) -> bytes:
    return bytes.fromhex(code).rjust(LONGEST_CALL, b"\x90")


@pytest.mark.parametrize("distance", [0, 1, 0x1000, -5, -(1 << 31), (1 << 31) - 1])
def test_direct_calls_say_what_they_call(distance: int) -> None:
    code = b"\x90\x90\xe8" + _REL32.pack(distance)

    assert called_address(code, _AT) == _AT + distance


@pytest.mark.parametrize("name", [name for name in _X86 if name != "call label"])
def test_nothing_else_does(name: str) -> None:
    assert called_address(_padded(_X86[name][0]), _AT) is None


@pytest.mark.parametrize(
    ("stub", "length"),
    [("ff25", 6), ("f2ff25", 7), ("f30f1efaff25", 10), ("f30f1efaf2ff25", 11)],
    ids=["jmp", "bnd jmp", "endbr64, jmp", "endbr64, bnd jmp"],
)
@pytest.mark.parametrize("distance", [0x2FF0, -0x2FF0])
def test_slots_of_procedure_linkage_tables(stub: str, length: int, distance: int) -> None:
    """GIVEN a stub of .plt, .plt.got or .plt.sec THEN its slot is relative to what comes after."""
    code = (bytes.fromhex(stub) + _REL32.pack(distance)).ljust(PLT_STUB_BYTES, b"\x90")

    assert linkage_slot(code, _AT) == _AT + length + distance


@pytest.mark.parametrize(
    "code",
    [
        "",
        "ff",
        "ff25",
        "ff2500",
        "ff25000000",
        "f30f1efa",
        "f2",
        "f30f1efaff25000000",
        "ff1500000000",
    ],
)
def test_what_is_no_stub_or_cut_off_has_no_slot(code: str) -> None:
    assert linkage_slot(bytes.fromhex(code), _AT) is None


def test_sigreturn_is_all_of_its_instructions() -> None:
    code = bytes.fromhex("48c7c00f0000000f05")

    assert len(code) == SIGNAL_RETURN_BYTES
    assert returns_from_signal(code)
    assert not returns_from_signal(code[:-1])
    # read(2)
    assert not returns_from_signal(bytes.fromhex("48c7c0000000000f05"))
    assert not returns_from_signal(b"")


def test_the_trampoline_of_python_is_all_of_its_call() -> None:
    code = bytes.fromhex("4883ec08ffd1")

    assert len(code) == TRAMPOLINE_BYTES
    assert is_python_trampoline(code)
    assert not is_python_trampoline(bytes.fromhex("4883ec08ffd0"))
    assert not is_python_trampoline(b"")


@pytest.mark.parametrize(
    ("code", "is_set_up"),
    [
        ("554889e5", True),
        ("55488bec", True),
        ("f30f1efa554889e5", True),
        ("4157554889e5", True),
        ("55", False),
        ("4889e5", False),
        ("5389fb", False),
        ("90" * PROLOGUE_BYTES + "554889e5", False),
        ("", False),
    ],
)
def test_a_frame_pointer_is_set_up_at_the_beginning(code: str, is_set_up: bool) -> None:
    assert sets_up_frame_pointer(bytes.fromhex(code)) is is_set_up


@given(st.binary(min_size=LONGEST_CALL, max_size=64), st.integers(0, (1 << 64) - 1))
def test_any_bytes_are_some_code(code: bytes, address: int) -> None:
    called = called_address(code[-LONGEST_CALL:], address)
    assert called is None or ends_in_call(code[-LONGEST_CALL:], "x86_64")
    assert ends_in_call(code[-LONGEST_CALL:], "aarch64") in (True, False)
    linkage_slot(code, address)
    sets_up_frame_pointer(code)
