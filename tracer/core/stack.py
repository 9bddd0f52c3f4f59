"""Symbolized stacks."""

from __future__ import annotations

import enum
from typing import NamedTuple


class StackState(str, enum.Enum):
    """How much of a stack is known."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"
    MISSING = "missing"


class Frame(NamedTuple):
    """
    One frame. `function` is None when no name is certain.

    `offset` is in bytes: from the start of the function if there is one, else from the start of
    the module's file, else it is the address itself.
    """

    function: str | None
    module: bytes | None
    offset: int
    file: str | None = None
    line: int | None = None
    build_id: str | None = None


class Stack(NamedTuple):
    """Frames, innermost first, and why there are no more of them ("" when complete)."""

    frames: tuple[Frame, ...]
    state: StackState
    reason: str = ""

    @property
    def identity(self) -> tuple[tuple[str | None, bytes | None, int], ...]:
        """
        What makes two stacks the same place in the code.

        The offset counts only where there is no function name: inside a function it differs
        between builds and call sites of one line, and says nothing to a reader.
        """
        return tuple(
            (frame.function, frame.module, 0 if frame.function else frame.offset)
            for frame in self.frames
        )


def missing(reason: str) -> Stack:
    return Stack((), StackState.MISSING, reason)


# Basenames of the C library and the dynamic loader, glibc's and musl's.
_RUNTIME_MODULES = (b"libc.so", b"libc-", b"ld-linux", b"ld-musl", b"libc.musl", b"libpthread")
_START = frozenset({"_start", "__libc_start_main", "__libc_start_call_main"})


def is_runtime(frame: Frame) -> bool:
    """Whether the frame is of the C library or the process's start, not of the program."""
    if frame.function in _START:
        return True
    return is_runtime_module(frame.module or b"")


def is_runtime_module(module: bytes) -> bool:
    """Whether a file is the C library or the dynamic loader, by its name."""
    return module.rpartition(b"/")[2].startswith(_RUNTIME_MODULES)


def own_frames(stack: Stack) -> tuple[Frame, ...]:
    """The stack without the runtime's frames at its two ends; all of it if nothing else is left."""
    frames = list(stack.frames)
    while frames and is_runtime(frames[0]):
        del frames[0]
    while frames and is_runtime(frames[-1]):
        del frames[-1]
    return tuple(frames) or stack.frames
