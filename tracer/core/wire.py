"""
Decoding of the records that bpf/wire.h defines.

A test compiles that header on the host and compares every size and offset with the formats here.
"""

from __future__ import annotations

import enum
import struct
from functools import lru_cache
from typing import NamedTuple

from tracer.core.events import (
    NO_STACK,
    Caller,
    CallEvent,
    ClosedEvent,
    Event,
    GoneEvent,
    Instance,
    LastEvent,
    Op,
    Process,
    RawStack,
    StackCopy,
    WalkEnd,
)

HEAD = struct.Struct("=IIQ")
_CALL = struct.Struct("=IIQiIiiQQII")
_CALLER = struct.Struct("=QQQIIIIIi16s")
CALL = struct.Struct(_CALL.format + _CALLER.format[1:])
LAST = struct.Struct("=IIQQQQII")
GONE = struct.Struct("=IIQQQii")
CLOSED = struct.Struct("=IIQQQ")
SPILL_KEY = struct.Struct("=QQiI")
SPILLED = struct.Struct(f"={CALL.size}sQQ128s")
TALLY_KEY = struct.Struct("=QQIIiI")
SPILLED_STACK = struct.Struct("=512s")
HOLDER = struct.Struct("=QQQQIIIIQQIIII")
WATCH_ROW = struct.Struct("=QQiIII")
USER_ROW = struct.Struct("=QQqqqqII")
WALK_CONTROL = struct.Struct("=QQIIIIII")
ARRIVAL = struct.Struct("=QQII")
COPY = struct.Struct("=IIQQIIQQQQQIIII264s")
KEPT_KEY = struct.Struct("=QII")
KEPT_COPY = struct.Struct(f"={COPY.size}s8192s")
UNWIND_KEY = struct.Struct("=QQII")
UNWIND_ROW = struct.Struct("=iiiBBBB")

# set in the pc of code that was interrupted there
EXACT_PC = 1 << 63

# a comm of 16 bytes ends in a NUL
COMM_BYTES_MAX = 15
# of a stack, as in bpf/wire.h
FRAMES_MAX = 64
COPY_BYTES_MAX = 15 * 4096

_FRAME_BYTES = 8
_PAGE = 4096
# How many are remembered; each takes about a kilobyte.
_CALLERS_MAX = 16384
_CALLS = frozenset({int(Op.INIT), int(Op.ADD), int(Op.RM)})


class Holder(NamedTuple):
    """
    One fd of one process on an inotify instance.

    `tid` is the thread whose descriptor table it is, `ucounts` names the UserRow that is charged,
    `rows` counts the watch rows that are its, `oldest` is the address of a `queued` event,
    `queue_limit` the max_events of its instance.
    `birth` is nanoseconds of CLOCK_BOOTTIME, `gen` nanoseconds of CLOCK_MONOTONIC or 0.
    """

    group: int
    gen: int
    birth: int
    ucounts: int
    tgid: int
    fd: int
    queued: int
    tid: int
    read_at: int
    oldest: int
    reading: int
    rows: int
    queue_limit: int
    unused: int

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
    end: int = 0
    watches: int = 0
    holders: int = 0
    users: int = 0
    asker: int = 0
    folder: int = 0
    fd: int = 0


class WatchRow(NamedTuple):
    """One watch of the kernel's own list; `dev` is the kernel's dev_t."""

    inode: int
    ino: int
    wd: int
    dev: int
    mask: int
    generation: int


class UserRow(NamedTuple):
    """
    Who is charged for instances, with the kernel's counters: see bpf/wire.h.

    `uid` is as in the initial user namespace, `userns` an inode number; used and limit are counts.
    """

    ucounts: int
    parent: int
    watches_used: int
    watches_limit: int
    instances_used: int
    instances_limit: int
    uid: int
    userns: int


class Arrival(NamedTuple):
    """
    A program image that uses inotify for the first time.

    `stack` is the address where its stack begins, which is another after an exec.
    """

    birth: int
    stack: int
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


def decode_users(rows: bytes) -> list[UserRow]:
    """The rows of the walk that are about users; whole rows only."""
    if len(rows) % USER_ROW.size:
        raise WireError(f"{len(rows)} bytes of users")
    return [UserRow(*row) for row in USER_ROW.iter_unpack(rows)]


def spilled_stack_id(value: bytes) -> int:
    """Which frames belong to a spilled call; 0 for none."""
    return int(SPILLED.unpack(value)[1])


