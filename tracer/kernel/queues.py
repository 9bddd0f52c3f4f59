"""How much of what an instance has to tell nobody has read yet."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios
from contextlib import suppress
from pathlib import Path

from tracer.kernel.fdinfo import HeldFd
from tracer.kernel.system_call import KCMP, system_call

# since Linux 5.3 and 5.6
PIDFD_OPEN = dict.fromkeys(KCMP, 434)
PIDFD_GETFD = dict.fromkeys(KCMP, 438)
_LINK = "anon_inode:inotify"
_MAX_QUEUED = Path("/proc/sys/fs/inotify/max_queued_events")
_INT = struct.Struct("=i")
# struct inotify_event with a name of NAME_MAX bytes and its terminator, rounded up to whole structs
_LARGEST_EVENT = 16 + 256


def max_queued_events() -> int | None:
    """What an instance that is made now may have unread; None where the kernel does not tell."""
    try:
        return int(_MAX_QUEUED.read_text())
    except (OSError, ValueError):
        return None


def least_unread(held: HeldFd) -> int | None:
    """
    At least so many events are unread; None if it may not be asked, or there is no such instance.

    FIONREAD of inotify(7) tells bytes, and an event has 16 to 272 of them. For that we hold the
    instance for a moment, which would end as late if it were closed just then.
    """
    with suppress(OSError):
        instance = _borrowed(held)
        try:
            if os.readlink(f"/proc/self/fd/{instance}") != _LINK:
                return None
            (size,) = _INT.unpack(fcntl.ioctl(instance, termios.FIONREAD, bytes(_INT.size)))
            return -(-int(size) // _LARGEST_EVENT)
        finally:
            os.close(instance)
    return None


def _borrowed(held: HeldFd) -> int:
    """A descriptor of our own; the kernel makes it close-on-exec: pidfd_getfd(2)."""
    if held.pid <= 0:
        raise OSError(errno.ESRCH, os.strerror(errno.ESRCH))
    process = system_call(PIDFD_OPEN, held.pid, 0)
    try:
        return system_call(PIDFD_GETFD, process, held.fd, 0)
    finally:
        os.close(process)
