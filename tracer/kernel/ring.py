"""
The reading end of one CPU's perf buffer.

BCC's reader calls Python for each record: 1.4 us a record measured, and during a flood each call
waits for the interpreter. Here a drain copies whatever is there at once, whoever is busy.

Layout: struct perf_event_mmap_page and struct perf_event_header in include/uapi/linux/perf_event.h,
perf_event_open(2).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from tracer.errors import InotraceError
from tracer.kernel.system_call import PERF_EVENT_OPEN, system_call

_TYPE_SOFTWARE = 1
_COUNT_SW_BPF_OUTPUT = 10
_SAMPLE_RAW = 1 << 10
_FLAG_FD_CLOEXEC = 8
_PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
# the kernel's own levels end here: admin-guide/sysctl/kernel.rst
_PARANOIA_MAX = 2
_IOC_ENABLE = 0x2400
_RECORD_SAMPLE = 9
# A wake-up per record is what makes tracing slow (+19 us a pair, against +3.4 without): the
# reader comes on a timer, so no number of records wakes it.
_WAKEUP_NEVER = 1 << 30

_HEAD_OFFSET, _TAIL_OFFSET = 1024, 1032
_RECORD_HEADER = struct.Struct("=IHH")
_RAW_SIZE = struct.Struct("=I")


class _Attributes(ctypes.Structure):
    """struct perf_event_attr, as of PERF_ATTR_SIZE_VER0."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("config", ctypes.c_uint64),
        ("sample_period", ctypes.c_uint64),
        ("sample_type", ctypes.c_uint64),
        ("read_format", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
        ("wakeup_events", ctypes.c_uint32),
        ("bp_type", ctypes.c_uint32),
        ("bp_addr", ctypes.c_uint64),
    )


class LockedMemoryError(InotraceError):
    """A buffer is larger than what may be locked."""


class Ring:
    """
    Opened for one CPU; put `fd` into the BPF map to have records sent here.

    `pages` of data must be a power of two. Raises InotraceError if the kernel refuses,
    LockedMemoryError if it refuses only so much.
    """

    def __init__(self, cpu: int, pages: int) -> None:
        self.cpu = cpu
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._size = pages * self._page
        self.fd = _open(cpu)
        try:
            self._map = mmap.mmap(self.fd, self._page + self._size)
        except OSError as error:
            os.close(self.fd)
            raise LockedMemoryError(
                f"cannot lock {self._size >> 10} KiB for the buffer of CPU {cpu} "
                f"({error.strerror}): needs CAP_IPC_LOCK, or a higher kernel.perf_event_mlock_kb "
                "or 'ulimit -l'"
            ) from error
        # ctypes loads and stores these in one instruction, which struct does not promise
        self._head = ctypes.c_uint64.from_buffer(self._map, _HEAD_OFFSET)
        self._tail = ctypes.c_uint64.from_buffer(self._map, _TAIL_OFFSET)
        fcntl.ioctl(self.fd, _IOC_ENABLE, 0)

    def close(self) -> None:
        del self._head, self._tail
        self._map.close()
        os.close(self.fd)

    def take(self) -> bytes:
        """
        Everything in the buffer, as :func:`records` reads it; the space is free again.

        x86 keeps the order of the loads of head and data. Elsewhere the system call in between
        stands for the barrier that perf_event_open(2) asks for.
        """
        head = self._head.value
        tail = self._tail.value
        if head == tail:
            return b""
        os.getppid()
        begin, end = tail % self._size, head % self._size
        if begin < end:
            content = self._data(begin, end)
        else:
            content = self._data(begin, self._size) + self._data(0, end)
        self._tail.value = head
        return content

    def _data(self, begin: int, end: int) -> bytes:
        return self._map[self._page + begin : self._page + end]


def records(content: bytes) -> Iterator[bytes]:
    """
    The samples in what :meth:`Ring.take` returned, each padded at its end to 8 bytes.

    The kernel's own notes of lost records are passed over: losses are counted where they happen.
    """
    at = 0
    while at < len(content):
        kind, _, size = _RECORD_HEADER.unpack_from(content, at)
        if kind == _RECORD_SAMPLE:
            begin = at + _RECORD_HEADER.size + _RAW_SIZE.size
            yield content[begin : at + size]
        at += size


def _open(cpu: int) -> int:
    attributes = _Attributes(
        type=_TYPE_SOFTWARE,
        size=ctypes.sizeof(_Attributes),
        config=_COUNT_SW_BPF_OUTPUT,
        sample_period=1,
        sample_type=_SAMPLE_RAW,
        wakeup_events=_WAKEUP_NEVER,
    )
    try:
        return system_call(PERF_EVENT_OPEN, ctypes.byref(attributes), -1, cpu, -1, _FLAG_FD_CLOEXEC)
    except OSError as error:
        raise InotraceError(
            f"cannot open the buffer of CPU {cpu} ({error.strerror}){_hint(error.errno)}"
        ) from error


def _hint(code: int | None) -> str:
    if code == errno.EPERM:
        return ": a container's seccomp profile may forbid it"
    if code == errno.EACCES and _paranoia() > _PARANOIA_MAX:
        return (
            ": kernel.perf_event_paranoid is above 2, where Debian's and Ubuntu's kernels ask for "
            "CAP_SYS_ADMIN; 'sysctl kernel.perf_event_paranoid=2', or start it with sudo"
        )
    return ""


def _paranoia() -> int:
    try:
        return int(_PARANOID.read_text())
    except OSError:
        return 0
