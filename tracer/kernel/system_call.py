"""System calls that Python has no name for, and bpf(2) for what not every BCC has a method for."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Mapping

# their numbers
BPF = {"x86_64": 321, "aarch64": 280}
PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
KCMP = {
    "x86_64": 312,
    "aarch64": 272,
    "riscv64": 272,
    "loongarch64": 272,
    "ppc64le": 354,
    "s390x": 343,
}
OPEN_BY_HANDLE_AT = {
    "x86_64": 304,
    "aarch64": 265,
    "riscv64": 265,
    "loongarch64": 265,
    "ppc64le": 346,
    "s390x": 336,
}
STATX = {
    "x86_64": 332,
    "aarch64": 291,
    "riscv64": 291,
    "loongarch64": 291,
    "ppc64le": 383,
    "s390x": 379,
}
# since Linux 5.6
OPENAT2 = dict.fromkeys(KCMP, 437)
# enum bpf_cmd, include/uapi/linux/bpf.h
MAP_CREATE = 0
PROG_LOAD = 5
PROG_TEST_RUN = 10
RAW_TRACEPOINT_OPEN = 17
MAP_LOOKUP_BATCH = 24
MAP_LOOKUP_AND_DELETE_BATCH = 25
MAP_UPDATE_BATCH = 26
LINK_CREATE = 28

_MACHINE = platform.machine()
_REGISTERS = 6
_syscall = ctypes.CDLL(None, use_errno=True).syscall
# declared, since to tell the type of each argument takes longer than most calls do: what fits a
# register is a number or an address
_syscall.argtypes = (ctypes.c_long, *[ctypes.c_void_p] * _REGISTERS)
_syscall.restype = ctypes.c_long


def system_call(numbers: Mapping[str, int], *arguments: object) -> int:
    """
    What the kernel returns; numbers among the arguments are passed as long.

    Raises OSError if it refuses: ENOSYS also where the number of the call is not known.
    """
    number = numbers.get(_MACHINE)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    result: int = _syscall(number, *arguments, *(0,) * (_REGISTERS - len(arguments)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def bpf_call(command: int, attributes: ctypes.Structure | ctypes.Array[ctypes.c_char]) -> int:
    """What the kernel returns. Raises OSError if it refuses."""
    return system_call(BPF, command, ctypes.byref(attributes), ctypes.sizeof(attributes))
