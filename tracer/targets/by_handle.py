"""From handles to paths, on any folder that the holder of a watch has of that filesystem."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import NamedTuple

from tracer.core.events import Process
from tracer.core.walk import Inode
from tracer.kernel.fdinfo import Handle, read_handles
from tracer.kernel.handles import made_handle, open_by_handle
from tracer.kernel.inodes import DentryNames
from tracer.targets.joined import Joined, is_on
from tracer.targets.mounts import Vantage
from tracer.targets.overlay import KIND, Layer, Layers, real_handle
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

    def find(self, process: Process, opened: Opened, inode: Inode) -> tuple[bytes | None, bool]:
        """A path that `process` can use, and whether it was found in a layer of an overlay."""
        scene = self._paths.scene(process)
        if scene is None or self.are_refused:
            return None, False
        kind = scene.table.kinds.get(inode.dev, b"")
        if kind == KIND:
            return self._in_layers(process, scene, opened, inode), True
        for handle in self._handles(opened, inode, kind):
            for mount in self._mounts_of(process, scene, inode.dev):
                path = self._path(process, scene, mount, handle, inode)
                if path is not None:
                    return path, False
        return None, False

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

    def _path(
        self, process: Process, scene: Scene, mount: int, handle: Handle, inode: Inode
    ) -> bytes | None:
        at = self._name(mount, handle, inode)
        root = scene.vantage.root.rstrip(b"/")
        if at is not None and root and not scene.above:
            # the table has the paths of the process, and the kernel those of the namespace
            at = at[len(root) :] or b"/" if (at + b"/").startswith(root + b"/") else None
        return None if at is None else self._joined.verified_path(process, scene, at, inode)

    def _name(self, mount: int, handle: Handle, inode: Inode) -> bytes | None:
        """What the kernel calls the inode of a handle; None if it is another or there is none."""
        try:
            file = open_by_handle(mount, handle)
        except (OSError, ValueError) as error:
            # not EACCES, EINVAL, EOPNOTSUPP or ESTALE, which are about this one
            if isinstance(error, OSError) and error.errno in (errno.EPERM, errno.ENOSYS):
                self.are_refused = True
            return None
        try:
            found = os.fstat(file)
            name = os.readlink(b"/proc/self/fd/%d" % file)
        except OSError:
            return None
        finally:
            os.close(file)
        return name if found.st_ino == inode.ino and name.startswith(b"/") else None

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

    def _in_layers(
        self, process: Process, scene: Scene, opened: Opened, inode: Inode
    ) -> bytes | None:
        told = self._told_of(opened, inode)
        real = None if told is None else real_handle(told)
        for layer in self._layers.of(process, scene, inode.dev) if real is not None else ():
            path = self._in_layer(process, layer, real, inode) if real is not None else None
            if path is not None:
                return path
        return None

    def _in_layer(self, process: Process, layer: Layer, real: Handle, inode: Inode) -> bytes | None:
        try:
            file = open_by_handle(layer.folder, real)
        except (OSError, ValueError):
            return None
        try:
            at = os.readlink(b"/proc/self/fd/%d" % file)
        except OSError:
            return None
        finally:
            os.close(file)
        if not (at + b"/").startswith(layer.path.rstrip(b"/") + b"/"):
            return None
        folder, _, name = at[len(layer.path.rstrip(b"/")) :].rpartition(b"/")
        names = DentryNames(folder or b"/", name)
        found = self._joined.find(((0, process, inode, names),))
        return next((path for _, path in found), None)
