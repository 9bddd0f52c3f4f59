"""Taking back what the perf buffers refused: see bpf/spill.c."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator
from typing import Any

from tracer.core.events import CallEvent
from tracer.core.wire import SPILL_KEY, SPILLED, decode_spilled, spilled_stack_id
from tracer.kernel.system_call import MAP_LOOKUP_AND_DELETE_BATCH, bpf_call

# a batch must hold the fullest bucket of the kernel's table
_BATCH = 4096


class _Batch(ctypes.Structure):
    """The part of union bpf_attr that is about batches, include/uapi/linux/bpf.h (Linux 5.6)."""

    _fields_ = (
        ("in_batch", ctypes.c_uint64),
        ("out_batch", ctypes.c_uint64),
        ("keys", ctypes.c_uint64),
        ("values", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("map_fd", ctypes.c_uint32),
        ("elem_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class Spill:
    """The table of refused calls of a loaded program."""

    def __init__(self, bpf: Any) -> None:
        self._calls: int = bpf[b"spilled"].map_fd
        self._stacks = bpf[b"spilled_stacks"]
        self._keys = ctypes.create_string_buffer(_BATCH * SPILL_KEY.size)
        self._values = ctypes.create_string_buffer(_BATCH * SPILLED.size)

    def take(self) -> Iterator[CallEvent]:
        """
        Everything that was refused up to now, in no order; the table is empty then.

        A call whose frames were displaced by those of others comes without a stack.
        """
        stacks: dict[int, bytes] = {}
        for value in self._values_taken():
            stack = spilled_stack_id(value)
            if stack and stack not in stacks:
                stacks[stack] = self._frames(stack)
            yield decode_spilled(value, stacks.get(stack, b""))

    def _frames(self, stack: int) -> bytes:
        try:
            return bytes(self._stacks[ctypes.c_uint64(stack)])
        except KeyError:
            return b""

    def _values_taken(self) -> Iterator[bytes]:
        # an opaque position: the kernel's batch of a hash table is a bucket number
        position = ctypes.c_uint32()
        batch = _Batch(
            out_batch=ctypes.addressof(position),
            keys=ctypes.addressof(self._keys),
            values=ctypes.addressof(self._values),
            map_fd=self._calls,
        )
        more = True
        while more:
            batch.count = _BATCH
            try:
                bpf_call(MAP_LOOKUP_AND_DELETE_BATCH, batch)
            except OSError as error:
                # which says that this batch is the last
                if error.errno != errno.ENOENT:
                    raise
                more = False
            taken = bytes(memoryview(self._values)[: batch.count * SPILLED.size])
            for at in range(0, len(taken), SPILLED.size):
                yield taken[at : at + SPILLED.size]
            batch.in_batch = ctypes.addressof(position)
