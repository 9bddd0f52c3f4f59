"""The arrays of bpf/rows.c through which a walk reaches user space, and what every walk needs."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Callable

from tracer.core.rows import Rows, instances, users
from tracer.core.walk import Walk
from tracer.core.wire import (
    HOLDER,
    USER_ROW,
    WALK_CONTROL,
    WalkControl,
    decode_holders,
    decode_users,
)
from tracer.errors import InotraceError
from tracer.kernel.fdinfo import HeldFd, inotify_fds
from tracer.kernel.procfs import running_pids

_ATTEMPTS = 3
_IN_CLOEXEC = 0o2000000
# bpf/wire.h
WATCH_ROWS = 65536
_HOLDER_ROWS = 8192
_USER_ROWS = 4096


class RowMaps:
    """Maps the arrays into this process until `close`."""

    def __init__(self, bpf: Any) -> None:
        self._bpf = bpf
        self._maps: list[mmap.mmap] = []
        try:
            self._control = self.mapped("walk_control", WALK_CONTROL.size)
            self._holder_rows = self.mapped("holder_rows", _HOLDER_ROWS * HOLDER.size)
            self._user_rows = self.mapped("user_rows", _USER_ROWS * USER_ROW.size)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        while self._maps:
            self._maps.pop().close()

    def mapped(self, name: str, size: int) -> mmap.mmap:
        """Another array, mapped until `close` as well."""
        rounded = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        mapped = mmap.mmap(self._bpf[name.encode()].map_fd, rounded)
        self._maps.append(mapped)
        return mapped

    @property
    def control(self) -> WalkControl:
        return WalkControl(*WALK_CONTROL.unpack_from(self._control))

    @property
    def are_half_full(self) -> bool:
        control = self.control
        return (
            2 * control.watches > WATCH_ROWS
            or 2 * control.holders > _HOLDER_ROWS
            or 2 * control.users > _USER_ROWS
        )

    def steer(self, control: WalkControl) -> None:
        WALK_CONTROL.pack_into(self._control, 0, *control)

    def take(self, rows: Rows) -> None:
        """Add what came of holders and users since the counts were reset."""
        control = self.control
        rows.holders += decode_holders(self._holder_rows[: control.holders * HOLDER.size])
        rows.users += decode_users(self._user_rows[: control.users * USER_ROW.size])


def new_pass() -> int:
    """A number that no walk before had, through whichever list it went."""
    return time.monotonic_ns()


def walk_by(read: Callable[[], Rows]) -> Walk:
    """The walk by the first pass in which every instance could be read, or by the last one."""
    began = time.monotonic_ns()
    for _ in range(_ATTEMPTS):
        rows = read()
        found = instances(rows)
        if all(walked.watches is not None for walked in found.values()):
            break
    return Walk(began, time.monotonic_ns(), found, users(rows)).with_hidden()


def learn_inotify_fops(bpf: Any, visit: Callable[[int], object]) -> None:
    """
    Have bpf/rows.c learn what marks a file as an inotify instance.

    `visit` makes it look at every open file of a process, or of all. Raises InotraceError if it
    does not find ours.
    """
    with _some_instance() as held:
        table = bpf[b"learned"]
        row = table.Leaf()
        row.inotify_fops, row.tgid, row.fd = 0, held.pid, held.fd
        table[ctypes.c_int(0)] = row
        visit(held.pid)
        if not table[ctypes.c_int(0)].inotify_fops:
            raise InotraceError(
                "inotrace does not find its own files in the kernel's list: run it in the "
                "host's pid namespace (docker run --pid=host, nsenter -t 1 -p)"
            )


@contextmanager
def _some_instance() -> Iterator[HeldFd]:
    """
    An inotify instance: our own for a moment, or another's where the user has none left.

    Raises InotraceError if there is none.
    """
    own = ctypes.CDLL(None).inotify_init1(_IN_CLOEXEC)
    if own >= 0:
        try:
            yield HeldFd(os.getpid(), own)
        finally:
            os.close(own)
        return
    yield _foreign_instance()


def _foreign_instance() -> HeldFd:
    for pid in running_pids():
        with suppress(OSError):
            for fd in inotify_fds(pid):
                return HeldFd(pid, fd)
    raise InotraceError(
        "inotrace cannot open an inotify instance and finds none in /proc: raise "
        "fs.inotify.max_user_instances"
    )
