"""bpf(2), for what BCC has no method for in every version."""

from __future__ import annotations

import ctypes
import os
import platform

# system call numbers
NUMBERS = {"x86_64": 321, "aarch64": 280}
# enum bpf_cmd, include/uapi/linux/bpf.h
MAP_LOOKUP_AND_DELETE_BATCH = 25

_libc = ctypes.CDLL(None, use_errno=True)


def bpf_call(command: int, attributes: ctypes.Structure) -> int:
    """What the kernel returns. Raises OSError if it refuses."""
    result: int = _libc.syscall(
        ctypes.c_long(NUMBERS[platform.machine()]),
        ctypes.c_long(command),
        ctypes.byref(attributes),
        ctypes.c_long(ctypes.sizeof(attributes)),
    )
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
