"""Taking back what the perf buffers refused: see bpf/spill.c."""

from __future__ import annotations

import ctypes
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
from tracer.kernel.batches import TableReader
from tracer.kernel.system_call import MAP_LOOKUP_AND_DELETE_BATCH, MAP_LOOKUP_BATCH


class Spill:
    """The refused calls of a loaded program."""

    def __init__(self, bpf: Any) -> None:
        self._calls = TableReader(bpf[b"spilled"].map_fd, SPILL_KEY.size, SPILLED.size)
        self._tallies = TableReader(bpf[b"tallies"].map_fd, TALLY_KEY.size, SPILLED.size)
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
