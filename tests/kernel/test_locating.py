"""Where watches are, on real filesystems and in namespaces: every path found leads there."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Callable

import pytest
from agreement import Case
from harness import STAY, Inotrace, Puppet, compiled, environment
from privileges import limited

from tracer.core.events import Process
from tracer.core.walk import Inode
from tracer.kernel.fdinfo import Handle, read_handles
from tracer.kernel.filesystem import filesystem_uuid
from tracer.kernel.inodes import DentryNames, Inodes
from tracer.kernel.probe import load_walk
from tracer.kernel.procfs import birth_ticks
from tracer.kernel.walk import KernelList
from tracer.targets import by_handle, overlay
from tracer.targets.locate import How, Location, Locator, Sought
from tracer.targets.overlay import real_handle

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
        inodes = Inodes(self._bpf)
        self.names_of, self.state_of = inodes.names_of, inodes.state

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
        return _places(Locator(self.names_of).locate_all(self.sought(pid, traced)))

    def by_told_handles(self, pid: int) -> list[Location]:
        """As if only fdinfo told of the watches."""
        sought = [
            one._replace(inode=one.inode._replace(address=0, generation=0))
            for one in self.sought(pid)
        ]
        return _places(Locator().locate_all(sought))

    def by_made_handles(self, pid: int) -> list[Location]:
        """As if fdinfo could not be read."""
        sought = [one._replace(fd=-1) for one in self.sought(pid)]
        return _places(Locator(state_of=self.state_of).locate_all(sought))


def _places(found: Iterable[Location]) -> list[Location]:
    """Without who sees them, which is the one holder."""
    return [location._replace(viewer=None) for location in found]


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


@pytest.fixture
def overlaid(root: None) -> Iterator[Callable[..., Path]]:
    """Mounts an overlay; unmounted at the end."""
    mounts: list[Path] = []

    def mount(where: Path, options: str) -> Path:
        where.mkdir(exist_ok=True)
        command = ["mount", "-t", "overlay", "-o", options, "inotrace-test", where]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount an overlay: {done.stderr}")
        mounts.append(where)
        return where

    yield mount
    for where in reversed(mounts):
        subprocess.run(["umount", where], check=True)


@contextmanager
def _descriptors(more: int) -> Iterator[None]:
    """Few of them for who looks: so many more can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    with ExitStack() as closing:
        # the numbers below that are free
        last = -1
        while last <= highest:
            last = os.dup(0)
            closing.callback(os.close, last)
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1 + more, hard))
        closing.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        yield


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


@pytest.mark.parametrize("is_told", [True, False])
def test_a_number_that_was_used_again_is_not_what_was_watched(
    kernel: Kernel,
    start_puppet: Callable[..., Puppet],
    folders: list[Path],
    refused: None,
    is_told: bool,
) -> None:
    """GIVEN a watch that goes between reading and searching, of which fdinfo told or the kernel."""
    old = folders[0] / "old"
    old.mkdir()
    puppet = start_puppet(cwd=folders[0])
    _watch(puppet, old)
    (sought,) = kernel.sought(puppet.pid)
    if is_told:
        sought = sought._replace(inode=sought.inode._replace(address=0, generation=0))
    (found,) = _places([Locator(state_of=kernel.state_of).locate(sought)])
    assert found == _at(old, How.SEARCH)
    old.rmdir()
    made = [folders[0] / str(at) for at in range(503)]
    for new in made:
        new.mkdir()
    if sought.inode.ino not in {new.stat().st_ino for new in made}:
        pytest.skip("the filesystem of temporary files does not use numbers again")
    assert Locator(state_of=kernel.state_of).locate(sought) == _NOWHERE


def test_the_root_of_an_overlay_is_not_what_has_its_number_in_there(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path], refused: None
) -> None:
    """
    GIVEN an overlay in a folder that is searched for something else, one of its files, its root and
    the folder it is on having one number
    """
    lower, upper, disk = mounted(), mounted(), mounted()
    on = disk / "on"
    (lower / "file").touch()
    for folder in (upper / "upper", upper / "work", on, disk / "other"):
        folder.mkdir()
    options = f"lowerdir={lower},upperdir={upper}/upper,workdir={upper}/work,xino=off"
    command = ["mount", "-t", "overlay", "-o", options, "inotrace-test", on]
    below = on.stat().st_ino
    if (done := subprocess.run(command, capture_output=True)).returncode:
        pytest.skip(f"cannot mount an overlay: {done.stderr!r}")
    try:
        _watch(puppet, on / "file", disk / "other")
        if len({below, on.stat().st_ino, kernel.sought(puppet.pid)[0].inode.ino}) > 1:
            pytest.skip("this kernel gives an overlay other numbers")
        found = kernel.by_told_handles(puppet.pid)
        assert found[0].path in (None, os.fsencode(on / "file"))
        assert found[1] == _at(disk / "other", How.SEARCH)
    finally:
        subprocess.run(["umount", on], check=True)


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


