"""
What overlayfs is made of: its layers, and the handles in its own handles.

Formats: struct ovl_fh and struct ovl_fb in fs/overlayfs/overlayfs.h; the options in
https://docs.kernel.org/filesystems/overlayfs.html
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple

from tracer.core.events import Process
from tracer.kernel.fdinfo import Handle
from tracer.kernel.filesystem import filesystem_uuid, mount_id
from tracer.targets.folders import Folders
from tracer.targets.layer_paths import lower_layers, options_in, unprotected
from tracer.targets.mounts import Vantage
from tracer.targets.path import Paths, Scene
from tracer.targets.processes import process_of

KIND = b"overlay"

# OVL_FILEID_V1 pads the head so that the handle within is aligned; OVL_FILEID_V0 does not
_PADDING = {0xF8: 3, 0xFB: 0}
# version, magic, bytes with this head, flags, type, and the UUID of the filesystem
_HEAD = struct.Struct("=BBBBB16s")
_VERSION, _MAGIC = 0, 0xFB
# OVL_FH_FLAG_BIG_ENDIAN, OVL_FH_FLAG_ANY_ENDIAN
_BIG_ENDIAN, _ANY_ENDIAN = 0x01, 0x02
_NO_UUID = bytes(16)
_LAYERS_MAX = 512


class RealHandle(NamedTuple):
    """The handle of a file in a layer, and the UUID of its filesystem; zeros if that has none."""

    handle: Handle
    uuid: bytes


class Ground(NamedTuple):
    """
    The layers of an overlay that are on one mount, by the kernel's paths of them: `tops`.

    `viewer` sees one of them at `path`. `dev` is that of stat(2), `uuid` None if it is not known.
    """

    viewer: Process
    vantage: Vantage
    path: bytes
    dev: int
    uuid: bytes | None
    tops: list[bytes]

    def below(self, name: bytes) -> Iterator[bytes]:
        """Where the overlay may have what has this path."""
        for top in (top.rstrip(b"/") for top in self.tops):
            if (name + b"/").startswith(top + b"/"):
                yield name[len(top) :]


class Layers(NamedTuple):
    """What we can look into of the layers of one overlay, and whether those `are_all`."""

    grounds: Sequence[Ground]
    are_all: bool

    def that_may_have(self, real: RealHandle) -> Sequence[Ground]:
        """Those that a handle may be of; none if it may be of others too."""
        grounds = self.grounds
        if real.uuid != _NO_UUID:
            same = [ground for ground in grounds if ground.uuid == real.uuid]
            if same:
                return same
            grounds = [ground for ground in grounds if ground.uuid is None]
        return grounds if self.are_all else ()


class Overlays:
    """What overlays are made of; each is looked for once, and some are open in `folders`."""

    def __init__(self, paths: Paths, folders: Folders) -> None:
        self._paths = paths
        self._folders = folders
        self._known: dict[tuple[Vantage, int], Layers] = {}

    def of(self, process: Process, scene: Scene, dev: int) -> Layers:
        """The layers of an overlay that a process sees."""
        key = scene.vantage, dev
        if key not in self._known:
            self._known[key] = self._layers(process, dev)
        return self._known[key]

    def folder(self, ground: Ground) -> int | None:
        """To ask for handles, until the next is asked for; None if it is not there any more."""
        folder = self._folders.of(ground.viewer, ground.vantage, ground.path)
        is_there = folder is not None and folder.found.st_dev == ground.dev
        return folder.file if folder is not None and is_there else None

    def _layers(self, process: Process, dev: int) -> Layers:
        # it was mounted by who sees its layers, which is seldom who sees it
        viewers: dict[Vantage, tuple[Process, Scene]] = {}
        for viewer in (self._own, process):
            scene = None if viewer is None else self._paths.scene(viewer)
            if viewer is not None and scene is not None:
                viewers.setdefault(scene.vantage, (viewer, scene))
        paths = dict.fromkeys(
            path
            for _, scene in viewers.values()
            for path in upper_first(scene.table.overlay_options(dev))
        )
        grounds: dict[tuple[int, int], Ground] = {}
        missing = set(paths)
        for path in list(paths)[:_LAYERS_MAX]:
            for viewer, scene in viewers.values():
                if self._add(grounds, viewer, scene, path):
                    missing.discard(path)
        return Layers(tuple(grounds.values()), not missing)

    @cached_property
    def _own(self) -> Process | None:
        return process_of(os.getpid())

    def _add(
        self, grounds: dict[tuple[int, int], Ground], viewer: Process, scene: Scene, path: bytes
    ) -> bool:
        """False if that layer is not there for who looks."""
        sight = self._paths.sight(viewer, path)
        inside = None if sight is None else scene.inside(sight.at)
        # who knows from where a relative path was
        if inside is None or not path.startswith(b"/"):
            return False
        with suppress(OSError), self._paths.folder(viewer, inside, to_read=True) as folder:
            dev, top = os.fstat(folder).st_dev, os.readlink(b"/proc/self/fd/%d" % folder)
            key = dev, mount_id(folder)
            if key not in grounds:
                uuid = filesystem_uuid(folder)
                grounds[key] = Ground(viewer, scene.vantage, inside, dev, uuid, [])
            grounds[key].tops.append(top)
            return True
        return False


def real_handle(handle: Handle) -> RealHandle | None:
    """The handle in its layer that one of an overlay holds; None if it is not understood."""
    padding = _PADDING.get(handle.kind)
    if padding is None or len(handle.content) < padding + _HEAD.size:
        return None
    version, magic, length, flags, kind, uuid = _HEAD.unpack_from(handle.content, padding)
    is_big = bool(flags & _BIG_ENDIAN)
    is_ours = flags & _ANY_ENDIAN or is_big == (struct.pack("=H", 1) == struct.pack(">H", 1))
    if (version, magic) != (_VERSION, _MAGIC) or length < _HEAD.size or not is_ours:
        return None
    content = handle.content[padding + _HEAD.size : padding + length]
    return RealHandle(Handle(kind, content), uuid) if content else None


def upper_first(options: bytes) -> list[bytes]:
    """The layers of an overlay, from the last field of its line in mountinfo."""
    upper: list[bytes] = []
    lower: list[bytes] = []
    for name, value in options_in(options):
        if name == b"upperdir":
            upper.append(unprotected(value))
        elif name == b"lowerdir":
            lower += lower_layers(value)
        elif name in (b"lowerdir+", b"datadir+"):
            lower.append(unprotected(value))
    return upper + lower
