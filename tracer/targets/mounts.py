"""What is mounted where, in every mount namespace that a process is in; each is read once."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import NamedTuple

from tracer.kernel.procfs import (
    Mount,
    mount_namespace,
    mounts_of,
    owner_of_mounts,
    root_folder,
    root_mount,
    running_pids,
    shows_all_processes,
    threads,
    user_namespace,
)
from tracer.targets.internal_files import internal_files
from tracer.targets.layer_paths import layers_in, prefixes

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
# Local as long as its layers are: it asks them.
_OVERLAY = b"overlay"
# A layer given by a path through one of those may be anything.
_LEADING_ELSEWHERE = frozenset((b"devtmpfs", b"proc"))
# How many roots of one namespace are looked from if no process there has the one of all.
_ROOTS_MAX = 64
# What the kernel writes after a root that was deleted: dentry_path() in fs/d_path.c. No other path
# that it writes has two slashes.
_DELETED = b"//deleted"
_NAMESPACE_NAME = re.compile(rb"mnt:\[([0-9]+)\]")


class Vantage(NamedTuple):
    """
    From where a process sees files: its mount namespace, and its root there.

    `mount` is what the root is on: one that was unmounted, or mounted over, has the name of another
    root.
    """

    namespace: int
    root: bytes
    mount: int


class MountTable:
    """
    What is mounted where. `kinds` has the type of each filesystem by the kernel's dev_t.

    `is_plain` says of an overlay whether it is known to have only local layers. One that is not
    counts as no local filesystem; but of it can be asked what the kernel has in memory.
    """

    def __init__(
        self, mounts: Iterable[Mount], is_plain: Callable[[int], bool] = lambda dev: False
    ) -> None:
        self._is_plain = is_plain
        self._by_id: dict[int, Mount] = {}
        self._overlays: dict[int, bytes] = {}
        self.kinds: dict[int, bytes] = {}
        self.kept_namespaces: set[int] = set()
        self._points: dict[tuple[int, bytes], list[bytes]] = defaultdict(list)
        self._deleted: dict[int, list[bytes]] = defaultdict(list)
        self._at: dict[bytes, list[Mount]] = defaultdict(list)
        for mount in mounts:
            self._by_id[mount.id] = mount
            if mount.kind == _OVERLAY:
                self._overlays[mount.dev] = mount.options
            self.kinds[mount.dev] = mount.kind
            self._points[mount.dev, mount.root].append(mount.point)
            if mount.root.endswith(_DELETED):
                self._deleted[mount.dev].append(mount.point)
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
        roots = sorted(self._roots.get(dev, ()), key=len)
        return [point for root in roots for point in self._points[dev, root]]

    def deleted_points(self, dev: int) -> list[bytes]:
        """Where files of a filesystem are mounted that were deleted, or replaced by others."""
        return self._deleted.get(dev, [])

    def is_point(self, path: bytes) -> bool:
        """Whether something is mounted just there."""
        return path in self._at

    def is_local(self, path: bytes) -> bool:
        """Whether the filesystem that this path is on is known, and no other than a local one."""
        mounts = self.mounts_at(path)
        return bool(mounts) and all(map(self._never_waits, mounts))

    def by_id(self, number: int) -> Mount | None:
        """The mount with this number; None if it is not here."""
        return self._by_id.get(number)

    def leads_away(self, point: bytes) -> bool:
        """Whether something is mounted just there that is not local."""
        return point in self._at and not self.is_local(point)

    def passes_none_away(self, path: bytes) -> bool:
        """Whether neither a path without links and dots leads away, nor any that it begins with."""
        return not (path + b"/").startswith(self._away)

    def may_be_in_memory(self, path: bytes) -> bool:
        """Whether such a path goes over nothing that is not local, but for overlays."""
        mounts = self.mounts_at(path)
        are_known = bool(mounts) and all(mount.kind in LOCAL_KINDS for mount in mounts)
        return are_known and not (path + b"/").startswith(self._remote)

    def overlay_options(self, dev: int) -> bytes:
        """Those of an overlay as the kernel writes them, with its escapes; none if it is no such"""
        return self._overlays.get(dev, b"")

    def has_local_layers(self, dev: int) -> bool:
        """Whether an overlay is here, and all layers that it is said to have are local here."""
        layers = layers_in(self.overlay_options(dev))
        return bool(layers) and all(self._is_local_layer(dev, layer) for layer in layers)

    def _is_local_layer(self, dev: int, path: bytes) -> bool:
        names = path.split(b"/")
        # from where a relative path was, and what a backslash is for, is not told
        if names[0] or b".." in names or b"\\" in path:
            return False
        at = b"".join(b"/" + name for name in names if name not in (b"", b"."))
        # an overlay may be mounted over one of its layers, and is none itself
        over = [
            mount for point in prefixes(at) for mount in self._at.get(point, ()) if mount.dev != dev
        ]
        is_local = bool(over) and all(map(self._never_waits, over))
        return is_local and over[-1].kind not in _LEADING_ELSEWHERE

    def _never_waits(self, mount: Mount) -> bool:
        return mount.kind in LOCAL_KINDS and (mount.kind != _OVERLAY or self._is_plain(mount.dev))

    @cached_property
    def _roots(self) -> dict[int, list[bytes]]:
        """Which folders of each filesystem are mounted."""
        roots: dict[int, list[bytes]] = defaultdict(list)
        for dev, root in self._points:
            roots[dev].append(root)
        return roots

    @cached_property
    def _away(self) -> tuple[bytes, ...]:
        return tuple(point.rstrip(b"/") + b"/" for point in self._at if self.leads_away(point))

    @cached_property
    def _remote(self) -> tuple[bytes, ...]:
        return tuple(
            point.rstrip(b"/") + b"/"
            for point, mounts in self._at.items()
            if any(mount.kind not in LOCAL_KINDS for mount in mounts)
        )


class Mounts:
    """The mount tables of one moment: use one for each report or comparison with the kernel."""

    def __init__(self) -> None:
        self._vantages: dict[int, Vantage | None] = {}
        self._seers: dict[int, int] = {}
        self._tables: dict[Vantage, MountTable] = {}
        # by the namespace, with a process or thread that sees all of it
        self._whole: dict[int, tuple[MountTable, int]] = {}
        self._plain: dict[int, bool] = {}
        self._owners: dict[int, int | None] = {}
        self._own_users = user_namespace(os.getpid()) or -1
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

    def seer(self, pid: int) -> int:
        """By whom to look for a process: one of its threads, if the first has ended."""
        self.vantage(pid)
        return self._seers.get(pid, pid)

    def scene(self, pid: int, vantage: Vantage) -> tuple[MountTable, bytes]:
        """A table for the paths that a process sees, and what to put before them to look in it."""
        if vantage.root != b"/":
            # proc(5) leaves out what a root that was changed is on, unless it is mounted just there
            self._read_all()
            if vantage.namespace in self._whole:
                return self._whole[vantage.namespace][0], vantage.root
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
            self._internal = frozenset(map(kernel_device, internal_files()))
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
        # where a root is that is mounted nowhere, not even this shows
        is_whole = vantage.namespace in self._whole and table.by_id(vantage.mount) is not None
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
                pids[Vantage(-pid, b"/", 0)].append(pid)
        for namespace, vantages in _by_namespace(pids).items():
            is_read = False
            for vantage in vantages:
                if namespace not in self._whole:
                    is_read |= any(self._table(pid, vantage) is not None for pid in pids[vantage])
            is_partial = namespace > 0 and namespace not in self._whole
            self._is_partial |= is_read and is_partial

    def _table(self, pid: int, vantage: Vantage) -> MountTable | None:
        if vantage not in self._tables:
            try:
                table = MountTable(mounts_of(self.seer(pid)), self._is_plain)
                self._tables[vantage] = table
                self._kinds.update(table.kinds)
                if vantage.root == b"/" and table.by_id(vantage.mount) is not None:
                    self._whole.setdefault(vantage.namespace, (table, self.seer(pid)))
            except PermissionError:
                self._is_partial = True
            except OSError:
                # it has ended
                pass
        return self._tables.get(vantage)

    def _read_vantage(self, pid: int) -> Vantage | None:
        try:
            return _vantage(pid)
        except PermissionError:
            self._refused.add(pid)
        except OSError:
            # it has ended, or its first thread has, and the others see as before
            for tid in threads(pid):
                with suppress(OSError):
                    vantage = _vantage(tid)
                    self._seers[pid] = tid
                    return vantage
        return None

    def _is_plain(self, dev: int) -> bool:
        """Whether an overlay has only local layers; False if that cannot be told."""
        if dev not in self._plain:
            # of those that are said to be made of each other
            self._plain[dev] = False
            self._plain[dev] = self._has_local_layers(dev)
        return self._plain[dev]

    def _has_local_layers(self, dev: int) -> bool:
        own = self.vantage(os.getpid())
        table = self._table(os.getpid(), own) if own else None
        root = table.by_id(own.mount) if own and table else None
        # what waits there has us wait anyway
        if root is not None and root.dev == dev:
            return True
        if any(table.has_local_layers(dev) for table in self._trusted()):
            return True
        self._read_all()
        return any(table.has_local_layers(dev) for table in self._trusted())

    def _trusted(self) -> Iterator[MountTable]:
        """
        Those read so far of which we believe what they say of layers.

        Not those of users who can mount what they like: a path that was a layer may have become
        another's.
        """
        own = self.vantage(os.getpid())
        for namespace, (table, pid) in list(self._whole.items()):
            if namespace not in self._owners:
                self._owners[namespace] = owner_of_mounts(pid)
            is_own = own is not None and own.namespace == namespace
            if is_own or self._owners[namespace] == self._own_users:
                yield table


def _vantage(pid: int) -> Vantage:
    return Vantage(mount_namespace(pid), root_folder(pid), root_mount(pid))


def _by_namespace(vantages: Iterable[Vantage]) -> dict[int, list[Vantage]]:
    """From where to look at each, first from what may be the root of all."""
    found: dict[int, list[Vantage]] = defaultdict(list)
    for vantage in sorted(vantages, key=lambda one: one.root):
        if len(found[vantage.namespace]) < _ROOTS_MAX:
            found[vantage.namespace].append(vantage)
    return found


def kernel_device(found: os.stat_result) -> int:
    """The device as the kernel has it: major << 20 | minor."""
    return _kernel_device(found.st_dev)


@lru_cache(maxsize=1024)
def _kernel_device(dev: int) -> int:
    return os.major(dev) << 20 | os.minor(dev)
