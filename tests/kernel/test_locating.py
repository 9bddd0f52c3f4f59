"""Where watches are, on real filesystems and in namespaces: every path found leads there."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from agreement import Case
from harness import STAY, Puppet, compiled, environment
from privileges import limited

from tracer.core.events import Process
from tracer.core.walk import Inode
from tracer.kernel.fdinfo import Handle
from tracer.kernel.inodes import DentryNames, Inodes
from tracer.kernel.probe import load_walk
from tracer.kernel.procfs import birth_ticks
from tracer.kernel.walk import KernelList
from tracer.targets import by_handle
from tracer.targets.locate import How, Location, Locator, Sought

pytestmark = [pytest.mark.usefixtures("root"), pytest.mark.kernels]

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_NOWHERE = Location(None, How.UNRESOLVED)
# the last line is what a user without privileges finds of its own watch
_OWN_WATCH = """
import ctypes, os, sys
from tracer.core.events import Process
from tracer.core.walk import Inode
from tracer.kernel.fdinfo import read_watches
from tracer.kernel.procfs import birth_ticks
from tracer.targets.locate import Locator, Sought
os.chdir(sys.argv[1])
fd = ctypes.CDLL(None).inotify_init1(0)
wd = ctypes.CDLL(None).inotify_add_watch(fd, os.fsencode(sys.argv[2]), 2)
(watch,) = read_watches(os.getpid(), fd)
me = Process(os.getpid(), birth_ticks(os.getpid()) * 1_000_000_000 // os.sysconf("SC_CLK_TCK"))
found = Locator().locate(Sought((me,), fd, wd, Inode(0, watch.ino, watch.dev, 0)))
print(found.how.value, os.fsdecode(found.path or b""))
"""


class Kernel:
    """What the kernel's own list says of watches, and where they are by each way."""

    def __init__(self) -> None:
        self._bpf = load_walk(inodes=True)
        self._list = KernelList(self._bpf)
        self.names_of = Inodes(self._bpf).names_of

    def close(self) -> None:
        self._list.close()
        self._bpf.cleanup()

    def sought(self, pid: int, traced: bytes | None = None) -> list[Sought]:
        """The watches of a process, in the order in which they were added."""
        rows = [
            Sought((_process(pid),), holder.fd, wd, watch.inode, traced)
            for walked in self._list.walk().instances.values()
            for holder in walked.holders
            if holder.process.pid == pid
            for wd, watch in walked.watches or ()
        ]
        return sorted(rows, key=lambda one: (one.fd, one.wd))

    def by_names(self, pid: int, traced: bytes | None = None) -> list[Location]:
        return list(Locator(self.names_of).locate_all(self.sought(pid, traced)))

    def by_told_handles(self, pid: int) -> list[Location]:
        """As if only fdinfo told of the watches."""
        sought = [
            one._replace(inode=one.inode._replace(address=0, generation=0))
            for one in self.sought(pid)
        ]
        return list(Locator().locate_all(sought))

    def by_made_handles(self, pid: int) -> list[Location]:
        """As if fdinfo could not be read."""
        return list(Locator().locate_all([one._replace(fd=-1) for one in self.sought(pid)]))


def _process(pid: int) -> Process:
    ticks = birth_ticks(pid)
    assert ticks is not None
    return Process(pid, ticks * _TICK_NS)


@pytest.fixture(scope="module")
def kernel(root: None) -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.close()


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No handle may be opened."""

    def refuse(mount: int, handle: Handle) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(by_handle, "open_by_handle", refuse)


def _watch(puppet: Puppet, *targets: Path | bytes) -> None:
    fd = puppet.ok("init")
    for target in targets:
        puppet.ok("add", fd, target)


def _at(path: Path | bytes, how: How) -> Location:
    return Location(os.fsencode(path), how)


# --- one way after the other ---


def test_each_way_finds_files_and_folders(
    kernel: Kernel, puppet: Puppet, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """GIVEN the filesystem of temporary files WHEN a way is not there THEN the next one is used."""
    folder, file = tmp_path / "folder", tmp_path / "folder" / "file"
    folder.mkdir()
    file.touch()
    _watch(puppet, folder, file)
    passed = os.fsencode(folder)

    found = kernel.by_names(puppet.pid, passed)
    assert found == [_at(folder, How.TRACED), _at(file, How.DENTRY)]
    assert kernel.by_names(puppet.pid) == [_at(folder, How.DENTRY), _at(file, How.DENTRY)]
    assert kernel.by_told_handles(puppet.pid) == [_at(folder, How.HANDLE), _at(file, How.HANDLE)]
    request.getfixturevalue("refused")
    assert kernel.by_told_handles(puppet.pid)[0].how in (How.SEARCH, How.UNRESOLVED)


def test_handles_are_made_where_their_format_is_certain(
    kernel: Kernel, puppet: Puppet, folders: list[Path], mounted: Callable[..., Path]
) -> None:
    """GIVEN that fdinfo cannot be read WHEN it was once, for which a tmpfs made handles."""
    disk = mounted()
    (disk / "below").mkdir()
    _watch(puppet, folders[0], disk / "below")
    kernel.by_told_handles(puppet.pid)

    of_folder, of_disk = kernel.by_made_handles(puppet.pid)
    kind = subprocess.check_output(["stat", "-f", "-c", "%T", folders[0]], text=True)
    if kind.strip() == "ext2/ext3":
        assert of_folder == _at(folders[0], How.HANDLE)
    assert of_disk == _at(disk / "below", How.SEARCH)


def test_a_small_filesystem_is_searched(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path], refused: None
) -> None:
    disk = mounted()
    deep = disk / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    _watch(puppet, disk, deep, deep / "file")
    expected = [_at(path, How.SEARCH) for path in (disk, deep, deep / "file")]
    assert kernel.by_told_handles(puppet.pid) == expected


def test_who_has_no_privileges_finds_what_is_its_own(nobody: int, watchable: list[Path]) -> None:
    (watchable[0] / "below").mkdir()
    (watchable[0] / "below").chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", _OWN_WATCH, watchable[0], watchable[0] / "below"],
        env=environment(),
        cwd="/",
        capture_output=True,
        text=True,
        preexec_fn=limited(frozenset(), nobody),
    )
    assert (done.stdout, done.stderr) == (f"search {watchable[0] / 'below'}\n", "")


# --- filesystems ---


def test_several_tmpfs_whose_roots_are_all_inode_1(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path]
) -> None:
    disks = [mounted() for _ in range(5)]
    for disk in disks:
        (disk / "below").mkdir()
    _watch(puppet, *disks, *(disk / "below" for disk in disks))
    paths = [*disks, *(disk / "below" for disk in disks)]
    assert len({one.inode.ino for one in kernel.sought(puppet.pid)[:5]}) == 1
    assert kernel.by_names(puppet.pid) == [_at(path, How.DENTRY) for path in paths]
    assert kernel.by_told_handles(puppet.pid) == [_at(path, How.HANDLE) for path in paths]


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sys/kernel",
        "/proc/{pid}/task",
        "/sys/kernel",
        "/sys/class/net",
        "/dev/pts",
        "/dev/null",
        "/sys/kernel/tracing/events",
        "/sys/fs/cgroup",
    ],
)
def test_filesystems_of_the_kernel(kernel: Kernel, puppet: Puppet, path: str) -> None:
    where = Path(path.format(pid=puppet.pid))
    if not where.exists():
        pytest.skip(f"no {where} here")
    _watch(puppet, where)
    (found,) = kernel.by_names(puppet.pid)
    assert found == _at(where, How.DENTRY)


@pytest.mark.parametrize("kind", ["cgroup2", "memory", "pids"])
def test_cgroups(kernel: Kernel, puppet: Puppet, tmp_path: Path, kind: str) -> None:
    """GIVEN a hierarchy of the second version, or of a controller in the first."""
    where = tmp_path / "hierarchy"
    where.mkdir()
    kinds = ["cgroup2"] if kind == "cgroup2" else ["cgroup", "-o", kind]
    if subprocess.run(["mount", "-t", *kinds, "none", where], capture_output=True).returncode:
        pytest.skip(f"cannot mount {kinds}")
    group = where / f"inotrace-test-{os.getpid()}"
    try:
        group.mkdir()
        _watch(puppet, group, group / "cgroup.procs")
        expected = {group, group / "cgroup.procs"}
        for found, how in (
            (kernel.by_names(puppet.pid), How.DENTRY),
            (kernel.by_told_handles(puppet.pid), How.HANDLE),
        ):
            assert {location.how for location in found} == {how}
            for location, path in zip(found, sorted(expected)):
                # it may be mounted elsewhere as well
                assert location.path is not None
                assert os.path.samefile(location.path, path)
    finally:
        group.rmdir()
        subprocess.run(["umount", where], check=True)


def test_overlays(kernel: Kernel, puppet: Puppet, tmp_path: Path) -> None:
    """GIVEN files of the upper and of two lower layers, and one that was copied up."""
    lower, other, upper, work, on = (
        tmp_path / name for name in ("lower", "ot:her", "upper", "work", "on")
    )
    for folder in (lower / "folder", other, upper, work, on):
        folder.mkdir(parents=True)
    for file in (lower / "low", lower / "folder" / "in", other / "other", upper / "up"):
        file.touch()
    layers = f"lowerdir={lower}:{str(other).replace(':', chr(92) + ':')}"
    options = f"{layers},upperdir={upper},workdir={work}"
    done = subprocess.run(
        ["mount", "-t", "overlay", "-o", options, "inotrace-test", on], capture_output=True
    )
    if done.returncode:
        pytest.skip(f"cannot mount an overlay: {done.stderr!r}")
    try:
        (on / "new").touch()
        names = ("", "low", "folder", "folder/in", "other", "up", "new")
        _watch(puppet, *(on / name for name in names))
        assert kernel.by_names(puppet.pid) == [_at(on / name, How.DENTRY) for name in names]
        told = kernel.by_told_handles(puppet.pid)
        if {location.how for location in told} <= {How.SEARCH, How.UNRESOLVED}:
            pytest.skip("this kernel does not tell the handles of overlays")
        for location, name in zip(told, names):
            assert location.path in (None, os.fsencode(on / name))
        assert sum(location.how is How.OVERLAY for location in told) >= len(names) - 2
    finally:
        subprocess.run(["umount", on], check=True)


# --- mounts, namespaces, roots ---


def test_a_bind_mount(kernel: Kernel, puppet: Puppet, bound: Path, folders: list[Path]) -> None:
    (bound / "below").mkdir()
    _watch(puppet, bound / "below")
    either = (os.fsencode(bound / "below"), os.fsencode(folders[0] / "below"))
    assert kernel.by_names(puppet.pid)[0].path in either
    assert kernel.by_told_handles(puppet.pid)[0].path in either


def test_a_bind_mount_of_a_file_is_the_only_way(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path], tmp_path: Path
) -> None:
    """GIVEN that something is mounted over the folder that a file is in."""
    disk, point = mounted(), tmp_path / "point"
    (disk / "folder").mkdir()
    (disk / "folder" / "file").touch()
    point.touch()
    subprocess.run(["mount", "--bind", disk / "folder" / "file", point], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "inotrace-test", disk / "folder"], check=True)
    try:
        _watch(puppet, point)
        assert kernel.by_names(puppet.pid) == [_at(point, How.DENTRY)]
    finally:
        subprocess.run(["umount", disk / "folder"], check=True)
        subprocess.run(["umount", point], check=True)


def test_what_a_mount_hides_has_no_path(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path]
) -> None:
    disk = mounted()
    (disk / "below").mkdir()
    _watch(puppet, disk / "below")
    subprocess.run(["mount", "-t", "tmpfs", "inotrace-test", disk / "below"], check=True)
    try:
        assert kernel.by_names(puppet.pid) == [_NOWHERE]
        assert kernel.by_told_handles(puppet.pid) == [_NOWHERE]
    finally:
        subprocess.run(["umount", disk / "below"], check=True)


def test_what_is_lazily_unmounted_has_no_path(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path]
) -> None:
    """GIVEN names that the kernel still has THEN they are no path of anybody."""
    disk = mounted()
    (disk / "file").touch()
    puppet.ok("open", disk / "file")
    _watch(puppet, disk / "file")
    subprocess.run(["umount", "--lazy", disk], check=True)

    (sought,) = kernel.sought(puppet.pid)
    assert kernel.names_of(sought.inode) == DentryNames(b"/", b"file")
    assert kernel.by_names(puppet.pid) == [_NOWHERE]
    assert kernel.by_told_handles(puppet.pid) == [_NOWHERE]


def test_a_holder_in_another_namespace(
    kernel: Kernel, start_puppet: Callable[..., Puppet], puppet_program: Path, tmp_path: Path
) -> None:
    """GIVEN a filesystem that only its holder has mounted THEN the path is one of the holder's."""
    disk = tmp_path / "disk"
    disk.mkdir()
    program = tmp_path / "program"
    program.write_text(
        "#!/bin/sh\n"
        f"exec unshare --mount --propagation private sh -c '"
        f"mount -t tmpfs inotrace-test {disk} && "
        f"mkdir {disk}/below && exec {puppet_program}'\n"
    )
    program.chmod(0o755)
    puppet = start_puppet(program)
    _watch(puppet, disk, disk / "below", tmp_path)
    paths = (disk, disk / "below", tmp_path)
    assert kernel.by_names(puppet.pid) == [_at(path, How.DENTRY) for path in paths]
    assert kernel.by_told_handles(puppet.pid) == [_at(path, How.HANDLE) for path in paths]
    assert not (disk / "below").exists()


def test_a_holder_with_another_root(
    kernel: Kernel, start_puppet: Callable[..., Puppet], tmp_path: Path
) -> None:
    """GIVEN a mount table without what its root is on THEN paths begin at that root."""
    jail = tmp_path / "jail"
    (jail / "below" / "folder").mkdir(parents=True)
    try:
        compiled("puppet", jail / "puppet", "-static", "-pthread")
    except subprocess.CalledProcessError:
        pytest.skip("no static C library")
    puppet = start_puppet(b"/puppet", preexec_fn=lambda: os.chroot(jail))
    _watch(puppet, Path("/"), Path("/below/folder"))
    paths = (b"/", b"/below/folder")
    assert kernel.by_names(puppet.pid) == [_at(path, How.DENTRY) for path in paths]
    assert kernel.by_told_handles(puppet.pid) == [_at(path, How.HANDLE) for path in paths]


def test_a_target_outside_of_the_root_of_its_holder(kernel: Kernel, tmp_path: Path) -> None:
    """GIVEN a watch of before the root was changed THEN there is no path for its holder."""
    jail, outside = tmp_path / "jail", tmp_path / "outside"
    for folder in (jail, outside, jail / "outside"):
        folder.mkdir()
    inotify = "import ctypes; libc = ctypes.CDLL(None); libc.inotify_add_watch("
    inotify += f"libc.inotify_init1(0), {os.fsencode(outside)!r}, 2)"
    script = f"{inotify}; import os; os.chroot({str(jail)!r}); os.chdir('/'); {STAY}"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert kernel.by_names(process.pid) == [_NOWHERE]
        assert kernel.by_told_handles(process.pid) == [_NOWHERE]
        process.communicate()


# --- names ---


def test_a_renamed_target_has_its_new_path(
    kernel: Kernel, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN one that was renamed, and one whose folder was."""
    (folders[1] / "below").mkdir()
    _watch(puppet, folders[0], folders[1] / "below")
    renamed = [folder.with_name(f"renamed-{folder.name}") for folder in folders[:2]]
    for folder, new in zip(folders, renamed):
        folder.rename(new)
    paths = (renamed[0], renamed[1] / "below")
    passed = os.fsencode(folders[0])
    assert kernel.by_names(puppet.pid, passed) == [_at(path, How.DENTRY) for path in paths]
    assert kernel.by_told_handles(puppet.pid) == [_at(path, How.HANDLE) for path in paths]


def test_a_deleted_target_has_no_path_even_if_another_took_its_name(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path]
) -> None:
    """GIVEN a file that is open, and then a file called as the kernel shows deleted ones."""
    file = mounted() / "file"
    file.touch()
    opened = puppet.ok("open", file)
    _watch(puppet, file)
    file.unlink()
    assert kernel.by_names(puppet.pid) == [_NOWHERE]
    for name in ("file", "file (deleted)"):
        file.with_name(name).touch()
    passed = os.fsencode(file)
    assert kernel.by_names(puppet.pid, passed) == [_NOWHERE]
    assert kernel.by_told_handles(puppet.pid) == [_NOWHERE]
    puppet.ok("close", opened)


def test_a_path_that_changed_is_never_given(
    kernel: Kernel, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN names that are of a moment ago, as after a rename between reading and checking."""
    (folders[0] / "file").touch()
    (folders[1] / "file").touch()
    _watch(puppet, folders[0] / "file")
    (sought,) = kernel.sought(puppet.pid)
    stale = kernel.names_of(sought.inode)
    assert stale is not None
    wrong = stale._replace(folder=stale.folder[:-1] + b"1")
    found = Locator(lambda _: wrong).locate(sought)
    assert found == _at(folders[0] / "file", How.HANDLE)


def test_the_inode_before_in_the_same_memory_has_no_names(
    kernel: Kernel, puppet: Puppet, folders: list[Path]
) -> None:
    _watch(puppet, folders[0])
    (sought,) = kernel.sought(puppet.pid)
    assert kernel.names_of(sought.inode) is not None
    for changes in ({"ino": 1}, {"generation": sought.inode.generation ^ 1}, {"address": 0}):
        assert kernel.names_of(sought.inode._replace(**changes)) is None
    # what cannot be read is no error either
    assert kernel.names_of(Inode(0xDEAD0000, 1, 1, 1)) is None


def test_hard_links(kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path]) -> None:
    """GIVEN a file with two names WHEN the one it was watched by is deleted THEN it has one."""
    one = mounted() / "one"
    two = one.with_name("two")
    one.touch()
    os.link(one, two)
    _watch(puppet, one)
    assert kernel.by_names(puppet.pid)[0].path in (os.fsencode(one), os.fsencode(two))
    two.stat()
    one.unlink()
    assert kernel.by_names(puppet.pid, os.fsencode(one))[0].path == os.fsencode(two)


@pytest.mark.parametrize(
    "name",
    [
        b"new\nline",
        b"tab\tand blank ",
        b"back\\slash",
        b"\\012",
        b"\\040x",
        b"invalid \xff\xfe UTF-8",
        b"\x1b[31mred",
        b"x (deleted)",
        b"...",
        b"n" * 255,
    ],
)
def test_names_of_any_bytes(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path], name: bytes
) -> None:
    path = os.path.join(os.fsencode(mounted()), name, name)
    os.makedirs(path)
    _watch(puppet, path)
    assert kernel.by_names(puppet.pid) == [_at(path, How.DENTRY)]
    assert kernel.by_told_handles(puppet.pid) == [_at(path, How.HANDLE)]


