"""Looking for inodes in folders: the last way to a path, and the only one without privileges."""

from __future__ import annotations

import os
import pwd
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from itertools import chain

from tracer.core.events import Process
from tracer.core.walk import Inode
from tracer.targets.joined import OWN_DEVICES, Joined
from tracer.targets.mounts import LOCAL_KINDS, kernel_device
from tracer.targets.path import Paths, Scene

# What one report looks at, whatever it searches for.
_ENTRIES_MAX = 300_000
_SECONDS_MAX = 2.0
# Bytes of the paths that wait to be looked into: more than can be in the time, unless they are made
# to take memory.
_WAITING_MAX = 16 << 20
# Where a number is of one inode only, and stat(2) shows which: it is all that a search has to go by
_KINDS = LOCAL_KINDS - OWN_DEVICES


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
        self._ends = 0.0

    def find(self, wanted: Mapping[int, tuple[Process, Inode]]) -> Iterator[tuple[int, bytes]]:
        """
        The paths found, by the keys given.

        Each leads to the number of an inode. That it is still of this inode, is for the caller to
        see to.
        """
        keys: dict[Process, list[int]] = defaultdict(list)
        for key, (process, _) in wanted.items():
            keys[process].append(key)
        for process, those in keys.items():
            if self._seconds_left <= 0 or self._entries_left <= 0:
                return
            scene = self._paths.scene(process)
            if scene is None:
                continue
            self._ends = time.monotonic() + self._seconds_left
            hunt = _Hunt(process, scene)
            for key in those:
                hunt.add(key, wanted[key][1])
            # it may have ended meanwhile
            with suppress(OSError), self._paths.rooted(process):
                yield from self._hunt(hunt)
            self._seconds_left = self._ends - time.monotonic()

    def _hunt(self, hunt: _Hunt) -> Iterator[tuple[int, bytes]]:
        for at, is_start in hunt.folders() if hunt.left else ():
            if not hunt.left or not self._may_look():
                return
            if is_start:
                yield from self._just_there(hunt, at)
            yield from self._in_folder(hunt, at)

    def _may_look(self) -> bool:
        """Whether there is time for one more entry, which is then counted."""
        self._entries_left -= 1
        return self._entries_left >= 0 and time.monotonic() < self._ends

    def _just_there(self, hunt: _Hunt, at: bytes) -> Iterator[tuple[int, bytes]]:
        """What is searched for, if it is this path."""
        found = self._shown(hunt, at)
        if found is None:
            return
        dev, ino = kernel_device(found), found.st_ino
        if ino in hunt.left.get(dev, ()):
            path = self._joined.verified_path(hunt.process, hunt.scene, at, Inode(0, ino, dev, 0))
            if path is not None:
                yield from hunt.take(dev, ino, path)

    def _shown(self, hunt: _Hunt, at: bytes) -> os.stat_result | None:
        inside = hunt.scene.inside(at)
        if inside is None or hunt.scene.table.leads_away(at):
            return None
        folder, _, name = inside.rpartition(b"/")
        with suppress(OSError), self._paths.folder(hunt.process, folder or b"/") as opened:
            return os.stat(name or b".", dir_fd=opened, follow_symlinks=False)
        return None

    def _in_folder(self, hunt: _Hunt, at: bytes) -> Iterator[tuple[int, bytes]]:
        """What is searched for in a folder; those below it have to wait."""
        inside = hunt.scene.inside(at)
        if inside is None:
            return
        with suppress(OSError):
            with self._paths.folder(hunt.process, inside, to_read=True) as folder:
                # not what the mount table says: that may be below what was mounted later
                dev = kernel_device(os.fstat(folder))
                names = self._names(hunt, folder, dev, at) if dev in hunt.left else {}
            if not names:
                return
            entries = [(ino, name, Inode(0, ino, dev, 0)) for ino, name in names.items()]
            for ino, path in self._joined.verified(hunt.process, hunt.scene, at, entries):
                yield from hunt.take(dev, ino, path)

    def _names(self, hunt: _Hunt, folder: int, dev: int, at: bytes) -> dict[int, bytes]:
        """By number, what of those searched for may be in a folder; only one of several names."""
        names: dict[int, bytes] = {}
        above, table = at.rstrip(b"/") + b"/", hunt.scene.table
        with os.scandir(folder) as entries:
            for entry in entries:
                if not self._may_look():
                    break
                ino, is_folder = entry.inode(), entry.is_dir(follow_symlinks=False)
                is_wanted = ino in hunt.left[dev] and ino not in names
                if is_wanted or (is_folder and hunt.has_room):
                    name = os.fsencode(entry.name)
                    # another inode is seen where something is mounted
                    if is_wanted and not table.is_point(above + name):
                        names[ino] = name
                    if is_folder:
                        hunt.wait(above + name)
        return names


class _Hunt:
    """
    What is searched for one process, and where.

    `left` has the keys by device and number, and becomes less.
    """

    def __init__(self, process: Process, scene: Scene) -> None:
        self.process = process
        self.scene = scene
        self.left: dict[int, dict[int, list[int]]] = {}
        self._waiting: deque[bytes] = deque()
        self._room = _WAITING_MAX

    def add(self, key: int, inode: Inode) -> None:
        """Nothing that is on a filesystem which is not searched."""
        if self.scene.table.kinds.get(inode.dev) in _KINDS:
            self.left.setdefault(inode.dev, {}).setdefault(inode.ino, []).append(key)

    def take(self, dev: int, ino: int, path: bytes) -> Iterator[tuple[int, bytes]]:
        """All that have this number, of which the path was found."""
        keys = self.left[dev].pop(ino)
        if not self.left[dev]:
            del self.left[dev]
        return ((key, path) for key in keys)

    @cached_property
    def _own(self) -> tuple[bytes, ...]:
        return tuple(_own_folders(self.process, self.scene))

    @property
    def has_room(self) -> bool:
        """If not, folders that are met are left out."""
        return self._room > 0

    def wait(self, at: bytes) -> None:
        """Look into this folder later, if there is room and the search does not begin there."""
        table = self.scene.table
        begins = table.is_point(at) and table.mounts_at(at)[-1].dev in self.left
        if self.has_room and not begins and at not in self._own:
            self._waiting.append(at)
            self._room -= len(at)

    def folders(self) -> Iterator[tuple[bytes, bool]]:
        """Now one where to begin, which is told, and now one that waits."""
        met = set()
        for start in chain(self._own, _tops(self)):
            if start not in met:
                met.add(start)
                yield start, True
                yield from self._next()
        while self._waiting:
            yield from self._next()

    def _next(self) -> Iterator[tuple[bytes, bool]]:
        if self._waiting:
            at = self._waiting.popleft()
            self._room += len(at)
            yield at, False


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
    for dev in list(hunt.left):
        yield from hunt.scene.table.all_points(dev)
    yield hunt.scene.above or b"/"
