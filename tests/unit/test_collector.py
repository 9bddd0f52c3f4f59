"""From what the kernel sends of stacks to what a reader sees: each state, and why."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from build import AGENT, OTHER, add

from tracer.core.events import CallEvent, Process, RawStack, StackCopy, WalkEnd
from tracer.core.stack import Frame, Stack, StackState, missing
from tracer.core.wire import EXACT_PC, Arrival
from tracer.stacks import collector
from tracer.stacks.collector import Stacks
from tracer.stacks.image import ImageKey
from tracer.stacks.registers import OWN
from tracer.stacks.row import NEEDS_REGISTERS, OUTERMOST, Flag, From, Row
from tracer.stacks.unwinder import Leaving, Point, StackMemory

_SP = 0x7FFC_0000_0000
_CALL, _MIDDLE, _MAIN, _START = 0x1123, 0x1223, 0x1323, 0x1423
_WHOLE = (_CALL, _MIDDLE, _MAIN, _START)
_BY_SP = Row(From.SP, 16, From.CFA, -8)
_ENDED = "the process ended before its symbols could be read"
_LOST = "the rest was lost on its way"


class _Clock:
    def __init__(self) -> None:
        self.now = 1173.0

    def monotonic(self) -> float:
        return self.now


# when what is replaced was found to be; calls are made before that, unless they say otherwise
_REPLACED_AT = 1 << 40


class _Image:
    """
    A program of four functions; what has no row is no code.

    `replaced` are rows whose code is gone, which it finds when it looks again.
    """

    def __init__(self, clock: _Clock, key: ImageKey, *_: Any) -> None:
        self._clock = clock
        self.key = key
        self.rows: dict[int, Leaving | None] = dict.fromkeys(_WHOLE, _BY_SP)
        self.rows[_START] = OUTERMOST
        self.names = {_CALL: "call", _MIDDLE: "middle", _MAIN: "main", _START: "_start"}
        self.asked: list[tuple[tuple[int, ...], bool]] = []
        self.noted: list[tuple[tuple[int, ...], bool]] = []
        self.replaced: set[int] = set()
        self.stale: set[int] = set()
        self.gone: set[int] = set()
        self.generation = self.looks = 0
        self.looked_at = clock.now
        self.is_called = True
        self.is_known = True
        self.has_ended = False
        self.is_closed = self.is_finished = self.is_holding = False

    def leaving(self, point: Point, stack: StackMemory) -> Leaving | None:
        return self.rows.get(point.pc)

    def news(self, rows: dict[int, Row], missed: int) -> dict[int, Row]:
        return {pc: row for pc, row in rows.items() if pc == missed or row != OUTERMOST}

    def stack(self, pcs: Sequence[int], *, is_exact: bool) -> tuple[Frame, ...]:
        self.asked.append((tuple(pcs), is_exact))
        named = [(self.names.get(pc), pc) for pc in pcs]
        return tuple(
            Frame(name, b"/usr/bin/agent" if name is not None else None, pc, address=pc)
            for name, pc in named
        )

    def note_unnamed(self, pcs: Sequence[int], *, is_exact: bool) -> None:
        self.noted.append((tuple(pcs), is_exact))

    def look_again(self) -> None:
        self.looks += 1
        self.looked_at = self._clock.now
        self.generation += bool(self.replaced)
        self.stale |= self.replaced
        self.gone |= self.replaced
        self.replaced = set()

    look_again_if_old = look_again

    def was_replaced(self, pcs: Sequence[int], ts: int) -> bool:
        return ts < _REPLACED_AT and not self.gone.isdisjoint(pcs)

    def take_stale(self) -> set[int]:
        stale, self.stale = self.stale, set()
        return stale

    def hold_files(self) -> None:
        self.is_holding = True

    def finish(self) -> None:
        self.is_finished = True

    def close(self) -> None:
        self.is_closed = True


class _Told(NamedTuple):
    process: Process
    exec_id: int
    what: Any


class _Walk:
    """What the kernel is told, and the copies that it has kept."""

    def __init__(self) -> None:
        self.rows: list[_Told] = []
        self.dropped: list[_Told] = []
        self.kept: dict[tuple[int, int], StackCopy] = {}

    def put_rows(self, process: Process, exec_id: int, rows: dict[int, Row]) -> None:
        self.rows.append(_Told(process, exec_id, rows))

    def drop_rows(self, process: Process, exec_id: int, pcs: set[int]) -> None:
        self.dropped.append(_Told(process, exec_id, pcs))

    def kept_copy(self, tid: int, ts: int) -> StackCopy | None:
        return self.kept.pop((tid, ts), None)


class _AlwaysDue:
    is_due = True

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock()
    monkeypatch.setattr(collector, "time", made)
    monkeypatch.setattr(collector, "Pace", _AlwaysDue)
    return made


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch, clock: _Clock) -> list[_Image]:
    """All that were made, oldest first."""
    made: list[_Image] = []

    def make(*arguments: Any) -> _Image:
        made.append(_Image(clock, *arguments))
        return made[-1]

    monkeypatch.setattr(collector, "Image", make)
    return made


@pytest.fixture
def walk() -> _Walk:
    return _Walk()


@pytest.fixture
def stacks(images: list[_Image], walk: _Walk) -> Iterator[Stacks]:
    made = Stacks()
    made.begin(walk)
    yield made
    made.close()


@pytest.fixture
def image(stacks: Stacks, images: list[_Image]) -> _Image:
    """That of AGENT."""
    _meet(stacks)
    return images[0]


def _meet(stacks: Stacks, process: Process = AGENT, exec_id: int = 1) -> None:
    stacks.meet(Arrival(birth=process.birth, stack=0, tgid=process.pid, exec_id=exec_id))


def _raw(*pcs: int, end: int = WalkEnd.OUTERMOST, guessed: bool = False) -> RawStack:
    return RawStack(struct.pack(f"={len(pcs)}Q", *pcs), end, guessed)


def _call(raw: RawStack, ts: int = 23, **changes: Any) -> CallEvent:
    return add(ts, 1, stack=raw, **changes)


def _copy(*pcs: int, ts: int = 23, missed: int = 0, **changes: Any) -> StackCopy:
    """Of a stack with these frames, from the call on; the walk got to the frame `missed`."""
    words = [word for pc in (*pcs[1:], 0) for word in (0, pc)]
    known = {OWN.sp: _SP, OWN.pc: pcs[0]}
    copy = StackCopy(
        ts=ts,
        process=AGENT,
        exec_id=1,
        stack=0,
        tid=AGENT.pid,
        pc=pcs[missed],
        is_exact=not missed,
        sp=_SP + 16 * missed,
        fp=0,
        base=_SP,
        frames=missed,
        registers=tuple(known.get(number, 0) for number in range(33)),
        content=struct.pack(f"<{len(words)}Q", *words),
    )
    return copy._replace(**changes)


def _names(stack: Stack) -> list[str | None]:
    return [frame.function for frame in stack.frames]


# --- states, and why ---


def test_a_walk_to_the_end_is_complete(stacks: Stacks, image: _Image) -> None:
    stack = stacks.resolve(_call(_raw(*_WHOLE)))

    assert (stack.state, stack.reason) == (StackState.COMPLETE, "")
    assert _names(stack) == ["call", "middle", "main", "_start"]
    # the first was interrupted there: by the kernel
    assert image.asked == [(_WHOLE, True)]


def test_a_guess_makes_it_guessed(stacks: Stacks) -> None:
    stack = stacks.resolve(_call(_raw(*_WHOLE, guessed=True)))

    assert (stack.state, stack.reason) == (
        StackState.GUESSED,
        "guessed where code has no unwind information",
    )


_REASONS = {
    WalkEnd.NO_ROW: _LOST,
    WalkEnd.UNREADABLE: "the stack could not be read any further",
    WalkEnd.BACKWARD: "the stack contradicts the program's unwind information",
    WalkEnd.TOO_DEEP: "deeper than 64 frames",
    WalkEnd.COMPAT: "a 32-bit program",
    WalkEnd.KEPT: "too many calls from new places at once to look at each",
    WalkEnd.REPLACED: "some of its code was replaced meanwhile",
    WalkEnd.TOO_SLOW: "the program's unwind information takes too long to read",
    WalkEnd.UNKNOWN: "code without unwind information",
    WalkEnd.NOT_COPIED: "too deep to be looked at as a whole; the next call may tell more",
}


@pytest.mark.parametrize("end", [end for end in WalkEnd if end is not WalkEnd.OUTERMOST])
def test_what_does_not_end_where_it_began_is_truncated(stacks: Stacks, end: WalkEnd) -> None:
    """GIVEN each end that a walk may have THEN it says why, and whether frames are guessed."""
    if end is WalkEnd.DISPLACED:
        # comes without frames
        assert stacks.resolve(_call(RawStack(b"", end, False))).state is StackState.MISSING
        return
    stack = stacks.resolve(_call(_raw(_CALL, _MIDDLE, end=end)))
    assert (stack.state, stack.reason) == (StackState.TRUNCATED, _REASONS[end])
    assert _names(stack) == ["call", "middle"]

    stack = stacks.resolve(_call(_raw(_CALL, _MIDDLE, end=end, guessed=True)))
    assert (stack.state, stack.reason) == (
        StackState.TRUNCATED,
        _REASONS[end] + "; some are guessed",
    )


@pytest.mark.parametrize("end", WalkEnd)
def test_without_frames_it_is_missing(stacks: Stacks, end: WalkEnd) -> None:
    reason = "the kernel collected no frames"
    if end is WalkEnd.DISPLACED:
        reason = "lost on its way, with many others"

    assert stacks.resolve(_call(RawStack(b"", end, False))) == missing(reason)


def test_of_a_process_that_is_gone_it_is_missing(stacks: Stacks, image: _Image) -> None:
    image.names.clear()

    assert stacks.resolve(_call(_raw(*_WHOLE))) == missing(_ENDED)


def test_a_return_into_no_code_is_not_complete(stacks: Stacks, image: _Image) -> None:
    """GIVEN a walk by rows of code that is gone WHEN it led nowhere THEN it does not pass."""
    del image.names[_MAIN]
    stack = stacks.resolve(_call(_raw(*_WHOLE)))

    assert (stack.state, stack.reason) == (StackState.TRUNCATED, _REASONS[WalkEnd.REPLACED])


# --- what the kernel could not walk ---


def test_a_copy_completes_its_call(stacks: Stacks, image: _Image) -> None:
    stacks.learn(_copy(*_WHOLE, missed=1))
    stack = stacks.resolve(_call(_raw(_CALL, _MIDDLE, end=WalkEnd.NO_ROW)))

    assert stack.state is StackState.COMPLETE
    assert _names(stack) == ["call", "middle", "main", "_start"]


def test_a_copy_belongs_to_one_call_of_one_thread(stacks: Stacks, image: _Image) -> None:
    """GIVEN calls of the same caller, of which one was learned THEN no other takes its frames."""
    stacks.learn(_copy(*_WHOLE, missed=1))
    raw = _raw(_CALL, _MIDDLE, end=WalkEnd.NO_ROW)
    others = [_call(raw, ts=29), _call(raw, tid=AGENT.pid + 1)]

    assert [stacks.resolve(each).reason for each in others] == [_LOST] * 2
    assert stacks.resolve(_call(raw)).state is StackState.COMPLETE
    # and only once
    assert stacks.resolve(_call(raw)).reason == _LOST


def test_calls_of_one_caller_from_different_places_differ(stacks: Stacks, image: _Image) -> None:
    """GIVEN the same frames up to where the walk ended WHEN learned THEN each goes on its way."""
    raw = _raw(_CALL, _MIDDLE, end=WalkEnd.NO_ROW)
    stacks.learn(_copy(*_WHOLE, missed=1))
    stacks.learn(_copy(_CALL, _MIDDLE, _START, ts=29, missed=1))

    assert _names(stacks.resolve(_call(raw, ts=29))) == ["call", "middle", "_start"]
    assert _names(stacks.resolve(_call(raw))) == ["call", "middle", "main", "_start"]


def test_a_copy_from_the_miss_on_keeps_what_was_walked(stacks: Stacks, image: _Image) -> None:
    """GIVEN a deep stack WHEN its copy begins where the walk ended THEN both are put together."""
    copy = _copy(_MAIN, _START, pc=_MAIN, is_exact=False, frames=2)
    registers = tuple(1 if number == OWN.sp else one for number, one in enumerate(copy.registers))
    stacks.learn(copy._replace(registers=registers))
    stack = stacks.resolve(_call(_raw(_CALL, _MIDDLE, _MAIN, end=WalkEnd.NO_ROW)))

    assert (stack.state, _names(stack)) == (
        StackState.COMPLETE,
        ["call", "middle", "main", "_start"],
    )


def test_a_guess_on_either_part_counts(stacks: Stacks, image: _Image) -> None:
    stacks.learn(_copy(*_WHOLE, missed=1))
    raw = _raw(_CALL, _MIDDLE, end=WalkEnd.NO_ROW, guessed=True)
    assert stacks.resolve(_call(raw)).state is StackState.GUESSED

    image.rows[_MAIN] = _BY_SP._replace(flags=Flag.GUESSED)
    stacks.learn(_copy(*_WHOLE, missed=1))
    assert stacks.resolve(_call(raw._replace(guessed=False))).state is StackState.GUESSED
    del image.rows[_START]
    stacks.learn(_copy(*_WHOLE, missed=1))
    stack = stacks.resolve(_call(raw._replace(guessed=False)))
    assert (stack.state, stack.reason) == (
        StackState.TRUNCATED,
        "code without unwind information; some are guessed",
    )


def test_a_copy_that_the_kernel_kept_is_asked_for(
    stacks: Stacks, walk: _Walk, image: _Image
) -> None:
    walk.kept[AGENT.pid, 23] = _copy(*_WHOLE, missed=1)
    raw = _raw(_CALL, _MIDDLE, end=WalkEnd.KEPT)

    assert stacks.resolve(_call(raw)).state is StackState.COMPLETE
    assert [set(told.what) for told in walk.rows] == [{_CALL | EXACT_PC, _MIDDLE, _MAIN}]
    stack = stacks.resolve(_call(raw))
    assert (stack.state, stack.reason) == (StackState.TRUNCATED, _REASONS[WalkEnd.KEPT])


def test_without_a_kernel_nothing_is_kept_or_given(images: list[_Image]) -> None:
    stacks = Stacks()
    stacks.learn(_copy(*_WHOLE, missed=1))

    raw = _raw(_CALL, _MIDDLE, end=WalkEnd.KEPT)
    assert stacks.resolve(_call(raw)).reason == _REASONS[WalkEnd.KEPT]
    stacks.close()


# --- rows ---


@pytest.mark.parametrize("missed", [0, 3])
def test_the_kernel_is_given_the_rows_of_its_program(
    stacks: Stacks, walk: _Walk, image: _Image, missed: int
) -> None:
    stacks.learn(_copy(*_WHOLE, missed=missed))

    (told,) = walk.rows
    assert (told.process, told.exec_id) == (AGENT, 1)
    expected = {_CALL | EXACT_PC: _BY_SP, _MIDDLE: _BY_SP, _MAIN: _BY_SP}
    # the fake has given the others before
    assert told.what == ({**expected, _START: OUTERMOST} if missed == 3 else expected)


def test_of_a_program_that_nobody_saw_the_kernel_learns_nothing(
    stacks: Stacks, walk: _Walk, image: _Image
) -> None:
    """GIVEN a process that ended first WHEN its copy comes THEN nothing is said to be unknown."""
    image.is_known = False
    stacks.learn(_copy(*_WHOLE))

    assert walk.rows == []


def test_what_the_kernel_cannot_walk_it_is_told_as_well(
    stacks: Stacks, walk: _Walk, image: _Image
) -> None:
    image.rows[_MAIN] = NEEDS_REGISTERS
    stacks.learn(_copy(*_WHOLE, missed=1))

    assert walk.rows[0].what[_MAIN] == NEEDS_REGISTERS


def test_rows_of_code_that_is_gone_are_taken_back(
    stacks: Stacks, walk: _Walk, image: _Image
) -> None:
    """GIVEN code that was replaced WHEN a walk went by its rows THEN the stack says so."""
    image.replaced = {_MIDDLE, 0x9000 | EXACT_PC}
    stack = stacks.resolve(_call(_raw(*_WHOLE)))

    assert (stack.state, stack.reason) == (StackState.TRUNCATED, _REASONS[WalkEnd.REPLACED])
    assert walk.dropped == [_Told(AGENT, 1, {_MIDDLE, 0x9000 | EXACT_PC})]


def test_what_was_replaced_elsewhere_does_not_matter(
    stacks: Stacks, walk: _Walk, image: _Image
) -> None:
    image.replaced = {0x9000}

    assert stacks.resolve(_call(_raw(*_WHOLE))).state is StackState.COMPLETE
    assert len(walk.dropped) == 1


def test_rows_of_code_that_is_gone_are_not_given_again(
    stacks: Stacks, walk: _Walk, image: _Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN code found to be replaced WHILE a copy is unwound THEN its rows do not come back."""
    fresh = _BY_SP._replace(flags=Flag.GUESSED)
    old = image.leaving

    def leaving(point: Point, stack: StackMemory) -> Leaving | None:
        if point.pc == _MAIN and image.rows[_MIDDLE] != fresh:
            # it looks again, as for an address without code
            image.replaced, image.rows[_MIDDLE] = {_MIDDLE}, fresh
            image.look_again()
        return old(point, stack)

    monkeypatch.setattr(image, "leaving", leaving)
    stacks.learn(_copy(*_WHOLE))

    assert walk.dropped == [_Told(AGENT, 1, {_MIDDLE})]
    assert [told.what[_MIDDLE] for told in walk.rows] == [fresh]


