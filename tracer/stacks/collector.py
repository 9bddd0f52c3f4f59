"""Stacks of all programs, from the kernel's walks and the copies that it sends where it is lost."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from functools import cache
from typing import NamedTuple

from tracer.core.events import Caller, CallEvent, Process, RawStack, StackCopy, WalkEnd
from tracer.core.stack import Stack, StackState, missing
from tracer.core.wire import EXACT_PC, Arrival
from tracer.stacks.demangling import Demangler
from tracer.stacks.image import Image, ImageKey
from tracer.stacks.modules import Modules
from tracer.stacks.pace import Pace
from tracer.stacks.resolver import KernelWalk
from tracer.stacks.unwinder import Unwinding, unwind

_IMAGES_MAX = 128
_STACKS_MAX = 8192
_LEARNED_MAX = 16384
_WORD = 8
# How long after its end the calls of a process may still wait to be worked on.
_KEEP_ENDED_S = 10.0
# How old may be what is known of the libraries of a program that calls.
_LOOK_EVERY_S = 1.0
_TIDIED_AT_ONCE = 16

_UNFINISHED = frozenset({int(WalkEnd.NO_ROW), int(WalkEnd.KEPT)})
_ENDED = "the process ended before its symbols could be read"
_GUESSED = "guessed where code has no unwind information"
_REASONS = {
    WalkEnd.NO_ROW: "the rest was lost on its way",
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


class _Known:
    """An image, and since when it has been found to be over."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.ended_at: float | None = None


class _Resolved(NamedTuple):
    """The stack of a caller, as long as the code of its image is the same."""

    caller: Caller
    stack: Stack
    image: Image
    generation: int


