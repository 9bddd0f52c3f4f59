"""What the walk over stacks in a loaded program goes by, and what it kept: see bpf/unwind.c."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Any

from tracer.core.events import Process, StackCopy
from tracer.core.wire import KEPT_KEY, UNWIND_KEY, decode_kept_copy
from tracer.kernel.batches import put
from tracer.stacks.row import Row


class StackWalk:
    """The tables of the loaded program `bpf`."""

    def __init__(self, bpf: Any) -> None:
        self._rows = bpf[b"unwind_rows"]
        self._kept = bpf[b"kept_copies"]
        self._row_key = ctypes.c_char * UNWIND_KEY.size
        self._kept_key = ctypes.c_char * KEPT_KEY.size

    def put_rows(self, process: Process, exec_id: int, rows: dict[int, Row]) -> None:
        """
        Add rows of one program image, by pc; those there are replaced.

        What displaces others in a full table is asked for again.
        """
        if not rows:
            return
        keys = b"".join(_key(process, exec_id, pc) for pc in rows)
        values = b"".join(row.packed() for row in rows.values())
        # in one call: the flood that misses them goes on all the while
        put(self._rows.map_fd, keys, values, len(rows))

    def drop_rows(self, process: Process, exec_id: int, pcs: set[int]) -> None:
        """Take back rows whose code is gone."""
        for pc in pcs:
            # it may have made room for another
            with suppress(KeyError):
                del self._rows[self._row_key.from_buffer_copy(_key(process, exec_id, pc))]

    def kept_copy(self, tid: int, ts: int) -> StackCopy | None:
        """The copy for a call that found the buffer full; it is not kept any longer."""
        key = self._kept_key.from_buffer_copy(KEPT_KEY.pack(ts, tid, 0))
        try:
            value = bytes(self._kept[key])
        except KeyError:
            return None
        with suppress(KeyError):
            del self._kept[key]
        return decode_kept_copy(value)


def _key(process: Process, exec_id: int, pc: int) -> bytes:
    return UNWIND_KEY.pack(pc, process.birth, process.pid, exec_id)
