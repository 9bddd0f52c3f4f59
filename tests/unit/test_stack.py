"""Which frames are the program's own, and when two stacks are one place."""

from __future__ import annotations

import pytest
from build import ATTACH, MOUNT, START, WRAPPER
from hypothesis import given
from hypothesis import strategies as st

from tracer.core.stack import Frame, Stack, StackState, is_runtime, missing, own_frames

_RUNTIME_IN_THE_MIDDLE = Frame("qsort", b"/lib/libc.so.6", 3)


def _stack(*frames: Frame) -> Stack:
    return Stack(frames, StackState.COMPLETE)


@pytest.mark.parametrize(
    ("module", "function", "expected"),
    [
        (b"/usr/lib/x86_64-linux-gnu/libc.so.6", "inotify_add_watch", True),
        (b"/lib/x86_64-linux-gnu/libc-2.31.so", "inotify_add_watch", True),
        (b"/lib/ld-musl-x86_64.so.1", "inotify_add_watch", True),
        (b"/lib64/ld-linux-x86-64.so.2", None, True),
        (b"/lib/libpthread.so.0", "start_thread", True),
        (b"/usr/bin/agent", "_start", True),
        (b"/usr/bin/agent", "main", False),
        (b"/opt/libc.so/agent", "main", False),
        (b"/usr/lib/libcrypto.so.3", "OPENSSL_init", False),
        (None, None, False),
    ],
)
def test_the_runtime_is_told_by_module_and_start(
    module: bytes | None, function: str | None, expected: bool
) -> None:
    assert is_runtime(Frame(function, module, 0)) is expected


def test_the_runtime_is_cut_off_at_both_ends_only() -> None:
    stack = _stack(WRAPPER, ATTACH, _RUNTIME_IN_THE_MIDDLE, MOUNT, START)

    assert own_frames(stack) == (ATTACH, _RUNTIME_IN_THE_MIDDLE, MOUNT)


def test_a_stack_of_nothing_else_is_kept_whole() -> None:
    assert own_frames(_stack(WRAPPER, START)) == (WRAPPER, START)
    assert own_frames(missing("no frames")) == ()


def test_the_same_function_at_another_offset_or_line_is_the_same_place() -> None:
    elsewhere = ATTACH._replace(offset=97, line=89, build_id="b1d")

    assert _stack(WRAPPER, ATTACH).identity == _stack(WRAPPER, elsewhere).identity


def test_without_a_function_the_offset_is_the_place() -> None:
    bare = ATTACH._replace(function=None)

    assert _stack(bare).identity != _stack(bare._replace(offset=97)).identity


@pytest.mark.parametrize(
    "other",
    [
        (WRAPPER, ATTACH._replace(function="detach")),
        (WRAPPER, ATTACH._replace(module=b"/usr/bin/other")),
        (WRAPPER, ATTACH, MOUNT),
        (ATTACH, WRAPPER),
    ],
)
def test_another_function_module_depth_or_order_is_another_place(other: tuple[Frame, ...]) -> None:
    assert _stack(WRAPPER, ATTACH).identity != _stack(*other).identity


_frames = st.sampled_from([WRAPPER, ATTACH, MOUNT, START, _RUNTIME_IN_THE_MIDDLE])


@given(st.lists(_frames, max_size=11))
def test_own_frames_are_a_run_of_the_stack_with_own_ends(frames: list[Frame]) -> None:
    own = list(own_frames(_stack(*frames)))

    assert any(frames[i : i + len(own)] == own for i in range(len(frames) + 1))
    if not all(map(is_runtime, frames)):
        assert not is_runtime(own[0])
        assert not is_runtime(own[-1])
        # nothing of the program was cut off
        assert sum(map(is_runtime, frames)) - sum(map(is_runtime, own)) == len(frames) - len(own)
