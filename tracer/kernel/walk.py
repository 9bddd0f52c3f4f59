"""
Walking the kernel's own list of watches with a BPF iterator.

It takes no lock of the traced programs, as reading their fdinfo would (up to 125 ms at 50,000
watches). So a list can change under the walk: a reading that was torn is told as such, and read
again.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from tracer.core.events import Instance
from tracer.core.walk import HolderFd, UserUse, Walk, WalkedInstance, WatchRows
from tracer.core.wire import (
    HOLDER,
    USER_ROW,
    WALK_CONTROL,
    WATCH_ROW,
    Holder,
    Reading,
    UserRow,
    WalkControl,
    decode_holders,
    decode_users,
)
from tracer.errors import InotraceError
from tracer.kernel.fdinfo import HeldFd, inotify_fds
from tracer.kernel.probe import bcc_errors
from tracer.kernel.procfs import running_pids

_ATTEMPTS = 3
_IN_CLOEXEC = 0o2000000
# BPF_PROG_TYPE_TRACING, include/uapi/linux/bpf.h; older BCC modules have no name for it
_PROG_TYPE_TRACING = 26
# bpf/wire.h
WATCH_ROWS = 65536
HOLDER_ROWS = 8192
USER_ROWS = 4096
# what the kernel lets namespaces nest
USERNS_LEVELS = 33


class Rows:
    """What one pass over all open files found; rows of watches as they came, in portions."""

    def __init__(self) -> None:
        self.holders: list[Holder] = []
        self.users: list[UserRow] = []
        self.watches: list[memoryview] = []


class KernelList:
    """
    The kernel's list, for as long as the probe is loaded, until `close`.

    Raises InotraceError if the kernel refuses the iterator.
    """

    def __init__(self, bpf: Any) -> None:
        self._bpf = bpf
        self._link = _attached_iterator(bpf)
        self._maps: list[mmap.mmap] = []
        self._pass = 0
        try:
            self._control = self._mapped("walk_control", WALK_CONTROL.size)
            self._watch_rows = self._mapped("watch_rows", WATCH_ROWS * WATCH_ROW.size)
            self._holder_rows = self._mapped("holder_rows", HOLDER_ROWS * HOLDER.size)
            self._user_rows = self._mapped("user_rows", USER_ROWS * USER_ROW.size)
            self._learn_inotify_fops()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        while self._maps:
            self._maps.pop().close()
        os.close(self._link)

    def walk(self) -> Walk:
        """Every instance that any process holds. Raises InotraceError if the kernel refuses."""
        began = time.monotonic_ns()
        for _ in range(_ATTEMPTS):
            rows = self.rows()
            instances = _instances(rows)
            if all(walked.watches is not None for walked in instances.values()):
                break
        walk = Walk(began, time.monotonic_ns(), instances, _users(rows.users))
        return walk.with_hidden()

    def rows(self) -> Rows:
        """One pass. Raises InotraceError if the kernel refuses."""
        from bcc import lib

        self._pass += 1
        self._steer(WalkControl(self._pass, 0, 0, 0, 0))
        rows = Rows()
        iterator = lib.bcc_iter_create(self._link)
        if iterator < 0:
            raise InotraceError("the kernel refuses to walk its open files (BPF iterator)")
        try:
            while True:
                try:
                    if not os.read(iterator, mmap.PAGESIZE):
                        break
                except BlockingIOError:
                    # the program wants to come back to the same file
                    self._take(rows)
        finally:
            os.close(iterator)
        self._take(rows)
        return rows

    def _take(self, rows: Rows) -> None:
        control = WalkControl(*WALK_CONTROL.unpack_from(self._control))
        rows.watches.append(memoryview(self._watch_rows[: control.watches * WATCH_ROW.size]))
        rows.holders += decode_holders(self._holder_rows[: control.holders * HOLDER.size])
        rows.users += decode_users(self._user_rows[: control.users * USER_ROW.size])
        self._steer(control._replace(watches=0, holders=0, users=0))

    def _steer(self, control: WalkControl) -> None:
        WALK_CONTROL.pack_into(self._control, 0, *control)

    def _mapped(self, name: str, size: int) -> mmap.mmap:
        rounded = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        mapped = mmap.mmap(self._bpf[name.encode()].map_fd, rounded)
        self._maps.append(mapped)
        return mapped

    def _learn_inotify_fops(self) -> None:
        with _some_instance() as held:
            table = self._bpf[b"learned"]
            row = table.Leaf()
            row.inotify_fops, row.tgid, row.fd = 0, held.pid, held.fd
            table[ctypes.c_int(0)] = row
            self.rows()
            if not table[ctypes.c_int(0)].inotify_fops:
                raise InotraceError(
                    "inotrace does not find its own files in the kernel's list: run it in the "
                    "host's pid namespace (docker run --pid=host, nsenter -t 1 -p)"
                )


def _attached_iterator(bpf: Any) -> int:
    from bcc import lib

    with bcc_errors("the kernel refuses the iterator over open files (Linux 5.8 or later has it)"):
        function = bpf.load_func(b"bpf_iter__task_file", _PROG_TYPE_TRACING)
        link: int = lib.bcc_iter_attach(function.fd, None, 0)
        if link < 0:
            raise OSError(ctypes.get_errno(), "bcc_iter_attach")
    return link


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
    raise InotraceError("inotrace cannot open an inotify instance and finds none in /proc")


def _instances(rows: Rows) -> dict[Instance, WalkedInstance]:
    holders: dict[Instance, list[Holder]] = defaultdict(list)
    watches: dict[Instance, WatchRows] = {}
    portions = _Portions(rows.watches)
    for row in rows.holders:
        holders[row.instance].append(row)
        own = portions.take(row.rows * WATCH_ROW.size)
        if row.reading == Reading.WHOLE:
            watches[row.instance] = WatchRows(own)
    payers = _payers(rows.users)
    return {
        key: _walked(key, held, watches.get(key), payers.get(held[0].ucounts, ()))
        for key, held in holders.items()
    }


class _Portions:
    """Rows that came in portions, to be taken in other portions."""

    def __init__(self, portions: Iterable[memoryview]) -> None:
        self._left = deque(portions)

    def take(self, size: int) -> Sequence[memoryview]:
        """The next `size` bytes."""
        taken = []
        while size:
            portion = self._left.popleft()
            taken.append(portion[:size])
            if len(portion) > size:
                self._left.appendleft(portion[size:])
            size -= len(taken[-1])
        return taken


def _walked(
    key: Instance,
    rows: list[Holder],
    watches: WatchRows | None,
    payers: tuple[tuple[int, int], ...],
) -> WalkedInstance:
    return WalkedInstance(
        instance=key,
        holders=tuple(HolderFd(row.process, row.fd) for row in rows),
        queued=rows[0].queued,
        read_at=next((row.read_at for row in rows if row.reading == Reading.WHOLE), 0),
        watches=watches,
        payers=payers,
    )


def _payers(users: Iterable[UserRow]) -> dict[int, tuple[tuple[int, int], ...]]:
    """For each ucounts the users that are charged: itself, and all above it."""
    by_ucounts = {user.ucounts: user for user in users}
    payers = {}
    for ucounts in by_ucounts:
        chain: list[tuple[int, int]] = []
        user = by_ucounts.get(ucounts)
        while user is not None and len(chain) <= USERNS_LEVELS:
            chain.append((user.userns, user.uid))
            user = by_ucounts.get(user.parent)
        payers[ucounts] = tuple(chain)
    return payers


def _users(rows: Iterable[UserRow]) -> tuple[UserUse, ...]:
    users = [
        UserUse(
            uid=row.uid,
            userns=row.userns,
            watches=row.watches_used,
            watches_limit=row.watches_limit,
            instances=row.instances_used,
            instances_limit=row.instances_limit,
        )
        for row in rows
    ]
    return tuple(sorted(users, key=lambda user: (user.userns, user.uid)))
