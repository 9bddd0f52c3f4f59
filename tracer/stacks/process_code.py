"""The code of one process: what is mapped where, and what is in its memory."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from io import FileIO

from tracer.stacks.mapped_file import Location, MappedFile
from tracer.stacks.mappings import VDSO, Mapping, Mappings, read_mappings
from tracer.stacks.module import Module
from tracer.stacks.modules import Modules
from tracer.stacks.pace import Pace

_VDSO_BYTES_MAX = 1 << 16
# Files that are held open for one process.
_FILES_MAX = 256
_ANY_ADDRESS = 1 << 16
# proc(5), /proc/PID/stat: the time the process started, in ticks since boot, and where its stack
# begins; that is no address if one may not know
_START_FIELD, _STACK_FIELD = 22, 28
_NOT_TOLD = 1
_NS_A_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class ProcessCode:
    """
    Of the program that a process runs now, if it is the one that began at `birth` (ns) and has its
    stack at `stack` (0: not known).

    May be used by two threads. Nothing is raised: of a process that is gone, or may not be looked
    at, nothing is known.
    """

    def __init__(self, pid: int, birth: int, stack: int, modules: Modules) -> None:
        self._pid = pid
        self._birth = birth
        self._stack = stack
        self._modules = modules
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._by_mapping: dict[Mapping, Module] = {}
        self._held: dict[Mapping, MappedFile] = {}
        self._memory: FileIO | None = None
        self._pace = Pace()
        self.mappings = self._held_of = Mappings([])
        with suppress(OSError):
            self._memory = FileIO(f"/proc/{pid}/mem")
        self.look_again()
        # at once, as the process may end any moment; the rest can wait, and may never be needed
        with suppress(OSError, StopIteration):
            program = os.readlink(f"/proc/{pid}/exe".encode())
            self.module(next(each for each in self.mappings.all if each.name == program))

    def close(self) -> None:
        self.release_files()
        self._memory = None

    def release_files(self) -> None:
        """Let filesystems be unmounted that only this process had files on."""
        with self._lock:
            self._modules.release(self._held.values())
            self._held = {}

    @property
    def has_ended(self) -> bool:
        """Whether the process, or this program in it, is over."""
        memory = self._memory
        if memory is None:
            return not os.path.exists(f"/proc/{self._pid}")
        try:
            # fs/proc/base.c, mem_rw: nothing if there is no memory any more, else bytes or an error
            return not os.pread(memory.fileno(), 1, _ANY_ADDRESS)
        except OSError:
            return False

    def look_again(self) -> Mappings:
        """
        Libraries may have been loaded since, or unloaded; what was mapped before.

        After an exec, or the end, it stays as it is: those are not the mappings of this program.
        """
        with self._looking, self._pace, suppress(OSError):
            before, found = self.mappings, read_mappings(self._pid)
            if found.all and not self.has_ended and self._is_it():
                self.mappings = found
                self._forget(set(before.all) - set(found.all))
                return before
        return self.mappings

    def _forget(self, gone: set[Mapping]) -> None:
        with self._lock:
            self._modules.release(self._held.pop(mapping) for mapping in gone & self._held.keys())
            for mapping in gone:
                self._by_mapping.pop(mapping, None)

    def _is_it(self) -> bool:
        """Whether the process is the one that is meant, and has made no exec since."""
        with open(f"/proc/{self._pid}/stat", "rb") as file:
            text = file.read()
        # the name in brackets may hold anything
        fields = [b"", b"", *text.rpartition(b")")[2].split()]
        began, stack = int(fields[_START_FIELD - 1]), int(fields[_STACK_FIELD - 1])
        is_other_stack = self._stack and stack > _NOT_TOLD and stack != self._stack
        return began == self._birth // _NS_A_TICK and not is_other_stack

    def hold_files(self) -> None:
        """Open what is mapped, since the process may end any moment; quick if that was done."""
        if self._held_of is not self.mappings:
            self._held_of = self.mappings
            for mapping in self.mappings.all[:_FILES_MAX]:
                self.module(mapping)

    @property
    def is_old(self) -> bool:
        """Whether it is time to look again, so that looking takes a small part of the time."""
        return self._pace.is_due

    def read(self, address: int, size: int) -> bytes:
        """So many bytes of the process's memory, or none."""
        memory = self._memory
        if memory is None or address < 0:
            return b""
        try:
            found = os.pread(memory.fileno(), size, address)
        except (OSError, OverflowError):
            return b""
        return found if len(found) == size else b""

    def is_code(self, address: int) -> bool:
        return self.mappings.find(address) is not None

    def module(self, mapping: Mapping) -> Module | None:
        """What is mapped there; None if it is no file, or out of reach."""
        with self._lock:
            module = self._by_mapping.get(mapping)
            if module is not None and mapping in self._held:
                # the process by which it was reached before may have ended
                self._held[mapping].location = Location(self._pid, mapping)
            if module is None and mapping.ino:
                module = self._held_module(mapping)
            elif module is None and mapping.name == VDSO:
                size = min(mapping.end - mapping.start, _VDSO_BYTES_MAX)
                module = self._modules.in_memory(self.read(mapping.start, size))
            if module is not None:
                self._by_mapping[mapping] = module
            return module

    def _held_module(self, mapping: Mapping) -> Module | None:
        found = self._modules.mapped(Location(self._pid, mapping))
        # after an exec, other code may be where that of this program was
        if found is None or self.has_ended:
            found = self._modules.known(mapping)
        if found is None:
            return None
        if len(self._held) < _FILES_MAX:
            self._held[mapping] = found.file
            self._modules.hold([found.file])
        return found.module

    def linked(self, address: int) -> tuple[Module, int] | None:
        """The module that has the code at an address, and where that was linked to be."""
        mapping = self.mappings.find(address)
        module = self.module(mapping) if mapping is not None else None
        if mapping is None or module is None:
            return None
        linked = module.address_of(mapping.file_offset(address))
        return (module, linked) if linked is not None else None
