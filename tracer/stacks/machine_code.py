"""What a few instructions look like on each processor, so far as they tell of calls and frames."""

from __future__ import annotations

import platform
import struct

# bytes before an address that may belong to the call it is returned to from
LONGEST_CALL = 7
# bytes of a stub in a procedure linkage table, and of a handler's return
PLT_STUB_BYTES = 16
SIGNAL_RETURN_BYTES = 9
TRAMPOLINE_BYTES = 6
PROLOGUE_BYTES = 64
# bytes at the start of a function that tell whether it pushes rbp first
PUSH_BYTES = 5

_REL32 = struct.Struct("<i")
_ENDBR64 = b"\xf3\x0f\x1e\xfa"
# mov $15,%rax; syscall: sigreturn(2), the whole of the function that handlers return to
_SIGNAL_RETURN = bytes.fromhex("48c7c00f0000000f05")
# sub $8,%rsp; call *%rcx: CPython 3.12, Python/asm_trampoline.S
_TRAMPOLINE = bytes.fromhex("4883ec08ffd1")
_PUSH_RBP = b"\x55"
# mov %rsp,%rbp in both encodings, right after the push or after what a compiler put in between
_MOVES = (bytes.fromhex("4889e5"), bytes.fromhex("488bec"))
_FRAME_SETUPS = tuple(_PUSH_RBP + move for move in _MOVES)
# what fills the space between functions
_PADDING = b"\xcc\xcc"


def ends_in_call(code: bytes, machine: str = platform.machine()) -> bool:
    """Whether `code`, of LONGEST_CALL bytes, ends with a call."""
    return _ends_in_call_aarch64(code) if machine == "aarch64" else _ends_in_call_x86(code)


def called_address(code: bytes, address: int) -> int | None:
    """
    What the direct call that ends before `address` calls; None if it is another instruction.

    `code` are LONGEST_CALL bytes before `address`. x86-64 only.
    """
    if code[-5] != 0xE8:
        return None
    return address + int(_REL32.unpack(code[-4:])[0])


def linkage_slot(code: bytes, address: int) -> int | None:
    """
    Where a stub of a procedure linkage table has the address that it jumps to; None: no stub.

    `code` are PLT_STUB_BYTES from `address` on. x86-64 only: an optional endbr64, then
    ``jmp *slot(%rip)``, with a bnd prefix in older ones.
    """
    at = len(_ENDBR64) if code.startswith(_ENDBR64) else 0
    if code[at : at + 1] == b"\xf2":
        at += 1
    if code[at : at + 2] != b"\xff\x25" or len(code) < at + 6:
        return None
    return address + at + 6 + int(_REL32.unpack(code[at + 2 : at + 6])[0])


def returns_from_signal(code: bytes) -> bool:
    """Whether `code`, of SIGNAL_RETURN_BYTES, is what handlers return to. x86-64 only."""
    return code == _SIGNAL_RETURN


def is_python_trampoline(code: bytes) -> bool:
    """Whether `code`, of TRAMPOLINE_BYTES, ends in CPython's call for a profiler. x86-64 only."""
    return code == _TRAMPOLINE


def saves_frame_pointer(code: bytes) -> bool:
    """Whether a function that begins with `code` first pushes its caller's. x86-64 only."""
    return code.removeprefix(_ENDBR64).startswith(_PUSH_RBP)


def sets_up_frame_pointer(code: bytes) -> bool:
    """Whether a function that begins with `code` keeps a frame pointer. x86-64 only."""
    code = code[:PROLOGUE_BYTES]
    setups = _MOVES if saves_frame_pointer(code) else _FRAME_SETUPS
    return any(setup in code for setup in setups)


def may_keep_frame_pointer(code: bytes) -> bool:
    """Whether a function that ends with `code`, and may begin in it, seems to. x86-64 only."""
    at = max(code.rfind(setup) for setup in _FRAME_SETUPS)
    return at >= 0 and _PADDING not in code[at:]


def _ends_in_call_x86(code: bytes) -> bool:
    """Intel SDM volume 2, CALL: E8 rel32, or FF /2 with its ModRM byte's displacement."""
    if code[-5] == 0xE8:
        return True
    for length in range(2, LONGEST_CALL + 1):
        if code[-length] == 0xFF and (code[-length + 1] >> 3) & 7 == 2:
            return True
    return False


def _ends_in_call_aarch64(code: bytes) -> bool:
    """Arm ARM C4.1, branches: BL, and BLR with or without authentication of the pointer."""
    word = int.from_bytes(code[-4:], "little")
    is_bl = word & 0xFC000000 == 0x94000000
    is_blr = word & 0xFFFFFC1F == 0xD63F0000
    is_blraz = word & 0xFFFFF81F == 0xD63F081F
    is_blra = word & 0xFFFFF800 == 0xD73F0800
    return is_bl or is_blr or is_blraz or is_blra
