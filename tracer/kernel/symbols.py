"""Frame-pointer stacks, with names from BCC's ELF reader."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from contextlib import suppress
from functools import cache
from typing import NamedTuple

from tracer.core.events import Caller, CallEvent, errno_name
from tracer.core.stack import Frame, Stack, StackState, is_runtime, is_runtime_module, missing
from tracer.core.wire import Arrival
from tracer.kernel.elf import SymbolTable
from tracer.kernel.machine_code import HAS_LINK_REGISTER, LONGEST_CALL, ends_in_call
from tracer.kernel.maps import FileIdentity, MappedFile, Mappings, Place, file_identity

# Images that are kept at a time, each with one descriptor, and parsed files.
_IMAGES_MAX = 128
_TABLES_MAX = 64
_STACKS_MAX = 8192
# Where a stack ends by itself: process start, thread start of glibc and musl, and Go's.
_ROOTS = frozenset(
    {
        "_start",
        "__libc_start_main",
        "__libc_start_call_main",
        "start_thread",
        "clone",
        "clone3",
        "__clone3",
        "runtime.goexit",
        "runtime.goexit.abi0",
    }
)
_ENDED = "the process ended before its symbols could be read"


class _ImageKey(NamedTuple):
    """One program in one process; the pid alone is reused, and exec changes the program."""

    tgid: int
    birth: int
    exec_id: int


class SymbolTables:
    """Symbols by file, shared by all processes; the least recently used are forgotten."""

    def __init__(self) -> None:
        self._tables: OrderedDict[FileIdentity, SymbolTable] = OrderedDict()

    def get(self, file: MappedFile, name: bytes) -> SymbolTable | None:
        """
        The symbols of a mapped file, by the name that the mapping had once the process ended.

        None if they were not read in time and that name now leads to another file.
        """
        if file.identity not in self._tables:
            for path in (file.path, name):
                if file_identity(path) == file.identity:
                    self.read(file.identity, path)
                    break
            else:
                return None
        self._tables.move_to_end(file.identity)
        return self._tables[file.identity]

    def read(self, identity: FileIdentity, path: bytes) -> None:
        """Read the symbols of the file that `path` leads to, unless they are known."""
        if identity not in self._tables:
            self._tables[identity] = SymbolTable(path)
            if len(self._tables) > _TABLES_MAX:
                self._tables.popitem(last=False)


class _Image:
    """One program image: its mappings, the symbols of its files, and a window on its memory."""

    def __init__(self, key: _ImageKey, tables: SymbolTables) -> None:
        self._tgid = key.tgid
        self._tables = tables
        self._memory = -1
        self._mappings: Mappings | None = None
        with suppress(OSError):
            self._mappings = Mappings(key.tgid)
            self._memory = os.open(f"/proc/{key.tgid}/mem", os.O_RDONLY | os.O_CLOEXEC)
            self._read_symbols_early(self._mappings)

    def _read_symbols_early(self, mappings: Mappings) -> None:
        """
        Those of the program and libc, which each stack needs.

        The process may end any moment: open all first, which is quick, and read then.
        """
        program = os.readlink(f"/proc/{self._tgid}/exe".encode())
        wanted = [
            file
            for module, file in mappings.files.items()
            if module == program or is_runtime_module(module)
        ]
        opened = [(file.identity, _opened(file.path)) for file in wanted]
        for identity, descriptor in opened:
            if descriptor >= 0:
                self._tables.read(identity, b"/proc/self/fd/%d" % descriptor)
                os.close(descriptor)

    def close(self) -> None:
        if self._memory >= 0:
            os.close(self._memory)

    def frame(self, address: int, *, is_return: bool) -> Frame:
        """
        The frame at `address`; without a module if that is no code of the image.

        A return address is looked up one byte earlier, inside the call: the call may be the
        last instruction of its function.
        """
        place = None
        if self._mappings is not None:
            place = self._mappings.find(address - 1 if is_return else address)
        if place is None:
            return Frame(None, None, address)
        found = self._function_at(place)
        if found is None:
            return Frame(None, place.module, place.offset)
        function, offset = found
        return Frame(function, place.module, offset)

    def _function_at(self, place: Place) -> tuple[str, int] | None:
        assert self._mappings is not None
        file = self._mappings.files.get(place.module)
        table = self._tables.get(file, place.module) if file is not None else None
        return table.find(place.offset) if table is not None else None

    def follows_call(self, address: int) -> bool | None:
        """Whether the bytes before `address` are a call; None if they cannot be read."""
        if self._memory < 0:
            return None
        try:
            code = os.pread(self._memory, LONGEST_CALL, address - LONGEST_CALL)
        except (OSError, OverflowError):
            return None
        return ends_in_call(code) if len(code) == LONGEST_CALL else None

    def reload(self) -> None:
        """Look at the mappings again: libraries may have been loaded meanwhile."""
        with suppress(OSError):
            self._mappings = Mappings(self._tgid)


def _opened(path: bytes) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


class BccStacks:
    """
    Stacks as far as frame pointers lead.

    The walk loses the caller of libc's wrapper, which is the word at the stack pointer; code
    built without frame pointers ends the walk or misleads it, which this can detect only by
    addresses that follow no call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables = SymbolTables()
        # most programs have the libc that inotrace has: read it before a process needs it
        _Image(_ImageKey(os.getpid(), 0, 0), self._tables).close()
        self._images: OrderedDict[_ImageKey, _Image] = OrderedDict()
        self._stacks: dict[tuple[_ImageKey, bytes, int], Stack] = {}
        self._of_callers: dict[int, tuple[Caller, Stack]] = {}

    def meet(self, arrival: Arrival) -> None:
        with self._lock:
            self._image(_ImageKey(arrival.tgid, arrival.birth, arrival.exec_id))

    def resolve(self, event: CallEvent) -> Stack:
        caller = event.caller
        known = self._of_callers.get(id(caller))
        if known is None:
            if len(self._of_callers) >= _STACKS_MAX:
                self._of_callers.clear()
            # with the caller itself, since an id is only unique while its object lives
            known = self._of_callers[id(caller)] = caller, self._stack(caller)
        return known[1]

    def _stack(self, caller: Caller) -> Stack:
        raw = caller.stack
        if not raw.frames:
            return _without_frames(raw.error)
        image_key = _ImageKey(*caller.process, caller.exec_id)
        key = (image_key, raw.frames, raw.caller)
        stack = self._stacks.get(key)
        if stack is None:
            if len(self._stacks) >= _STACKS_MAX:
                self._stacks.clear()
            with self._lock:
                stack = _symbolized(self._image(image_key), raw.addresses(), raw.caller)
            self._stacks[key] = stack
        return stack

    def close(self) -> None:
        with self._lock:
            while self._images:
                self._images.popitem()[1].close()

    def _image(self, key: _ImageKey) -> _Image:
        image = self._images.get(key)
        if image is None:
            image = self._images[key] = _Image(key, self._tables)
            if len(self._images) > _IMAGES_MAX:
                self._images.popitem(last=False)[1].close()
        self._images.move_to_end(key)
        return image


