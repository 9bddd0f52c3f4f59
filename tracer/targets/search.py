"""Looking for inodes in folders: the last way to a path, and the only one without privileges."""

from __future__ import annotations

import os
import pwd
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import NamedTuple

from tracer.core.events import Process
from tracer.core.walk import Inode
from tracer.targets.joined import OWN_DEVICES, Joined
from tracer.targets.mounts import MountTable
from tracer.targets.path import Paths, Scene

# What one report looks at, whatever it searches for.
_ENTRIES_MAX = 300_000
_SECONDS_MAX = 2.0


class Search:
    """
    Goes through the folders that a process is likely to watch, the near ones first.

    That is where it is, the home of its user, and the top of every filesystem that something is
    searched on; no others are entered. For one report, which has a number of entries and a time.
    """

    def __init__(self, paths: Paths, joined: Joined) -> None:
        self._paths = paths
        self._joined = joined
        self._entries_left = _ENTRIES_MAX
        self._seconds_left = _SECONDS_MAX

    def find(self, wanted: Mapping[int, tuple[Process, Inode]]) -> Iterator[tuple[int, bytes]]:
        """The paths found, by the keys given."""
        keys: dict[Process, list[int]] = defaultdict(list)
        for key, (process, _) in wanted.items():
            keys[process].append(key)
        for process, those in keys.items():
            scene = self._paths.scene(process)
            if scene is not None and self._seconds_left > 0:
                hunt = _Hunt(scene, {key: wanted[key][1] for key in those})
                began = time.monotonic()
                yield from self._hunt(process, hunt, began + self._seconds_left)
                self._seconds_left -= time.monotonic() - began

    def _hunt(self, process: Process, hunt: _Hunt, ends: float) -> Iterator[tuple[int, bytes]]:
        starts = [at for at in _starts(process, hunt) if hunt.may_enter(at)]
        for at in starts:
            for key, inode in list(hunt.left.items()):
                path = self._joined.verified_path(process, hunt.scene, at, inode)
                if path is not None:
                    del hunt.left[key]
                    yield key, path
        folders, met = deque(starts), set(starts)
        while folders and hunt.left and self._entries_left > 0 and time.monotonic() < ends:
            at = folders.popleft()
            entries: list[tuple[int, bytes, Inode]] = []
            for name, keys, is_folder in self._entries(process, hunt, at):
                entries += ((key, name, hunt.left[key]) for key in keys)
                below = at.rstrip(b"/") + b"/" + name
                if is_folder and below not in met and hunt.may_enter(below):
                    met.add(below)
                    folders.append(below)
            for key, path in self._joined.verified(process, hunt.scene, at, entries):
                # it may have two names in one folder
                if hunt.left.pop(key, None) is not None:
                    yield key, path

    def _entries(
        self, process: Process, hunt: _Hunt, at: bytes
    ) -> Iterator[tuple[bytes, list[int], bool]]:
        """What is in a folder: names, what of the wanted may have that name, and which to enter."""
        inside = hunt.scene.inside(at)
        keys = hunt.keys()
        with suppress(OSError):
            if inside is None:
                return
            with self._paths.folder(process, inside, to_read=True) as folder:
                for entry in os.scandir(folder):
                    self._entries_left -= 1
                    if self._entries_left < 0:
                        return
                    is_folder = entry.is_dir(follow_symlinks=False)
                    # a folder on which something is mounted has another inode than it shows
                    found = keys.get(entry.inode(), [])
                    if found or is_folder:
                        yield os.fsencode(entry.name), found, is_folder


class _Hunt(NamedTuple):
    """What is searched for one process; `left` becomes less."""

    scene: Scene
    left: dict[int, Inode]

    def keys(self) -> dict[int, list[int]]:
        keys: dict[int, list[int]] = defaultdict(list)
        for key, inode in self.left.items():
            keys[inode.ino].append(key)
        return keys

    def may_enter(self, at: bytes) -> bool:
        """
        Whether a folder is on a filesystem that something is searched on.

        Not where one number may be of several inodes: it is all that a search has to go by.
        """
        mounts = self.scene.table.mounts_at(at)
        wanted = {inode.dev for inode in self.left.values()}
        return bool(mounts) and mounts[-1].dev in wanted and mounts[-1].kind not in OWN_DEVICES


def _starts(process: Process, hunt: _Hunt) -> Iterator[bytes]:
    """Where to begin, by paths of the table; each once."""
    met = set()
    for at in (*_own_folders(process, hunt.scene), *_tops(hunt)):
        if at not in met:
            met.add(at)
            yield at


def _own_folders(process: Process, scene: Scene) -> Iterator[bytes]:
    """Where a process is, and the home of its user."""
    root = b"" if scene.above else scene.vantage.root.rstrip(b"/")
    with suppress(OSError):
        folder = os.readlink(b"/proc/%d/cwd" % process.pid)
        if (folder + b"/").startswith(root + b"/"):
            yield folder[len(root) :] or b"/"
    with suppress(OSError, KeyError):
        home = pwd.getpwuid(os.stat(f"/proc/{process.pid}").st_uid).pw_dir
        if home.startswith("/"):
            yield scene.above + os.fsencode(os.path.normpath(home))


def _tops(hunt: _Hunt) -> Iterator[bytes]:
    table: MountTable = hunt.scene.table
    for dev in dict.fromkeys(inode.dev for inode in hunt.left.values()):
        yield from table.all_points(dev)
    yield hunt.scene.above or b"/"