@pytest.mark.parametrize("options", ["", ",xino=off", ",uuid=off"])
def test_an_overlay_over_several_filesystems(
    kernel: Kernel,
    puppet: Puppet,
    mounted: Callable[..., Path],
    overlaid: Callable[..., Path],
    tmp_path: Path,
    options: str,
) -> None:
    """GIVEN files for which stat(2) has a device that is in no mount table."""
    upper, lower = mounted(), mounted()
    for folder in (upper / "upper", upper / "work", lower / "folder"):
        folder.mkdir()
    for file in (upper / "upper" / "up", lower / "low", lower / "copied", lower / "folder" / "in"):
        file.touch()
    layers = f"lowerdir={lower},upperdir={upper}/upper,workdir={upper}/work"
    on = overlaid(tmp_path / "on", layers + options)
    (on / "new").touch()
    (on / "copied").write_text("changed")
    names = ("", "up", "low", "copied", "folder", "folder/in", "new")
    _watch(puppet, *(on / name for name in names))
    assert kernel.by_names(puppet.pid) == [_at(on / name, How.DENTRY) for name in names]
    if not _told_handles(kernel, puppet):
        pytest.skip("this kernel does not tell the handles of overlays")
    told = [_at(on / name, How.OVERLAY) for name in names]
    assert kernel.by_told_handles(puppet.pid) == told


@pytest.fixture
def clones(tmp_path: Path, root: None) -> Iterator[Callable[[bool], list[Path]]]:
    """Mounts a filesystem and its copy, in which the same inode has another name: `a` and `b`."""
    mounts: list[Path] = []

    def made(with_new_uuid: bool) -> list[Path]:
        if not (shutil.which("mkfs.ext4") and shutil.which("tune2fs")):
            pytest.skip("no mkfs.ext4 or tune2fs")
        images = [tmp_path / f"image-{at}" for at in range(2)]
        with images[0].open("wb") as image:
            image.truncate(4 << 20)
        # without checksums, which are of the UUID too
        command = ["mkfs.ext4", "-q", "-O", "^metadata_csum,^has_journal", images[0]]
        subprocess.run(command, check=True)
        _mount_image(images[0], tmp_path / "filled")
        (tmp_path / "filled" / "a").touch()
        subprocess.run(["umount", tmp_path / "filled"], check=True)
        shutil.copyfile(images[0], images[1])
        if with_new_uuid:
            subprocess.run(["tune2fs", "-U", "random", images[1]], check=True, capture_output=True)
        for image in images:
            mounts.append(_mount_image(image, tmp_path / f"clone-{image.name}"))
        (mounts[1] / "a").rename(mounts[1] / "b")
        return mounts

    yield made
    for where in mounts:
        if os.path.ismount(where):
            subprocess.run(["umount", where], check=True)


