"""Where watches are for holders in namespaces, with other roots, and below other mounts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest
from harness import STAY, Inotrace, Puppet, compiled
from locating import NOWHERE, Kernel, located, watch

from tracer.kernel.inodes import DentryNames
from tracer.targets.locate import How

pytestmark = [pytest.mark.usefixtures("root"), pytest.mark.kernels]
pytest_plugins = ("locating_fixtures",)


def test_a_bind_mount(kernel: Kernel, puppet: Puppet, bound: Path, folders: list[Path]) -> None:
    (bound / "below").mkdir()
    watch(puppet, bound / "below")
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
        watch(puppet, point)
        assert kernel.by_names(puppet.pid) == [located(point, How.DENTRY)]
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
        watch(puppet, point)
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
    watch(puppet, disk / "below")
    subprocess.run(["mount", "-t", "tmpfs", "inotrace-test", disk / "below"], check=True)
    try:
        assert kernel.by_names(puppet.pid) == [NOWHERE]
        assert kernel.by_told_handles(puppet.pid) == [NOWHERE]
    finally:
        subprocess.run(["umount", disk / "below"], check=True)


def test_what_is_lazily_unmounted_has_no_path(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path]
) -> None:
    """GIVEN names that the kernel still has THEN they are no path of anybody."""
    disk = mounted()
    (disk / "file").touch()
    puppet.ok("open", disk / "file")
    watch(puppet, disk / "file")
    subprocess.run(["umount", "--lazy", disk], check=True)

    (sought,) = kernel.sought(puppet.pid)
    assert kernel.names_of(sought.inode) == DentryNames(b"/", b"file")
    assert kernel.by_names(puppet.pid) == [NOWHERE]
    assert kernel.by_told_handles(puppet.pid) == [NOWHERE]


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
    watch(puppet, disk, disk / "below", tmp_path)
    paths = (disk, disk / "below", tmp_path)
    assert kernel.by_names(puppet.pid) == [located(path, How.DENTRY) for path in paths]
    assert kernel.by_told_handles(puppet.pid) == [located(path, How.HANDLE) for path in paths]
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
    watch(puppet, Path("/"), Path("/below/folder"))
    paths = (b"/", b"/below/folder")
    assert kernel.by_names(puppet.pid) == [located(path, How.DENTRY) for path in paths]
    assert kernel.by_told_handles(puppet.pid) == [located(path, How.HANDLE) for path in paths]


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
        assert kernel.by_names(holder.pid) == [located(tmp_path, How.DENTRY)]
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
        assert kernel.by_names(process.pid) == [NOWHERE]
        assert kernel.by_told_handles(process.pid) == [NOWHERE]
        process.communicate()
