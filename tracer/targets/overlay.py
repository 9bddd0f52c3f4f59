"""
What overlayfs is made of: its layers, and the handles in its own handles.

Formats: struct ovl_fh and struct ovl_fb in fs/overlayfs/overlayfs.h; the options in
https://docs.kernel.org/filesystems/overlayfs.html
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import NamedTuple

from tracer.core.events import Process
from tracer.kernel.fdinfo import Handle
from tracer.kernel.procfs import birth_ticks, unescaped
from tracer.targets.mounts import Vantage
from tracer.targets.path import Paths, Scene

KIND = b"overlay"

# OVL_FILEID_V1 pads the head so that the handle within is aligned; OVL_FILEID_V0 does not
_PADDING = {0xF8: 3, 0xFB: 0}
# version, magic, bytes with this head, flags, type, and the UUID of the filesystem
_HEAD = struct.Struct("=BBBBB16s")
_VERSION, _MAGIC = 0, 0xFB
# OVL_FH_FLAG_BIG_ENDIAN, OVL_FH_FLAG_ANY_ENDIAN
_BIG_ENDIAN, _ANY_ENDIAN = 0x01, 0x02
_LAYERS_MAX = 512
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
# proc(5): the last field has the options of the filesystem
_MOUNT = re.compile(
    rb"^[0-9]+ [0-9]+ ([0-9]+):([0-9]+) [^\n]*? - overlay [^ \n]* ([^ \n]*)$", re.MULTILINE
)
# what a backslash protects is no separator
_OPTION = re.compile(rb"((?:[^,\\]|\\.)+)", re.DOTALL)
_LAYER = re.compile(rb"((?:[^:\\]|\\.)+)", re.DOTALL)
_PROTECTED = re.compile(rb"\\(.)", re.DOTALL)


class Layer(NamedTuple):
    """A folder that an overlay shows, open to ask for handles; `path` is the kernel's for it."""

    folder: int
    path: bytes


class Layers:
    """The layers of overlays, opened once; they stay open until `close`."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._open: dict[tuple[Vantage, int], list[Layer]] = {}
        self._closing = ExitStack()

    def close(self) -> None:
        self._open.clear()
        self._closing.close()

    def of(self, process: Process, scene: Scene, dev: int) -> list[Layer]:
        """Those of an overlay that a process sees, the upper first; as far as we can find them."""
        key = scene.vantage, dev
        if key not in self._open:
            self._open[key] = list(self._opened(process, dev))
        return self._open[key]

    def _opened(self, process: Process, dev: int) -> Iterator[Layer]:
        # it was mounted by who sees its layers, which is seldom who sees it
        own = Process(os.getpid(), (birth_ticks(os.getpid()) or 0) * _TICK_NS)
        layers = dict.fromkeys((*_layers_in(own.pid, dev), *_layers_in(process.pid, dev)))
        for path in [path for path in layers if path.startswith(b"/")][:_LAYERS_MAX]:
            for viewer in (own, process):
                layer = self._open_layer(viewer, path)
                if layer is not None:
                    yield layer

    def _open_layer(self, viewer: Process, path: bytes) -> Layer | None:
        scene, sight = self._paths.scene(viewer), self._paths.sight(viewer, path)
        inside = None if scene is None or sight is None else scene.inside(sight.at)
        with suppress(OSError), ExitStack() as closing:
            if inside is not None:
                folder = closing.enter_context(self._paths.folder(viewer, inside, to_read=True))
                layer = Layer(folder, os.readlink(b"/proc/self/fd/%d" % folder))
                self._closing.push(closing.pop_all())
                return layer
        return None


def real_handle(handle: Handle) -> Handle | None:
    """The handle in its layer that one of an overlay holds; None if it is not understood."""
    padding = _PADDING.get(handle.kind)
    if padding is None or len(handle.content) < padding + _HEAD.size:
        return None
    version, magic, length, flags, kind, _ = _HEAD.unpack_from(handle.content, padding)
    is_big = bool(flags & _BIG_ENDIAN)
    is_ours = flags & _ANY_ENDIAN or is_big == (struct.pack("=H", 1) == struct.pack(">H", 1))
    if (version, magic) != (_VERSION, _MAGIC) or length < _HEAD.size or not is_ours:
        return None
    content = handle.content[padding + _HEAD.size : padding + length]
    return Handle(kind, content) if content else None


def parse_layers(mountinfo: bytes, dev: int) -> list[bytes]:
    """The layers of an overlay by its entry in a mountinfo file, the upper first."""
    for major, minor, options in _MOUNT.findall(mountinfo):
        if int(major) << 20 | int(minor) == dev:
            return list(_layers(unescaped(options)))
    return []


def _layers(options: bytes) -> Iterator[bytes]:
    lower: list[bytes] = []
    for option in _OPTION.findall(options):
        name, _, value = option.partition(b"=")
        if name == b"upperdir":
            yield _PROTECTED.sub(rb"\1", value)
        elif name in (b"lowerdir", b"lowerdir+", b"datadir+"):
            lower += _LAYER.findall(value) if name == b"lowerdir" else [value]
    yield from (_PROTECTED.sub(rb"\1", layer) for layer in lower)


def _layers_in(pid: int, dev: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as table:
            return parse_layers(table.read(), dev)
    except OSError:
        return []
