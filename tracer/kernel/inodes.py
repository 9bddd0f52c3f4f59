"""Asking the kernel what became of an inode, and what it is called: see bpf/inode.c."""

from __future__ import annotations

import ctypes
import enum
import mmap
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from tracer.core.walk import Inode
from tracer.kernel.system_call import PROG_TEST_RUN, bpf_call

# struct name_row, bpf/wire.h
NAME_ROW = struct.Struct("=QQQQII256s")
_NAME_REQUEST = struct.Struct("=QQQQI")
_NAME_ROWS = 128
# Names above the one asked for: as many folders deep as a path of 4,096 bytes seldom is.
_DEPTH_MAX = 64
# a dentry, the one above it (itself if that is the root, 0 if nothing is known), and its name
_Link = tuple[int, int, bytes]
_NO_LINK: _Link = (0, 0, b"")
_NO_NAMES = frozenset((b"", b".", b".."))


class InodeState(enum.IntEnum):
    """As in bpf/wire.h."""

    UNKNOWN = 0
    LINKED = 1
    DELETED = 2


class _Run(ctypes.Structure):
    """The part of union bpf_attr that is about BPF_PROG_TEST_RUN, include/uapi/linux/bpf.h."""

    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("data_in", ctypes.c_uint64),
        ("data_out", ctypes.c_uint64),
        ("repeat", ctypes.c_uint32),
        ("duration", ctypes.c_uint32),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_uint64),
        ("ctx_out", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
    )


class DentryNames(NamedTuple):
    """
    What an inode is called in its filesystem: a name in a folder, both as the kernel has them.

    `folder` is a path from the filesystem's root. The root itself has no `name`.
    """

    folder: bytes
    name: bytes

    @property
    def path(self) -> bytes:
        return self.folder.rstrip(b"/") + b"/" + self.name


class Inodes:
    """What loaded programs can tell of inodes; nothing where the kernel does not run them."""

    def __init__(self, bpf: Any) -> None:
        self._state = _Program(bpf, b"inode_state", 3)
        self.names_of = Dentries(bpf)

    def state(self, inode: Inode) -> InodeState:
        """Whether it was deleted; UNKNOWN once its memory is in use for something else."""
        try:
            return InodeState(self._state.run(inode.address, inode.ino, inode.generation))
        except OSError:
            # before Linux 5.10
            return InodeState.UNKNOWN


class Dentries:
    """
    The names of inodes that the kernel has in its cache. Not for several threads.

    A name is one of several if there are hard links, and from a moment ago: what is renamed
    meanwhile may have a path that it never had, or one that leads to another inode by now.
    """

    def __init__(self, bpf: Any) -> None:
        self._program = _Program(bpf, b"dentry_names", 1)
        self._map_fd: int = bpf[b"name_rows"].map_fd

    def __call__(self, inode: Inode) -> DentryNames | None:
        """None if it has no name in memory, or is not in memory itself any more."""
        return self.of_all((inode,))[0]

    def of_all(self, inodes: Sequence[Inode]) -> list[DentryNames | None]:
        """The same for many, in their order: a folder that they have in common is asked for once"""
        size = -(-_NAME_ROWS * NAME_ROW.size // mmap.PAGESIZE) * mmap.PAGESIZE
        try:
            with mmap.mmap(self._map_fd, size) as rows:
                links = list(
                    self._asked(rows, ((i.address, i.ino, 0, i.generation) for i in inodes))
                )
                tree = _Tree(link for link in links if link[1])
                for _ in range(_DEPTH_MAX):
                    missing = tree.missing()
                    if not missing:
                        break
                    tree.add(self._asked(rows, ((0, 0, dentry, 0) for dentry in missing)))
        except OSError:
            # before Linux 5.10, or refused
            return [None] * len(inodes)
        return [tree.names(link) for link in links]

    def _asked(
        self, rows: mmap.mmap, requests: Iterable[tuple[int, int, int, int]]
    ) -> Iterator[_Link]:
        requests = iter(requests)
        while portion := list(islice(requests, _NAME_ROWS)):
            for at, (inode, ino, dentry, generation) in enumerate(portion):
                _NAME_REQUEST.pack_into(rows, at * NAME_ROW.size, inode, ino, dentry, 0, generation)
            self._program.run(len(portion))
            told = rows[: len(portion) * NAME_ROW.size]
            for _, _, dentry, parent, _, length, name in NAME_ROW.iter_unpack(told):
                yield dentry, parent, name[:length]


class _Tree:
    """The dentries met so far, by their address."""

    def __init__(self, links: Iterable[_Link]) -> None:
        self._links: dict[int, _Link] = {}
        self._folders: dict[int, bytes | None] = {}
        self._new: list[_Link] = []
        self.add(links)

    def add(self, links: Iterable[_Link]) -> None:
        self._new = list(links)
        self._links.update((link[0], link) for link in self._new)

    def missing(self) -> set[int]:
        """The dentries above the latest that are not known yet."""
        return {parent for _, parent, _ in self._new if parent} - self._links.keys()

    def names(self, link: _Link) -> DentryNames | None:
        dentry, parent, name = link
        if parent == dentry:
            return DentryNames(b"/", b"") if parent else None
        if parent not in self._folders:
            self._folders[parent] = self._path(parent)
        folder = self._folders[parent]
        return None if folder is None or not _is_name(name) else DentryNames(folder, name)

    def _path(self, dentry: int) -> bytes | None:
        names: list[bytes] = []
        for _ in range(_DEPTH_MAX):
            _, parent, name = self._links.get(dentry, _NO_LINK)
            if not parent:
                return None
            if parent == dentry:
                return b"/" + b"/".join(reversed(names))
            if not _is_name(name):
                return None
            names.append(name)
            dentry = parent
        return None


def _is_name(name: bytes) -> bool:
    return name not in _NO_NAMES and b"/" not in name


class _Program:
    """A program that user space runs with some numbers, and that returns one."""

    def __init__(self, bpf: Any, name: bytes, arguments: int) -> None:
        self._function = bpf.load_func(name, bpf.RAW_TRACEPOINT)
        self._layout = struct.Struct(f"={arguments}Q")
        self._arguments = ctypes.create_string_buffer(self._layout.size)
        self._run = _Run(
            prog_fd=self._function.fd,
            ctx_size_in=self._layout.size,
            ctx_in=ctypes.addressof(self._arguments),
        )

    def run(self, *arguments: int) -> int:
        """Raises OSError if the kernel does not run it: Linux before 5.10."""
        self._layout.pack_into(self._arguments, 0, *arguments)
        bpf_call(PROG_TEST_RUN, self._run)
        return int(self._run.retval)
