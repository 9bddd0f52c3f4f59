"""What became of watched targets, each of them really deleted, unmounted or handed on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from harness import Puppet, compiled, kernel_watches, until

from tracer.core.events import Process
from tracer.core.walk import Inode, WalkedInstance
from tracer.kernel.inodes import Inodes
from tracer.kernel.probe import Probe, Scope
from tracer.kernel.procfs import birth_ticks, read_process
from tracer.kernel.walk import KernelList
from tracer.targets.fate import Fate, Fates
from tracer.targets.pods import Pods
from tracer.targets.processes import ProcessTable

pytestmark = [pytest.mark.usefixtures("root"), pytest.mark.kernels]

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_UID = "5325873d-0b1c-4b6e-9d5c-0123456789ab"
_MOUNT = "mount -t tmpfs inotrace-test"
# says that it is there, and stays until its standard input ends


class Kernel:
    """What the kernel's own list says of watches, and what becomes of them."""

    def __init__(self, probe: Probe) -> None:
        self._list = KernelList(probe.bpf)
        self._inodes = Inodes(probe.bpf)

    def watched(self, pid: int) -> list[Inode]:
        """What a process watches, in the order in which it was added."""
        rows = [
            (wd, watch.inode)
            for walked in self._list.walk().instances.values()
            if _is_held(walked, pid)
            for wd, watch in walked.watches or ()
        ]
        return [inode for _, inode in sorted(rows)]

    def fate(
        self,
        pid: int,
        path: Path | None,
        at: int = 0,
        adder: Process | None = None,
        pods: Pods | None = None,
    ) -> Fate:
        """Of the watch that a process added at that place in order."""
        passed = os.fsencode(path) if path else None
        inode = self.watched(pid)[at]
        holders = (_process(pid),)
        return Fates(self._inodes.state, pods).of(adder or holders[0], passed, inode, holders)

    def close(self) -> None:
        self._list.close()


def _is_held(walked: WalkedInstance, pid: int) -> bool:
    return any(holder.process.pid == pid for holder in walked.holders)


def _process(pid: int) -> Process:
    ticks = birth_ticks(pid)
    assert ticks is not None
    return Process(pid, ticks * _TICK_NS)


@pytest.fixture(scope="module")
def kernel(root: None) -> Iterator[Kernel]:
    with Probe(Scope()) as probe:
        kernel = Kernel(probe)
        yield kernel
        kernel.close()


def _watch(puppet: Puppet, *targets: Path) -> None:
    fd = puppet.ok("init")
    for target in targets:
        puppet.ok("add", fd, target)


# --- deleted and moved ---


def test_a_target_that_is_there(kernel: Kernel, puppet: Puppet, folders: list[Path]) -> None:
    _watch(puppet, folders[0])
    assert kernel.fate(puppet.pid, folders[0]) is Fate.THERE
    assert kernel.fate(puppet.pid, None) is Fate.THERE