@pytest.mark.parametrize("is_learned", [False, True])
def test_the_same_frames_in_other_code_have_other_names(
    stacks: Stacks, walk: _Walk, image: _Image, clock: _Clock, is_learned: bool
) -> None:
    """GIVEN a known stack WHEN other code is seen in its place THEN the next is named anew."""
    call = _call(_raw(*_WHOLE))
    assert "middle" in _names(stacks.resolve(call))
    image.names[_MIDDLE] = "other"
    image.replaced = {_MIDDLE}
    clock.now += 1.1
    stacks.tidy()
    assert walk.dropped == [_Told(AGENT, 1, {_MIDDLE})]
    if is_learned:
        stacks.learn(_copy(*_WHOLE, ts=_REPLACED_AT + 1))
        call = _call(_raw(_CALL, end=WalkEnd.NO_ROW))

    stack = stacks.resolve(call._replace(ts=_REPLACED_AT + 1))
    assert stack.state is StackState.COMPLETE
    assert _names(stack) == ["call", "other", "main", "_start"]
    # and that is kept
    assert stacks.resolve(_call(_raw(*_WHOLE))._replace(ts=_REPLACED_AT + 1)) is stack


def test_what_was_walked_by_rows_that_another_thread_takes_back_says_so(
    stacks: Stacks, image: _Image
) -> None:
    """GIVEN a call on its way WHEN a copy shows that its code is gone THEN it is not complete."""
    image.replaced = {_MIDDLE}
    image.look_again()
    stacks.learn(_copy(_CALL, _START))

    assert stacks.resolve(_call(_raw(*_WHOLE))).reason == _REASONS[WalkEnd.REPLACED]


