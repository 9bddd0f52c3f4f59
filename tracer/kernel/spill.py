"""Taking back what the perf buffers refused: see bpf/spill.c."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator
from typing import Any

from tracer.core.events import CallEvent, Tally, TallyEvent
from tracer.core.wire import (
    SPILL_KEY,
    SPILLED,
    TALLY_KEY,
    decode_spilled,
    spilled_stack_id,
    spilled_times,
)
from tracer.kernel.system_call import (
    MAP_LOOKUP_AND_DELETE_BATCH,
    MAP_LOOKUP_BATCH,
    bpf_call,
)

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
    """The refused calls of a loaded program."""

    def __init__(self, bpf: Any) -> None:
        self._calls = _Table(bpf[b"spilled"].map_fd, SPILL_KEY.size, SPILLED.size)
        self._tallies = _Table(bpf[b"tallies"].map_fd, TALLY_KEY.size, SPILLED.size)
        self._stacks = bpf[b"spilled_stacks"]
        self._told: dict[bytes, int] = {}

    def take(self) -> Iterator[CallEvent | TallyEvent]:
        """
        Everything that was refused since the last time, in no order.

        A call whose frames were displaced by those of others comes without a stack.
        """
        stacks: dict[int, bytes] = {}
        for _, value in self._calls.items(MAP_LOOKUP_AND_DELETE_BATCH):
            yield self._decoded(value, stacks)
        # these only grow
        for key, value in self._tallies.items(MAP_LOOKUP_BATCH):
            times = spilled_times(value) - self._told.get(key, 0)
            if times:
                self._told[key] = spilled_times(value)
                call = self._decoded(value, stacks)
                yield TallyEvent(call.ts, call, Tally(TALLY_KEY.unpack(key)[3]), times)

    def _decoded(self, value: bytes, stacks: dict[int, bytes]) -> CallEvent:
        stack = spilled_stack_id(value)
        if stack and stack not in stacks:
            stacks[stack] = self._frames(stack)
        return decode_spilled(value, stacks.get(stack, b""))

    def _frames(self, stack: int) -> bytes:
        try:
            return bytes(self._stacks[ctypes.c_uint64(stack)])
        except KeyError:
            return b""


class _Table:
    """A hash table of the program, read in batches."""

    def __init__(self, fd: int, key_size: int, value_size: int) -> None:
        self._fd = fd
        self._key_size = key_size
        self._value_size = value_size
        self._keys = ctypes.create_string_buffer(_BATCH * key_size)
        self._values = ctypes.create_string_buffer(_BATCH * value_size)

    def items(self, command: int) -> Iterator[tuple[bytes, bytes]]:
        # an opaque position: the kernel's batch of a hash table is a bucket number
        position = ctypes.c_uint32()
        batch = _Batch(
            out_batch=ctypes.addressof(position),
            keys=ctypes.addressof(self._keys),
            values=ctypes.addressof(self._values),
            map_fd=self._fd,
        )
        more = True
        while more:
            batch.count = _BATCH
            try:
                bpf_call(command, batch)
            except OSError as error:
                # which says that this batch is the last
                if error.errno != errno.ENOENT:
                    raise
                more = False
            keys = bytes(memoryview(self._keys)[: batch.count * self._key_size])
            values = bytes(memoryview(self._values)[: batch.count * self._value_size])
            for at in range(batch.count):
                yield (
                    keys[at * self._key_size : (at + 1) * self._key_size],
                    values[at * self._value_size : (at + 1) * self._value_size],
                )
            batch.in_batch = ctypes.addressof(position)
