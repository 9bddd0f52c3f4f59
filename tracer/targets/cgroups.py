"""Cgroups: which one a path names, and which processes are in it or below it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from tracer.errors import EXIT_USAGE, InotraceError
from tracer.kernel.filesystem import mount_id
from tracer.kernel.probe import ScopedCgroup
from tracer.kernel.procfs import unescaped

_V2 = b"cgroup2"
# include/linux/proc_ns.h: PROC_CGROUP_INIT_INO
_FIRST_NAMESPACE = 0xEFFFFFFB


class Place(NamedTuple):
    """
    Where a cgroup is, seen from the root of our cgroup namespace: `up` levels, then `down`.

    As the kernel writes it (kernfs_path_from_node()): only the way to the nearest cgroup that both
    are below leads up.
    """

    up: int
    down: tuple[bytes, ...]

    def holds(self, other: Place) -> bool:
        """Whether `other` is this place or below it."""
        if other.up == self.up:
            return other.down[: len(self.down)] == self.down
        # what we are below ourselves holds all that branches off between it and us
        return other.up < self.up and not self.down


class Membership(NamedTuple):
    """A line of /proc/PID/cgroup; `labels` are the controllers, and ``name=…`` if it has one."""

    hierarchy: int
    labels: frozenset[bytes]
    place: Place


class CgroupMount(NamedTuple):
    """A mount of (a part of) a hierarchy: `root` is what is to be seen at `point`."""

    id: int
    is_v2: bool
    root: Place
    point: bytes
    options: frozenset[bytes]


@dataclass(frozen=True)
class Cgroup:
    """
    A cgroup: `id` (the inode number of its folder) is unique within `hierarchy`.

    A hierarchy is known by the number that /proc/PID/cgroup has for it; version 2 has 0. One that
    is removed and made again under its name gets another id at the same `place`; `parent` is the
    id of the one above, 0 if we do not see that.
    """

    hierarchy: int
    id: int
    place: Place
    parent: int = 0

    def includes(self, pid: int) -> bool:
        """
        Whether a process is in this cgroup or below it; False if it is gone.

        Of a process whose threads are in several, that of the first thread counts.
        """
        return any(
            member.hierarchy == self.hierarchy and self.place.holds(member.place)
            for member in memberships(pid)
        )

    def scoped(self) -> ScopedCgroup:
        """The same for the kernel side."""
        name = self.place.down[-1] if self.parent and self.place.down else b""
        return ScopedCgroup(self.hierarchy, self.id, self.parent if name else 0, name)


def memberships(pid: int) -> Iterator[Membership]:
    """In which cgroup of each hierarchy a process is; in none if it is gone."""
    return parse_memberships(_content(f"/proc/{pid}/cgroup"))


def find_cgroup(path: str) -> Cgroup:
    """
    The cgroup of a folder in a cgroup filesystem, or of a path as /proc/PID/cgroup shows it.

    The latter is looked for in all mounted hierarchies, version 2 first. Raises InotraceError
    (EXIT_USAGE) if there is no such cgroup.
    """
    name = os.fsencode(path)
    mounts = cgroup_mounts()
    for folder in (name, *_shown_as(name, mounts)):
        found = _cgroup_at(folder, mounts)
        if found is not None:
            return found
    raise InotraceError(_what_is_wrong(path, mounts), exit_code=EXIT_USAGE)


def parse_place(path: bytes) -> Place:
    """From a path below the root of a hierarchy; the kernel begins one beyond ours with /.."""
    up = 0
    down: list[bytes] = []
    for part in path.split(b"/"):
        if part in (b"", b"."):
            continue
        if part != b"..":
            down.append(part)
        elif down:
            down.pop()
        else:
            up += 1
    return Place(up, tuple(down))


def parse_memberships(text: bytes) -> Iterator[Membership]:
    """
    /proc/PID/cgroup, one line a hierarchy: cgroups(7).

    A path has any bytes but a newline, which the kernel refuses in names. What is no such line is
    left out.
    """
    for line in text.split(b"\n"):
        number, _, rest = line.partition(b":")
        labels, colon, path = rest.partition(b":")
        # long digits are no number of the kernel's, and slow to convert
        if number.isdigit() and len(number) <= 10 and colon and path.startswith(b"/"):
            yield Membership(
                int(number), frozenset(filter(None, labels.split(b","))), parse_place(path)
            )


def parse_cgroup_mounts(text: bytes) -> tuple[CgroupMount, ...]:
    """
    The cgroup filesystems of /proc/PID/mountinfo, those of version 2 first: proc(5).

    What is no such line is left out.
    """
    mounts = filter(None, map(_parse_mount, text.split(b"\n")))
    return tuple(sorted(mounts, key=lambda mount: not mount.is_v2))


def cgroup_mounts() -> tuple[CgroupMount, ...]:
    """Those that we see, those of version 2 first."""
    return parse_cgroup_mounts(_content("/proc/self/mountinfo"))


def sees_all_cgroups() -> bool:
    """Whether we see the whole of a hierarchy, and not what is mounted for a container."""
    with suppress(OSError):
        is_first = os.stat("/proc/self/ns/cgroup").st_ino == _FIRST_NAMESPACE
        return is_first and any(mount.root == Place(0, ()) for mount in cgroup_mounts())
    return False


def all_below(folders: Iterable[bytes]) -> Iterator[bytes]:
    """All cgroups below these, those nearer first."""
    level = list(folders)
    while level:
        below = [b"/".join((folder, name)) for folder in level for name in _below(folder)]
        yield from below
        # kernfs counts the folders in a folder as links, and most have none
        level = [folder for folder in below if _link_count(folder) != 2]


def has_processes(cgroup: bytes) -> bool:
    """Whether a process is in the cgroup with this folder, or below it."""
    folders = chain((cgroup,), all_below((cgroup,)))
    return any(_content(os.fsdecode(folder + b"/cgroup.procs")) for folder in folders)


def _parse_mount(line: bytes) -> CgroupMount | None:
    # between them are optional fields; blanks in a field are escaped
    before, _, after = line.partition(b" - ")
    mount, filesystem = before.split(b" "), after.split(b" ")
    if len(mount) < 6 or len(filesystem) < 3 or filesystem[0] not in (b"cgroup", _V2):
        return None
    if not mount[0].isdigit() or len(mount[0]) > 10:
        return None
    return CgroupMount(
        id=int(mount[0]),
        is_v2=filesystem[0] == _V2,
        root=parse_place(unescaped(mount[3])),
        point=unescaped(mount[4]),
        options=frozenset(filesystem[2].split(b",")),
    )


def _shown_as(path: bytes, mounts: Iterable[CgroupMount]) -> Iterator[bytes]:
    """Where the cgroup would be that /proc/PID/cgroup shows as `path`."""
    wanted = parse_place(path)
    if not path.startswith(b"/"):
        return
    for mount in mounts:
        down = _way_to_us(mount)
        if down is not None and mount.root.holds(wanted):
            shared = down[: mount.root.up - wanted.up]
            yield b"/".join((mount.point, *shared, *wanted.down[len(mount.root.down) :]))


def _cgroup_at(path: bytes, mounts: Iterable[CgroupMount]) -> Cgroup | None:
    with suppress(OSError, ValueError):
        folder = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return _cgroup_of(folder, mounts)
        finally:
            os.close(folder)
    return None


def _cgroup_of(folder: int, mounts: Iterable[CgroupMount]) -> Cgroup | None:
    # mounts may lie on one another: the descriptor knows its own
    own_mount = mount_id(folder)
    mount = next((each for each in mounts if each.id == own_mount), None)
    own = mount and _own_membership(mount)
    way_to_us = mount and _way_to_us(mount)
    if mount is None or own is None or way_to_us is None:
        return None
    below = os.readlink(os.fsencode(f"/proc/self/fd/{folder}"))[len(mount.point) :]
    down = parse_place(below).down
    shared = len(os.path.commonprefix([way_to_us, down]))
    place = Place(mount.root.up - shared, mount.root.down + down[shared:])
    parent = os.stat("..", dir_fd=folder).st_ino if down else 0
    return Cgroup(own.hierarchy, os.fstat(folder).st_ino, place, parent)


def _own_membership(mount: CgroupMount) -> Membership | None:
    """
    Where we are in that hierarchy; only controllers and name tell which one of version 1 it is.

    None if it has gone meanwhile.
    """
    for own in parse_memberships(_content("/proc/self/cgroup")):
        if own.hierarchy == 0 if mount.is_v2 else own.labels and own.labels <= mount.options:
            return own
    return None


def _way_to_us(mount: CgroupMount) -> tuple[bytes, ...] | None:
    """
    The names from where a mount begins down to the root of our cgroup namespace, if that is below.

    The kernel tells only how many they are: we look for ourselves. None if we are not there.
    """
    if mount.root.down or not mount.root.up:
        return ()
    own = _own_membership(mount)
    if own is None:
        return None
    ways: list[tuple[bytes, ...]] = [()]
    for _ in range(mount.root.up):
        ways = [(*way, name) for way in ways for name in _below(b"/".join((mount.point, *way)))]
    for way in ways:
        procs = b"/".join((mount.point, *way, *own.place.down, b"cgroup.procs"))
        if b"%d" % os.getpid() in _content(os.fsdecode(procs)).split():
            return way
    return None


def _below(cgroup: bytes) -> list[bytes]:
    with suppress(OSError), os.scandir(cgroup) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return []


def _link_count(folder: bytes) -> int:
    with suppress(OSError):
        return os.lstat(folder).st_nlink
    return 0


def _what_is_wrong(path: str, mounts: tuple[CgroupMount, ...]) -> str:
    if not mounts:
        return "no cgroup filesystem is mounted here: mount -t cgroup2 none /sys/fs/cgroup"
    first = os.fsdecode(mounts[0].point)
    what = f"{path!r} is no cgroup" if os.path.lexists(path) else f"there is no cgroup {path!r}"
    return f"{what}: give a folder below {first}, or a path as /proc/PID/cgroup shows it"


def _content(path: str) -> bytes:
    """Nothing if it cannot be read; the kernel makes its text, and ends it."""
    with suppress(OSError), open(path, "rb") as file:
        return file.read()
    return b""