def test_a_deleted_file_that_is_open(kernel: Kernel, puppet: Puppet, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    puppet.ok("open", file)
    _watch(puppet, file)
    file.unlink()
    assert kernel.fate(puppet.pid, file) is Fate.DELETED
    assert kernel.fate(puppet.pid, None) is Fate.DELETED

    file.touch()
    assert kernel.fate(puppet.pid, file) is Fate.DELETED


def test_a_renamed_folder(kernel: Kernel, puppet: Puppet, folders: list[Path]) -> None:
    _watch(puppet, folders[0])
    folders[0].rename(folders[0].with_name("renamed"))
    assert kernel.fate(puppet.pid, folders[0]) is Fate.MOVED
    assert kernel.fate(puppet.pid, folders[0].with_name("renamed")) is Fate.THERE


def test_a_file_with_another_link(kernel: Kernel, puppet: Puppet, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    _watch(puppet, file)
    os.link(file, tmp_path / "link")
    file.unlink()
    assert kernel.fate(puppet.pid, file) is Fate.MOVED


# --- unmounted and unreachable ---


def test_a_lazily_unmounted_filesystem_that_an_open_file_keeps(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path]
) -> None:
    disk = mounted()
    (disk / "file").touch()
    puppet.ok("open", disk / "file")
    _watch(puppet, disk)
    assert kernel.fate(puppet.pid, disk) is Fate.THERE

    subprocess.run(["umount", "--lazy", disk], check=True)
    assert kernel.fate(puppet.pid, disk) is Fate.UNMOUNTED
    assert kernel.fate(puppet.pid, None) is Fate.UNMOUNTED


def test_a_filesystem_that_another_namespace_keeps(
    kernel: Kernel,
    puppet: Puppet,
    mounted: Callable[..., Path],
    stay: Callable[..., subprocess.Popen[bytes]],
) -> None:
    """GIVEN a namespace made while it was mounted WHEN its holder unmounts it."""
    disk = mounted()
    _watch(puppet, disk)
    other = stay("unshare", "--mount", "--propagation", "private")
    assert kernel.fate(puppet.pid, disk) is Fate.THERE

    subprocess.run(["umount", disk], check=True)
    assert kernel.fate(puppet.pid, disk) is Fate.UNREACHABLE
    assert kernel.fate(puppet.pid, None) is Fate.UNREACHABLE
    # who holds it too has it mounted
    fate = Fates(kernel._inodes.state).of(
        _process(puppet.pid), None, kernel.watched(puppet.pid)[0], [_process(other.pid)]
    )
    assert fate is Fate.THERE

    other.communicate()
    until(lambda: not kernel.watched(puppet.pid), "the end of the filesystem")


def test_a_filesystem_that_a_namespace_without_a_process_keeps(
    kernel: Kernel, puppet: Puppet, mounted: Callable[..., Path], tmp_path: Path
) -> None:
    """GIVEN a namespace that only a bind mount holds THEN nobody can know that it is mounted."""
    disk = mounted()
    _watch(puppet, disk)
    kept = tmp_path / "kept"
    kept.mkdir()
    subprocess.run(["mount", "--bind", "--make-private", kept, kept], check=True)
    try:
        subprocess.run(["mount", "--make-private", kept], check=True)
        (kept / "namespace").touch()
        command = ["unshare", f"--mount={kept}/namespace", "--propagation", "private", "true"]
        subprocess.run(command, check=True)
        subprocess.run(["umount", disk], check=True)
        assert kernel.fate(puppet.pid, disk) is Fate.UNREACHABLE
    finally:
        subprocess.run(["umount", kept / "namespace"])
        subprocess.run(["umount", kept], check=True)


def test_a_bind_mount_that_is_gone(kernel: Kernel, puppet: Puppet, bound: Path) -> None:
    """GIVEN that what it led to is still where it is from."""
    _watch(puppet, bound)
    assert kernel.fate(puppet.pid, bound) is Fate.THERE
    subprocess.run(["umount", bound], check=True)
    assert kernel.fate(puppet.pid, bound) is Fate.MOVED


def test_a_mount_that_hides_it(
    kernel: Kernel, puppet: Puppet, folders: list[Path], tmp_path: Path
) -> None:
    _watch(puppet, folders[0])
    subprocess.run(["mount", "-t", "tmpfs", "inotrace-test", folders[0]], check=True)
    try:
        assert kernel.fate(puppet.pid, folders[0]) is Fate.MOVED
    finally:
        subprocess.run(["umount", folders[0]], check=True)


# --- other roots ---


@pytest.fixture
def jailed(start_puppet: Callable[..., Puppet], tmp_path: Path) -> tuple[Puppet, Path]:
    """A puppet with a root of its own, and that root."""
    jail = tmp_path / "jail"
    for name in ("below/folder", "elsewhere"):
        (jail / name).mkdir(parents=True)
    try:
        compiled("puppet", jail / "puppet", "-static", "-pthread")
    except subprocess.CalledProcessError:
        pytest.skip("no static C library")
    return start_puppet(b"/puppet", preexec_fn=lambda: os.chroot(jail)), jail


def test_a_holder_with_another_root(kernel: Kernel, jailed: tuple[Puppet, Path]) -> None:
    """GIVEN a mount table without what its root is on WHEN it watches there by its own paths."""
    puppet, jail = jailed
    (jail / "link").symlink_to("/below")
    folder = Path("/below/folder")
    _watch(puppet, folder)
    assert kernel.fate(puppet.pid, folder) is Fate.THERE
    assert kernel.fate(puppet.pid, Path("/link/folder")) is Fate.THERE
    assert kernel.fate(puppet.pid, Path("/../../link/../below/folder")) is Fate.THERE
    assert kernel.fate(puppet.pid, None) is Fate.THERE

    (jail / "below" / "folder").rename(jail / "elsewhere" / "folder")
    assert kernel.fate(puppet.pid, folder) is Fate.MOVED
    assert kernel.fate(puppet.pid, Path("/link/folder")) is Fate.MOVED


def test_a_holder_in_another_namespace(
    kernel: Kernel, start_puppet: Callable[..., Puppet], puppet_program: Path, tmp_path: Path
) -> None:
    """GIVEN a filesystem that only its holder has mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    program = tmp_path / "program"
    program.write_text(
        "#!/bin/sh\n"
        f"exec unshare --mount --propagation private sh -c '{_MOUNT} {disk} && "
        f"mkdir {disk}/below && exec {puppet_program}'\n"
    )
    program.chmod(0o755)
    puppet = start_puppet(program)
    _watch(puppet, disk / "below")
    assert kernel.fate(puppet.pid, disk / "below") is Fate.THERE
    assert not (disk / "below").exists()


def test_a_path_through_the_root_of_another_process(
    kernel: Kernel, puppet: Puppet, stay: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """GIVEN a filesystem that the holder does not have, but reaches by a link of /proc."""
    disk = tmp_path / "disk"
    disk.mkdir()
    script = f'{_MOUNT} {disk} && exec "$@"'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    other = stay(*command)
    watched = Path(f"/proc/{other.pid}/root{disk}")
    _watch(puppet, watched)
    assert kernel.fate(puppet.pid, watched) is Fate.UNKNOWN


# --- pods and cgroups ---


def test_a_pod_whose_folder_is_gone(
    kernel: Kernel, puppet: Puppet, tmp_path: Path, stay: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """
    GIVEN its secret mounted elsewhere in another namespace WHEN the kubelet cleaned up.

    Removing the folder of a mount takes it out of every namespace, see detach_mounts() in
    fs/namespace.c.
    """
    pod = tmp_path / "kubelet" / "pods" / _UID
    secret, kept = pod / "volumes" / "kubernetes.io~secret" / "token", tmp_path / "kept"
    for folder in (secret, kept):
        folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "inotrace-test", secret], check=True)
    try:
        _watch(puppet, secret)
        script = f'mount --bind {secret} {kept} && exec "$@"'
        stay("unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh")
        assert kernel.fate(puppet.pid, secret) is Fate.THERE
    finally:
        subprocess.run(["umount", secret], check=True)
    assert kernel.fate(puppet.pid, secret) is Fate.UNREACHABLE

    for folder in (secret, *list(secret.parents)[:3]):
        folder.rmdir()
    assert not pod.exists()
    assert kernel.fate(puppet.pid, secret) is Fate.POD_REMOVED
    assert kernel.fate(puppet.pid, None) is Fate.UNREACHABLE


@pytest.fixture(params=["cgroup2", "memory", "pids"])
def cgroups(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A hierarchy of the second version, or of a controller in the first."""
    hierarchy = tmp_path / "hierarchy"
    hierarchy.mkdir()
    kind = ["cgroup2"] if request.param == "cgroup2" else ["cgroup", "-o", request.param]
    command = ["mount", "-t", *kind, "none", hierarchy]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip(f"cannot mount {kind}")
    yield hierarchy
    subprocess.run(["umount", hierarchy], check=True)


def test_a_removed_cgroup(kernel: Kernel, puppet: Puppet, cgroups: Path) -> None:
    """GIVEN a kernel that leaves its watches in place."""
    group = cgroups / f"inotrace-test-{os.getpid()}"
    group.mkdir()
    try:
        fd = puppet.ok("init")
        puppet.ok("add", fd, group)
        puppet.ok("add", fd, group / "cgroup.procs", 2)
        assert kernel.fate(puppet.pid, group) is Fate.THERE
        assert kernel.fate(puppet.pid, group / "cgroup.procs", 1) is Fate.THERE
    finally:
        group.rmdir()
    if not kernel_watches(puppet.pid, fd):
        pytest.skip("this kernel takes the watches of a removed cgroup")
    for at, path in enumerate((group, group / "cgroup.procs")):
        assert kernel.fate(puppet.pid, path, at) is Fate.CGROUP_REMOVED

    group.mkdir()
    try:
        assert kernel.fate(puppet.pid, group) is Fate.CGROUP_REMOVED
    finally:
        group.rmdir()


@pytest.mark.parametrize("has_folder", [False, True])
def test_the_removed_cgroup_of_a_pod(
    kernel: Kernel, puppet: Puppet, cgroups: Path, tmp_path: Path, has_folder: bool
) -> None:
    """GIVEN a kubelet that has another pod WHEN one goes, or only ended and keeps its folder."""
    for uid in (_UID if has_folder else "", "0" * 32):
        (tmp_path / "kubelet" / "pods" / uid).mkdir(parents=True)
    kubelet = Pods(kubelet=os.fsencode(tmp_path / "kubelet"))
    name = f"kubepods-besteffort-pod{_UID.replace('-', '_')}.slice"
    pods = cgroups / f"inotrace-kubepods-{os.getpid()}"
    group = pods / name
    group.mkdir(parents=True)
    try:
        fd = puppet.ok("init")
        puppet.ok("add", fd, group)
        group.rmdir()
        if not kernel_watches(puppet.pid, fd):
            pytest.skip("this kernel takes the watches of a removed cgroup")
        expected = Fate.CGROUP_REMOVED if has_folder else Fate.POD_REMOVED
        assert kernel.fate(puppet.pid, group, pods=kubelet) is expected
    finally:
        pods.rmdir()


def test_the_folder_of_a_process_that_ended(
    kernel: Kernel, puppet: Puppet, stay: Callable[..., subprocess.Popen[bytes]]
) -> None:
    other = stay("env")
    watched = Path(f"/proc/{other.pid}/fdinfo")
    _watch(puppet, watched)
    assert kernel.fate(puppet.pid, watched) in (Fate.THERE, Fate.UNKNOWN)
    other.communicate()
    if kernel.watched(puppet.pid):
        assert kernel.fate(puppet.pid, watched) is Fate.PATH_GONE


# --- who has ended ---


def test_who_added_it_has_ended(kernel: Kernel, puppet: Puppet, folders: list[Path]) -> None:
    """GIVEN an instance that a child inherited WHEN its parent has ended THEN the child sees."""
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0])
    adder = _process(puppet.pid)
    child = puppet.ok("orphan")
    until(lambda: _has_ended(adder), "its end")
    assert kernel.fate(child, folders[0], adder=adder) is Fate.THERE
    folders[0].rename(folders[0].with_name("renamed"))
    assert kernel.fate(child, folders[0], adder=adder) is Fate.MOVED