@cache
def _without_frames(error: int) -> Stack:
    if error:
        return missing(f"the kernel could not read it ({errno_name(error)})")
    return missing("the kernel collected no frames")


def _symbolized(image: _Image, addresses: tuple[int, ...], caller: int) -> Stack:
    leaf = _leaf(image, addresses[0])
    if leaf.module is None:
        return missing(_ENDED)
    frames = [leaf]
    rest = addresses[1:]
    if rest[:1] != (caller,):
        is_caller = _is_wrapper(leaf) or image.follows_call(caller)
        if is_caller is None:
            # without this frame the next one would pass for the caller
            return Stack((leaf,), StackState.TRUNCATED, _ENDED)
        frame = image.frame(caller, is_return=True)
        if is_caller and frame.module is not None and not _is_stale(frame, leaf):
            frames.append(frame)
    for address in rest:
        frame = image.frame(address, is_return=True)
        if frame.module is None or image.follows_call(address) is False:
            return Stack(tuple(frames), StackState.TRUNCATED, "code without frame pointers")
        frames.append(frame)
    if _ends_at_root(frames):
        return Stack(tuple(frames), StackState.COMPLETE)
    return Stack(tuple(frames), StackState.TRUNCATED, "the frame pointers end here")


def _is_stale(frame: Frame, leaf: Frame) -> bool:
    """A link register may still tell of a call that the function itself made before."""
    return HAS_LINK_REGISTER and leaf.function is not None and frame[:2] == leaf[:2]


def _ends_at_root(frames: list[Frame]) -> bool:
    # a stripped libc has no name for what calls main
    if len(frames) > 1 and frames[-2].function == "main" and is_runtime(frames[-1]):
        return True
    return frames[-1].function in _ROOTS


def _leaf(image: _Image, address: int) -> Frame:
    frame = image.frame(address, is_return=False)
    if frame.module is None:
        image.reload()
        frame = image.frame(address, is_return=False)
    return frame


def _is_wrapper(leaf: Frame) -> bool:
    """Whether it is libc's, which has no frame of its own: its caller is at the stack pointer."""
    return is_runtime(leaf) and (leaf.function or "").startswith(("inotify_", "syscall"))
