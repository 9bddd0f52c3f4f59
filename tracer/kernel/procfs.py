"""Facts about a process from /proc. A process may end at any moment, and its number be reused."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

# include/linux/sched.h
_PF_KTHREAD = 0x00200000
_EFFECTIVE_UID = re.compile(rb"^Uid:\t\d+\t(\d+)", re.MULTILINE)
_THREAD_GROUP = re.compile(rb"^Tgid:\t(\d+)", re.MULTILINE)
# fields of /proc/PID/stat, counted from the one after the name
_STATE, _FLAGS, _START_TIME = 0, 6, 19


@dataclass(frozen=True)
class ProcessFacts:
    """
    A process at one moment.

    `birth_ticks` is its start in clock ticks since boot, `uid` the effective user. `exe` is None
    if there is none (a kernel thread) or it may not be read, and ends in " (deleted)" as the
    kernel says it.
    """

    pid: int
    birth_ticks: int
    uid: int
    comm: bytes
    exe: bytes | None
    cmdline: tuple[bytes, ...]


def running_pids() -> list[int]:
    """Every process that /proc shows, not their threads."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())


def shows_all_processes() -> bool:
    """False if /proc is mounted with hidepid and leaves out the processes of others."""
    return os.path.isdir("/proc/1")


def read_process(pid: int) -> ProcessFacts | None:
    """What is known about a process; None if it is gone."""
    with suppress(FileNotFoundError, ProcessLookupError), _process_folder(pid) as folder:
        comm, fields = _split_stat(_content("stat", folder))
        uid = _EFFECTIVE_UID.search(_content("status", folder))
        if uid is None:
            return None
        return ProcessFacts(
            pid=pid,
            birth_ticks=int(fields[_START_TIME]),
            uid=int(uid.group(1)),
            comm=comm,
            exe=_executable(folder),
            cmdline=_command_line(folder),
        )
    return None


def holds_no_files(pid: int) -> bool:
    """True of kernel threads, zombies and processes that are gone: nothing is missed there."""
    with suppress(FileNotFoundError, ProcessLookupError), _process_folder(pid) as folder:
        _, fields = _split_stat(_content("stat", folder))
        return fields[_STATE] in (b"Z", b"X") or bool(int(fields[_FLAGS]) & _PF_KTHREAD)
    return True


def thread_group(tid: int) -> int | None:
    """The process that a thread belongs to, itself for a process; None if it is gone."""
    with suppress(FileNotFoundError, ProcessLookupError), _process_folder(tid) as folder:
        found = _THREAD_GROUP.search(_content("status", folder))
        return int(found.group(1)) if found else None
    return None


def user_namespace(pid: int) -> int | None:
    """The inode number that names the user namespace; None if it cannot be told."""
    try:
        return os.stat(f"/proc/{pid}/ns/user").st_ino
    except OSError:
        return None


def mounted_devices(pid: int) -> frozenset[int]:
    """
    The filesystems in the mount table of a process, each by the kernel's dev_t.

    Raises OSError if the process is gone.
    """
    with open(f"/proc/{pid}/mountinfo", "rb") as table:
        # proc(5): the third field is major:minor
        fields = (line.split(b" ", 3)[2].split(b":") for line in table)
        return frozenset(int(major) << 20 | int(minor) for major, minor in fields)


@contextmanager
def _process_folder(pid: int) -> Iterator[int]:
    # what is opened through this descriptor is of the same process, though its pid were reused
    folder = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def _content(name: str, folder: int) -> bytes:
    with open(os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
        return file.read()


def _split_stat(stat: bytes) -> tuple[bytes, list[bytes]]:
    # the name is anything, parentheses and newlines too; what follows it is only numbers
    opening, closing = stat.index(b"("), stat.rindex(b")")
    return stat[opening + 1 : closing], stat[closing + 1 :].split()


def _executable(folder: int) -> bytes | None:
    try:
        return os.readlink(b"exe", dir_fd=folder)
    except OSError:
        return None


def _command_line(folder: int) -> tuple[bytes, ...]:
    try:
        line = _content("cmdline", folder)
    except PermissionError:
        return ()
    # a program that rewrote its arguments may have left out the last terminator
    return tuple((line[:-1] if line.endswith(b"\0") else line).split(b"\0")) if line else ()
