"""One look at what a process sees: without links, not out of its root, and without waiting."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tracer.kernel.system_call import OPENAT2, STATX, system_call

# openat2(2)
_NO_MAGICLINKS, _NO_SYMLINKS, _IN_ROOT = 0x02, 0x04, 0x10
_RESOLVE = _NO_MAGICLINKS | _NO_SYMLINKS | _IN_ROOT
# since Linux 5.12; EAGAIN if not all is in memory, or while something is renamed or mounted
_CACHED = 0x20
_TRIES = 3
# How to open a file to be asked about, a folder to look names up in, and one to be read.
FILE, FOLDER, TO_READ = (
    flags | os.O_CLOEXEC
    for flags in (os.O_PATH | os.O_NOFOLLOW, os.O_PATH | os.O_DIRECTORY, os.O_DIRECTORY)
)
_HOW = {
    (flags, in_memory): ctypes.create_string_buffer(
        struct.pack("=QQQ", flags, 0, _RESOLVE | (_CACHED if in_memory else 0)), 24
    )
    for flags in (FILE, FOLDER, TO_READ)
    for in_memory in (False, True)
}
# statx(2): type and number, without asking a server
_AT_EMPTY_PATH, _AT_STATX_DONT_SYNC = 0x1000, 0x4000
_TYPE, _INO = 0x001, 0x100
# stx_mode, stx_ino, stx_dev_major, stx_dev_minor
_STATX = struct.Struct("=28xH2xQ96xII112x")


@contextmanager
def opened(
    pid: int, path: bytes, how: int = FILE, root: int | None = None, *, in_memory: bool = False
) -> Iterator[int]:
    """
    The file there as the process sees it, to be asked about: nothing of it can be read.

    `root` is that of the process, if it is open. Raises OSError; BlockingIOError if it is to be
    found `in_memory`, and is not.
    """
    if root is None:
        with root_of(pid) as root:
            file = _open(root, path, how, in_memory)
    else:
        file = _open(root, path, how, in_memory)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def root_of(pid: int) -> Iterator[int]:
    """The root of a process or thread. Raises OSError: ProcessLookupError if it is gone."""
    try:
        root = os.open(b"/proc/%d/root" % pid, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError as error:
        # not a path in it: the process is gone
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error
    try:
        yield root
    finally:
        os.close(root)


def status(file: int, *, in_memory: bool) -> os.stat_result:
    """What fstat(2) says; if it is `in_memory`, only type, number and device."""
    if not in_memory:
        return os.fstat(file)
    told = ctypes.create_string_buffer(_STATX.size)
    flags = _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC
    system_call(STATX, file, b"", flags, _TYPE | _INO, told)
    mode, ino, major, minor = _STATX.unpack(told.raw)
    return os.stat_result((mode, ino, os.makedev(major, minor), 0, 0, 0, 0, 0, 0, 0))


def status_in_memory(folder: int, name: bytes) -> os.stat_result:
    """The same of a name in a folder. Raises OSError: BlockingIOError if it is not in memory."""
    file = _open(folder, name, FILE, in_memory=True)
    try:
        return status(file, in_memory=True)
    finally:
        os.close(file)


def _open(folder: int, path: bytes, flags: int, in_memory: bool) -> int:
    how = _HOW[flags, in_memory]
    for _ in range(_TRIES - 1 if in_memory else 0):
        with suppress(BlockingIOError):
            return system_call(OPENAT2, folder, path, how, len(how))
    return system_call(OPENAT2, folder, path, how, len(how))
