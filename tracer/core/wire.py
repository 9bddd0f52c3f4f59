"""
Decoding of the records that bpf/wire.h defines.

A test compiles that header on the host and compares every size and offset with the formats here.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from tracer.core.events import (
    NO_STACK,
    CallEvent,
    ClosedEvent,
    Event,
    GoneEvent,
    Instance,
    LastEvent,
    Op,
    Process,
    RawStack,
)

HEAD = struct.Struct("=IIQ")
CALL = struct.Struct("=IIQQQQQIIIiiIii16s")
LAST = struct.Struct("=IIQQQQII")
GONE = struct.Struct("=IIQQQii")
CLOSED = struct.Struct("=IIQQQ")
HOLDER = struct.Struct("=QQQqqqqIIIIIIQQ")
WATCH_ROW = struct.Struct("=QQiIQ")
WALK_CONTROL = struct.Struct("=QQII")
ARRIVAL = struct.Struct("=QII")

# a comm of 16 bytes ends in a NUL
COMM_BYTES_MAX = 15

_FRAME_BYTES = 8
_CALLS = frozenset({int(Op.INIT), int(Op.ADD), int(Op.RM)})


class Holder(NamedTuple):
    """
    One fd of one process on an inotify instance, with the kernel's counters of who pays for it.

    `tid` is the thread whose descriptor table it is. A limit is a count; `uid` is as in the
    initial user namespace, `userns` an inode number, `birth` nanoseconds of CLOCK_BOOTTIME, `gen`
    nanoseconds of CLOCK_MONOTONIC or 0.
    """

    group: int
    gen: int
    birth: int
    watches_used: int
    watches_limit: int
    instances_used: int
    instances_limit: int
    tgid: int
    fd: int
    uid: int
    userns: int
    queued: int
    tid: int
    read_at: int
    reading: int

    @property
    def instance(self) -> Instance:
        return Instance(self.group, self.gen)

    @property
    def process(self) -> Process:
        return Process(self.tgid, self.birth)


class Reading(enum.IntEnum):
    """What became of an instance's watches in a walk, as in bpf/wire.h."""

    ELSEWHERE = 0
    WHOLE = 1
    TORN = 2


class WalkControl(NamedTuple):
    """How user space steers the walk: see bpf/wire.h."""

    walk_pass: int
    end: int
    watches: int
    holders: int


class WatchRow(NamedTuple):
    """One watch of the kernel's own list; `dev` is the kernel's dev_t."""

    group: int
    ino: int
    wd: int
    dev: int
    mask: int


class Arrival(NamedTuple):
    """A program image that uses inotify for the first time."""

    birth: int
    tgid: int
    exec_id: int


class WireError(ValueError):
    """A record that is no such record: too short for what it says it holds, or unknown."""


def decode(record: bytes) -> Event:
    """
    One record of the events buffer.

    perf pads records at the end, so a record may be longer than what it holds.
    Raises WireError if it is shorter, or of an unknown kind.
    """
    if len(record) < HEAD.size:
        raise WireError(f"record of {len(record)} bytes")
    op = HEAD.unpack_from(record)[0]
    if op in _CALLS:
        return _decode_call(record)
    if op == Op.LAST:
        return _decode_last(record)
    if op == Op.GONE:
        return _decode_gone(record)
    if op == Op.CLOSED:
        return _decode_closed(record)
    raise WireError(f"record of unknown kind {op}")


def decode_holders(rows: bytes) -> list[Holder]:
    """The rows of the walk that are about descriptors; whole rows only."""
    if len(rows) % HOLDER.size:
        raise WireError(f"{len(rows)} bytes of holders")
    return [Holder(*row) for row in HOLDER.iter_unpack(rows)]


def decode_watch_rows(rows: bytes) -> list[WatchRow]:
    """The rows of the walk that are about watches; whole rows only."""
    if len(rows) % WATCH_ROW.size:
        raise WireError(f"{len(rows)} bytes of watches")
    return [WatchRow(*row) for row in WATCH_ROW.iter_unpack(rows)]


def _decode_call(record: bytes) -> CallEvent:
    if len(record) < CALL.size:
        raise WireError(f"call of {len(record)} bytes")
    *facts, stack_bytes, path_bytes, comm = CALL.unpack_from(record)
    if stack_bytes > 0 and stack_bytes % _FRAME_BYTES:
        raise WireError(f"call with {stack_bytes} bytes of frames")
    path_at = CALL.size + max(stack_bytes, 0)
    end = path_at + max(path_bytes, 0)
    if len(record) < end:
        raise WireError(f"call of {len(record)} bytes holds {end}")
    op, tgid, ts, group, gen, birth, caller, exec_id, tid, uid, fd, ret, arg = facts
    stack = NO_STACK
    if stack_bytes:
        stack = RawStack(record[CALL.size : path_at], caller, min(stack_bytes, 0))
    path = record[path_at : end - 1] if path_bytes > 0 else None
    # by position: this runs for every call of a flood
    return CallEvent(
        op,
        tgid,
        ts,
        group,
        gen,
        birth,
        exec_id,
        tid,
        uid,
        fd,
        ret,
        arg,
        comm.partition(b"\0")[0],
        path,
        stack,
    )


def _decode_last(record: bytes) -> LastEvent:
    if len(record) < LAST.size:
        raise WireError(f"last of {len(record)} bytes")
    _, tgid, ts, group, gen, birth, count, truncated = LAST.unpack_from(record)
    if len(record) < LAST.size + 4 * count:
        raise WireError(f"last of {len(record)} bytes holds {count} descriptors")
    wds = struct.unpack_from(f"={count}i", record, LAST.size)
    return LastEvent(tgid, ts, group, gen, birth, wds, bool(truncated))


def _decode_gone(record: bytes) -> GoneEvent:
    if len(record) < GONE.size:
        raise WireError(f"removal of {len(record)} bytes")
    _, tgid, ts, group, gen, wd, trace_bytes = GONE.unpack_from(record)
    # a trace that could not be read only leaves the cause unknown
    frames = max(trace_bytes, 0) // _FRAME_BYTES
    if len(record) < GONE.size + _FRAME_BYTES * frames:
        raise WireError(f"removal of {len(record)} bytes holds {frames} frames")
    trace = struct.unpack_from(f"={frames}Q", record, GONE.size)
    return GoneEvent(tgid, ts, group, gen, wd, trace)


def _decode_closed(record: bytes) -> ClosedEvent:
    if len(record) < CLOSED.size:
        raise WireError(f"closing of {len(record)} bytes")
    return ClosedEvent(*CLOSED.unpack_from(record)[1:])
