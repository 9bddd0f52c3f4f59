"""Files of those filesystems that the kernel mounts for itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable


def internal_files() -> list[os.stat_result]:
    """One of each without a mount that a link in /proc/PID/fd or ns may lead to."""
    made: list[Callable[[], Iterable[int]]] = [
        os.pipe,
        lambda: (os.memfd_create("inotrace"),),
        lambda: (socket.socket(socket.AF_UNIX).detach(),),
        lambda: (os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC),),
    ]
    return [found for make in made for found in _asked(make)]


def _asked(make: Callable[[], Iterable[int]]) -> list[os.stat_result]:
    try:
        fds = list(make())
    except OSError:
        return []
    found = [os.fstat(fd) for fd in fds]
    for fd in fds:
        os.close(fd)
    return found