def test_a_call_that_was_learned_before_code_was_replaced_says_so(
    stacks: Stacks, walk: _Walk, image: _Image
) -> None:
    """GIVEN a copy that was learned WHEN its code is gone before its call is worked on THEN."""
    stacks.learn(_copy(*_WHOLE))
    image.replaced = {_MIDDLE}
    stack = stacks.resolve(_call(_raw(_CALL, end=WalkEnd.NO_ROW)))

    assert (stack.state, stack.reason) == (StackState.TRUNCATED, _REASONS[WalkEnd.REPLACED])
    assert walk.dropped == [_Told(AGENT, 1, {_MIDDLE})]


def test_who_calls_is_looked_at_again_now_and_then(
    stacks: Stacks, image: _Image, clock: _Clock
) -> None:
    """GIVEN calls that cost nothing any more THEN each second of them their code is looked at."""
    call = _call(_raw(*_WHOLE))
    stacks.resolve(call)
    looks = image.looks
    for step in range(1, 31):
        stacks.resolve(call)
        clock.now += 0.25
        stacks.tidy()
        assert image.looks == looks + step // 5

    # and not if nothing calls
    looks = image.looks
    for _ in range(10):
        clock.now += 10.0
        stacks.tidy()
    assert image.looks - looks <= 1


