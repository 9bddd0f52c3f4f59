"""What /proc tells of inotify: which descriptors, which watches, and who shares an instance."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable
from functools import cache
from typing import Callable, NamedTuple

from tracer.kernel.system_call import KCMP, system_call

_LINK = b"anon_inode:inotify"
# fs/notify/fdinfo.c: every number is hexadecimal
_WATCH = re.compile(
    rb"^inotify wd:([0-9a-f]+) ino:([0-9a-f]+) sdev:([0-9a-f]+) mask:([0-9a-f]+) ", re.MULTILINE
)
_HANDLE = re.compile(
    rb"^inotify wd:([0-9a-f]+) ino:([0-9a-f]+) [^\n]*"
    rb"fhandle-bytes:[0-9a-f]+ fhandle-type:([0-9a-f]+) f_handle:((?:[0-9a-f]{2})+)$",
    re.MULTILINE,
)
_FIRST_READ, _NEXT_READ = 1 << 14, 1 << 22
# include/uapi/linux/kcmp.h
_KCMP_FILE, _KCMP_FILES = 0, 2


class FdWatch(NamedTuple):
    """
    One watch of an instance.

    `dev` is the kernel's own dev_t, as in /proc/PID/mountinfo; st_dev of btrfs is another.
    """

    wd: int
    ino: int
    dev: int
    mask: int

    @property
    def device(self) -> str:
        return device_name(self.dev)


class Handle(NamedTuple):
    """By what a filesystem finds an inode again: `kind` says how `content` is to be read."""

    kind: int
    content: bytes


class HeldFd(NamedTuple):
    """A descriptor in the table of a process."""

    pid: int
    fd: int


Compare = Callable[[HeldFd, HeldFd], int]


@cache
def device_name(dev: int) -> str:
    """``8:1``, as in mountinfo."""
    return f"{dev >> 20}:{dev & 0xFFFFF}"


def inotify_fds(pid: int) -> list[int]:
    """
    The descriptors of a process that are inotify instances.

    Raises ProcessLookupError if it is gone, PermissionError if one may not look.
    """
    try:
        folder = os.open(f"/proc/{pid}/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
    try:
        return sorted(int(name) for name in os.listdir(folder) if _is_inotify(name, folder))
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
    finally:
        os.close(folder)


def read_watches(pid: int, fd: int) -> tuple[FdWatch, ...] | None:
    """
    The watches of an instance at one moment, newest first.

    None if the process is gone or the descriptor is no longer an inotify instance. Raises
    PermissionError if one may not look.
    """
    try:
        watches = parse_watches(_content(f"/proc/{pid}/fdinfo/{fd}"))
        if not watches and os.readlink(f"/proc/{pid}/fd/{fd}".encode()) != _LINK:
            return None
    except (FileNotFoundError, ProcessLookupError):
        return None
    return watches


def parse_watches(fdinfo: bytes) -> tuple[FdWatch, ...]:
    """The watches in the text of a fdinfo file; other lines are passed over."""
    return tuple(
        [
            FdWatch(int(wd, 16), int(ino, 16), int(dev, 16), int(mask, 16))
            for wd, ino, dev, mask in _WATCH.findall(fdinfo)
        ]
    )


def read_handles(pid: int, fd: int) -> dict[tuple[int, int], Handle]:
    """
    What the watches of an instance are on, by wd and inode number; of those that have handles.

    Empty if the process is gone or the descriptor is no instance. Raises PermissionError if one may
    not look.
    """
    try:
        return parse_handles(_content(f"/proc/{pid}/fdinfo/{fd}"))
    except (FileNotFoundError, ProcessLookupError):
        return {}


def parse_handles(fdinfo: bytes) -> dict[tuple[int, int], Handle]:
    """The handles in the text of a fdinfo file; a kernel without CONFIG_EXPORTFS writes none."""
    return {
        (int(wd, 16), int(ino, 16)): Handle(int(kind, 16), bytes.fromhex(content.decode()))
        for wd, ino, kind, content in _HANDLE.findall(fdinfo)
    }


def compare_files(one: HeldFd, other: HeldFd) -> int:
    """
    0 if both are the same open file, else -1 or 1 in an order that holds until reboot.

    Raises OSError: ESRCH or EBADF if one is gone, EPERM or ENOSYS if the kernel refuses.
    """
    return _compare(_KCMP_FILE, one, other)


def shares_files(pid: int, tid: int) -> bool:
    """Whether both have one table of descriptors. False also if the kernel does not tell."""
    try:
        return _compare(_KCMP_FILES, HeldFd(pid, 0), HeldFd(tid, 0)) == 0
    except OSError:
        return False


def _compare(kind: int, one: HeldFd, other: HeldFd) -> int:
    result = system_call(KCMP, one.pid, other.pid, kind, one.fd, other.fd)
    return -1 if result == 1 else int(result != 0)


def can_compare_files() -> bool:
    """
    False where kcmp is missing (CONFIG_KCMP) or a sandbox refuses it, or where /proc has other
    numbers for processes than we have: it is of another pid namespace.
    """
    if os.readlink("/proc/self") != str(os.getpid()):
        return False
    own = HeldFd(os.getpid(), 0)
    try:
        compare_files(own, own)
    except OSError as error:
        # a closed descriptor 0 does not matter here
        return error.errno == errno.EBADF
    return True


def group_shared(
    held: Iterable[HeldFd], compare: Compare = compare_files
) -> list[tuple[HeldFd, ...]]:
    """
    Put descriptors of the same open file together, by dup, fork or sent over a socket.

    One that cannot be compared, as when its process just ended, stays alone. Groups are in the
    order of their first member. Takes n log n comparisons of about 2 us.
    """
    ordered: list[list[HeldFd]] = []
    alone: list[list[HeldFd]] = []
    for one in held:
        _place(one, ordered, alone, compare)
    return sorted(tuple(sorted(group)) for group in ordered + alone)


def _place(
    one: HeldFd, ordered: list[list[HeldFd]], alone: list[list[HeldFd]], compare: Compare
) -> None:
    low, high = 0, len(ordered)
    while low < high:
        middle = (low + high) // 2
        try:
            order = compare(one, ordered[middle][0])
        except OSError:
            if not _answers(one, compare):
                alone.append([one])
                return
            # then it is the other that is gone; the rest of its group may still be there
            alone.append([ordered[middle].pop(0)])
            if not ordered[middle]:
                del ordered[middle]
                high -= 1
            continue
        if order == 0:
            ordered[middle].append(one)
            return
        low, high = (low, middle) if order < 0 else (middle + 1, high)
    ordered.insert(low, [one])


def _answers(one: HeldFd, compare: Compare) -> bool:
    try:
        compare(one, one)
    except OSError:
        return False
    return True


def _is_inotify(name: str, folder: int) -> bool:
    try:
        return os.readlink(name.encode(), dir_fd=folder) == _LINK
    except (FileNotFoundError, ProcessLookupError):
        return False


def _content(path: str) -> bytes:
    # the kernel makes the whole text at the first read: it is of one moment
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(file, _FIRST_READ)]
        while parts[-1]:
            parts.append(os.read(file, _NEXT_READ))
    finally:
        os.close(file)
    return b"".join(parts)
