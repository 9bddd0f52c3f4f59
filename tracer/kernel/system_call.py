"""System calls that Python has no name for, and bpf(2) for what not every BCC has a method for."""

from __future__ import annotations

import ctypes
import os
import platform

# their numbers
BPF = {"x86_64": 321, "aarch64": 280}
PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
# enum bpf_cmd, include/uapi/linux/bpf.h
PROG_TEST_RUN = 10
MAP_LOOKUP_BATCH = 24
MAP_LOOKUP_AND_DELETE_BATCH = 25

_libc = ctypes.CDLL(None, use_errno=True)


def bpf_call(command: int, attributes: ctypes.Structure) -> int:
    """What the kernel returns. Raises OSError if it refuses."""
    result: int = _libc.syscall(
        ctypes.c_long(BPF[platform.machine()]),
        ctypes.c_long(command),
        ctypes.byref(attributes),
        ctypes.c_long(ctypes.sizeof(attributes)),
    )
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
