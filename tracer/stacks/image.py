"""One program in one process: how its frames are left, and what they are called."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from tracer.core.stack import Frame
from tracer.core.wire import EXACT_PC
from tracer.stacks.guess import guessed
from tracer.stacks.machine_code import LONGEST_CALL, ends_in_call
from tracer.stacks.mappings import Mapping, Mappings
from tracer.stacks.module import Place
from tracer.stacks.modules import Modules
from tracer.stacks.pace import Pace
from tracer.stacks.perf_map import PerfMap, described, open_perf_map
from tracer.stacks.process_code import ProcessCode
from tracer.stacks.registers import OWN
from tracer.stacks.row import OUTERMOST, Flag, Row
from tracer.stacks.unwinder import Leaving, Point, StackMemory

# What is remembered of a program; a rule of an unwind table takes about a kilobyte.
_LEAVINGS_MAX = 4096
_NAMES_MAX = 16384
_PCS_MAX = 65536
_STACKS_MAX = 4096
# as gdb calls what the kernel put on the stack; C libraries keep no name for it
_SIGNAL = Place("<signal handler called>")


class ImageKey(NamedTuple):
    """One program in one process; the pid alone is reused, and exec changes the program."""

    tgid: int
    birth: int
    exec_id: int


class Image:
    """
    Keeps what was found, since the process may end any moment. `stack` is where its stack begins, 0
    if that is not known.

    May be used by two threads. Nothing is raised: of a process that is gone, or may not be looked
    at, nothing is known.
    """

    def __init__(self, key: ImageKey, stack: int, modules: Modules) -> None:
        self._pid = key.tgid
        self._code = ProcessCode(key.tgid, key.birth, stack, modules)
        self._leavings: dict[tuple[int, bool], Leaving] = {}
        self._guesses: dict[int, Row] = {}
        self._names: dict[tuple[int, bool], tuple[Frame, ...]] = {}
        self._signal_returns: set[int] = set()
        self._giving = threading.Lock()
        self._given: set[int] = set()
        self._unnamed: set[tuple[tuple[int, ...], bool]] = set()
        self._stale: set[int] = set()
        self._replaced_at: dict[int, int] = {}
        self._reading_map = threading.Lock()
        self._perf_map: PerfMap | None = None
        self._map_pace = Pace()
        # how often code was replaced; what was found before is of another
        self.generation = 0
        # for who looks again now and then
        self.is_called = True
        self.looked_at = time.monotonic()

    def close(self) -> None:
        self.finish()
        self._code.close()
        # who still has stacks of it is to ask again
        self.generation += 1

    def hold_files(self) -> None:
        """Those that names and frames may need."""
        self._code.hold_files()

    def finish(self) -> None:
        """
        Let go of the files of a process that has ended: their filesystem may be unmounted.

        What was unwound is named now, if that was not asked for yet.
        """
        with self._giving:
            unnamed, self._unnamed = self._unnamed, set()
        for pcs, is_exact in unnamed:
            self.stack(pcs, is_exact=is_exact)
        self._code.release_files()
        with self._reading_map:
            if self._perf_map is not None:
                self._perf_map.close()
                self._perf_map = None

    @property
    def has_ended(self) -> bool:
        return self._code.has_ended

    @property
    def is_known(self) -> bool:
        """Whether it could be looked at before it ended."""
        return bool(self._code.mappings.all)

    # what the kernel walks by

    def leaving(self, point: Point, stack: StackMemory) -> Leaving | None:
        """How to leave the frame there; see :class:`tracer.stacks.unwinder.Code`."""
        key = point.pc, point.is_exact
        leaving = self._leavings.get(key)
        if leaving is not None:
            return leaving
        address = point.pc if point.is_exact else point.pc - 1
        if not self._code.is_code(address):
            self.look_again()
        linked = self._code.linked(address)
        leaving = linked[0].leaving(linked[1]) if linked is not None else None
        if leaving is None and not point.is_exact:
            leaving = self._outermost(point.pc)
        if leaving is None:
            return self._guess(point, address, stack)
        if len(self._leavings) >= _LEAVINGS_MAX:
            self._leavings.clear()
        self._leavings[key] = leaving
        return leaving

    def _outermost(self, pc: int) -> Row | None:
        """
        OUTERMOST if a function begins at `pc`, and not after a call: nothing called from there.

        makecontext(3) has the first function of a stack return to such code.
        """
        before = self.read(pc - LONGEST_CALL, LONGEST_CALL)
        linked = self._code.linked(pc)
        if not before or ends_in_call(before) or linked is None:
            return None
        module, at = linked
        return OUTERMOST if module.begins_function(at) else None

    def _guess(self, point: Point, address: int, stack: StackMemory) -> Row | None:
        mapping = self._code.mappings.find(address)
        if mapping is None:
            return None
        # the same for each visit, since the kernel keeps the first
        row = self._guesses.get(point.pc)
        if row is None:
            row = guessed(point, stack, self, OWN, is_jit=not mapping.ino)
            if row is not None and len(self._guesses) < _PCS_MAX:
                self._guesses[point.pc] = row
        return row

    def news(self, rows: dict[int, Row], missed: int) -> dict[int, Row]:
        """
        Those that the kernel was not given yet; the one that it `missed` in any case.

        It may have forgotten others, and will miss them when it comes by.
        """
        with self._giving:
            news = {pc: row for pc, row in rows.items() if pc == missed or pc not in self._given}
            if len(self._given) > _PCS_MAX:
                self._given.clear()
            self._given.update(news)
        signals = {pc & ~EXACT_PC for pc, row in news.items() if row.flags & Flag.SIGNAL}
        if signals and len(self._signal_returns) < _PCS_MAX:
            self._signal_returns |= signals
        return news

    def look_again(self) -> None:
        """Libraries may have been unloaded since, and others put in their place."""
        before = self._code.look_again()
        self.looked_at = time.monotonic()
        if before is not self._code.mappings:
            self._forget(before)

    def look_again_if_old(self) -> None:
        if self._code.is_old:
            self.look_again()

    def take_stale(self) -> set[int]:
        """The pcs of rows that the kernel was given, whose code is gone since the last time."""
        with self._giving:
            stale, self._stale = self._stale, set()
        return stale

    def _forget(self, before: Mappings) -> None:
        """What was found in code that is there no more."""
        now = self._code.mappings
        with self._giving:
            found = {pc for pc, _ in (*self._names, *self._leavings)} | self._guesses.keys()
            stale = {
                pc for pc in self._given | found if not _is_same_code(pc & ~EXACT_PC, before, now)
            }
            if not stale:
                return
            self.generation += 1
            self._stale |= stale & self._given
            self._given -= stale
            if len(self._replaced_at) > _PCS_MAX:
                self._replaced_at.clear()
            self._replaced_at.update(dict.fromkeys(stale, time.monotonic_ns()))
        self._leavings.clear()
        self._names.clear()
        for pc in stale:
            self._guesses.pop(pc & ~EXACT_PC, None)
            self._signal_returns.discard(pc & ~EXACT_PC)

    def was_replaced(self, pcs: Iterable[int], ts: int) -> bool:
        """Whether any of it is found to be other code since the time `ts` (CLOCK_MONOTONIC, ns)."""
        replaced_at = self._replaced_at
        return bool(replaced_at) and any(
            max(replaced_at.get(pc, 0), replaced_at.get(pc | EXACT_PC, 0)) > ts for pc in pcs
        )

    # what guesses ask

    def read(self, address: int, size: int) -> bytes:
        return self._code.read(address, size)

    def is_code(self, address: int) -> bool:
        return self._code.is_code(address)

    def function_start(self, address: int) -> int | None:
        """Where the function at an address begins, if that is known."""
        linked = self._code.linked(address)
        if linked is None:
            entry = self._jit_entry(address)
            return entry[1] if entry is not None else None
        module, at = linked
        function = module.function_at(at)
        return address - (at - function[1]) if function is not None else None

    # names

    def note_unnamed(self, pcs: tuple[int, ...], *, is_exact: bool) -> None:
        """Stacks that will be asked for, perhaps after the end of the process."""
        with self._giving:
            if len(self._unnamed) < _STACKS_MAX:
                self._unnamed.add((pcs, is_exact))

    def stack(self, pcs: Iterable[int], *, is_exact: bool) -> list[Frame]:
        """The frames of a stack; `is_exact`: it begins where the program was, not with a return."""
        frames: list[Frame] = []
        for pc in pcs:
            returns_from_signal = self.returns_from_signal(pc)
            frames += self.frames(pc, is_exact=is_exact or returns_from_signal)
            is_exact = returns_from_signal
        return frames

    def returns_from_signal(self, pc: int) -> bool:
        """Whether no call was made there: it was interrupted, like the frame after it."""
        return pc in self._signal_returns

    def frames(self, pc: int, *, is_exact: bool) -> tuple[Frame, ...]:
        """
        The frame at a program counter, after those of functions inlined there.

        A return address is looked up one byte earlier, inside the call: the call may be the last
        instruction of its function. A frame without a module is no code of the image.
        """
        generation = self.generation
        known = self._names.get((pc, is_exact))
        if known is None or self._may_have_moved(known):
            found = self._named(pc, pc if is_exact else pc - 1)
            if known is None or found[0].function is not None:
                known = found
            if len(self._names) >= _NAMES_MAX:
                self._names.clear()
            if generation == self.generation:
                self._names[pc, is_exact] = known
        return known

    def _may_have_moved(self, frames: tuple[Frame, ...]) -> bool:
        """Whether it is code that was made at run time, of which there may be other by now."""
        mapping = self._code.mappings.find(frames[0].address or 0)
        return mapping is None or not mapping.ino

    def _named(self, pc: int, address: int) -> tuple[Frame, ...]:
        mapping = self._code.mappings.find(address)
        if mapping is None:
            return (Frame(None, None, pc, address=pc),)
        linked = self._code.linked(address)
        if linked is None:
            return (self._frame_of_no_module(mapping, pc, address),)
        module, at = linked
        places = module.places(at)
        if not places and self.returns_from_signal(pc):
            places = (_SIGNAL,)
        beyond = pc - address
        if not places:
            return (Frame(None, mapping.name, at + beyond, None, None, module.build_id, pc),)
        return tuple(
            Frame(name, mapping.name, offset + beyond, file, line, module.build_id, pc)
            for name, file, line, offset in places
        )

    def _frame_of_no_module(self, mapping: Mapping, pc: int, address: int) -> Frame:
        if mapping.ino:
            return Frame(None, mapping.name, mapping.file_offset(pc), address=pc)
        entry = self._jit_entry(address)
        if entry is None:
            # only the address itself says where it is
            return Frame(None, mapping.name, pc, address=pc)
        name, start, _ = entry
        function, file, line = described(name)
        return Frame(function, mapping.name, pc - start, file, line, None, pc)

    def _jit_entry(self, address: int) -> tuple[str, int, int] | None:
        """The entry of the perf map: name, first address, bytes."""
        with self._reading_map:
            if self._map_pace.is_due:
                with self._map_pace:
                    self._follow_map()
            return self._perf_map.find(address) if self._perf_map is not None else None

    def _follow_map(self) -> None:
        if self._perf_map is None:
            descriptor = open_perf_map(self._pid)
            if descriptor is None:
                return
            self._perf_map = PerfMap(descriptor)
        self._perf_map.refresh()


def _is_same_code(pc: int, before: Mappings, now: Mappings) -> bool:
    """Whether the same byte of the same file is there, whatever became of the mapping around it."""
    old, new = before.find(pc), now.find(pc)
    if old is None or new is None:
        return old is new
    # an upgrade deletes files that are still mapped
    names = {mapping.name.removesuffix(b" (deleted)") for mapping in (old, new)}
    is_same_file = (old.dev, old.ino, len(names)) == (new.dev, new.ino, 1)
    return is_same_file and (not old.ino or old.file_offset(pc) == new.file_offset(pc))
