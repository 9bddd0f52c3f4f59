"""The kernel's walk over frames against user space's, which goes by all registers."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import compiled

from tracer.core.events import CallEvent, Op, RawStack, StackCopy, WalkEnd
from tracer.core.stack import Stack, StackState
from tracer.feed import Feed
from tracer.kernel import probe, stream
from tracer.kernel.hooks import Mode
from tracer.kernel.probe import Scope
from tracer.stacks.collector import Stacks
from tracer.stacks.unwinder import Unwinding
from tracer.targets.processes import ProcessTable

pytestmark = pytest.mark.usefixtures("root")

_CALLS = 29
_TOO_DEEP_TO_COPY = "too deep to be looked at as a whole; the next call may tell more"
_OWN = frozenset(
    {
        *("plain", "large", "of_any_size", "aligned", "aligned_of_any_size", "pointed"),
        *("crowded", "many_arguments", "through_library", "descend", "compare", "main"),
    }
)


class Recorder(Stacks):
    """Keeps what both sides found of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.unwound: dict[tuple[int, int], Unwinding] = {}
        self.walked: dict[tuple[int, int], RawStack] = {}
        self.stacks: list[Stack] = []

    def learn(self, copy: StackCopy) -> None:
        super().learn(copy)
        self.unwound[copy.tid, copy.ts] = self._learned[copy.tid, copy.ts]

    def resolve(self, event: CallEvent) -> Stack:
        stack = super().resolve(event)
        if event.op == Op.ADD:
            self.walked[event.caller.tid, event.ts] = event.caller.stack
            self.stacks.append(stack)
        return stack

    def compared(self) -> Iterator[tuple[RawStack, Unwinding]]:
        """Of the calls that the kernel walked by rows alone and sent a copy of as well."""
        for call, walked in self.walked.items():
            unwound = self.unwound.get(call)
            if unwound is None or walked.end in (WalkEnd.NO_ROW, WalkEnd.KEPT):
                continue
            # of a deep one the copy may begin beyond its last frame
            if walked.end != WalkEnd.TOO_DEEP or not unwound.kept:
                yield walked, unwound


@pytest.fixture(scope="module")
def labyrinth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("labyrinth", tmp_path_factory.mktemp("labyrinth") / "labyrinth", "-O2")


@pytest.fixture
def copying_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_EXTRA_DEFINITIONS", ("-DCOPY_ALL=1",))


def _recorded(program: Path, folder: Path, seed: int, mode: Mode, rounds: int = 23) -> Recorder:
    """What happened in so many rounds of calls; each is taken in before the next begins."""
    recorder = Recorder()
    command = [program, folder, str(_CALLS), str(seed)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process, Feed(Scope(frozenset({process.pid})), recorder, ProcessTable(), mode) as feed:
        feed.attach()
        assert process.stdin is not None and process.stdout is not None
        for _ in range(rounds):
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"done\n"
            for _ in feed.all_until(time.monotonic_ns()):
                pass
    assert process.returncode == 0
    return recorder


@pytest.mark.parametrize("seed", [pytest.param(23, marks=pytest.mark.kernels), 1173])
def test_both_find_the_same_frames(
    labyrinth: Path, tmp_path: Path, copying_all: None, mode: Mode, seed: int
) -> None:
    """GIVEN random chains of frames of every shape WHEN walked by rows THEN none differs."""
    found = list(_recorded(labyrinth, tmp_path, seed, mode).compared())

    assert len(found) > 97
    assert len({walked.frames for walked, _ in found}) > 53
    for walked, unwound in found:
        addresses = walked.addresses()
        if unwound.end is WalkEnd.NOT_COPIED:
            addresses = addresses[: len(unwound.frames) + unwound.kept]
        assert unwound.frames == addresses[unwound.kept :]
        assert not walked.guessed and not unwound.guessed
    ends = Counter(walked.end for walked, _ in found)
    assert set(ends) <= {WalkEnd.OUTERMOST, WalkEnd.TOO_DEEP}
    assert ends[WalkEnd.OUTERMOST] > len(found) / 5


def test_a_stack_is_known_to_main_or_to_its_64th_frame(
    labyrinth: Path, tmp_path: Path, mode: Mode
) -> None:
    """GIVEN such chains, learned as they come THEN each has all its functions, and says so."""
    recorder = _recorded(labyrinth, tmp_path, 5, mode)

    states = Counter(stack.state for stack in recorder.stacks)
    assert states[StackState.COMPLETE] > 97
    reasons = Counter(stack.reason for stack in recorder.stacks)
    assert reasons["deeper than 64 frames"] > 23
    for stack in recorder.stacks:
        names = [frame.function for frame in stack.frames]
        assert names[0] == "inotify_add_watch"
        own = [name for name in names if name in _OWN]
        if stack.state is StackState.COMPLETE:
            assert own[-1] == "main" and names[-1] == "_start"
        elif stack.reason == "deeper than 64 frames":
            assert len(names) == 64
        else:
            # larger than a copy, and its outer rows were not known yet
            assert stack.reason == _TOO_DEEP_TO_COPY
        others = {frame.module for frame in stack.frames if frame.function not in _OWN}
        others.discard(bytes(labyrinth))
        assert all(
            os.path.basename(module or b"").startswith((b"libc.so", b"libc-")) for module in others
        )
        called_by_library = [
            names[at + 1] for at, name in enumerate(names[:-1]) if name == "compare"
        ]
        assert not set(called_by_library) & _OWN


def test_what_the_buffer_for_copies_refuses_is_kept(
    labyrinth: Path, tmp_path: Path, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a buffer too small for any copy WHEN rows are missing THEN stacks are known as well."""
    monkeypatch.setattr(stream, "_FEW_PAGES", 1)
    monkeypatch.setattr(stream, "_COPIES_SHARE", 1 << 20)

    recorder = _recorded(labyrinth, tmp_path, 5, mode, rounds=3)

    kept = [call for call, walked in recorder.walked.items() if walked.end == WalkEnd.KEPT]
    assert len(kept) > 5
    reasons = Counter(stack.reason for stack in recorder.stacks)
    assert set(reasons) == {"", "deeper than 64 frames", _TOO_DEEP_TO_COPY}
