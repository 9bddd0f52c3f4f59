"""What a call is on each processor, so far as it tells whether an address was returned to."""

from __future__ import annotations

import platform

# bytes before the address that may belong to the call
LONGEST_CALL = 7
# whether a call leaves in a register where to return to
HAS_LINK_REGISTER = platform.machine() == "aarch64"


def ends_in_call(code: bytes, machine: str = platform.machine()) -> bool:
    """Whether `code`, of LONGEST_CALL bytes, ends with a call."""
    return _ends_in_call_aarch64(code) if machine == "aarch64" else _ends_in_call_x86(code)


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
