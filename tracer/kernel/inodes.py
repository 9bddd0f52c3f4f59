"""Asking the kernel what became of an inode: see bpf/inode.c."""

from __future__ import annotations

import ctypes
import enum
import struct
from typing import Any

from tracer.core.walk import Inode
from tracer.kernel.system_call import PROG_TEST_RUN, bpf_call

_ARGUMENTS = struct.Struct("=QQQ")


class InodeState(enum.IntEnum):
    """As in bpf/wire.h."""

    UNKNOWN = 0
    LINKED = 1
    DELETED = 2


class _Run(ctypes.Structure):
    """The part of union bpf_attr that is about BPF_PROG_TEST_RUN, include/uapi/linux/bpf.h."""

    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("data_in", ctypes.c_uint64),
        ("data_out", ctypes.c_uint64),
        ("repeat", ctypes.c_uint32),
        ("duration", ctypes.c_uint32),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_uint64),
        ("ctx_out", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
    )


class Inodes:
    """What a loaded program can tell of inodes; nothing where the kernel does not run it for us."""

    def __init__(self, bpf: Any) -> None:
        function = bpf.load_func(b"inode_state", bpf.RAW_TRACEPOINT)
        self._arguments = ctypes.create_string_buffer(_ARGUMENTS.size)
        self._run = _Run(
            prog_fd=function.fd,
            ctx_size_in=_ARGUMENTS.size,
            ctx_in=ctypes.addressof(self._arguments),
        )

    def state(self, inode: Inode) -> InodeState:
        """Whether it was deleted; UNKNOWN once its memory is in use for something else."""
        _ARGUMENTS.pack_into(self._arguments, 0, inode.address, inode.ino, inode.generation)
        try:
            bpf_call(PROG_TEST_RUN, self._run)
        except OSError:
            # before Linux 5.10
            return InodeState.UNKNOWN
        return InodeState(self._run.retval)
