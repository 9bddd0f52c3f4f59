"""What is mounted where, in every mount namespace that a process is in; each is read once."""

from __future__ import annotations

import os
import re
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, lru_cache
from typing import NamedTuple

from tracer.kernel.procfs import (
    Mount,
    mount_namespace,
    mounts_of,
    root_folder,
    running_pids,
    shows_all_processes,
    threads,
)

# The kinds of which the kernel can tell by itself whether a name exists. With any other, one that
# is not known here too, it may ask a server, or a program, and wait for the answer for ever; autofs
# waits for somebody to mount something. See the folder fs/ of the kernel's source.
LOCAL_KINDS = frozenset(
    b"adfs affs bcachefs befs bfs binfmt_misc bpf btrfs cgroup cgroup2 configfs cramfs debugfs "
    b"devpts devtmpfs efivarfs efs erofs exfat ext2 ext3 ext4 f2fs fusectl hfs hfsplus hugetlbfs "
    b"iso9660 jffs2 jfs minix mqueue msdos nilfs2 nsfs ntfs3 overlay proc pstore ramfs reiserfs "
    b"resctrl romfs rootfs securityfs selinuxfs smackfs squashfs sysfs tmpfs tracefs ubifs udf "
    b"vfat xfs zfs zonefs".split()
)
# How many roots of one namespace are looked from if no process there has the one of all.
_ROOTS_MAX = 64
_NAMESPACE_NAME = re.compile(rb"mnt:\[([0-9]+)\]")


class Vantage(NamedTuple):
    """From where a process sees files: its mount namespace, and its root there."""

    namespace: int
    root: bytes


class MountTable:
    """What is mounted where. `kinds` has the type of each filesystem by the kernel's dev_t."""

    def __init__(self, mounts: Iterable[Mount]) -> None:
        self.kinds: dict[int, bytes] = {}
        self.kept_namespaces: set[int] = set()
        self._points: dict[tuple[int, bytes], list[bytes]] = defaultdict(list)
        self._at: dict[bytes, list[Mount]] = defaultdict(list)
        for mount in mounts:
            self.kinds[mount.dev] = mount.kind
            self._points[mount.dev, mount.root].append(mount.point)
            self._at[mount.point].append(mount)
            # namespaces(7): one that is bind mounted lives on without a process
            if mount.kind == b"nsfs" and (name := _NAMESPACE_NAME.fullmatch(mount.root)):
                self.kept_namespaces.add(int(name[1]))

    def mounts_at(self, path: bytes) -> list[Mount]:
        """Those that a path without symbolic links is on, the lower ones too if they are stacked"""
        while path not in self._at:
            if path in (b"", b"/"):
                return []
            path = path[: path.rfind(b"/")] or b"/"
        return self._at[path]

    def points(self, dev: int, root: bytes) -> list[bytes]:
        """Where this folder of a filesystem is mounted, in the order of mounting."""
        return self._points.get((dev, root), [])

    def all_points(self, dev: int) -> list[bytes]:
        """Where anything of a filesystem is mounted, first what shows most of it."""
        roots = sorted((root for each, root in self._points if each == dev), key=len)
        return [point for root in roots for point in self._points[dev, root]]

    def is_local(self, path: bytes) -> bool:
        """Whether the filesystem that this path is on is known, and no other than a local one."""
        mounts = self.mounts_at(path)
        return bool(mounts) and all(mount.kind in LOCAL_KINDS for mount in mounts)

    def leads_away(self, point: bytes) -> bool:
        """Whether something is mounted just there that is not local."""
        return point in self._at and not self.is_local(point)

    def passes_none_away(self, path: bytes) -> bool:
        """Whether neither a path without links and dots leads away, nor any that it begins with."""
        return not (path + b"/").startswith(self._away)

    @cached_property
    def _away(self) -> tuple[bytes, ...]:
        return tuple(point.rstrip(b"/") + b"/" for point in self._at if self.leads_away(point))