# --- what is remembered ---


def test_the_same_frames_are_the_same_stack(stacks: Stacks, image: _Image) -> None:
    """GIVEN walks and copies with the same frames THEN they are one object, named once."""
    first = stacks.resolve(_call(_raw(*_WHOLE)))
    asked = len(image.asked)
    again = stacks.resolve(_call(_raw(*_WHOLE), ts=29, tid=5))
    assert again is first and len(image.asked) == asked

    stacks.learn(_copy(*_WHOLE, missed=1))
    assert stacks.resolve(_call(_raw(_CALL, _MIDDLE, end=WalkEnd.NO_ROW))) is first


def test_a_caller_that_was_resolved_costs_nothing(stacks: Stacks, image: _Image) -> None:
    call = _call(_raw(*_WHOLE))
    first = stacks.resolve(call)
    looks = image.looks

    assert all(stacks.resolve(call._replace(ts=ts)) is first for ts in range(100))
    assert (len(image.asked), image.looks) == (1, looks)


def test_the_same_frames_of_other_programs_are_other_stacks(
    stacks: Stacks, images: list[_Image]
) -> None:
    """GIVEN another process, an exec, or the pid reused THEN names are of that program."""
    raw = _raw(*_WHOLE)
    reused = Process(AGENT.pid, AGENT.birth + 1)
    calls = [_call(raw), _call(raw, process=OTHER), _call(raw, exec_id=2)]
    calls.append(_call(raw, process=reused))

    assert len({id(stacks.resolve(call)) for call in calls}) == 4
    assert [image.key for image in images] == [
        ImageKey(*AGENT, 1),
        ImageKey(*OTHER, 1),
        ImageKey(*AGENT, 2),
        ImageKey(*reused, 1),
    ]


