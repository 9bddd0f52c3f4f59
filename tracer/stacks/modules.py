"""Files that programs run, shared by all programs that run them."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Callable, NamedTuple

from tracer.stacks.elf import BytesContent
from tracer.stacks.mapped_file import FileIdentity, Location, MappedFile, identified
from tracer.stacks.mappings import Mapping, read_mappings
from tracer.stacks.module import Module
from tracer.stacks.symbol_cache import SymbolCache

# Those that were not asked for longest are read again when they are. Each takes some kilobytes.
_MODULES_MAX = 512
_IN_MEMORY_MAX = 32
# Files held open at a time, well below the 1,024 that a process may have by default.
_OPEN_MAX = 400
_C_LIBRARY = (b"libc.", b"libc-", b"ld-")


class Mapped(NamedTuple):
    module: Module
    file: MappedFile


class Modules:
    """May be used by several threads."""

    def __init__(self, demangler: Callable[[bytes], str]) -> None:
        self._demangler = demangler
        self._lock = threading.Lock()
        self._symbols = SymbolCache()
        self._modules: OrderedDict[FileIdentity, Mapped] = OrderedDict()
        self._in_memory: dict[bytes, Module] = {}
        self._open: list[MappedFile] = []

    def mapped(self, location: Location) -> Mapped | None:
        """The module that a process has mapped, and its file; None if it is out of reach."""
        identity = identified(location)
        if identity is None:
            return None
        with self._lock:
            if identity not in self._modules:
                file = MappedFile(location, identity, self._open.append)
                module = Module(file, self._demangler, self._symbols)
                if not file.is_within_reach:
                    return None
                self._modules[identity] = Mapped(module, file)
                if len(self._modules) > _MODULES_MAX:
                    self._modules.popitem(last=False)
            self._modules.move_to_end(identity)
            found = self._modules[identity]
            # where it was seen before, it may be gone
            found.file.location = location
            return found

    def known(self, mapping: Mapping) -> Mapped | None:
        """The module of a mapped file, without the process: it is open for another."""
        # open, so that no other file can have its number by now
        with self._lock:
            for identity, found in self._modules.items():
                is_same = (identity.dev, identity.ino) == (mapping.dev, mapping.ino)
                if is_same and found.file.is_open:
                    return found
        return None

    def hold_own(self) -> None:
        """Our own C library, which most programs have: they may end before theirs is read."""
        pid = os.getpid()
        for mapping in read_mappings(pid).all:
            if os.path.basename(mapping.name).startswith(_C_LIBRARY):
                found = self.mapped(Location(pid, mapping))
                self.hold([found.file] if found is not None else [])

    def hold(self, files: Iterable[MappedFile]) -> None:
        """Keep them open until they are released, as far as there is room."""
        with self._lock:
            for file in files:
                file.holders += 1
                if len(self._open) < _OPEN_MAX:
                    file.open()

    def release(self, files: Iterable[MappedFile]) -> None:
        with self._lock:
            for file in files:
                file.holders -= 1

    def in_memory(self, content: bytes) -> Module | None:
        """What is in no file, as the vDSO; None if `content` is empty."""
        if not content:
            return None
        with self._lock:
            # programs could make up any number of them
            if len(self._in_memory) >= _IN_MEMORY_MAX and content not in self._in_memory:
                self._in_memory.clear()
            if content not in self._in_memory:
                module = Module(BytesContent(content), self._demangler, self._symbols)
                self._in_memory[content] = module
            return self._in_memory[content]

    def close(self) -> None:
        """All of them, whoever holds them."""
        while self._open:
            self._open.pop().close()

    def close_files(self) -> None:
        """Those that nobody holds, and those beyond the limit; they are opened again when read."""
        # the list stays: each file has its append
        opened = [self._open.pop() for _ in range(len(self._open))]
        for file in opened:
            if file.holders and len(self._open) < _OPEN_MAX:
                self._open.append(file)
            else:
                file.close()
