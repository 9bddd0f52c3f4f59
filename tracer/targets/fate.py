"""Whether what a live watch is on is gone for who watches it, and why."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from typing import NamedTuple

from tracer.core.events import Process
from tracer.core.walk import Inode
from tracer.kernel.inodes import InodeState
from tracer.targets.containers import POD_CGROUP
from tracer.targets.mounts import LOCAL_KINDS, Mounts
from tracer.targets.path import Paths, Sight
from tracer.targets.pods import Pods, pod_folder, pod_uid_in

_CGROUPS = frozenset((b"cgroup", b"cgroup2"))
# fs/kernfs/inode.c, fs/proc: the links of a folder there are not counted down when it is removed
_LINKS_STAY = frozenset((*_CGROUPS, b"proc", b"sysfs", b"resctrl"))


class Fate(str, enum.Enum):
    """
    What became of the target of a watch.

    It is THERE if nothing speaks against it, and MOVED if the path no longer leads to it, but it
    exists on a filesystem that the holder has.
    """

    THERE = "there"
    MOVED = "moved"
    DELETED = "deleted"
    UNMOUNTED = "unmounted"
    UNREACHABLE = "unreachable"
    POD_REMOVED = "pod_removed"
    CGROUP_REMOVED = "cgroup_removed"
    PATH_GONE = "path_gone"
    UNKNOWN = "unknown"

    @property
    def is_gone(self) -> bool:
        """Whether this is evidence that nobody needs the watch."""
        return self not in (Fate.THERE, Fate.MOVED, Fate.UNKNOWN)


class Fates:
    """
    The fates at one moment: use one for each report, and its `paths` for the states of paths.

    `state_of` tells what the kernel has of an inode, `pods` which exist. Paths are looked up once,
    mount tables are read once, and a process that ended meanwhile counts as it was when first asked
    for.
    """

    def __init__(self, state_of: Callable[[Inode], InodeState], pods: Pods | None = None) -> None:
        self.state_of = state_of
        self._pods = pods or Pods()
        self._mounts = Mounts()
        self.paths = Paths(self._mounts)

    def of(
        self,
        adder: Process,
        path: bytes | None,
        inode: Inode | None,
        holders: Iterable[Process] = (),
    ) -> Fate:
        """
        What became of `inode`, which `adder` watched by `path` with an instance of `holders`.

        `adder` counts as a holder. A pod that was removed explains what else there is to tell.
        """
        processes = list(dict.fromkeys((adder, *holders)))
        look = self._look(processes, path, inode)
        if look.word == "verified":
            return Fate.THERE
        if look.viewer is not None and self._lost_its_pod(look.viewer, look.path):
            return Fate.POD_REMOVED
        if inode is not None:
            return self._of_inode(inode, processes, look)
        return Fate.PATH_GONE if look.word == "gone" else Fate.UNKNOWN

    def _look(self, processes: Iterable[Process], path: bytes | None, inode: Inode | None) -> _Look:
        viewer = next(filter(self.paths.sees, processes), None)
        if viewer is None or path is None or not path.startswith(b"/"):
            return _Look()
        word = self.paths.state(viewer, path, inode.target if inode else None)
        return _Look(viewer, path, self.paths.sight(viewer, path), word)

    def _of_inode(self, inode: Inode, processes: list[Process], look: _Look) -> Fate:
        if self._mounts.is_internal(inode.dev):
            return Fate.UNKNOWN
        is_mounted = self._mounts.is_mounted(inode.dev, processes[0].pid)
        if not is_mounted and self._mounts.are_all_known():
            return Fate.UNMOUNTED
        # the links of others are what a server says
        state = self.state_of(inode)
        if state is InodeState.DELETED and self._mounts.kind(inode.dev) in LOCAL_KINDS:
            return Fate.DELETED
        is_visible = self._is_visible(inode.dev, processes)
        if is_visible:
            return self._of_path(inode, state, look)
        # by a link of /proc a path may lead into the namespace of another
        is_dark = look.viewer is not None and look.sight is None
        return Fate.UNKNOWN if is_visible is None or is_dark else Fate.UNREACHABLE

    def _is_visible(self, dev: int, processes: Iterable[Process]) -> bool | None:
        seeing = filter(self.paths.sees, processes)
        answers = {self._mounts.is_visible(dev, process.pid) for process in seeing}
        return True if True in answers else False if answers == {False} else None

    def _of_path(self, inode: Inode, state: InodeState, look: _Look) -> Fate:
        leads_elsewhere = look.word in ("gone", "changed")
        kind = self._mounts.kind(inode.dev)
        if kind in _LINKS_STAY and not (leads_elsewhere and self._is_still_on(inode.dev, look)):
            return Fate.UNKNOWN
        if kind in _CGROUPS:
            return Fate.CGROUP_REMOVED
        if state is InodeState.LINKED and kind not in _LINKS_STAY:
            return Fate.MOVED if leads_elsewhere else Fate.THERE
        return Fate.PATH_GONE if look.word == "gone" else Fate.UNKNOWN

    def _is_still_on(self, dev: int, look: _Look) -> bool:
        """Whether the path is on that filesystem, though it leads nowhere."""
        if look.viewer is None or look.sight is None:
            return False
        mounts = self.paths.mounts_at(look.viewer, look.sight)
        return any(mount.dev == dev for mount in mounts)

    def _lost_its_pod(self, viewer: Process, path: bytes) -> bool:
        folder = pod_folder(path)
        if folder is None or not self._is_removed(viewer, folder):
            return False
        exists = self._pods.exists(pod_uid_in(path) or "")
        # that of a job which has ended has no cgroup any more: the folder is what goes last
        return exists is False or (exists is None and not POD_CGROUP.search(folder))

    def _is_removed(self, viewer: Process, folder: bytes) -> bool:
        """Whether it is not there, and the one that it was in is."""
        sight = self.paths.sight(viewer, folder)
        above = self.paths.sight(viewer, folder[: folder.rfind(b"/")])
        return (
            sight is not None
            and sight.target is None
            and above is not None
            and above.target is not None
        )


class _Look(NamedTuple):
    """Where an absolute path leads for a process that runs; empty if there is no such."""

    viewer: Process | None = None
    path: bytes = b""
    sight: Sight | None = None
    word: str = "unverified"