def _mount_image(image: Path, where: Path) -> Path:
    where.mkdir()
    done = subprocess.run(["mount", "-o", "loop", image, where], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount an image: {done.stderr}")
    return where


@pytest.mark.parametrize(
    ("differ", "are_told"), [(False, True), (True, False), (True, True)], ids=str
)
def test_a_handle_that_leads_somewhere_in_two_layers(
    kernel: Kernel,
    puppet: Puppet,
    clones: Callable[[bool], list[Path]],
    overlaid: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    differ: bool,
    are_told: bool,
) -> None:
    """GIVEN the same number and generation in each THEN only UUIDs tell which it is of."""
    lower = clones(differ)
    on = overlaid(tmp_path / "on", f"lowerdir={lower[0]}:{lower[1]},xino=off")
    assert (on / "a").stat().st_ino == (on / "b").stat().st_ino
    _watch(puppet, on / "b")
    if not are_told:
        monkeypatch.setattr(overlay, "filesystem_uuid", lambda _: None)
    elif differ and not (_has_uuid(lower[0]) and _told_handles(kernel, puppet)):
        pytest.skip("this kernel does not tell UUIDs, or the handles of overlays")
    expected = _at(on / "b", How.OVERLAY) if differ and are_told else _NOWHERE
    assert kernel.by_told_handles(puppet.pid) == [expected]


def test_an_overlay_of_which_a_layer_is_not_seen(
    kernel: Kernel,
    puppet: Puppet,
    clones: Callable[[bool], list[Path]],
    overlaid: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GIVEN that its handle may be of that layer THEN it is not opened in another."""
    monkeypatch.setattr(overlay, "filesystem_uuid", lambda _: None)
    lower = clones(True)
    on = overlaid(tmp_path / "on", f"lowerdir={lower[0]}:{lower[1]},xino=off")
    assert (on / "a").stat().st_ino == (on / "b").stat().st_ino
    _watch(puppet, on / "b")
    subprocess.run(["umount", lower[1]], check=True)
    lower[1].rmdir()
    assert kernel.by_told_handles(puppet.pid) == [_NOWHERE]


def _has_uuid(where: Path) -> bool:
    folder = os.open(where, os.O_RDONLY)
    try:
        return filesystem_uuid(folder) is not None
    finally:
        os.close(folder)


def _told_handles(kernel: Kernel, puppet: Puppet) -> bool:
    """Whether handles of an overlay have those of its layers in them; before Linux 6.6 not all."""
    handles = [read_handles(puppet.pid, one.fd) for one in kernel.sought(puppet.pid)]
    real = [real_handle(one) for told in handles for one in told.values()]
    return all(handles) and None not in real


def test_an_overlay_below_another_mount_has_no_path(
    kernel: Kernel,
    puppet: Puppet,
    mounted: Callable[..., Path],
    overlaid: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """GIVEN that at the path of its file there is one of another filesystem with that number."""
    layer, point = mounted(), tmp_path / "point"
    for folder in (layer / "lower", layer / "other", layer / "lower" / "folder", point):
        folder.mkdir()
    on = overlaid(point / "on", f"lowerdir={layer}/lower:{layer}/other")
    watched = on / "folder"
    _watch(puppet, watched)
    number = watched.stat().st_ino
    assert kernel.by_names(puppet.pid) == [_at(watched, How.DENTRY)]
    subprocess.run(["mount", "-t", "tmpfs", "inotrace-test", point], check=True)
    try:
        on.mkdir()
        watched.mkdir()
        # a tmpfs numbers one after the other
        while watched.stat().st_ino < number:
            watched.rmdir()
            watched.mkdir()
        assert watched.stat().st_ino == number
        assert kernel.by_names(puppet.pid) == [_NOWHERE]
        assert kernel.by_told_handles(puppet.pid) == [_NOWHERE]
    finally:
        subprocess.run(["umount", point], check=True)


# --- descriptors ---


def test_more_filesystems_than_folders_can_be_open(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path]
) -> None:
    disks = [mounted() for _ in range(71)]
    for disk in disks:
        (disk / "below").mkdir()
    _watch(puppet, *(disk / "below" for disk in disks), *disks)
    with _descriptors(69):
        found = kernel.by_told_handles(puppet.pid)
    expected = [*(disk / "below" for disk in disks), *disks]
    assert found == [_at(path, How.HANDLE) for path in expected]


def test_overlays_of_more_layers_than_folders_can_be_open(
    kernel: Kernel,
    puppet: Puppet,
    mounted: Callable[..., Path],
    overlaid: Callable[..., Path],
    tmp_path: Path,
) -> None:
    disk = mounted()
    layers = [disk / f"{at}" for at in range(23)]
    for at, layer in enumerate(layers):
        (layer / f"in-{at}").mkdir(parents=True)
    lower = ":".join(f"{layer}" for layer in layers)
    points = [overlaid(tmp_path / f"on-{at}", f"lowerdir={lower}") for at in range(3)]
    _watch(puppet, *(point / "in-17" for point in points))
    expected = [_at(point / "in-17", How.OVERLAY) for point in points]
    if not _told_handles(kernel, puppet):
        pytest.skip("this kernel does not tell the handles of overlays")
    with _descriptors(17):
        assert kernel.by_told_handles(puppet.pid) == expected


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


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_bind_mount_of_what_was_deleted(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path], tmp_path: Path, is_folder: bool
) -> None:
    """GIVEN a file that was replaced where it is from, as those of containers are."""
    disk, point = mounted(), tmp_path / "point"
    make = Path.mkdir if is_folder else Path.touch
    make(disk / "old")
    make(point)
    subprocess.run(["mount", "--bind", disk / "old", point], check=True)
    try:
        _watch(puppet, point)
        (disk / "old").rmdir() if is_folder else (disk / "old").unlink()
        make(disk / "old")
        (found,) = kernel.by_names(puppet.pid)
        assert found.path == os.fsencode(point)
    finally:
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


def test_who_sees_a_path_is_told_where_the_first_holder_does_not(
    inotrace: Callable[..., Inotrace], tmp_path: Path
) -> None:
    """GIVEN a holder that changed its root after a fork THEN the path is its child's."""
    jail, outside = tmp_path / "jail", tmp_path / "outside"
    for folder in (jail, outside, jail / str(outside)[1:]):
        folder.mkdir(parents=True)
    script = "import ctypes, os, sys; libc = ctypes.CDLL(None)\n"
    script += f"libc.inotify_add_watch(libc.inotify_init1(0), {os.fsencode(outside)!r}, 2)\n"
    script += "child = os.fork()\n"
    script += f"if child: print(child, flush=True); os.chroot({str(jail)!r}); os.chdir('/')\n"
    script += f"if child: {STAY}\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.stdout.readline()
        (watch,) = inotrace("ls", "-f", "json", process.pid).report()["watches"]
        tree = inotrace("ls", "--tree", process.pid).out.rest().decode()
        process.communicate()

    assert (watch["pid"], watch["path"], watch["path_pid"]) == (process.pid, str(outside), child)
    assert f"{outside}  IN_MODIFY  as process {child} sees it" in tree


def test_a_holder_whose_first_thread_has_ended(kernel: Kernel, tmp_path: Path) -> None:
    """GIVEN a namespace that only its other thread can tell of."""
    system_exit = {"x86_64": 60, "aarch64": 93}.get(os.uname().machine)
    if system_exit is None:
        pytest.skip("the number of exit(2) is not known here")
    script = (
        "import ctypes, os, sys, threading, time; libc = ctypes.CDLL(None)\n"
        f"libc.inotify_add_watch(libc.inotify_init1(0), {os.fsencode(tmp_path)!r}, 2)\n"
        "def run():\n"
        "    while not open(f'/proc/{os.getpid()}/stat').read().rpartition(')')[2][1] == 'Z':\n"
        "        time.sleep(0.01)\n"
        "    print(flush=True); sys.stdin.read(); os._exit(0)\n"
        "threading.Thread(target=run).start()\n"
        f"libc.syscall({system_exit}, 0)"
    )
    command = ["unshare", "--mount", sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        holder.stdout.readline()
        assert kernel.by_names(holder.pid) == [_at(tmp_path, How.DENTRY)]
        holder.stdin.close()


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


def test_what_is_below_a_deleted_folder_has_no_names(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path]
) -> None:
    """GIVEN names that the kernel keeps while they are in use, deleted ones too."""
    disk = mounted()
    (disk / "folder").mkdir()
    (disk / "file").touch()
    opened = [puppet.ok("open", disk / name) for name in ("folder", "file")]
    _watch(puppet, disk, disk / "folder", disk / "file")
    watched = kernel.sought(puppet.pid)
    names = [DentryNames(b"/", name) for name in (b"", b"folder", b"file")]
    assert [kernel.names_of(one.inode) for one in watched] == names
    (disk / "folder").rmdir()
    (disk / "file").unlink()
    assert [kernel.names_of(one.inode) for one in watched] == [names[0], None, None]
    for fd in opened:
        puppet.ok("close", fd)


def _opened(closing: ExitStack, name: bytes, folder: int | None = None) -> int:
    opened = os.open(name, os.O_RDONLY, dir_fd=folder)
    closing.callback(os.close, opened)
    return opened


def test_a_path_that_no_call_takes_is_not_given(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path]
) -> None:
    """GIVEN paths of 4,095 and 4,096 bytes, which were watched without them."""
    path = os.fsencode(mounted())
    with ExitStack() as closing:
        folder = _opened(closing, path)
        while len(path) < 3850:
            name = b"n" * 200
            path += b"/" + name
            os.mkdir(name, dir_fd=folder)
            folder = _opened(closing, name, folder)
        fd, last = puppet.ok("init"), b"n" * (4095 - len(path) - 1)
        for name in (last, last + b"n"):
            os.mkdir(name, dir_fd=folder)
            opened = _opened(closing, name, folder)
            puppet.ok("add", fd, Path(f"/proc/{os.getpid()}/fd/{opened}"))
    short = path + b"/" + last
    assert len(short) == 4095
    assert kernel.by_names(puppet.pid) == [_at(short, How.DENTRY), _NOWHERE]
    assert kernel.by_told_handles(puppet.pid) == [_at(short, How.HANDLE), _NOWHERE]


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
    (found,) = _places([Locator(lambda _: wrong).locate(sought)])
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
    found = _places(Locator(kernel.names_of).locate_all(sought[::-1]))[::-1]
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