class Mounts:
    """The mount tables of one moment: use one for each report or comparison with the kernel."""

    def __init__(self) -> None:
        self._vantages: dict[int, Vantage | None] = {}
        self._tables: dict[Vantage, MountTable] = {}
        self._kinds: dict[int, bytes] = {}
        self._mounted: dict[int, bool] = {}
        self._visible: dict[tuple[int, int], bool | None] = {}
        self._internal: frozenset[int] | None = None
        self._all_read = False
        # tables of which something is missing
        self._is_partial = not shows_all_processes()
        self._refused: set[int] = set()

    def vantage(self, pid: int) -> Vantage | None:
        """From where a process or thread sees files; None if it is gone or does not let us look."""
        if pid not in self._vantages:
            self._vantages[pid] = self._read_vantage(pid)
        return self._vantages[pid]

    def scene(self, pid: int, vantage: Vantage) -> tuple[MountTable, bytes]:
        """A table for the paths that a process sees, and what to put before them to look in it."""
        if vantage.root != b"/":
            top = vantage._replace(root=b"/")
            # proc(5) leaves out what a root that was changed is on, unless it is mounted just there
            self._read_all()
            if top in self._tables:
                return self._tables[top], vantage.root
        return self._table(pid, vantage) or MountTable(()), b""

    def is_mounted(self, dev: int, pid: int) -> bool:
        """
        Whether a filesystem is in any mount table; that of `pid` is looked at first.

        Also True if that cannot be told: of the kernel's own, which are in no table, and while not
        all tables could be read.
        """
        known = self._mounted.get(dev)
        if known is None:
            known = self._mounted[dev] = self._find(dev, pid)
        return known

    def is_visible(self, dev: int, pid: int) -> bool | None:
        """Whether it is in the mount namespace of a process; None if it is gone."""
        key = dev, pid
        if key not in self._visible:
            self._visible[key] = self._see(dev, pid)
        return self._visible[key]

    def is_internal(self, dev: int) -> bool:
        """Whether it is one of the kernel's own: pipes, sockets, memory files, namespaces."""
        if self._internal is None:
            self._internal = _internal_devices()
        return dev in self._internal

    def kind(self, dev: int) -> bytes | None:
        """The type of a filesystem in one of the tables read so far."""
        return self._kinds.get(dev)

    def are_all_known(self) -> bool:
        """False if there are namespaces that no process is in, so that no table shows theirs."""
        self._read_all()
        kept = set().union(*(table.kept_namespaces for table in self._tables.values()))
        return kept <= {vantage.namespace for vantage in self._tables}

    def _find(self, dev: int, pid: int) -> bool:
        for each in (pid, os.getpid()):
            vantage = self.vantage(each)
            table = self._table(each, vantage) if vantage else None
            if table is not None and dev in table.kinds:
                return True
        self._read_all()
        return dev in self._kinds or self._is_partial or self.is_internal(dev)

    def _see(self, dev: int, pid: int) -> bool | None:
        if self.vantage(pid) is None:
            return None
        seen: dict[int, bool | None] = {}
        # threads that set up containers go to namespaces of their own
        for tid in (pid, *threads(pid)):
            vantage = self.vantage(tid)
            if vantage is not None and vantage.namespace not in seen:
                seen[vantage.namespace] = found = self._is_in(dev, tid, vantage)
                if found:
                    return True
        return None if None in seen.values() else False

    def _is_in(self, dev: int, tid: int, vantage: Vantage) -> bool | None:
        table, _ = self.scene(tid, vantage)
        if dev in table.kinds:
            return True
        is_whole = vantage._replace(root=b"/") in self._tables
        return False if is_whole else None

    def _read_all(self) -> None:
        if self._all_read:
            return
        self._all_read = True
        pids: dict[Vantage, list[int]] = defaultdict(list)
        for pid in running_pids():
            vantage = self.vantage(pid)
            if vantage is not None:
                pids[vantage].append(pid)
            elif pid in self._refused:
                # its namespace has no name for us, but may be another than all that have
                pids[Vantage(-pid, b"/")].append(pid)
        for vantage in _needed(pids):
            is_read = any(self._table(pid, vantage) is not None for pid in pids[vantage])
            self._is_partial |= is_read and vantage.root != b"/"

    def _table(self, pid: int, vantage: Vantage) -> MountTable | None:
        if vantage not in self._tables:
            try:
                table = self._tables[vantage] = MountTable(mounts_of(pid))
                self._kinds.update(table.kinds)
            except PermissionError:
                self._is_partial = True
            except OSError:
                # it has ended
                pass
        return self._tables.get(vantage)

    def _read_vantage(self, pid: int) -> Vantage | None:
        try:
            return Vantage(mount_namespace(pid), root_folder(pid))
        except PermissionError:
            self._refused.add(pid)
        except OSError:
            # it has ended
            pass
        return None


def _needed(vantages: Iterable[Vantage]) -> Iterator[Vantage]:
    """Those from which all can be seen: where one sees the whole namespace, no others of it."""
    roots: dict[int, list[bytes]] = defaultdict(list)
    for vantage in vantages:
        roots[vantage.namespace].append(vantage.root)
    for namespace, all_roots in roots.items():
        for root in [b"/"] if b"/" in all_roots else sorted(all_roots)[:_ROOTS_MAX]:
            yield Vantage(namespace, root)


def _internal_devices() -> frozenset[int]:
    """The filesystems without a mount that a link in /proc/PID/fd or ns may lead to."""
    made: list[Callable[[], Iterable[int]]] = [
        os.pipe,
        lambda: (os.memfd_create("inotrace"),),
        lambda: (socket.socket(socket.AF_UNIX).detach(),),
        lambda: (os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC),),
    ]
    return frozenset(device for make in made for device in _devices_of(make))


def _devices_of(make: Callable[[], Iterable[int]]) -> list[int]:
    try:
        fds = list(make())
    except OSError:
        return []
    found = [kernel_device(os.fstat(fd)) for fd in fds]
    for fd in fds:
        os.close(fd)
    return found


def kernel_device(found: os.stat_result) -> int:
    """The device as the kernel has it: major << 20 | minor."""
    return _kernel_device(found.st_dev)


@lru_cache(maxsize=1024)
def _kernel_device(dev: int) -> int:
    return os.major(dev) << 20 | os.minor(dev)
