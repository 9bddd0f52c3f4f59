"""
The process that runs libstdc++'s __cxa_demangle on names that may kill it; see demangling.py.

It reads a length and a name, and writes a length and the demangled name, which is empty if there
is none, until its input ends.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from contextlib import suppress
from time import process_time
from typing import BinaryIO, Callable

LENGTH = struct.Struct("=I")
READY = b"ready"

# What is longer is no name to show; libstdc++ makes megabytes of some names.
_PLAIN_BYTES_MAX = 64 << 10
# Python and libstdc++ take 40 MiB of addresses.
_LIMITS = {
    resource.RLIMIT_AS: 256 << 20,
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 0,
    resource.RLIMIT_NPROC: 0,
}
# The other side waits for one second, but may be gone.
_CPU_S = 3
_NOBODY = 65534
_PR_SET_NO_NEW_PRIVS = 38


def serve() -> None:
    """Answer what is asked on the standard streams."""
    demangle = _demangler()
    _give_up_privileges()
    with os.fdopen(0, "rb", closefd=False) as requests, os.fdopen(1, "wb", 0) as answers:
        answers.write(READY)
        while True:
            name = _next(requests)
            if name is None:
                return
            _limit_time()
            plain = demangle(name)
            answers.write(LENGTH.pack(len(plain)) + plain)


def _next(requests: BinaryIO) -> bytes | None:
    head = requests.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    return requests.read(LENGTH.unpack(head)[0])


def _demangler() -> Callable[[bytes], bytes]:
    """Raises OSError if there is no libstdc++."""
    cxa_demangle = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
    cxa_demangle.restype = ctypes.c_void_p
    cxa_demangle.argtypes = [ctypes.c_char_p, *[ctypes.c_void_p] * 3]
    libc = ctypes.CDLL(None)
    libc.free.argtypes = [ctypes.c_void_p]

    def demangle(name: bytes) -> bytes:
        plain = cxa_demangle(name, None, None, None)
        if not plain:
            return b""
        text = ctypes.string_at(plain)
        libc.free(plain)
        return text if len(text) <= _PLAIN_BYTES_MAX else b""

    return demangle


def _give_up_privileges() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # in a user namespace there may be no such user
    with suppress(OSError):
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(_NOBODY)
            os.setuid(_NOBODY)
    for kind, limit in _LIMITS.items():
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (limit, limit))


def _limit_time() -> None:
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (int(process_time()) + _CPU_S, hard))
