"""From handles to paths, on any folder that the holder of a watch has of that filesystem."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import NamedTuple

from tracer.core.events import Process
from tracer.core.walk import Inode
from tracer.kernel.fdinfo import Handle, read_handles
from tracer.kernel.handles import made_handle, open_by_handle
from tracer.kernel.inodes import DentryNames
from tracer.targets.joined import Joined, is_on
from tracer.targets.mounts import Vantage
from tracer.targets.overlay import KIND, Layers, real_handle
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


class ByHandle:
    """
    Opens handles; for one report. Use it as a context manager: it keeps folders open meanwhile.

    `are_refused` once the kernel did not let us, who lack CAP_DAC_READ_SEARCH.
    """

    def __init__(self, paths: Paths, joined: Joined) -> None:
        self.are_refused = False
        self._paths = paths
        self._joined = joined
        self._told: OrderedDict[tuple[int, int], _Handles] = OrderedDict()
        self._mounts: dict[tuple[Vantage, int], list[int]] = {}
        self._layers = Layers(paths)
        self._closing = ExitStack()

    def __enter__(self) -> ByHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self._mounts.clear()
        self._layers.close()
        self._closing.close()

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
        kind = scene.table.kinds.get(one.inode.dev, b"")
        if kind == KIND:
            yield from self._in_layers(scene, one)
            return
        for handle in self._handles(one.opened, one.inode, kind):
            for mount in self._mounts_of(one.process, scene, one.inode.dev):
                name = None if self.are_refused else self._name(mount, handle, one.inode.ino)
                at = None if name is None else _in_table(scene, name)
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

    def _name(self, folder: int, handle: Handle, ino: int | None = None) -> bytes | None:
        """What the kernel calls the inode of a handle; None if its number is not `ino`."""
        try:
            file = open_by_handle(folder, handle)
        except (OSError, ValueError) as error:
            # not EACCES, EINVAL, EOPNOTSUPP or ESTALE, which are about this one
            if isinstance(error, OSError) and error.errno in (errno.EPERM, errno.ENOSYS):
                self.are_refused = True
            return None
        try:
            found = ino if ino is None else os.fstat(file).st_ino
            name = os.readlink(b"/proc/self/fd/%d" % file)
        except OSError:
            return None
        finally:
            os.close(file)
        return name if found == ino and name.startswith(b"/") else None

    def _mounts_of(self, process: Process, scene: Scene, dev: int) -> list[int]:
        key = scene.vantage, dev
        if key not in self._mounts:
            self._mounts[key] = list(self._opened_mounts(process, scene, dev))
        return self._mounts[key]

    def _opened_mounts(self, process: Process, scene: Scene, dev: int) -> Iterator[int]:
        # what the root is on may be in no table
        points = [*scene.table.all_points(dev)[:_MOUNTS_MAX], scene.above or b"/"]
        for at in points:
            inside = scene.inside(at)
            with suppress(OSError), ExitStack() as closing:
                if inside is None:
                    continue
                folder = closing.enter_context(self._paths.folder(process, inside, to_read=True))
                if is_on(os.fstat(folder), dev, at, scene.table):
                    self._closing.push(closing.pop_all())
                    yield folder

    def _in_layers(self, scene: Scene, one: Wanted) -> Iterator[DentryNames]:
        told = None if self.are_refused else self._told_of(one.opened, one.inode)
        real = None if told is None else real_handle(told)
        if real is None:
            return
        for layer in self._layers.of(one.process, scene, one.inode.dev):
            at = self._name(layer.folder, real)
            top = layer.path.rstrip(b"/")
            if at is not None and (at + b"/").startswith(top + b"/"):
                folder, _, name = at[len(top) :].rpartition(b"/")
                yield DentryNames(folder or b"/", name)


def _in_table(scene: Scene, name: bytes) -> bytes | None:
    """A path of the namespace as the table has it, which may be one of the process itself."""
    root = scene.vantage.root.rstrip(b"/")
    if not root or scene.above:
        return name
    return (name[len(root) :] or b"/") if (name + b"/").startswith(root + b"/") else None
