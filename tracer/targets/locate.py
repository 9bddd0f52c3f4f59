"""
From a watch to a path that its holder can use, by the first of several ways that leads there.

Every path was looked up as its holder sees files, and led to the inode then. One that is on a
filesystem which the holder does not see any more, as after `umount --lazy`, has none.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from tracer.core.events import Process
from tracer.core.walk import Inode
from tracer.kernel.fdinfo import HeldFd, read_watches
from tracer.kernel.inodes import Dentries, DentryNames, InodeState
from tracer.targets.by_handle import ByHandle, Opened, Wanted
from tracer.targets.joined import Joined
from tracer.targets.mounts import Mounts, Vantage
from tracer.targets.path import Paths
from tracer.targets.search import Search
from tracer.targets.searched import Searched

# Each is kept until its path is known: a million at once would take a gigabyte.
_PORTION = 16_384
# From how many places that differ the files of one instance are looked at.
_VIEWERS_MAX = 4


class How(str, enum.Enum):
    """
    How a path was found: as it was passed to the call, by the names that the kernel has in memory,
    by a handle, by one in a layer of an overlay, or by searching folders.
    """

    TRACED = "traced"
    DENTRY = "dentry"
    HANDLE = "handle"
    OVERLAY = "overlay"
    SEARCH = "search"
    UNRESOLVED = "unresolved"


class Location(NamedTuple):
    """
    A path as who holds the watch sees it, in its mount namespace and below its root.

    `viewer` is the first of its holders, unless only another one sees it at all.
    """

    path: bytes | None
    how: How
    viewer: Process | None = None


class Sought(NamedTuple):
    """
    A watch: `fd` of the first holder is its instance, `traced` the path that was passed.

    Of an inode whose `address` is 0, the generation is not known either.
    """

    holders: tuple[Process, ...]
    fd: int
    wd: int
    inode: Inode
    traced: bytes | None = None


_NOWHERE = Location(None, How.UNRESOLVED)
_Found = Iterator[tuple[int, Location]]
# what is left to be found, by its place in a portion
_Left = Mapping[int, Sought]


class Locator:
    """
    The paths at one moment: use one for each report. Not for several threads.

    `names_of` tells what the kernel has in memory, `state_of` what was deleted, and is not searched
    for. A way for which there are no privileges is left out. What is searched for is only found if
    that takes neither long nor very many folders; `searched` is what earlier reports know of it.
    """

    def __init__(
        self,
        names_of: Callable[[Inode], DentryNames | None] | None = None,
        paths: Paths | None = None,
        *,
        state_of: Callable[[Inode], InodeState] = lambda _: InodeState.UNKNOWN,
        searched: Searched | None = None,
    ) -> None:
        self._searched = searched or Searched()
        self._searched.begin()
        self._names_of = names_of
        self._state_of = state_of
        self._paths = paths or Paths(Mounts())
        self._joined = Joined(self._paths)
        self._handles = ByHandle(self._paths, self._joined)
        self._search = Search(self._paths, self._joined)
        self._last_seeing: tuple[tuple[Process, ...], tuple[Process, ...]] = ((), ())

    def locate(self, sought: Sought) -> Location:
        """Where one is; use :meth:`locate_all` for many, which takes a tenth of the time."""
        return next(self.locate_all((sought,)))

    def locate_all(self, all_: Sequence[Sought]) -> Iterator[Location]:
        """Where each is, in the same order."""
        for at in range(0, len(all_), _PORTION):
            yield from self._portion(all_[at : at + _PORTION])

    def _portion(self, portion: Sequence[Sought]) -> Iterator[Location]:
        left = dict(enumerate(portion))
        found: dict[int, Location] = {}
        for way in (self._by_call, self._by_names, self._by_handle, self._by_search):
            for key, location in way(left):
                found[key] = location
            left = {key: sought for key, sought in left.items() if key not in found}
            if not left:
                break
        return (found.get(key, _NOWHERE) for key in range(len(portion)))

    def _by_call(self, left: _Left) -> _Found:
        for key, sought in left.items():
            if sought.traced is None:
                continue
            for process in self._seeing(sought):
                path = self._as_passed(process, sought.traced, sought.inode)
                if path is not None:
                    yield key, Location(path, How.TRACED, process)
                    break

    def _as_passed(self, process: Process, path: bytes, inode: Inode) -> bytes | None:
        if self._paths.state(process, path, inode.target) != "verified":
            return None
        if path.startswith(b"/"):
            return path
        scene, sight = self._paths.scene(process), self._paths.sight(process, path)
        # of a link that is watched itself, it tells where that leads
        if scene is None or sight is None or sight.target != inode.target:
            return None
        return scene.inside(sight.at)

    def _by_names(self, left: _Left) -> _Found:
        known = {key: sought for key, sought in left.items() if sought.inode.address}
        names = dict(zip(known, self._names([sought.inode for sought in known.values()])))
        for viewers in self._viewings(known):
            named = [
                (key, process, known[key].inode, name)
                for key, process in viewers
                if (name := names[key]) is not None
            ]
            viewer = dict(viewers)
            for key, path in self._joined.find(named):
                del known[key]
                yield key, Location(path, How.DENTRY, viewer[key])

    def _names(self, inodes: Sequence[Inode]) -> Sequence[DentryNames | None]:
        if self._names_of is None:
            return [None] * len(inodes)
        if isinstance(self._names_of, Dentries):
            return self._names_of.of_all(inodes)
        return list(map(self._names_of, inodes))

    def _by_handle(self, left: _Left) -> _Found:
        left = dict(left)
        with self._handles as handles:
            for viewers in self._viewings(left):
                wanted = [
                    Wanted(key, process, _opened(left[key]), left[key].inode)
                    for key, process in viewers
                ]
                viewer = dict(viewers)
                for key, path, in_layer in handles.find(wanted):
                    del left[key]
                    how = How.OVERLAY if in_layer else How.HANDLE
                    yield key, Location(path, how, viewer[key])

    def _by_search(self, left: _Left) -> _Found:
        wanted = {
            key: (seeing[0], sought.inode)
            for key, sought in left.items()
            if (seeing := self._seeing(sought))
            and self._state_of(sought.inode) is not InodeState.DELETED
        }
        found = dict(self._searched.find(wanted, self._search, self._paths, self._joined))
        watched: dict[HeldFd, frozenset[tuple[int, int, int]]] = {}
        for key, path in found.items():
            if self._has_its_number(left[key], watched):
                viewer, _ = wanted[key]
                yield key, Location(path, How.SEARCH, viewer)

    def _has_its_number(
        self, sought: Sought, watched: dict[HeldFd, frozenset[tuple[int, int, int]]]
    ) -> bool:
        """
        Whether what was found by its number is what is watched: once deleted, others get that.

        `watched` is what fdinfo says since then, and is asked where the kernel does not tell.
        """
        state = self._state_of(sought.inode)
        if state is not InodeState.UNKNOWN:
            return state is InodeState.LINKED
        held = HeldFd(sought.holders[0].pid, sought.fd)
        if held not in watched:
            watched[held] = _watched(held)
        return (sought.wd, *sought.inode.target) in watched[held]

    def _viewings(self, left: _Left) -> Iterator[list[tuple[int, Process]]]:
        """By whom to look for what is left: first by one of the holders of each, then by others."""
        for at in range(_VIEWERS_MAX):
            viewers = [
                (key, seeing[at])
                for key, sought in left.items()
                if len(seeing := self._seeing(sought)) > at
            ]
            if not viewers:
                break
            yield viewers

    def _seeing(self, sought: Sought) -> tuple[Process, ...]:
        """Those of its holders who run, of which no two see the same files."""
        holders, seeing = self._last_seeing
        # the watches of one instance come together
        if holders is not sought.holders:
            seeing = self._viewers(sought.holders)
            self._last_seeing = sought.holders, seeing
        return seeing

    def _viewers(self, holders: Sequence[Process]) -> tuple[Process, ...]:
        viewers: dict[Vantage, Process] = {}
        for process in holders:
            scene = self._paths.scene(process) if len(viewers) < _VIEWERS_MAX else None
            if scene is not None:
                viewers.setdefault(scene.vantage, process)
        return tuple(viewers.values())


def _watched(held: HeldFd) -> frozenset[tuple[int, int, int]]:
    """The watches of an instance by wd, device and number; none if it cannot be read any more."""
    with suppress(OSError):
        return frozenset((one.wd, one.dev, one.ino) for one in read_watches(*held) or ())
    return frozenset()


def _opened(sought: Sought) -> Opened:
    return Opened(sought.holders[0].pid, sought.fd, sought.wd)
