"""From what inodes are called in their filesystems to paths, where those are mounted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from tracer.core.events import Process
from tracer.core.walk import Inode
from tracer.kernel.inodes import DentryNames
from tracer.targets.mounts import MountTable, kernel_device
from tracer.targets.path import Paths, Scene

# Filesystems of which stat(2) shows other devices than the kernel has, for some of their files:
# btrfs_getattr() in fs/btrfs/inode.c, ovl_getattr() in fs/overlayfs/inode.c, fs/bcachefs/fs.c.
OWN_DEVICES = frozenset((b"bcachefs", b"btrfs", b"overlay"))
# Folders are mounted in many places by containers; one path is enough.
_POINTS_MAX = 16
# limits.h, with the byte that ends a path: no call takes a longer one
_PATH_MAX = 4096

# a folder of a filesystem, or of the table
_Place = TypeVar("_Place")
# a key for it, a name in a folder, and the inode that should have it
Entry = tuple[int, bytes, Inode]


class Joined:
    """Joins names with mount tables, and checks that the paths lead there; for one report."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def find(
        self, wanted: Iterable[tuple[int, Process, Inode, DentryNames]]
    ) -> Iterator[tuple[int, bytes]]:
        """
        The paths that processes can use for inodes with these names, by the keys given.

        A folder is opened once for all that is in it.
        """
        folders: dict[Process, dict[tuple[int, bytes], list[Entry]]] = {}
        for key, process, inode, (folder, name) in wanted:
            of_process = folders.setdefault(process, {})
            of_process.setdefault((inode.dev, folder), []).append((key, name, inode))
        for process, scene, place, entries in self._seen(folders):
            yield from self._in_folder(process, scene, place, entries)

    def _in_folder(
        self, process: Process, scene: Scene, place: tuple[int, bytes], entries: Sequence[Entry]
    ) -> Iterator[tuple[int, bytes]]:
        for at in _places(scene.table, *place):
            found = dict(self.verified(process, scene, at, entries))
            yield from found.items()
            if len(found) == len(entries):
                return
            entries = [entry for entry in entries if entry[0] not in found]
        # what is itself mounted, or the root of the process, without the folder it is in
        for key, name, inode in entries:
            points = scene.table.points(inode.dev, DentryNames(place[1], name).path)[:_POINTS_MAX]
            for point in (*points, scene.above) if scene.above else points:
                path = self.verified_path(process, scene, point, inode)
                if path is not None:
                    yield key, path
                    break

    def verified_paths(
        self, wanted: Iterable[tuple[int, Process, Inode, bytes]]
    ) -> Iterator[tuple[int, bytes]]:
        """Those paths of the table that lead to the inodes, as the processes use them."""
        folders: dict[Process, dict[bytes, list[Entry]]] = {}
        for key, process, inode, at in wanted:
            scene = self._paths.scene(process)
            if scene is not None:
                folder, name = _split(scene, at)
                of_process = folders.setdefault(process, {})
                of_process.setdefault(folder, []).append((key, name, inode))
        for process, scene, at, entries in self._seen(folders):
            yield from self.verified(process, scene, at, entries)

    def _seen(
        self, folders: Mapping[Process, Mapping[_Place, list[Entry]]]
    ) -> Iterator[tuple[Process, Scene, _Place, list[Entry]]]:
        """What there is to look for in each place; the root of a process is open meanwhile."""
        for process, places in folders.items():
            scene = self._paths.scene(process)
            if scene is None:
                continue
            # it may have ended meanwhile
            with suppress(OSError), self._paths.rooted(process):
                for place, entries in places.items():
                    yield process, scene, place, entries

    def verified_path(
        self, process: Process, scene: Scene, at: bytes, inode: Inode
    ) -> bytes | None:
        """The same for one."""
        folder, name = _split(scene, at)
        found = self.verified(process, scene, folder, ((0, name, inode),))
        return next((path for _, path in found), None)

    def verified(
        self,
        process: Process,
        scene: Scene,
        at: bytes,
        entries: Iterable[Entry],
    ) -> Iterator[tuple[int, bytes]]:
        """The paths of those names in a folder of the table that lead to their inodes."""
        folder = scene.inside(at)
        if folder is None:
            return
        above, before = at.rstrip(b"/") + b"/", folder.rstrip(b"/") + b"/"
        # one that is gone, is of another kind by now, or may not be looked into
        with suppress(OSError), self._paths.names(process, folder) as status_of:
            for key, name, inode in entries:
                path = folder if name == b"." else before + name
                if len(path) < _PATH_MAX and _leads_to(
                    status_of, name, above + name, inode, scene.table
                ):
                    yield key, path


def _split(scene: Scene, at: bytes) -> tuple[bytes, bytes]:
    """A folder of the table, and the name in it; that of the root is a dot."""
    if scene.inside(at) == b"/":
        return at, b"."
    folder, _, name = at.rpartition(b"/")
    return folder or b"/", name


def _places(table: MountTable, dev: int, folder: bytes) -> Iterator[bytes]:
    """Where a folder of a filesystem is to be seen, first by what shows most of it."""
    folder, end, found = folder.rstrip(b"/"), 0, 0
    while end >= 0:
        for point in table.points(dev, folder[:end] or b"/"):
            if found == _POINTS_MAX:
                return
            found += 1
            yield point.rstrip(b"/") + folder[end:] or b"/"
        end = _next_end(folder, end)


def _next_end(path: bytes, end: int) -> int:
    """Where the name after the one that ends there ends; -1 if it is the last."""
    if end == len(path):
        return -1
    after = path.find(b"/", end + 1)
    return after if after >= 0 else len(path)


def _leads_to(
    status_of: Callable[[bytes], os.stat_result],
    name: bytes,
    at: bytes,
    inode: Inode,
    table: MountTable,
) -> bool:
    """Whether a name in a folder is that inode; one is not asked for that others have to tell."""
    if table.leads_away(at):
        return False
    try:
        found = status_of(name)
    except OSError:
        return False
    return found.st_ino == inode.ino and is_on(found, inode.dev, at, table)


def is_on(found: os.stat_result, dev: int, at: bytes, table: MountTable) -> bool:
    """Whether what was found at a path of the table is on that filesystem."""
    device = kernel_device(found)
    if device == dev:
        return True
    # one that is mounted somewhere is none of those which only stat(2) shows
    if device in table.kinds:
        return False
    mounts = table.mounts_at(at)
    return bool(mounts) and mounts[-1].dev == dev and mounts[-1].kind in OWN_DEVICES
