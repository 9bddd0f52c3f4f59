"""
Asking the kernel to attach something that does nothing, to see whether it would.

The system calls are made by hand: BCC would need a compiler, and explains nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from pathlib import Path
from typing import Callable

from tracer.kernel.system_call import BPF, PERF_EVENT_OPEN

# include/uapi/linux/bpf.h
_PROG_LOAD, _RAW_TRACEPOINT_OPEN, _LINK_CREATE = 5, 17, 28
_PROG_TYPE_TRACING = 26
_TRACE_FENTRY, _TRACE_FEXIT, _TRACE_ITERATOR = 24, 25, 28
# union bpf_attr, as BPF_PROG_LOAD has it up to attach_prog_fd
_LOAD = struct.Struct("=IIQQIIQII16sIIIIQIIQIII")
_OPEN = struct.Struct("=QII")
_LINK = struct.Struct("=IIIIQII")
# r0 = 0; exit
_RETURN_ZERO = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)

_KPROBE_TYPE = Path("/sys/bus/event_source/devices/kprobe/type")
# struct perf_event_attr as of PERF_ATTR_SIZE_VER1: type, size, config, five fields without use
# here, config1 (the function's name) and config2 (the offset in it)
_EVENT = struct.Struct("=IIQ40xQQ")
_FLAG_FD_CLOEXEC = 8

# include/linux/errno.h, which C libraries do not know
_ENOTSUPP = 524


def try_fentry(type_id: int, at_return: bool) -> str:
    """Attach an empty program to a kernel function; "" or why that is refused."""
    kind = _TRACE_FEXIT if at_return else _TRACE_FENTRY
    return _try_tracing(
        type_id, kind, _RAW_TRACEPOINT_OPEN, lambda program: _OPEN.pack(0, program, 0)
    )


def try_iterator(type_id: int) -> str:
    """Link an empty program to a kernel iterator; "" or why that is refused."""
    return _try_tracing(
        type_id,
        _TRACE_ITERATOR,
        _LINK_CREATE,
        lambda program: _LINK.pack(program, 0, _TRACE_ITERATOR, 0, 0, 0, 0),
    )


def _try_tracing(type_id: int, kind: int, attach: int, attributes: Callable[[int], bytes]) -> str:
    code = ctypes.create_string_buffer(_RETURN_ZERO)
    licence = ctypes.create_string_buffer(b"GPL")
    load = _LOAD.pack(
        *(_PROG_TYPE_TRACING, 2, ctypes.addressof(code), ctypes.addressof(licence)),
        *(0, 0, 0, 0, 0, b"inotrace_trial", 0, kind, 0, 0, 0, 0, 0, 0, 0, type_id, 0),
    )
    program = _bpf(_PROG_LOAD, load)
    if program < 0:
        return _refusal(-program)
    try:
        link = _bpf(attach, attributes(program))
    finally:
        os.close(program)
    if link < 0:
        return _refusal(-link)
    os.close(link)
    return ""


def try_kprobe(function: str, at_return: bool) -> str:
    """Open a probe on a kernel function; "" or why that is refused."""
    try:
        kind = int(_KPROBE_TYPE.read_text())
    except OSError:
        return "the kernel is built without kprobes (CONFIG_KPROBE_EVENTS)"
    name = ctypes.create_string_buffer(function.encode())
    event = _EVENT.pack(kind, _EVENT.size, int(at_return), ctypes.addressof(name), 0)
    fd = _system_call(PERF_EVENT_OPEN, event, -1, 0, -1, _FLAG_FD_CLOEXEC)
    if fd < 0:
        return _refusal(-fd)
    os.close(fd)
    return ""


def _refusal(code: int) -> str:
    if code in (_ENOTSUPP, errno.EOPNOTSUPP):
        return "the kernel is built without it, or the processor's kind is not supported"
    if code in (errno.EPERM, errno.EACCES):
        return f"refused ({os.strerror(code)}): a hardened kernel, lockdown or a container"
    return f"refused ({os.strerror(code)})"


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return _call(BPF, command, buffer, len(attributes))


def _system_call(numbers: dict[str, int], record: bytes, *rest: int) -> int:
    return _call(numbers, ctypes.create_string_buffer(record, len(record)), *rest)


def _call(numbers: dict[str, int], *arguments: object) -> int:
    """What the call returns, or -errno."""
    number = numbers.get(platform.machine())
    if number is None:
        return -errno.ENOSYS
    libc = ctypes.CDLL(None, use_errno=True)
    converted = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = libc.syscall(ctypes.c_long(number), *converted)
    return result if result >= 0 else -ctypes.get_errno()
