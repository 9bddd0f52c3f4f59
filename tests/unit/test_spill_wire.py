"""Calls that the buffers refused, as the spill keeps them."""

from __future__ import annotations

import pytest
from build import add, call_record
from hypothesis import given
from hypothesis import strategies as st

from tracer.core.events import CallEvent, RawStack, WalkEnd
from tracer.core.wire import (
    CALL,
    SPILLED,
    WireError,
    decode_spilled,
    spilled_stack_id,
    spilled_times,
)


def _spilled(event: CallEvent) -> bytes:
    path = (event.path or b"") + b"\0"
    return SPILLED.pack(call_record(event)[: CALL.size], 0x17, 3, path[:128])


def test_a_refused_call_is_as_it_was() -> None:
    event = add(111, 7, path=b"/run/\xff", stack=RawStack(bytes(range(16)), WalkEnd.NO_ROW, True))

    assert decode_spilled(_spilled(event), bytes(range(16)) + bytes(496)) == event
    assert spilled_stack_id(_spilled(event)) == 0x17
    assert spilled_times(_spilled(event)) == 3


def test_a_refused_call_without_its_frames_says_so() -> None:
    event = add(111, 7, stack=RawStack(bytes(range(16)), WalkEnd.NO_ROW, True))

    stack = decode_spilled(_spilled(event), b"").caller.stack
    assert stack == RawStack(b"", WalkEnd.DISPLACED, False)


@pytest.mark.parametrize(("length", "kept"), [(127, True), (128, False), (4095, False)])
def test_a_refused_call_keeps_a_path_whole_or_not_at_all(length: int, kept: bool) -> None:
    path = b"/" + b"p" * (length - 1)
    event = add(111, 7, path=path)

    assert decode_spilled(_spilled(event), b"").path == (path if kept else None)


@given(st.binary(min_size=SPILLED.size - 1, max_size=SPILLED.size + 1), st.binary(max_size=600))
def test_any_bytes_are_a_refused_call_or_a_wire_error(value: bytes, frames: bytes) -> None:
    try:
        event = decode_spilled(value, frames)
    except WireError:
        return
    assert len(event.caller.stack.addresses()) * 8 == len(event.caller.stack.frames)