def test_mount_points_with_names_of_any_bytes(
    kernel: Kernel, puppet: Puppet, tmp_path: Path
) -> None:
    where = os.path.join(os.fsencode(tmp_path), b"a\nb \\040 \xff#")
    os.mkdir(where)
    subprocess.run(["mount", "-t", "tmpfs", "inotrace-test", where], check=True)
    try:
        _watch(puppet, where)
        assert kernel.by_names(puppet.pid) == [_at(where, How.DENTRY)]
        assert kernel.by_told_handles(puppet.pid) == [_at(where, How.HANDLE)]
    finally:
        subprocess.run(["umount", where], check=True)


# --- many, and reports ---


def test_many_in_their_order(kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path]) -> None:
    """GIVEN more than the kernel side tells of in one run, in folders some of which are watched."""
    disk = mounted("size=8m,nr_inodes=0")
    paths = [disk / f"{at % 7}" / f"{at % 31}" / f"{at}" for at in range(1009)]
    for path in paths:
        path.mkdir(parents=True)
    paths += [path.parent for path in paths[:211]]
    _watch(puppet, *paths)
    sought = kernel.sought(puppet.pid)
    assert len(sought) == 1009 + 211
    found = list(Locator(kernel.names_of).locate_all(sought[::-1]))[::-1]
    assert found == [_at(path, How.DENTRY) for path in paths]


def test_a_report_has_the_path_that_leads_there(
    case: Case, traced_puppet: Puppet, folders: list[Path]
) -> None:
    puppet = traced_puppet
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0])
    puppet.ok("add", fd, folders[1])
    new = folders[0].with_name("renamed")
    folders[0].rename(new)
    report = case.agreed((puppet.pid, fd)).report
    targets = {
        target["path"]: (target["resolved_by"], target["state"])
        for site in report["sites"]
        for target in site["targets"]
    }
    assert targets[str(folders[1])] == ("traced", "verified")
    assert targets[str(new)] == ("dentry", "verified")
