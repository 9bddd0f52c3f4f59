"""
The kernel's own list where it has no BPF iterator: /proc, with the help of our probe.

Which instance is behind a descriptor is no fact of /proc. bpf/ask.c tells it, in answer to a call
that we make: nothing is duplicated, so every instance lives and ends as without us. What it watches
then comes from its fdinfo, which is of one moment, but holds up the adds and removals of the
program for as long as the kernel writes it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from tracer.core.rows import Rows
from tracer.core.walk import Walk
from tracer.core.wire import WATCH_ROW, Holder, Reading, WalkControl
from tracer.errors import InotraceError
from tracer.kernel.fdinfo import FdWatch, read_watches, shares_files
from tracer.kernel.procfs import running_pids
from tracer.kernel.rows import RowMaps, learn_inotify_fops, new_pass, walk_by

# bpf/ask.c
_NO_MORE_FDS = 2**32 - 1
# proc_task_getattr(), fs/proc/base.c: two of any folder and one for each thread
_LINKS_OF_ONE_THREAD = 3
# Where something forks without end, each look at /proc finds processes that the one before did not.
# A walk that goes on after them never ends; what is missing then comes with the next walk.
_LOOKS_MAX = 5
_libc = ctypes.CDLL(None)


class ProcList:
    """
    As :class:`tracer.kernel.walk.KernelList`, for as long as the probe is attached, until `close`.

    `refusal` says why that does not load. Raises InotraceError if the probe does not answer.
    """

    truth = "fdinfo"

    def __init__(self, bpf: Any, refusal: str) -> None:
        self.refusal = refusal
        self._maps = RowMaps(bpf)
        self._pass = 0
        # from now on: the instance that is opened to learn from is no event either
        self._maps.steer(WalkControl(0, asker=os.getpid()))
        try:
            learn_inotify_fops(bpf, lambda _pid: self.rows())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        # a later list of the same probe may be another's
        self._maps.steer(WalkControl(0))
        self._maps.close()

    def walk(self) -> Walk:
        """Every instance that any process holds; one whose fdinfo is refused is not read."""
        return walk_by(self.rows)

    def rows(self) -> Rows:
        """One pass; also over processes that started under it, who may have inherited."""
        self._pass = new_pass()
        rows = Rows()
        seen: set[int] = set()
        for _ in range(_LOOKS_MAX):
            new = set(running_pids()) - seen
            if not new:
                break
            seen |= new
            for tid in (tid for pid in sorted(new) for tid in _tables(pid)):
                with suppress(FileNotFoundError, ProcessLookupError):
                    self._visit(tid, rows)
        return rows

    def _visit(self, tid: int, rows: Rows) -> None:
        folder = os.open(f"/proc/{tid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            holder = self._next_holder(folder, 0, rows)
            while holder is not None:
                # only whoever comes first to an instance is told to read it
                if holder.reading == Reading.WHOLE:
                    holder = self._read(folder, tid, holder, rows)
                rows.holders.append(holder)
                holder = self._next_holder(folder, holder.fd + 1, rows)
        finally:
            os.close(folder)

    def _read(self, folder: int, tid: int, holder: Holder, rows: Rows) -> Holder:
        """The holder with what became of its watches, which go to `rows`."""
        try:
            watches = read_watches(tid, holder.fd)
        except PermissionError:
            watches = None
        again = self._next_holder(folder, holder.fd, rows)
        # else it is closed, and what was read may be of its successor
        is_same = again is not None and (again.fd, again.instance) == (holder.fd, holder.instance)
        if watches is None or not is_same:
            return holder._replace(reading=Reading.TORN)
        rows.watches.append(memoryview(_packed(watches)))
        return holder._replace(rows=len(watches))

    def _next_holder(self, folder: int, fd: int, rows: Rows) -> Holder | None:
        """Ask for the first descriptor on an instance from `fd` on; new users go to `rows`."""
        while fd < _NO_MORE_FDS:
            question = WalkControl(self._pass, asker=os.getpid(), folder=folder, fd=fd)
            self._maps.steer(question)
            _libc.inotify_rm_watch(-1, -1)
            answer = Rows()
            self._maps.take(answer)
            rows.users += answer.users
            if answer.holders:
                return answer.holders[0]
            stands_at = self._maps.control.fd
            if stands_at == fd:
                raise InotraceError(
                    "inotrace's own calls do not reach its probe: run it in the host's pid "
                    "namespace (docker run --pid=host, nsenter -t 1 -p)"
                )
            fd = stands_at
        return None


def _tables(pid: int) -> Iterator[int]:
    """The process, and those of its threads that have a table of descriptors of their own."""
    yield pid
    with suppress(FileNotFoundError, ProcessLookupError):
        if os.stat(f"/proc/{pid}/task").st_nlink > _LINKS_OF_ONE_THREAD:
            for tid in map(int, os.listdir(f"/proc/{pid}/task")):
                if tid != pid and not shares_files(pid, tid):
                    yield tid


def _packed(watches: tuple[FdWatch, ...]) -> bytes:
    return b"".join([WATCH_ROW.pack(0, one.ino, one.wd, one.dev, one.mask, 0) for one in watches])