@pytest.mark.parametrize(("kept", "frames"), [(0, _WHOLE), (2, (_MAIN, _START))])
def test_what_was_unwound_can_be_named_when_its_process_ends(
    stacks: Stacks, image: _Image, kept: int, frames: tuple[int, ...]
) -> None:
    """GIVEN a copy, from the call or from the miss on WHEN learned THEN its frames are noted."""
    copy = _copy(*frames, missed=0)._replace(frames=kept)
    if kept:
        copy = copy._replace(registers=(0,) * 33, is_exact=False)
    stacks.learn(copy)

    assert image.noted == [(frames, not kept)]
    assert image.asked == []


def test_only_so_many_stacks_and_copies_are_remembered(
    stacks: Stacks, image: _Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a program that calls from everywhere THEN what is kept has limits, and all are told."""
    monkeypatch.setattr(collector, "_STACKS_MAX", 7)
    monkeypatch.setattr(collector, "_LEARNED_MAX", 7)
    for pc in range(0x2000, 0x2000 + 101):
        image.names[pc] = f"at_{pc:x}"
        stack = stacks.resolve(_call(_raw(pc)))
        assert _names(stack) == [f"at_{pc:x}"]
        stacks.learn(_copy(*_WHOLE, ts=pc))

    kept = (len(stacks._stacks), len(stacks._of_callers), len(stacks._learned))
    assert all(number <= 7 for number in kept)
    raw = _raw(_CALL, end=WalkEnd.NO_ROW)
    told = [stacks.resolve(_call(raw, ts=ts)).reason for ts in range(0x2000, 0x2000 + 101)]
    assert told == [_LOST] * 94 + [""] * 7


def test_only_so_many_programs_are_known(stacks: Stacks, images: list[_Image]) -> None:
    """GIVEN 128 programs, of which the first called again WHEN one more comes THEN the second."""
    for exec_id in range(128):
        _meet(stacks, exec_id=exec_id)
    stacks.resolve(_call(_raw(*_WHOLE), exec_id=0))
    assert not any(image.is_closed for image in images)
    _meet(stacks, exec_id=128)

    assert [image.key.exec_id for image in images if image.is_closed] == [1]


# --- the end ---


def test_of_a_process_that_ended_files_go_first_then_the_rest(
    stacks: Stacks, image: _Image, clock: _Clock
) -> None:
    """GIVEN calls that may still be on their way WHEN their process has ended THEN it is known."""
    assert not image.is_holding, "when it is met it waits for its rows"
    stacks.tidy()
    assert image.is_holding and not image.is_finished
    image.has_ended = True
    stacks.tidy()
    stacks.tidy()
    assert image.is_finished and not image.is_closed

    clock.now += 9.5
    stacks.tidy()
    assert stacks.resolve(_call(_raw(*_WHOLE))).state is StackState.COMPLETE
    assert not image.is_closed
    clock.now += 1.0
    stacks.tidy()
    assert image.is_closed


def test_what_still_runs_is_kept(
    stacks: Stacks, images: list[_Image], image: _Image, clock: _Clock
) -> None:
    for _ in range(5):
        clock.now += 1000.0
        stacks.tidy()
    stacks.resolve(_call(_raw(*_WHOLE)))

    assert images == [image] and not image.is_closed and not image.is_finished


def test_at_the_end_all_is_closed(stacks: Stacks, images: list[_Image]) -> None:
    for exec_id in range(5):
        _meet(stacks, exec_id=exec_id)
    stacks.close()

    assert [image.is_closed for image in images] == [True] * 5
    stacks.close()


# --- a real process ---


def test_nothing_of_a_real_process_stays_open() -> None:
    """GIVEN this process as the one that is traced WHEN all is closed THEN nothing is left open."""
    before = len(os.listdir("/proc/self/fd"))
    stacks = Stacks()
    ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    birth = int(ticks) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))
    process = Process(os.getpid(), birth)
    _meet(stacks, process)
    assert len(os.listdir("/proc/self/fd")) > before
    stack = stacks.resolve(_call(_raw(0x10), process=process))
    stacks.tidy()
    stacks.close()

    assert stack == missing(_ENDED)
    assert len(os.listdir("/proc/self/fd")) == before