def _has_ended(process: Process) -> bool:
    """Also of one that nobody waited for yet."""
    if birth_ticks(process.pid) != process.birth // _TICK_NS:
        return True
    try:
        return b") Z " in Path(f"/proc/{process.pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return True


# --- orphans ---


def test_children_and_leaders_of_sessions_are_no_orphans(puppet: Puppet) -> None:
    """GIVEN a daemon that was met only when it led a session THEN its parent may be who began it"""
    table = ProcessTable()
    assert not table.is_orphan(_process(puppet.pid))
    child = puppet.ok("fork")
    assert not table.is_orphan(_process(child))

    puppet.ok("exit", 0)
    daemon = puppet.ok("orphan")
    facts = read_process(daemon)
    assert facts is not None and facts.session == daemon
    assert not table.is_orphan(_process(daemon))


_ORPHAN = """
import os, sys
if os.fork():
    sys.stdin.readline()
    os._exit(0)
print(os.getpid(), flush=True)
while sys.stdin.readline():
    pass
"""


def test_an_orphan_is_told_by_its_parent_or_its_session() -> None:
    """GIVEN a child left by its parent WHEN it was met before or only after that."""
    command = [sys.executable, "-c", _ORPHAN]
    family = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert family.stdin is not None and family.stdout is not None
    child = _process(int(family.stdout.readline()))
    met_before, met_after = ProcessTable(), ProcessTable()
    assert not met_before.is_orphan(child)

    # whichever of the two reads it: nothing else ends the parent
    os.kill(family.pid, 9)
    family.wait()
    until(lambda: getattr(read_process(child.pid), "parent", 0) != family.pid, "its new parent")
    assert met_before.is_orphan(child)
    assert met_after.is_orphan(child)

    family.stdin.close()
    family.stdout.read()
    family.stdout.close()
    until(lambda: _has_ended(child), "its end")
    assert met_before.is_orphan(child) and met_after.is_orphan(child)
    assert not ProcessTable().is_orphan(child._replace(birth=0))