def spilled_times(value: bytes) -> int:
    """How many calls a record stands for."""
    return int(SPILLED.unpack(value)[2])


def decode_spilled(value: bytes, frames: bytes) -> CallEvent:
    """
    A call that a buffer refused.

    `frames` are what was kept of its stack, at least as much as it had, or nothing.
    Raises WireError if `value` is no such record.
    """
    if len(value) != SPILLED.size:
        raise WireError(f"spilled call of {len(value)} bytes")
    call, _, _, path = SPILLED.unpack(value)
    op, tgid, ts, ret, arg, stack_bytes, path_bytes, *what = _CALL.unpack_from(call)
    if stack_bytes > 0 and stack_bytes % _FRAME_BYTES:
        raise WireError(f"spilled call with {stack_bytes} bytes of frames")
    is_displaced = stack_bytes > len(frames)
    caller = _caller(op, tgid, call[_CALL.size :] + frames[: max(stack_bytes, 0)])
    if is_displaced:
        caller = caller._replace(stack=RawStack(b"", WalkEnd.DISPLACED, False))
    kept = path[: path_bytes - 1] if 0 < path_bytes <= len(path) else None
    return CallEvent(ts, caller, ret, arg, kept, *what)


def decode_copy(record: bytes) -> StackCopy:
    """
    One record of the copies buffer. Raises WireError if it is shorter than what it says it holds.
    """
    return _decode_copy(record)


def decode_kept_copy(value: bytes) -> StackCopy:
    """One that the buffer refused, of which only the beginning may be kept. Raises WireError."""
    return _decode_copy(value, is_whole=False)


def _decode_copy(record: bytes, is_whole: bool = True) -> StackCopy:
    if len(record) < COPY.size:
        raise WireError(f"copy of {len(record)} bytes")
    fields = COPY.unpack_from(record)
    (
        op,
        tgid,
        ts,
        birth,
        exec_id,
        tid,
        pc,
        sp,
        fp,
        base,
        stack,
        frames,
        size,
        present,
        _,
        registers,
    ) = fields
    if op != Op.COPY:
        raise WireError(f"copy of kind {op}")
    if is_whole and len(record) < COPY.size + size:
        raise WireError(f"copy of {len(record)} bytes holds {size}")
    return StackCopy(
        ts=ts,
        process=Process(tgid, birth),
        exec_id=exec_id,
        tid=tid,
        pc=pc & ~EXACT_PC,
        is_exact=bool(pc & EXACT_PC),
        sp=sp,
        fp=fp,
        base=base,
        stack=stack,
        frames=frames,
        registers=struct.unpack(f"={len(registers) // _FRAME_BYTES}Q", registers),
        content=record[COPY.size : COPY.size + size],
        present=present,
        # the first of its pages is only a part of one
        is_cut=size > COPY_BYTES_MAX - _PAGE or size > len(record) - COPY.size,
    )


def _decode_call(record: bytes) -> CallEvent:
    if len(record) < CALL.size:
        raise WireError(f"call of {len(record)} bytes")
    facts = _CALL.unpack_from(record)
    op, tgid, ts, ret, arg, stack_bytes, path_bytes, inode, ino, dev, detail = facts
    path_at = CALL.size
    if stack_bytes > 0:
        if stack_bytes % _FRAME_BYTES:
            raise WireError(f"call with {stack_bytes} bytes of frames")
        path_at += stack_bytes
    end = path_at + path_bytes if path_bytes > 0 else path_at
    if len(record) < end:
        raise WireError(f"call of {len(record)} bytes holds {end}")
    caller = _caller(op, tgid, record[_CALL.size : path_at])
    path = record[path_at : end - 1] if path_bytes > 0 else None
    return _make_event((ts, caller, ret, arg, path, inode, ino, dev, detail))


# past the __new__ of a NamedTuple, which is Python: this runs for every call of a flood
_make_event = CallEvent._make


@lru_cache(maxsize=_CALLERS_MAX)
def _caller(op: int, tgid: int, facts: bytes) -> Caller:
    """The same object for the same facts, as long as they are in use."""
    group, gen, birth, end, guessed, exec_id, tid, uid, fd, comm = _CALLER.unpack_from(facts)
    frames = facts[_CALLER.size :]
    return Caller(
        op=op,
        process=Process(tgid, birth),
        instance=Instance(group, gen),
        exec_id=exec_id,
        tid=tid,
        uid=uid,
        fd=fd,
        comm=comm.partition(b"\0")[0],
        stack=RawStack(frames, end, bool(guessed)) if frames else NO_STACK,
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
