"""Where watches are, on real filesystems: every path found leads there."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Callable

import pytest
from agreement import Case
from harness import Puppet, environment
from locating import NOWHERE, Kernel, descriptors, located, places, watch
from privileges import limited

from tracer.core.walk import Inode
from tracer.kernel.inodes import DentryNames
from tracer.targets.locate import How, Locator

pytestmark = [pytest.mark.usefixtures("root"), pytest.mark.kernels]
pytest_plugins = ("locating_fixtures",)

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


# --- one way after the other ---


def test_each_way_finds_files_and_folders(
    kernel: Kernel, puppet: Puppet, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """GIVEN the filesystem of temporary files WHEN a way is not there THEN the next one is used."""
    folder, file = tmp_path / "folder", tmp_path / "folder" / "file"
    folder.mkdir()
    file.touch()
    watch(puppet, folder, file)
    passed = os.fsencode(folder)

    found = kernel.by_names(puppet.pid, passed)
    assert found == [located(folder, How.TRACED), located(file, How.DENTRY)]
    assert kernel.by_names(puppet.pid) == [located(folder, How.DENTRY), located(file, How.DENTRY)]
    assert kernel.by_told_handles(puppet.pid) == [
        located(folder, How.HANDLE),
        located(file, How.HANDLE),
    ]
    request.getfixturevalue("refused")
    assert kernel.by_told_handles(puppet.pid)[0].how in (How.SEARCH, How.UNRESOLVED)


def test_handles_are_made_where_their_format_is_certain(
    kernel: Kernel, puppet: Puppet, folders: list[Path], mounted: Callable[..., Path]
) -> None:
    """GIVEN that fdinfo cannot be read WHEN it was once, for which a tmpfs made handles."""
    disk = mounted()
    (disk / "below").mkdir()
    watch(puppet, folders[0], disk / "below")
    kernel.by_told_handles(puppet.pid)

    of_folder, of_disk = kernel.by_made_handles(puppet.pid)
    kind = subprocess.check_output(["stat", "-f", "-c", "%T", folders[0]], text=True)
    if kind.strip() == "ext2/ext3":
        assert of_folder == located(folders[0], How.HANDLE)
    assert of_disk == located(disk / "below", How.SEARCH)


def test_a_small_filesystem_is_searched(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path], refused: None
) -> None:
    disk = mounted()
    deep = disk / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    watch(puppet, disk, deep, deep / "file")
    expected = [located(path, How.SEARCH) for path in (disk, deep, deep / "file")]
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
    watch(puppet, old)
    (sought,) = kernel.sought(puppet.pid)
    if is_told:
        sought = sought._replace(inode=sought.inode._replace(address=0, generation=0))
    (found,) = places([Locator(state_of=kernel.state_of).locate(sought)])
    assert found == located(old, How.SEARCH)
    old.rmdir()
    made = [folders[0] / str(at) for at in range(503)]
    for new in made:
        new.mkdir()
    if sought.inode.ino not in {new.stat().st_ino for new in made}:
        pytest.skip("the filesystem of temporary files does not use numbers again")
    assert Locator(state_of=kernel.state_of).locate(sought) == NOWHERE


# --- filesystems ---


def test_several_tmpfs_whose_roots_are_all_inode_1(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path]
) -> None:
    disks = [mounted() for _ in range(5)]
    for disk in disks:
        (disk / "below").mkdir()
    watch(puppet, *disks, *(disk / "below" for disk in disks))
    paths = [*disks, *(disk / "below" for disk in disks)]
    assert len({one.inode.ino for one in kernel.sought(puppet.pid)[:5]}) == 1
    assert kernel.by_names(puppet.pid) == [located(path, How.DENTRY) for path in paths]
    assert kernel.by_told_handles(puppet.pid) == [located(path, How.HANDLE) for path in paths]


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
    watch(puppet, where)
    (found,) = kernel.by_names(puppet.pid)
    assert found == located(where, How.DENTRY)


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
        watch(puppet, group, group / "cgroup.procs")
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


# --- descriptors ---


def test_more_filesystems_than_folders_can_be_open(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path]
) -> None:
    disks = [mounted() for _ in range(71)]
    for disk in disks:
        (disk / "below").mkdir()
    watch(puppet, *(disk / "below" for disk in disks), *disks)
    with descriptors(69):
        found = kernel.by_told_handles(puppet.pid)
    expected = [*(disk / "below" for disk in disks), *disks]
    assert found == [located(path, How.HANDLE) for path in expected]


# --- names ---


def test_a_renamed_target_has_its_new_path(
    kernel: Kernel, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN one that was renamed, and one whose folder was."""
    (folders[1] / "below").mkdir()
    watch(puppet, folders[0], folders[1] / "below")
    renamed = [folder.with_name(f"renamed-{folder.name}") for folder in folders[:2]]
    for folder, new in zip(folders, renamed):
        folder.rename(new)
    paths = (renamed[0], renamed[1] / "below")
    passed = os.fsencode(folders[0])
    assert kernel.by_names(puppet.pid, passed) == [located(path, How.DENTRY) for path in paths]
    assert kernel.by_told_handles(puppet.pid) == [located(path, How.HANDLE) for path in paths]


