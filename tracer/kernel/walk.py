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
from typing import Any

from tracer.core.rows import Rows
from tracer.core.walk import Walk
from tracer.core.wire import WATCH_ROW, WalkControl
from tracer.errors import InotraceError
from tracer.kernel.probe import bcc_errors
from tracer.kernel.rows import WATCH_ROWS, RowMaps, learn_inotify_fops, new_pass, walk_by

# BPF_PROG_TYPE_TRACING, include/uapi/linux/bpf.h; older BCC modules have no name for it
_PROG_TYPE_TRACING = 26
_REFUSED = "the kernel refuses the iterator over open files (Linux 5.8 or later has it)"


class KernelList:
    """
    The kernel's list, for as long as the program is loaded, until `close`.

    Raises InotraceError if the kernel refuses the iterator.
    """

    truth = "iterator"
    refusal = ""

    def __init__(self, bpf: Any) -> None:
        with bcc_errors(_REFUSED):
            self._function = bpf.load_func(b"bpf_iter__task_file", _PROG_TYPE_TRACING)
            self._link = _attached_to(self._function)
        try:
            self._maps = RowMaps(bpf)
        except BaseException:
            os.close(self._link)
            raise
        try:
            self._watch_rows = self._maps.mapped("watch_rows", WATCH_ROWS * WATCH_ROW.size)
            learn_inotify_fops(bpf, self._look_for_one)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._maps.close()
        os.close(self._link)

    def walk(self) -> Walk:
        """Every instance that any process holds. Raises InotraceError if the kernel refuses."""
        return walk_by(self.rows)

    def rows(self) -> Rows:
        """One pass. Raises InotraceError if the kernel refuses."""
        return self._rows(self._link)

    def _look_for_one(self, pid: int) -> None:
        """Kernels before 6.1 pass over all processes here, too."""
        try:
            link = _attached_to(self._function, pid)
        except OSError:
            link = os.dup(self._link)
        try:
            self._rows(link)
        finally:
            os.close(link)

    def _rows(self, link: int) -> Rows:
        from bcc import lib

        self._maps.steer(WalkControl(new_pass()))
        rows = Rows()
        iterator = lib.bcc_iter_create(link)
        if iterator < 0:
            raise InotraceError("the kernel refuses to walk its open files (BPF iterator)")
        try:
            while True:
                try:
                    if not os.read(iterator, mmap.PAGESIZE):
                        break
                except BlockingIOError:
                    # the program wants to come back to the same file, often only to have gone on
                    if self._maps.are_half_full:
                        self._take(rows)
        finally:
            os.close(iterator)
        self._take(rows)
        return rows

    def _take(self, rows: Rows) -> None:
        control = self._maps.control
        rows.watches.append(memoryview(self._watch_rows[: control.watches * WATCH_ROW.size]))
        self._maps.take(rows)
        self._maps.steer(control._replace(watches=0, holders=0, users=0))


def _attached_to(function: Any, tid: int = 0) -> int:
    """A link to the iterator over the files of one thread, or of all. Raises OSError."""
    from bcc import lib

    # union bpf_iter_link_info, include/uapi/linux/bpf.h: the tid comes first
    which = (ctypes.c_uint32 * 4)(tid)
    chosen = (ctypes.byref(which), ctypes.sizeof(which)) if tid else (None, 0)
    link: int = lib.bcc_iter_attach(function.fd, *chosen)
    if link < 0:
        raise OSError(ctypes.get_errno(), "bcc_iter_attach")
    return link
