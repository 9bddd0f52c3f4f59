"""Stacks as lines: a frame is two columns, and what is not known of a stack is said below."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text

from tracer.core.stack import Frame, Stack, StackState, own_frames
from tracer.views.text import counted, printable, shortened

_FRAMES_SHOWN = 8
_LEAST_WIDTH = 30
# A longer name, as C++ has them, goes beyond its column rather than move all the others.
_NAME_COLUMN_MAX = 60
_PLACE = 18
_LEAST_NAME = 20
_LEAST_PLACE = 10
_GAP = 2
_PARTS_OF_PATH = 3
_PARENTHESIS = re.compile(r"[()]")
# enough to tell builds apart; the JSON has it whole
_BUILD_ID_DIGITS = 12
_CAVEATS = {
    StackState.GUESSED: "not certain",
    StackState.TRUNCATED: "callers unknown",
    StackState.MISSING: "stack missing",
}


def stack_lines(stack: Stack, width: int, indent: int, *, full: bool) -> Iterator[Text]:
    """The program's own frames, or all if `full`, in at most `width` cells with the indent."""
    own = own_frames(stack)
    frames = stack.frames if full else own[:_FRAMES_SHOWN]
    margin = " " * indent
    for i, (name, place) in enumerate(frame_rows(frames, width - indent)):
        line = Text.assemble(margin, (name, "" if i else "bold"), (place, "dim"))
        line.rstrip()
        yield line
    hidden = len(stack.frames) - len(frames)
    if hidden:
        whose = " of runtime and library" if len(frames) == len(own) else ""
        yield Text(f"{margin}+ {counted(hidden, 'more frame')}{whose}   --full-stacks", "dim")
    style = "dim" if stack.frames else "yellow"
    for text in textwrap.wrap(caveat(stack), max(width - indent, _LEAST_WIDTH)):
        yield Text(margin).append(text, style)


def frame_rows(frames: Sequence[Frame], room: int | None) -> Iterator[tuple[str, str]]:
    """Columns that line up, with the gap; together no wider than `room`, None for any width."""
    rows = [frame_columns(frame) for frame in frames]
    if room is not None:
        longest = max(room - _GAP - _PLACE, _LEAST_NAME)
        rows = [(_fitted_name(name, longest), place) for name, place in rows]
    column = min(max((cell_len(name) for name, _ in rows), default=0), _NAME_COLUMN_MAX)
    for name, place in rows:
        used = max(cell_len(name), column)
        if room is not None:
            place = _fitted_place(place, max(room - _GAP - used, _LEAST_PLACE))
        yield name + " " * (used - cell_len(name) + _GAP), place


def _fitted_name(name: str, width: int) -> str:
    """A function's name tells more than its arguments, in C++ the longest part of it."""
    if cell_len(name) > width:
        name = name_without_arguments(name)
    return shortened(name, width)


def name_without_arguments(name: str) -> str:
    """``f(…) const`` for ``f(int, char) const``."""
    depth = start = 0
    for found in _PARENTHESIS.finditer(name):
        if found[0] == "(":
            start = start if depth else found.start()
            depth += 1
        else:
            depth -= 1
    # those of `main.(*Watcher).Add` and `(anonymous namespace)::add` hold no arguments
    beyond = name[name.rfind(")") + 1 :]
    is_whole = depth == 0 and start and beyond in ("", " const")
    return f"{name[:start]}(…){beyond}" if is_whole else name


def _fitted_place(place: str, width: int) -> str:
    """Of a path, the end with the file and the line tells most."""
    parts = place.rsplit("/", _PARTS_OF_PATH)
    for at in range(len(parts)):
        end = "/".join(["…", *parts[at:]]) if at else place
        if cell_len(end) <= width:
            return end
    return shortened(parts[-1], width)


def frame_columns(frame: Frame) -> tuple[str, str]:
    """A frame as two columns: the function, and where it is."""
    module = printable((frame.module or b"?").rpartition(b"/")[2])
    if frame.function is None:
        build = f"(build-id {frame.build_id[:_BUILD_ID_DIGITS]})" if frame.build_id else ""
        return f"{module}+{frame.offset:#x}", build
    if frame.file is None:
        return printable(frame.function), module
    line = "" if frame.line is None else f":{frame.line}"
    return printable(frame.function), f"{printable(frame.file)}{line}"


def place_name(stack: Stack) -> str:
    """In one column, the function that a stack is of."""
    return frame_columns(own_frames(stack)[0])[0] if stack.frames else caveat(stack)


def caveat(stack: Stack) -> str:
    """What is not known of a stack, and why; empty if all is."""
    state = stack.state if stack.frames else StackState.MISSING
    if state is StackState.COMPLETE:
        return ""
    return f"{_CAVEATS[state]}: {printable(stack.reason)}"
