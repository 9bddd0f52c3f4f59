"""From a traced path to what is there now, as the process that passed it sees it."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple

from tracer.core.events import Process
from tracer.core.walk import Target
from tracer.kernel.procfs import Mount
from tracer.targets.lookup import FOLDER, TO_READ, opened, root_of, status, status_in_memory
from tracer.targets.mounts import LOCAL_KINDS, Mounts, MountTable, Vantage, kernel_device
from tracer.targets.processes import is_running

# path_resolution(7)
_LINKS_MAX = 40
_NAME = re.compile(rb"[^/]+")
_NO_NAMES = frozenset((b"", b"."))
# How many names in paths are looked up for one report: a hundred for each of 10,000 watches, and
# some seconds for paths made to take long.
_NAMES_MAX = 1_000_000


class Sight(NamedTuple):
    """
    Where a path leads: `target` is None if nowhere.

    `at` is the path without symbolic links, from the top of the mount namespace. `link` is the
    symbolic link that the path is of, if it is of one: IN_DONT_FOLLOW watches that.
    """

    target: Target | None
    at: bytes
    link: Target | None = None


class Scene(NamedTuple):
    """
    What a process sees mounted: `table` has paths with `above` before those that it uses itself.

    `vantage` tells apart who sees other files.
    """

    vantage: Vantage
    table: MountTable
    above: bytes

    def inside(self, at: bytes) -> bytes | None:
        """The path that the process uses for one of the table; None if it is not below its root."""
        if not self.above:
            return at
        return at[len(self.above) :] or b"/" if _is_below(at, self.above) else None


class _Place(NamedTuple):
    """
    A path from the top of the namespace.

    `in_memory` if it goes over an overlay of which is not known what it asks in turn: only what the
    kernel has in memory can be had without waiting.
    """

    at: bytes
    in_memory: bool


class Paths:
    """
    Looks up paths, each once: use one for each report.

    No path is looked up that goes over a filesystem which might wait for a server or a program, or
    through a link of /proc, which leads each process elsewhere. A link that is made while it is
    looked up is not followed.
    """

    def __init__(self, mounts: Mounts) -> None:
        self._mounts = mounts
        self._vantages: dict[Process, Vantage | None] = {}
        self._sights: dict[tuple[Vantage, bytes], Sight | None] = {}
        self._links: dict[tuple[Vantage, bytes], bytes] = {}
        self._names_left = _NAMES_MAX
        # of a pid, while it is kept open
        self._root: tuple[int, int] | None = None

    def sees(self, process: Process) -> bool:
        """Whether it can be told how this process sees files: it has not ended."""
        return self._vantage(process) is not None

    def sight(self, process: Process, path: bytes) -> Sight | None:
        """Where a path leads, a relative one from where the process is now; None if unknown."""
        vantage = self._vantage(process)
        if vantage is None:
            return None
        return self._sight(self._mounts.seer(process.pid), vantage, path)

    def mounts_at(self, process: Process, sight: Sight) -> list[Mount]:
        """What is mounted where a path leads, or would if it led anywhere."""
        vantage = self._vantage(process)
        if vantage is None:
            return []
        table, _ = self._mounts.scene(process.pid, vantage)
        return table.mounts_at(sight.at)

    @contextmanager
    def listed(self, process: Process, path: bytes) -> Iterator[int]:
        """
        A descriptor to read a folder by, as the process sees it.

        Raises OSError if it is none that may be read: FileNotFoundError if the path leads nowhere,
        TimeoutError if looking it up could take for ever.
        """
        sight, scene = self.sight(process, path), self.scene(process)
        inside = scene.inside(sight.at) if sight is not None and scene is not None else None
        if sight is None or inside is None:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        if sight.target is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        with self.folder(process, inside, to_read=True) as folder:
            yield folder

    def scene(self, process: Process) -> Scene | None:
        """What is mounted where for a process; None if it has ended, or does not let us look."""
        vantage = self._vantage(process)
        if vantage is None:
            return None
        table, above = self._mounts.scene(process.pid, vantage)
        return Scene(vantage, table, above.rstrip(b"/"))

    @contextmanager
    def rooted(self, process: Process) -> Iterator[None]:
        """
        Around looking into many folders of one process, whose root is then opened only once.

        Raises OSError if it has ended, or does not let us look.
        """
        pid = self._mounts.seer(process.pid)
        with root_of(pid) as root:
            before, self._root = self._root, (pid, root)
            try:
                yield
            finally:
                self._root = before

    @contextmanager
    def folder(self, process: Process, path: bytes, *, to_read: bool = False) -> Iterator[int]:
        """
        A folder as the process sees it, by a path without symbolic links: to look names up in.

        It is nothing that can be read, or handles be opened by, unless `to_read`. Raises OSError if
        there is none, one may not look, or the path is one that is not looked up, see above.
        """
        pid, root, in_memory = self._way(process, path)
        if in_memory:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        with opened(pid, path, TO_READ if to_read else FOLDER, root) as file:
            yield file

    @contextmanager
    def names(self, process: Process, path: bytes) -> Iterator[Callable[[bytes], os.stat_result]]:
        """
        What lstat(2) says of names in such a folder, which may raise OSError.

        Also in one that can only be looked into by what the kernel has in memory.
        """
        pid, root, in_memory = self._way(process, path)
        with opened(pid, path, FOLDER, root, in_memory=in_memory) as file:
            if in_memory:
                yield partial(status_in_memory, file)
            else:
                yield partial(os.stat, dir_fd=file, follow_symlinks=False)

    def state(self, process: Process, path: bytes | None, target: Target | None) -> str:
        """
        Whether `path`, as the process passed it, still leads to `target`.

        "verified", "changed" (it leads to another inode), "gone" (nowhere), or "unverified": it is
        not looked up, the inode is unknown, the filesystem shows another device number than the
        kernel has, or it leads elsewhere for who looks now, but maybe not for the process, which
        has ended, or passed a relative path.
        """
        if path is None:
            return "unverified"
        if self.sees(process):
            word = _compared(self.sight(process, path), target)
            is_certain = path.startswith(b"/")
        else:
            word, is_certain = _compared(self._own_sight(path), target), False
        return word if is_certain or word == "verified" else "unverified"

    def _way(self, process: Process, path: bytes) -> tuple[int, int | None, bool]:
        """
        By whom to look, the root if that is open, and whether only in memory.

        Raises FileNotFoundError if looking could take for ever, or the process has ended.
        """
        vantage, pid = self._vantage(process), self._mounts.seer(process.pid)
        place = None if vantage is None else self._at(pid, vantage, path)
        if place is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        of, root = self._root or (pid, None)
        return pid, root if of == pid else None, place.in_memory

    def _vantage(self, process: Process) -> Vantage | None:
        if process not in self._vantages:
            vantage = self._mounts.vantage(process.pid)
            # only now: what was read before is of the process that still has the pid
            self._vantages[process] = vantage if is_running(process) else None
        return self._vantages[process]

    def _own_sight(self, path: bytes) -> Sight | None:
        vantage = self._mounts.vantage(os.getpid())
        if vantage is None or not path.startswith(b"/"):
            return None
        return self._sight(os.getpid(), vantage, path)

    def _sight(self, pid: int, vantage: Vantage, path: bytes) -> Sight | None:
        whole = path if path.startswith(b"/") else _from_folder_of(pid, vantage, path)
        if whole is None or b"\0" in path:
            return None
        key = vantage, whole
        if key not in self._sights:
            self._sights[key] = self._look(pid, vantage, whole)
        return self._sights[key]

    def _look(self, pid: int, vantage: Vantage, path: bytes) -> Sight | None:
        link = None
        for _ in range(_LINKS_MAX):
            if self._names_left < 0:
                return None
            path = self._past_known_links(vantage, path)
            place = self._allowed(pid, vantage, path)
            if place is None:
                return None
            try:
                found = _find(pid, path, place.in_memory)
            except (FileNotFoundError, NotADirectoryError):
                return Sight(None, place.at, link)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    return None
                end = self._first_link(pid, path, place.in_memory)
            else:
                if not found.is_link:
                    return Sight(found.target, place.at, link)
                end, link = len(path), link or found.target
            leads_to = self._link(pid, vantage, path[:end])
            if leads_to is None:
                return None
            path = _followed(path, end, leads_to)
        return None

    def _allowed(self, pid: int, vantage: Vantage, path: bytes) -> _Place | None:
        """None if looking it up could take for ever."""
        self._names_left -= path.count(b"/")
        return None if self._names_left < 0 else self._at(pid, vantage, path)

    def _at(self, pid: int, vantage: Vantage, path: bytes) -> _Place | None:
        """The same, however many names were looked up before."""
        table, above = self._mounts.scene(pid, vantage)
        root = table.by_id(vantage.mount)
        if root is None or root.kind not in LOCAL_KINDS:
            return None
        above = above.rstrip(b"/")
        is_local = table.is_local(above or b"/")
        names = path.split(b"/")
        if is_local and b".." not in names:
            at = above + b"".join(b"/" + name for name in names if name not in _NO_NAMES)
            if table.passes_none_away(at):
                return _Place(at or b"/", in_memory=False)
        at, may_be_in_memory = above, table.may_be_in_memory(above or b"/")
        for place in _stops(path):
            at = above + place
            is_local &= not table.leads_away(at)
            may_be_in_memory &= table.may_be_in_memory(at or b"/")
        if is_local or may_be_in_memory:
            return _Place(at or b"/", in_memory=not is_local)
        return None

    def _past_known_links(self, vantage: Vantage, path: bytes) -> bytes:
        # the last name may be the link that is watched
        for end in _ends(path)[:-1] if self._links else ():
            link = self._links.get((vantage, path[:end]))
            if link is not None:
                return _followed(path, end, link)
        return path

    def _first_link(self, pid: int, path: bytes, in_memory: bool) -> int:
        """Where the name of the first symbolic link in a path ends; 0 if there is none."""
        for end in _ends(path):
            self._names_left -= path.count(b"/", 0, end)
            if self._names_left < 0:
                break
            with suppress(OSError):
                if _find(pid, path[:end], in_memory).is_link:
                    return end
        return 0

    def _link(self, pid: int, vantage: Vantage, path: bytes) -> bytes | None:
        """What a symbolic link says; None if it is none by now, or each process reads another."""
        place = self._allowed(pid, vantage, path)
        table, _ = self._mounts.scene(pid, vantage)
        # to read one is no question that can be answered from memory
        if place is None or place.in_memory:
            return None
        if any(mount.kind == b"proc" for mount in table.mounts_at(place.at)):
            return None
        with suppress(OSError), opened(pid, path) as file:
            link = self._links[vantage, path] = os.readlink(b"", dir_fd=file)
            return link
        return None


class _Found(NamedTuple):
    target: Target
    is_link: bool


def _find(pid: int, path: bytes, in_memory: bool) -> _Found:
    """What a path leads to without following a link; OSError with ELOOP if there is one before."""
    with opened(pid, path, in_memory=in_memory) as file:
        found = status(file, in_memory=in_memory)
    return _Found(Target(kernel_device(found), found.st_ino), stat.S_ISLNK(found.st_mode))


def _is_below(path: bytes, folder: bytes) -> bool:
    return path.startswith(folder) and path[len(folder) : len(folder) + 1] in (b"", b"/")


def _compared(sight: Sight | None, target: Target | None) -> str:
    if sight is None:
        return "unverified"
    if target is not None and target in (sight.target, sight.link):
        return "verified"
    if sight.target is None:
        return "gone"
    return "unverified" if target is None or sight.target.ino == target.ino else "changed"


def _from_folder_of(pid: int, vantage: Vantage, path: bytes) -> bytes | None:
    """A relative path from the root of the process; None if its folder is not below that."""
    try:
        folder = os.readlink(b"/proc/%d/cwd" % pid)
    except OSError:
        return None
    above = vantage.root.rstrip(b"/")
    if not path or not (folder + b"/").startswith(above + b"/"):
        return None
    return folder[len(above) :] + b"/" + path


def _stops(path: bytes) -> Iterator[bytes]:
    """Where looking up an absolute path comes by, as long as there are no links."""
    at = b""
    for name in path.split(b"/"):
        if name == b"..":
            at = at[: max(at.rfind(b"/"), 0)]
            yield at
        elif name not in _NO_NAMES:
            at += b"/" + name
            yield at


def _ends(path: bytes) -> list[int]:
    """Where each name in a path ends."""
    return [name.end() for name in _NAME.finditer(path)]


def _followed(path: bytes, end: int, link: bytes) -> bytes:
    """The path with what a link in it says in place of the name that ends at `end`."""
    before = b"" if link.startswith(b"/") else path[: path.rfind(b"/", 0, end) + 1]
    return before + link + path[end:]
