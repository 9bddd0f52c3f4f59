"""Symbolized stacks."""

from __future__ import annotations

import enum
from typing import NamedTuple

from tracer.core.runtime_frames import (
    Part,
    is_made_at_run_time,
    is_main_around_rust,
    part_of,
    runs_script,
)


class StackState(str, enum.Enum):
    """How much of a stack is known."""

    COMPLETE = "complete"
    GUESSED = "guessed"
    TRUNCATED = "truncated"
    MISSING = "missing"


class Frame(NamedTuple):
    """
    One frame. `function` is None when no name is certain.

    `offset` is in bytes: from the start of the function if there is one, else it is where the
    module was linked to be, as addr2line(1) takes it, else the address itself. `address` is where
    it was in the process.
    """

    function: str | None
    module: bytes | None
    offset: int
    file: str | None = None
    line: int | None = None
    build_id: str | None = None
    address: int | None = None


class Stack(NamedTuple):
    """Frames, innermost first, and why there are no more, or not certain ("" when complete)."""

    frames: tuple[Frame, ...]
    state: StackState
    reason: str = ""

    @property
    def identity(self) -> tuple[tuple[str | None, bytes | None, int], ...]:
        """
        What makes two stacks the same place in the code.

        The offset counts only where there is no function name: inside a function it differs
        between builds and call sites of one line, and says nothing to a reader. Neither do build,
        file and line; functions inlined there count. What an interpreter does between functions
        of a script changes as they get warm, and does not count; where they have no names, all
        that it does in a row is one, since their code moves.
        """
        frames = own_frames(self) if _has_script(self.frames) else self.frames
        found: list[tuple[str | None, bytes | None, int]] = []
        for place in map(_as_place, frames):
            if place != _SCRIPT or found[-1:] != [_SCRIPT]:
                found.append(place)
        return tuple(found)


# Functions of a script of which no names are known, and the code that runs them.
_SCRIPT = (None, None, 0)


def _as_place(frame: Frame) -> tuple[str | None, bytes | None, int]:
    if runs_script(frame.function, frame.module):
        return _SCRIPT
    return frame.function, frame.module, 0 if frame.function else frame.offset


def missing(reason: str) -> Stack:
    return Stack((), StackState.MISSING, reason)


# What is folded away at the innermost and the outermost end; the next if nothing is left.
_FOLDS = (
    (frozenset({Part.C_LIBRARY, Part.LANGUAGE}), frozenset(Part)),
    (frozenset({Part.C_LIBRARY}), frozenset({Part.C_LIBRARY, Part.START})),
)


def is_runtime(frame: Frame) -> bool:
    """Whether the frame is of the C library, of a language or of a start, not a program's own."""
    return part_of(frame.function, frame.module, frame.file) is not None


def own_frames(stack: Stack) -> tuple[Frame, ...]:
    """
    The stack without the runtime's frames at its two ends; all of it if nothing else is left.

    Where functions of scripts are known, what the interpreter does between them is left out too.
    """
    parts = _parts(stack)
    if _has_script(stack.frames):
        return tuple(frame for frame, part in zip(stack.frames, parts) if part is None)
    for inner, outer in _FOLDS:
        first, end = 0, len(parts)
        while first < end and parts[first] in inner:
            first += 1
        while first < end and parts[end - 1] in outer:
            end -= 1
        if first < end:
            return stack.frames[first:end]
    return stack.frames


def _parts(stack: Stack) -> list[Part | None]:
    frames = stack.frames
    parts = [part_of(frame.function, frame.module, frame.file) for frame in frames]
    for at in range(1, len(frames)):
        if is_main_around_rust(frames[at].function, frames[at - 1].function):
            parts[at] = Part.START
    if _ends_with_nameless_start(stack, parts):
        parts[-1] = Part.START
    return parts


def _ends_with_nameless_start(stack: Stack, parts: list[Part | None]) -> bool:
    """A stripped program's _start, which has called the C library."""
    is_whole = stack.state in (StackState.COMPLETE, StackState.GUESSED)
    return (
        is_whole
        and len(parts) > 1
        and stack.frames[-1].function is None
        and parts[-2] in (Part.C_LIBRARY, Part.START)
    )


def _has_script(frames: tuple[Frame, ...]) -> bool:
    return any(is_made_at_run_time(frame.module) and not is_runtime(frame) for frame in frames)
