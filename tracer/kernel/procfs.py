"""Facts about a process from /proc. A process may end at any moment, and its number be reused."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

from tracer.kernel.filesystem import mount_id

# include/linux/sched.h
_PF_KTHREAD = 0x00200000
_EFFECTIVE_UID = re.compile(rb"^Uid:\t\d+\t(\d+)", re.MULTILINE)
_THREAD_GROUP = re.compile(rb"^Tgid:\t(\d+)", re.MULTILINE)
# fields of /proc/PID/stat, counted from the one after the name
_STATE, _PARENT, _SESSION, _FLAGS, _START_TIME = 0, 1, 3, 6, 19
# proc(5), /proc/PID/mountinfo: the fields that NAMED groups take, the rest as it comes. The kernel
# escapes only blanks, backslashes and '#': any other byte may be in a name.
_MOUNT = re.compile(
    rb"^(?P<id>[0-9]+) [0-9]+ (?P<major>[0-9]+):(?P<minor>[0-9]+) "
    rb"(?P<root>[^ \n]*) (?P<point>[^ \n]*) "
    rb"[^\n]*? - (?P<kind>[^ \n]*) (?:[^ \n]* (?P<options>[^\n]*))?",
    re.MULTILINE,
)
# ioctl_ns(2)
_NS_GET_USERNS = 0xB701
_ESCAPED = re.compile(rb"\\([0-7]{3})")
# it is gone; or /proc, mounted with hidepid=noaccess, lists it and does not let us in
_NOT_SHOWN = (FileNotFoundError, ProcessLookupError, PermissionError)


@dataclass(frozen=True)
class ProcessFacts:
    """
    A process at one moment.

    `birth_ticks` is its start in clock ticks since boot, `uid` the effective user. `exe` is None
    if there is none (a kernel thread) or it may not be read, and ends in " (deleted)" as the
    kernel says it. `parent` and `session` are pids, 0 if there is none or it is not of this /proc.
    """

    pid: int
    birth_ticks: int
    uid: int
    comm: bytes
    exe: bytes | None
    cmdline: tuple[bytes, ...]
    parent: int = 0
    session: int = 0


class Mount(NamedTuple):
    """
    One mount as a process sees it.

    `dev` is the kernel's dev_t of the filesystem, `kind` its type with a subtype (fuse.sshfs),
    `root` the folder of it that is mounted, and `point` where. `options` are those of an overlay as
    the kernel writes them, with its escapes; of others they are left out.
    """

    dev: int
    kind: bytes
    root: bytes
    point: bytes
    id: int = 0
    options: bytes = b""


def running_pids() -> list[int]:
    """Every process that /proc shows, not their threads."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())


def shows_all_processes() -> bool:
    """False if /proc is mounted with hidepid, and does not show the processes of others."""
    # hidepid=noaccess lists their folders, which then cannot be opened
    with suppress(*_NOT_SHOWN), _process_folder(1):
        return True
    return False


def read_process(pid: int) -> ProcessFacts | None:
    """What is known about a process; None if it is gone, or hidden from us."""
    with suppress(*_NOT_SHOWN), _process_folder(pid) as folder:
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
            parent=int(fields[_PARENT]),
            session=int(fields[_SESSION]),
        )
    return None


def holds_no_files(pid: int) -> bool:
    """True of kernel threads, zombies and processes that are not there for us."""
    with suppress(*_NOT_SHOWN), _process_folder(pid) as folder:
        _, fields = _split_stat(_content("stat", folder))
        return fields[_STATE] in (b"Z", b"X") or bool(int(fields[_FLAGS]) & _PF_KTHREAD)
    return True


def is_stopped(pid: int) -> bool:
    """Whether a signal or a debugger keeps it from running; False if it is gone."""
    with suppress(*_NOT_SHOWN), _process_folder(pid) as folder:
        _, fields = _split_stat(_content("stat", folder))
        return fields[_STATE] in (b"T", b"t")
    return False


def thread_group(tid: int) -> int | None:
    """The process that a thread belongs to, itself for a process; None if it is gone."""
    with suppress(*_NOT_SHOWN), _process_folder(tid) as folder:
        found = _THREAD_GROUP.search(_content("status", folder))
        return int(found.group(1)) if found else None
    return None


def user_namespace(pid: int) -> int | None:
    """The inode number that names the user namespace; None if it cannot be told."""
    try:
        return os.stat(f"/proc/{pid}/ns/user").st_ino
    except OSError:
        return None


def birth_ticks(pid: int) -> int | None:
    """When the process began, in clock ticks since boot; None if it is gone."""
    with suppress(*_NOT_SHOWN), _process_folder(pid) as folder:
        return int(_split_stat(_content("stat", folder))[1][_START_TIME])
    return None


def mount_namespace(pid: int) -> int:
    """
    The inode number that names the mount namespace of a process or thread.

    Raises OSError if it is gone or may not be looked into.
    """
    return os.stat(f"/proc/{pid}/ns/mnt").st_ino


def root_folder(pid: int) -> bytes:
    """
    The root of a process as a path from the top of its mount namespace, or from our root.

    Raises OSError if it is gone or may not be looked into.
    """
    return os.readlink(b"/proc/%d/root" % pid)


def root_mount(pid: int) -> int:
    """
    The mount that the root of a process is on, as mountinfo numbers them; 0 if it is not told.

    Nothing is asked of the filesystem. Raises OSError if the process is gone or may not be looked
    into.
    """
    root = os.open(b"/proc/%d/root" % pid, os.O_PATH | os.O_CLOEXEC)
    try:
        return mount_id(root)
    finally:
        os.close(root)


def owner_of_mounts(pid: int) -> int | None:
    """
    The inode number of the user namespace with all rights in the mount namespace of a process.

    None if it cannot be told, or is neither ours nor made below ours.
    """
    try:
        mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        owner = fcntl.ioctl(mounts, _NS_GET_USERNS)
    except OSError:
        return None
    finally:
        os.close(mounts)
    try:
        return os.fstat(owner).st_ino
    finally:
        os.close(owner)


def threads(pid: int) -> list[int]:
    """Those of a process; none if it is gone."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def mounts_of(pid: int) -> list[Mount]:
    """
    The mount table of a process: what can be reached from its root, in the order of mounting.

    Raises OSError if the process is gone.
    """
    with open(f"/proc/{pid}/mountinfo", "rb") as table:
        return parse_mounts(table.read())


def parse_mounts(table: bytes) -> list[Mount]:
    """What a mountinfo file says; lines that are none of it are left out."""
    return [
        Mount(
            int(line["major"]) << 20 | int(line["minor"]),
            unescaped(line["kind"]),
            unescaped(line["root"]),
            unescaped(line["point"]),
            int(line["id"]),
            line["options"] or b"" if line["kind"] == b"overlay" else b"",
        )
        for line in _MOUNT.finditer(table)
    ]


def unescaped(name: bytes) -> bytes:
    """A field of mountinfo as it is, without the escapes that the kernel writes."""
    if b"\\" not in name:
        return name
    return _ESCAPED.sub(lambda digits: bytes((int(digits[1], 8) & 0xFF,)), name)


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
