"""The stream of calls: columns for people, or JSON Lines."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from rich.cells import cell_len

from tracer.core.events import (
    CALL_NAMES,
    CallEvent,
    Op,
    errno_name,
    explanation,
    init_flag_names,
    mask_names,
)
from tracer.core.report import FailureRow
from tracer.core.shortage import Shortage
from tracer.core.stack import Stack
from tracer.views.failures import caller, failure_keys, shortage_keys
from tracer.views.json_report import frame_object
from tracer.views.stacks import caveat, frame_rows
from tracer.views.text import counted, decoded, printable, shortened

SCHEMA = "inotrace.events/1"

_COLUMNS = "{:<15} {:>7} {:<15} {:<9} {:>4} {:<8} {}"
_SHORT_CALLS = {Op.INIT: "init", Op.ADD: "add_watch", Op.RM: "rm_watch"}
_FRAME_INDENT = " " * 16
_LEAST_DETAILS = 10
_REPEATED_SHOWN = 8


class Printer(Protocol):
    """Text for the beginning, for each call, and for the end of the stream."""

    def header(self) -> str: ...

    def call(self, event: CallEvent, stack: Stack, shortage: Shortage | None = None) -> str: ...

    def footer(self, printed: int, lost: int, failures: Sequence[FailureRow] = ()) -> str: ...


def printer(format_: str, width: int, *, stacks: bool) -> Printer:
    """`format_` is "table" (fits `width`), "plain" (nothing shortened) or "json"."""
    clock = WallClock()
    if format_ == "json":
        return JsonLines(clock, stacks)
    return Lines(clock, stacks, width if format_ == "table" else None)


class WallClock:
    """From CLOCK_MONOTONIC to the time of day."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def seconds(self, monotonic_ns: int) -> float:
        """Since the epoch."""
        return (monotonic_ns + self._offset_ns) / 1e9

    def text(self, monotonic_ns: int) -> str:
        """``20:15:07.123456``, local time."""
        whole, fraction = divmod(monotonic_ns + self._offset_ns, 1_000_000_000)
        return f"{time.strftime('%H:%M:%S', time.localtime(whole))}.{fraction // 1000:06d}"


class Lines:
    """One line a call, with its stack below if asked for."""

    def __init__(self, clock: WallClock, stacks: bool, width: int | None) -> None:
        self._clock = clock
        self._stacks = stacks
        self._width = width

    def header(self) -> str:
        head = _COLUMNS.format("TIME", "PID", "COMMAND", "CALL", "FD", "RESULT", "DETAILS")
        return self._fitted(head)

    def call(self, event: CallEvent, stack: Stack, shortage: Shortage | None = None) -> str:
        head = _COLUMNS.format(
            self._clock.text(event.ts),
            event.caller.process.pid,
            printable(event.caller.comm),
            _SHORT_CALLS[Op(event.op)],
            _instance_fd(event),
            _result(event),
            "",
        )
        details = _details(event)
        if self._width is not None:
            details = shortened(details, max(self._width - cell_len(head), _LEAST_DETAILS))
        line = head + details
        stack_lines = _stack_lines(stack, self._width) if self._stacks else ()
        return "".join(map(self._fitted, (line, *stack_lines)))

    def footer(self, printed: int, lost: int, failures: Sequence[FailureRow] = ()) -> str:
        return ""

    def _fitted(self, line: str) -> str:
        fitted = line if self._width is None else shortened(line, self._width)
        return fitted.rstrip() + "\n"


class JsonLines:
    """
    Schema ``inotrace.events/1``: a line that names it, one object a call, and a summary.

    `time` is in seconds since the epoch, `monotonic_ns` of CLOCK_MONOTONIC. Bytes that are not
    UTF-8 appear as lone surrogates, as in the report. Of failed calls, `explanation` says why, and
    `limit`, on the first of each kind by a process, who has how much of what it had none left of.
    """

    def __init__(self, clock: WallClock, stacks: bool) -> None:
        self._clock = clock
        self._stacks = stacks

    def header(self) -> str:
        return _json_line({"schema": SCHEMA})

    def call(self, event: CallEvent, stack: Stack, shortage: Shortage | None = None) -> str:
        call: dict[str, Any] = {
            "time": round(self._clock.seconds(event.ts), 6),
            "monotonic_ns": event.ts,
            "pid": event.caller.process.pid,
            "tid": event.caller.tid,
            "uid": event.caller.uid,
            "comm": decoded(event.caller.comm),
            "call": CALL_NAMES[Op(event.op)],
            "fd": event.caller.fd,
            "ret": event.ret,
            "errno": errno_name(event.ret) if event.ret < 0 else None,
            "wd": _wd(event),
            "mask": list(mask_names(event.arg)) if event.op == Op.ADD else None,
            "flags": list(init_flag_names(event.arg)) if event.op == Op.INIT else None,
            "path": decoded(event.path) if event.path is not None else None,
            "explanation": _explanation(event) or None,
            "limit": shortage_keys(shortage) if shortage is not None else None,
        }
        if self._stacks:
            call["stack"] = stack.state.value
            call["stack_reason"] = stack.reason or None
            call["frames"] = [frame_object(frame) for frame in stack.frames]
        return _json_line(call)

    def footer(self, printed: int, lost: int, failures: Sequence[FailureRow] = ()) -> str:
        kinds = list(map(failure_keys, failures))
        return _json_line({"summary": {"calls": printed, "lost": lost, "failures": kinds}})


def summary(printed: int, lost: int) -> str:
    """What a stream held, in one line."""
    return f"{counted(printed, 'call')}, {lost:,} lost"


def repeated(failures: Sequence[FailureRow]) -> Iterator[str]:
    """How often each kind of call failed that did so more than once, in a line each."""
    again = [failure for failure in failures if failure.count > 1]
    for one in again[:_REPEATED_SHOWN]:
        yield f"{one.call} {one.errno}, {caller(one)}: {one.count:,} times"
    if again[_REPEATED_SHOWN:]:
        more = again[_REPEATED_SHOWN:]
        total = counted(sum(one.count for one in more), "failed call")
        yield f"and {total} of {counted(len(more), 'more kind')}"


def _explanation(event: CallEvent) -> str:
    if event.ret >= 0:
        return ""
    exhausted = event.detail if event.op == Op.INIT else 0
    return explanation(Op(event.op), -event.ret, exhausted)


def _json_line(value: dict[str, Any]) -> str:
    return json.dumps(value) + "\n"


def _wd(event: CallEvent) -> int | None:
    if event.op == Op.RM or (event.op == Op.ADD and event.ret >= 0):
        return event.wd
    return None


def _instance_fd(event: CallEvent) -> str:
    return str(event.caller.fd) if event.caller.fd >= 0 else "-"


def _result(event: CallEvent) -> str:
    if event.ret < 0:
        return errno_name(event.ret)
    return f"wd {event.ret}" if event.op == Op.ADD else "ok"


def _details(event: CallEvent) -> str:
    if event.op == Op.INIT:
        return "|".join(init_flag_names(event.arg))
    if event.op == Op.RM:
        return f"wd {event.wd}"
    path = printable(event.path) if event.path is not None else "(path unreadable)"
    return f"{path}  {'|'.join(mask_names(event.arg))}"


def _stack_lines(stack: Stack, width: int | None) -> Iterator[str]:
    """All frames: this is the stream, which leaves nothing out."""
    room = None if width is None else width - len(_FRAME_INDENT)
    for name, place in frame_rows(stack.frames, room):
        yield _FRAME_INDENT + name + place
    if caveat(stack):
        yield _FRAME_INDENT + caveat(stack)
