"""The content of a file that processes have mapped."""

from __future__ import annotations

import os
import stat
from io import FileIO
from typing import Callable, NamedTuple

from tracer.stacks.elf import FileContent
from tracer.stacks.mappings import Mapping

_BLOCK = 1 << 14


class FileIdentity(NamedTuple):
    """Which file, whatever its name: as stat(2) has it, with the time of its last change."""

    dev: int
    ino: int
    changed_ns: int


class Location(NamedTuple):
    """A process that has mapped a file, and where."""

    pid: int
    mapping: Mapping


class MappedFile:
    """
    Opened when it is read, and again after :meth:`close`; each time `opened` is called with it.

    `holders` are processes for which it is to stay open: they may end any moment, and what they
    called from is still to be found out. May be used by several threads.
    """

    def __init__(
        self, location: Location, identity: FileIdentity, opened: Callable[[MappedFile], None]
    ) -> None:
        self.location = location
        self._identity = identity
        self._opened = opened
        self._file: FileIO | None = None
        self._block = -1, b""
        self.holders = 0

    def read(self, offset: int, size: int) -> bytes:
        """As :class:`tracer.stacks.elf.Content` has it; nothing if the file is out of reach."""
        # the other thread may close it: what is in use stays open until it is not
        file = self._file or self.open()
        if file is None:
            return b""
        content = FileContent(file.fileno())
        block, at = divmod(offset, _BLOCK)
        if at + size > _BLOCK or offset < 0:
            return content.read(offset, size)
        # tables are read in many small steps, and close together
        number, bytes_ = self._block
        if number != block:
            number, bytes_ = self._block = block, content.read(block * _BLOCK, _BLOCK)
        return bytes_[at : at + size]

    @property
    def is_within_reach(self) -> bool:
        """Whether what was read just now is what there is."""
        return self._file is not None or self.open() is not None

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def close(self) -> None:
        self._file = None
        self._block = -1, b""

    def open(self) -> FileIO | None:
        """None if it is out of reach."""
        if self._file is not None:
            return self._file
        for path, _ in paths(self.location):
            descriptor = _opened_for_reading(path)
            if descriptor < 0:
                continue
            file = FileIO(descriptor)
            # after an exec there may be another; to be unlinked is a change as well
            if identity_of(os.fstat(descriptor))[:2] == self._identity[:2]:
                self._file = file
                self._opened(self)
                return file
            file.close()
        return None


def identified(location: Location) -> FileIdentity | None:
    """Which file is mapped there, without opening it; None if that cannot be told."""
    for path, is_link in paths(location):
        try:
            found = os.stat(path)
            name = os.readlink(path) if is_link else b""
        except (OSError, ValueError):
            continue
        # overlayfs and btrfs number devices otherwise than maps has them: then the name tells
        mapping = location.mapping
        same = (found.st_dev, found.st_ino) == (mapping.dev, mapping.ino)
        if same or (found.st_dev != mapping.dev and name == mapping.name):
            return identity_of(found) if stat.S_ISREG(found.st_mode) else None
    return None


def identity_of(found: os.stat_result) -> FileIdentity:
    return FileIdentity(found.st_dev, found.st_ino, found.st_ctime_ns)


def paths(location: Location) -> tuple[tuple[bytes, bool], ...]:
    """
    Where the mapped file may be while the process lives, and whether that is the kernel's link.

    That leads to the file itself, also if it was deleted or is in another mount namespace, but
    takes CAP_CHECKPOINT_RESTORE; the other to whatever has its name there by now.
    """
    pid, mapping = location
    by_range = b"/proc/%d/map_files/%x-%x" % (pid, mapping.start, mapping.end)
    return (by_range, True), (b"/proc/%d/root" % pid + mapping.name, False)


def _opened_for_reading(path: bytes) -> int:
    """
    A descriptor of the regular file at `path`; -1 if there is none.

    Looked at before it is opened: to open a device may have effects of its own.
    """
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError):
        return -1
    try:
        if not stat.S_ISREG(os.fstat(place).st_mode):
            return -1
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    finally:
        os.close(place)
