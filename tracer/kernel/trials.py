"""
Asking the kernel to attach something that does nothing, to see whether it would.

The system calls are made by hand: BCC would need a compiler, and explains nothing.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import sys
from pathlib import Path
from typing import Callable

from tracer.kernel.system_call import (
    LINK_CREATE,
    MAP_CREATE,
    PERF_EVENT_OPEN,
    PROG_LOAD,
    RAW_TRACEPOINT_OPEN,
    bpf_call,
    system_call,
)

# include/uapi/linux/bpf.h
_PROG_TYPE_RAW_TRACEPOINT, _PROG_TYPE_TRACING = 17, 26
_TRACE_FENTRY, _TRACE_FEXIT, _TRACE_ITERATOR = 24, 25, 28
_PROBE_READ_USER, _PROBE_READ_KERNEL = 112, 113
_MAP_TYPE_ARRAY = 2
# union bpf_attr, as BPF_MAP_CREATE has it up to map_flags
_TABLE = struct.Struct("=IIIII")
# all of ours together are 48 MiB on a machine of two processors
_TABLE_PAGES = 14336
# union bpf_attr, as BPF_PROG_LOAD has it up to attach_prog_fd
_LOAD = struct.Struct("=IIQQIIQII16sIIIIQIIQIII")
_OPEN = struct.Struct("=QII")
_LINK = struct.Struct("=IIIIQII")
# struct bpf_insn: code, registers, offset, immediate
_INSTRUCTION = struct.Struct("=BBhi")
# r0 = 0; exit
_RETURN_ZERO = _INSTRUCTION.pack(0xB7, 0, 0, 0) + _INSTRUCTION.pack(0x95, 0, 0, 0)

_KPROBE_TYPE = Path("/sys/bus/event_source/devices/kprobe/type")
# struct perf_event_attr as of PERF_ATTR_SIZE_VER1: type, size, config, five fields without use
# here, config1 (the function's name) and config2 (the offset in it)
_EVENT = struct.Struct("=IIQ40xQQ")
_KPROBES_ENABLED = Path("/sys/kernel/debug/kprobes/enabled")
# with which the kernel reaches both: admin-guide/sysctl/kernel.rst
_FTRACE_ENABLED = Path("/proc/sys/kernel/ftrace_enabled")
_FTRACE_IS_OFF = "ftrace is switched off: 'sysctl kernel.ftrace_enabled=1'"
_FLAG_FD_CLOEXEC = 8

# include/linux/errno.h, which C libraries do not know
_ENOTSUPP = 524


def try_fentry(type_id: int, at_return: bool) -> str:
    """
    Attach an empty program to a kernel function; "" or why that is refused.

    Not while ftrace is off: Linux 5.10 then fails to take the program back, and shuts ftrace down
    until the next boot.
    """
    if _is_ftrace_off():
        return _FTRACE_IS_OFF
    kind = _TRACE_FEXIT if at_return else _TRACE_FENTRY
    return _try_tracing(
        type_id, kind, RAW_TRACEPOINT_OPEN, lambda program: _OPEN.pack(0, program, 0)
    )


def try_iterator(type_id: int) -> str:
    """Link an empty program to a kernel iterator; "" or why that is refused."""
    return _try_tracing(
        type_id,
        _TRACE_ITERATOR,
        LINK_CREATE,
        lambda program: _LINK.pack(program, 0, _TRACE_ITERATOR, 0, 0, 0, 0),
    )


def try_reading(user: bool) -> str:
    """
    Load a program that reads memory of the kernel, or of a process; "" or why that is refused.

    Only loaded: the kernel looks at that moment whether it is locked down (ff40e51043af, in v5.13
    and in stable kernels since 5.10.44). Before bpf_probe_read_user (6ae08ae3dea2, in v5.5) it
    knows no such call.
    """
    call = _PROBE_READ_USER if user else _PROBE_READ_KERNEL
    code = b"".join(
        _INSTRUCTION.pack(*each)
        for each in (
            (0x7A, 0x0A, -8, 0),  # *(u64 *)(r10 - 8) = 0
            (0xBF, 0xA1, 0, 0),  # r1 = r10
            (0x07, 0x01, 0, -8),  # r1 += -8
            (0xB7, 0x02, 0, 8),  # r2 = 8
            (0xB7, 0x03, 0, 0),  # r3 = 0
            (0x85, 0x00, 0, call),
        )
    )
    try:
        os.close(_loaded(_PROG_TYPE_RAW_TRACEPOINT, code + _RETURN_ZERO))
    except OSError as error:
        return _refusal(error)
    return ""


def try_maps() -> str:
    """Have the kernel make a table as large as ours; "" or why that is refused."""
    attributes = _TABLE.pack(_MAP_TYPE_ARRAY, 4, mmap.PAGESIZE, _TABLE_PAGES, 0)
    try:
        os.close(_bpf(MAP_CREATE, attributes))
    except OSError as error:
        return _refusal(error)
    return ""


def _try_tracing(type_id: int, kind: int, attach: int, attributes: Callable[[int], bytes]) -> str:
    try:
        program = _loaded(_PROG_TYPE_TRACING, _RETURN_ZERO, kind, type_id)
        try:
            os.close(_bpf(attach, attributes(program)))
        finally:
            os.close(program)
    except OSError as error:
        return _refusal(error)
    return ""


def _loaded(program_type: int, code: bytes, kind: int = 0, type_id: int = 0) -> int:
    text, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    length = len(code) // _INSTRUCTION.size
    load = _LOAD.pack(
        *(program_type, length, ctypes.addressof(text), ctypes.addressof(licence)),
        *(0, 0, 0, 0, 0, b"inotrace_trial", 0, kind, 0, 0, 0, 0, 0, 0, 0, type_id, 0),
    )
    return _bpf(PROG_LOAD, load)


def try_kprobe(function: str, at_return: bool) -> str:
    """Open a probe on a kernel function; "" or why that is refused."""
    return _try_counting(function, at_return, None)


def try_hit(function: str, call: Callable[[], object]) -> str:
    """
    Whether a probe at the return of a kernel function counts a `call` of it; "" or why not.

    The kernel opens probes also where they are switched off.
    """
    return _try_counting(function, True, call)


def _try_counting(function: str, at_return: bool, call: Callable[[], object] | None) -> str:
    if not _KPROBE_TYPE.exists():
        return "the kernel is built without kprobes (CONFIG_KPROBE_EVENTS)"
    if _is_ftrace_off():
        return _FTRACE_IS_OFF
    try:
        probe = _kprobe(function, at_return)
        try:
            if call is None:
                return ""
            call()
            hits = int.from_bytes(os.read(probe, 8), sys.byteorder)
        finally:
            os.close(probe)
    except OSError as error:
        return _refusal(error)
    return "" if hits else f"kprobes are switched off: 'echo 1 >{_KPROBES_ENABLED}'"


def _kprobe(function: str, at_return: bool) -> int:
    """A descriptor that counts how often this thread comes by."""
    kind = int(_KPROBE_TYPE.read_text())
    name = ctypes.create_string_buffer(function.encode())
    event = _EVENT.pack(kind, _EVENT.size, int(at_return), ctypes.addressof(name), 0)
    record = ctypes.create_string_buffer(event, len(event))
    return system_call(PERF_EVENT_OPEN, record, 0, -1, -1, _FLAG_FD_CLOEXEC)


def _is_ftrace_off() -> bool:
    try:
        return _FTRACE_ENABLED.read_text().strip() == "0"
    except OSError:
        return False


def _refusal(error: OSError) -> str:
    if error.errno in (_ENOTSUPP, errno.EOPNOTSUPP):
        return "the kernel is built without it, or the processor's kind is not supported"
    if error.errno in (errno.EPERM, errno.EACCES):
        return f"refused ({error.strerror}): a hardened kernel, lockdown or a container"
    return f"refused ({error.strerror})"


def _bpf(command: int, attributes: bytes) -> int:
    return bpf_call(command, ctypes.create_string_buffer(attributes, len(attributes)))
