"""From handles to paths, on any folder that the holder of a watch has of that filesystem."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

from tracer.core.events import Process
from tracer.core.walk import Inode
from tracer.kernel.fdinfo import Handle, read_handles
from tracer.kernel.handles import made_handle, open_by_handle
from tracer.kernel.inodes import DentryNames
from tracer.targets.folders import Folders
from tracer.targets.joined import Joined, is_on
from tracer.targets.mounts import Vantage
from tracer.targets.overlay import KIND, Layers, Overlays, RealHandle, real_handle
from tracer.targets.path import Paths, Scene

# Of one filesystem, from how many of its mounts handles are opened: a path is one of that mount.
_MOUNTS_MAX = 4
# How many instances' handles are kept: of most, everything is found before.
_INSTANCES_MAX = 4
_Handles = dict[tuple[int, int], Handle]


class Opened(NamedTuple):
    """Where the kernel tells of a watch: /proc/`pid`/fdinfo/`fd`, and its descriptor there."""

    pid: int
    fd: int
    wd: int


class Wanted(NamedTuple):
    """An inode, and who should find it."""

    key: int
    process: Process
    opened: Opened
    inode: Inode


class Found(NamedTuple):
    """A path, and whether it was found in a layer of an overlay."""

    key: int
    path: bytes
    in_layer: bool


class _Named(NamedTuple):
    """What stat(2) says of a file, and the kernel's path of it."""

    found: os.stat_result
    name: bytes


class ByHandle:
    """
    Opens handles; for one report. Use it as a context manager: it has folders open meanwhile.

    `are_refused` once the kernel did not let us, who lack CAP_DAC_READ_SEARCH.
    """

    def __init__(self, paths: Paths, joined: Joined) -> None:
        self.are_refused = False
        self._paths = paths
        self._joined = joined
        self._told: OrderedDict[tuple[int, int], _Handles] = OrderedDict()
        self._points: dict[tuple[Vantage, int], list[bytes]] = {}
        self._folders = Folders(paths)
        self._overlays = Overlays(paths, self._folders)

    def __enter__(self) -> ByHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self._folders.close()

    def find(self, wanted: Iterable[Wanted]) -> Iterator[Found]:
        """
        The paths that processes can use, as far as there are any.

        A folder is opened once for all that is in it.
        """
        left = {one.key: (one, self._candidates(one)) for one in wanted}
        while left:
            in_layers: list[tuple[int, Process, Inode, DentryNames]] = []
            mounted: list[tuple[int, Process, Inode, bytes]] = []
            for key, (one, candidates) in list(left.items()):
                candidate = next(candidates, None)
                if candidate is None:
                    del left[key]
                elif isinstance(candidate, DentryNames):
                    in_layers.append((key, one.process, one.inode, candidate))
                else:
                    mounted.append((key, one.process, one.inode, candidate))
            for key, path in self._joined.find(in_layers):
                del left[key]
                yield Found(key, path, in_layer=True)
            for key, path in self._joined.verified_paths(mounted):
                del left[key]
                yield Found(key, path, in_layer=False)

    def _candidates(self, one: Wanted) -> Iterator[bytes | DentryNames]:
        """Paths of the table that may lead there, or names in the filesystem."""
        scene = self._paths.scene(one.process)
        if scene is None:
            return
        # these have no name in their filesystem any more
        yield from scene.table.deleted_points(one.inode.dev)[:_MOUNTS_MAX]
        kind = scene.table.kinds.get(one.inode.dev, b"")
        if kind == KIND:
            yield from self._in_layers(scene, one)
            return
        for handle in self._handles(one.opened, one.inode, kind):
            for point in self._points_of(scene, one.inode.dev):
                at = None if self.are_refused else self._by_mount(scene, one, point, handle)
                if at is not None:
                    yield at

    def _handles(self, opened: Opened, inode: Inode, kind: bytes) -> Iterator[Handle]:
        # to read fdinfo holds up the program that is watching, for as long as it is long
        made = made_handle(inode, kind) if inode.address else None
        if made is not None:
            yield made
        told = self._told_of(opened, inode)
        if told is not None and told != made:
            yield told

    def _told_of(self, opened: Opened, inode: Inode) -> Handle | None:
        key = opened.pid, opened.fd
        if key not in self._told:
            self._told[key] = {}
            with suppress(OSError):
                self._told[key] = read_handles(*key)
            if len(self._told) > _INSTANCES_MAX:
                self._told.popitem(last=False)
        return self._told[key].get((opened.wd, inode.ino))

    def _points_of(self, scene: Scene, dev: int) -> list[bytes]:
        key = scene.vantage, dev
        if key not in self._points:
            # what the root is on may be in no table
            points = scene.table.all_points(dev)[:_MOUNTS_MAX]
            self._points[key] = [*points, scene.above or b"/"]
        return self._points[key]

    def _by_mount(self, scene: Scene, one: Wanted, point: bytes, handle: Handle) -> bytes | None:
        """A path of the table, asked for where something is mounted."""
        inside = scene.inside(point)
        folder = None
        if inside is not None:
            folder = self._folders.of(one.process, scene.vantage, inside)
        if folder is None or not is_on(folder.found, one.inode.dev, point, scene.table):
            return None
        with suppress(OSError):
            named = self._named(folder.file, handle)
            if named is not None and named.found.st_ino == one.inode.ino:
                return _in_table(scene, named.name)
        return None

    def _in_layers(self, scene: Scene, one: Wanted) -> Iterator[DentryNames]:
        told = None if self.are_refused else self._told_of(one.opened, one.inode)
        real = None if told is None else real_handle(told)
        if real is None:
            return
        for path in self._in_overlay(real, self._overlays.of(one.process, scene, one.inode.dev)):
            folder, _, name = path.rpartition(b"/")
            yield DentryNames(folder or b"/", name)

    def _in_overlay(self, real: RealHandle, layers: Layers) -> dict[bytes, None]:
        """Paths from the root of an overlay; none if it is not certain what a handle is of."""
        paths: dict[bytes, None] = {}
        files = set()
        for ground in layers.that_may_have(real):
            folder = self._overlays.folder(ground)
            try:
                named = None if folder is None else self._named(folder, real.handle)
            except OSError:
                folder = None
            # it may as well be of what cannot be asked
            if folder is None:
                return {}
            if named is not None:
                # not each filesystem compares generations: it may have another of that number
                files.add((named.found.st_dev, named.found.st_ino))
                paths.update(dict.fromkeys(ground.below(named.name)))
        return paths if len(files) == 1 else {}

    def _named(self, folder: int, handle: Handle) -> _Named | None:
        """
        What the file of a handle is called; None if there is none.

        Raises OSError if that cannot be told.
        """
        try:
            file = open_by_handle(folder, handle)
        except ValueError:
            return None
        except OSError as error:
            # not EACCES and EINVAL, which are about this one
            if error.errno in (errno.EPERM, errno.ENOSYS):
                self.are_refused = True
            if error.errno in (errno.ESTALE, errno.EOPNOTSUPP):
                return None
            raise
        try:
            return _Named(os.fstat(file), os.readlink(b"/proc/self/fd/%d" % file))
        finally:
            os.close(file)


def _in_table(scene: Scene, name: bytes) -> bytes | None:
    """A path of the namespace as the table has it, which may be one of the process itself."""
    root = scene.vantage.root.rstrip(b"/")
    if not name.startswith(b"/"):
        return None
    if not root or scene.above:
        return name
    return (name[len(root) :] or b"/") if (name + b"/").startswith(root + b"/") else None