class Stacks:
    """A StackResolver for all kinds of programs."""

    def __init__(self) -> None:
        self._walk: KernelWalk | None = None
        self._lock = threading.Lock()
        self._demangler = Demangler()
        self._modules = Modules(self._demangler)
        self._images: OrderedDict[ImageKey, _Known] = OrderedDict()
        self._learned: OrderedDict[tuple[int, int], Unwinding] = OrderedDict()
        self._looking = Pace()
        self._turn = 0
        self._stacks: dict[tuple[ImageKey, int, RawStack], Stack] = {}
        self._of_callers: dict[int, _Resolved] = {}

    def begin(self, walk: KernelWalk) -> None:
        self._walk = walk
        self._modules.hold_own()

    def meet(self, arrival: Arrival) -> None:
        self._image(ImageKey(arrival.tgid, arrival.birth, arrival.exec_id), arrival.stack)

    def learn(self, copy: StackCopy) -> None:
        unwinding = self._unwound(copy)
        with self._lock:
            self._learned[copy.tid, copy.ts] = unwinding
            if len(self._learned) > _LEARNED_MAX:
                self._learned.popitem(last=False)

    def resolve(self, event: CallEvent) -> Stack:
        caller = event.caller
        if not caller.stack.frames:
            return _without_frames(caller.stack.end)
        if caller.stack.end in _UNFINISHED:
            # of this very call: others like it may have come from elsewhere
            return self._stack(event, self._completed(event))
        known = self._of_callers.get(id(caller))
        if known is None or known.generation != known.image.generation:
            known = self._resolved(event)
        known.image.is_called = True
        return known.stack

    def tidy(self) -> None:
        with self._lock:
            images = list(self._images.items())
        # some at a time, since this comes fifty times a second
        for at in range(min(len(images), _TIDIED_AT_ONCE)):
            self._tidy_image(*images[(self._turn + at) % len(images)])
        self._turn += _TIDIED_AT_ONCE
        self._modules.close_files()

    def _tidy_image(self, key: ImageKey, known: _Known) -> None:
        now = time.monotonic()
        image = known.image
        if known.ended_at is None:
            # not when it is met: then it is calling, and its rows are waited for
            image.hold_files()
            known.ended_at = now if image.has_ended else None
            if image.is_called and now - image.looked_at > _LOOK_EVERY_S and self._looking.is_due:
                with self._looking:
                    image.is_called = False
                    image.look_again()
                    self._drop_stale(key, image)
        elif now - known.ended_at > _KEEP_ENDED_S:
            with self._lock:
                self._images.pop(key, None)
            image.close()
        else:
            # found over the last time, and what it sent before that was learned since
            image.finish()

    def close(self) -> None:
        with self._lock:
            while self._images:
                self._images.popitem()[1].image.close()
        self._modules.close()
        self._demangler.close()

    def _unwound(self, copy: StackCopy) -> Unwinding:
        key = ImageKey(*copy.process, copy.exec_id)
        image = self._image(key, copy.stack)
        unwinding = unwind(copy, image)
        if self._drop_stale(key, image):
            # some was found by what is no more
            unwinding = unwind(copy, image)
        # of a program that could not be looked at, nothing is known; not that there is nothing
        if image.is_known and self._walk is not None:
            missed = copy.pc | EXACT_PC if copy.is_exact else copy.pc
            rows = image.news(unwinding.rows, missed)
            self._walk.put_rows(copy.process, copy.exec_id, rows)
        image.note_unnamed(unwinding.frames, is_exact=not unwinding.kept)
        return unwinding

    def _drop_stale(self, key: ImageKey, image: Image) -> bool:
        """Take back the rows of code that is gone; whether there were any."""
        stale = image.take_stale()
        if stale and self._walk is not None:
            self._walk.drop_rows(Process(key.tgid, key.birth), key.exec_id, stale)
        return bool(stale)

    def _unwinding_of(self, event: CallEvent) -> Unwinding | None:
        if event.caller.stack.end == WalkEnd.KEPT:
            copy = self._walk.kept_copy(event.caller.tid, event.ts) if self._walk else None
            return self._unwound(copy) if copy is not None else None
        with self._lock:
            return self._learned.pop((event.caller.tid, event.ts), None)

    def _completed(self, event: CallEvent) -> RawStack:
        raw = event.caller.stack
        unwinding = self._unwinding_of(event)
        if unwinding is None:
            return raw
        beyond = b"".join(pc.to_bytes(_WORD, "little") for pc in unwinding.frames)
        frames = raw.frames[: unwinding.kept * _WORD] + beyond
        return RawStack(frames, unwinding.end, raw.guessed or unwinding.guessed)

    def _stack(self, event: CallEvent, raw: RawStack) -> Stack:
        key = _image_key(event.caller)
        image = self._image(key)
        if image.was_replaced(raw.addresses(), event.ts):
            return _symbolized(image, raw._replace(end=WalkEnd.REPLACED))
        stack = self._stacks.get((key, image.generation, raw))
        if stack is not None:
            return stack
        if len(self._stacks) >= _STACKS_MAX:
            self._stacks.clear()
        image.look_again_if_old()
        self._drop_stale(key, image)
        if image.was_replaced(raw.addresses(), event.ts):
            return _symbolized(image, raw._replace(end=WalkEnd.REPLACED))
        stack = self._stacks[key, image.generation, raw] = _symbolized(image, raw)
        return stack

    def _resolved(self, event: CallEvent) -> _Resolved:
        caller = event.caller
        if len(self._of_callers) >= _STACKS_MAX:
            self._of_callers.clear()
        image = self._image(_image_key(caller))
        generation = image.generation
        found = _Resolved(caller, self._stack(event, caller.stack), image, generation)
        # of later calls from there it may be true no more
        if not image.was_replaced(caller.stack.addresses(), event.ts):
            # with the caller itself, since an id is only unique while its object lives
            self._of_callers[id(caller)] = found
        return found

    def _image(self, key: ImageKey, stack: int = 0) -> Image:
        with self._lock:
            known = self._images.get(key)
            if known is not None:
                self._images.move_to_end(key)
                return known.image
        # which takes its time; the other thread may be faster
        image = Image(key, stack, self._modules)
        unneeded = [image]
        with self._lock:
            known = self._images.setdefault(key, _Known(image))
            if len(self._images) > _IMAGES_MAX:
                unneeded.append(self._images.popitem(last=False)[1].image)
        for each in unneeded:
            if each is not known.image:
                each.close()
        return known.image


def _image_key(caller: Caller) -> ImageKey:
    return ImageKey(*caller.process, caller.exec_id)


@cache
def _without_frames(end: int) -> Stack:
    if end == WalkEnd.DISPLACED:
        return missing("lost on its way, with many others")
    return missing("the kernel collected no frames")


def _symbolized(image: Image, raw: RawStack) -> Stack:
    frames = image.stack(raw.addresses(), is_exact=True)
    if frames[0].module is None:
        return missing(_ENDED)
    if any(frame.module is None for frame in frames):
        raw = raw._replace(end=WalkEnd.REPLACED)
    if raw.end != WalkEnd.OUTERMOST:
        reason = _REASONS[WalkEnd(raw.end)] + ("; some are guessed" if raw.guessed else "")
        return Stack(tuple(frames), StackState.TRUNCATED, reason)
    if raw.guessed:
        return Stack(tuple(frames), StackState.GUESSED, _GUESSED)
    return Stack(tuple(frames), StackState.COMPLETE)