def test_a_deleted_target_has_no_path_even_if_another_took_its_name(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path]
) -> None:
    """GIVEN a file that is open, and then a file called as the kernel shows deleted ones."""
    file = mounted() / "file"
    file.touch()
    opened = puppet.ok("open", file)
    watch(puppet, file)
    file.unlink()
    assert kernel.by_names(puppet.pid) == [NOWHERE]
    for name in ("file", "file (deleted)"):
        file.with_name(name).touch()
    passed = os.fsencode(file)
    assert kernel.by_names(puppet.pid, passed) == [NOWHERE]
    assert kernel.by_told_handles(puppet.pid) == [NOWHERE]
    puppet.ok("close", opened)


def test_what_is_below_a_deleted_folder_has_no_names(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path]
) -> None:
    """GIVEN names that the kernel keeps while they are in use, deleted ones too."""
    disk = mounted()
    (disk / "folder").mkdir()
    (disk / "file").touch()
    opened = [puppet.ok("open", disk / name) for name in ("folder", "file")]
    watch(puppet, disk, disk / "folder", disk / "file")
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
    assert kernel.by_names(puppet.pid) == [located(short, How.DENTRY), NOWHERE]
    assert kernel.by_told_handles(puppet.pid) == [located(short, How.HANDLE), NOWHERE]


def test_a_path_that_changed_is_never_given(
    kernel: Kernel, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN names that are of a moment ago, as after a rename between reading and checking."""
    (folders[0] / "file").touch()
    (folders[1] / "file").touch()
    watch(puppet, folders[0] / "file")
    (sought,) = kernel.sought(puppet.pid)
    stale = kernel.names_of(sought.inode)
    assert stale is not None
    wrong = stale._replace(folder=stale.folder[:-1] + b"1")
    (found,) = places([Locator(lambda _: wrong).locate(sought)])
    assert found == located(folders[0] / "file", How.HANDLE)


def test_the_inode_before_in_the_same_memory_has_no_names(
    kernel: Kernel, puppet: Puppet, folders: list[Path]
) -> None:
    watch(puppet, folders[0])
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
    watch(puppet, one)
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
    watch(puppet, path)
    assert kernel.by_names(puppet.pid) == [located(path, How.DENTRY)]
    assert kernel.by_told_handles(puppet.pid) == [located(path, How.HANDLE)]


def test_mount_points_with_names_of_any_bytes(
    kernel: Kernel, puppet: Puppet, tmp_path: Path
) -> None:
    where = os.path.join(os.fsencode(tmp_path), b"a\nb \\040 \xff#")
    os.mkdir(where)
    subprocess.run(["mount", "-t", "tmpfs", "inotrace-test", where], check=True)
    try:
        watch(puppet, where)
        assert kernel.by_names(puppet.pid) == [located(where, How.DENTRY)]
        assert kernel.by_told_handles(puppet.pid) == [located(where, How.HANDLE)]
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
    watch(puppet, *paths)
    sought = kernel.sought(puppet.pid)
    assert len(sought) == 1009 + 211
    found = places(Locator(kernel.names_of).locate_all(sought[::-1]))[::-1]
    assert found == [located(path, How.DENTRY) for path in paths]


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
