"""What became of the targets of live watches."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from test_path import this_process

from tracer.core.events import Process
from tracer.core.walk import Inode
from tracer.kernel.inodes import InodeState
from tracer.kernel.procfs import Mount, mounts_of
from tracer.targets import mounts
from tracer.targets.fate import Fate, Fates
from tracer.targets.mounts import kernel_device
from tracer.targets.pods import Pods, pod_folder

_ENDED = Process(1 << 22, 0)
_NOWHERE = 0xFFFFFFF
_UID = "5325873d-0b1c-4b6e-9d5c-0123456789ab"
_STATIC = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path.resolve() / "folder"
    folder.mkdir()
    return folder


def inode_of(where: Path) -> Inode:
    found = where.lstat()
    return Inode(0xFFFF888100000000, found.st_ino, kernel_device(found), 7)


def _fate(
    where: Path | None,
    inode: Inode | None,
    state: InodeState = InodeState.UNKNOWN,
    adder: Process | None = None,
    *holders: Process,
) -> Fate:
    passed = os.fsencode(where) if where else None
    return Fates(lambda _: state).of(adder or this_process(), passed, inode, holders)


@pytest.mark.parametrize("state", list(InodeState))
def test_what_its_path_leads_to_is_there(folder: Path, state: InodeState) -> None:
    assert _fate(folder, inode_of(folder), state) is Fate.THERE


def test_without_links_it_was_deleted(folder: Path) -> None:
    inode = inode_of(folder)
    folder.rmdir()
    assert _fate(folder, inode, InodeState.DELETED) is Fate.DELETED
    assert _fate(None, inode, InodeState.DELETED) is Fate.DELETED


def test_a_file_that_replaces_it_is_another(folder: Path) -> None:
    inode = inode_of(folder)._replace(ino=1)
    assert _fate(folder, inode, InodeState.DELETED) is Fate.DELETED
    assert _fate(folder, inode, InodeState.LINKED) is Fate.MOVED
    assert _fate(folder, inode) is Fate.UNKNOWN


def test_what_has_a_link_elsewhere_is_not_gone(folder: Path) -> None:
    inode = inode_of(folder)
    folder.rename(folder.with_name("renamed"))
    assert _fate(folder, inode, InodeState.LINKED) is Fate.MOVED


def test_of_a_path_that_leads_nowhere_no_more_may_be_known(folder: Path) -> None:
    """GIVEN a kernel that does not tell what became of an inode."""
    inode = inode_of(folder)
    folder.rmdir()
    assert _fate(folder, inode) is Fate.PATH_GONE
    assert _fate(folder, None) is Fate.PATH_GONE


@pytest.mark.parametrize("state", list(InodeState))
@pytest.mark.parametrize("adder", [None, _ENDED])
def test_a_filesystem_in_no_table_was_unmounted(
    folder: Path, state: InodeState, adder: Process | None
) -> None:
    inode = inode_of(folder)._replace(dev=_NOWHERE, ino=1)
    assert _fate(folder, inode, state, adder) is Fate.UNMOUNTED
    assert _fate(None, inode, state, adder) is Fate.UNMOUNTED


@pytest.mark.parametrize("adder", [_ENDED, this_process()._replace(birth=0)])
def test_of_who_has_ended_only_the_inode_tells(folder: Path, adder: Process) -> None:
    """GIVEN a process that has ended, its pid given to another or not."""
    inode = inode_of(folder)
    assert _fate(folder, inode, InodeState.LINKED, adder) is Fate.UNKNOWN
    assert _fate(folder / "none", inode, InodeState.UNKNOWN, adder) is Fate.UNKNOWN
    assert _fate(folder / "none", inode, InodeState.DELETED, adder) is Fate.DELETED


def test_another_holder_sees_for_who_has_ended(folder: Path) -> None:
    inode = inode_of(folder)
    assert _fate(folder, inode, InodeState.UNKNOWN, _ENDED, this_process()) is Fate.THERE
    folder.rename(folder.with_name("renamed"))
    assert _fate(folder, inode, InodeState.LINKED, _ENDED, this_process()) is Fate.MOVED


def test_without_a_path_a_link_is_enough(folder: Path) -> None:
    assert _fate(None, inode_of(folder), InodeState.LINKED) is Fate.THERE
    assert _fate(None, inode_of(folder), InodeState.UNKNOWN) is Fate.UNKNOWN
    assert _fate(None, None) is Fate.UNKNOWN


def test_a_relative_path_is_no_evidence(folder: Path) -> None:
    assert _fate(Path("none"), inode_of(folder), InodeState.UNKNOWN) is Fate.UNKNOWN
    assert _fate(Path("none"), None) is Fate.UNKNOWN


def test_pipes_and_memory_files_have_no_fate() -> None:
    """GIVEN a watch by a link of /proc/PID/fd: such have no mount, and no links by design."""
    memory = os.memfd_create("test")
    inode = Inode(1, 23, kernel_device(os.fstat(memory)), 7)
    for state in InodeState:
        assert _fate(Path(f"/proc/self/fd/{memory}"), inode, state) is Fate.UNKNOWN
    os.close(memory)


def test_only_some_fates_are_evidence() -> None:
    assert {fate for fate in Fate if not fate.is_gone} == {Fate.THERE, Fate.MOVED, Fate.UNKNOWN}


# --- pods ---


@pytest.mark.parametrize("part", ["volumes/kubernetes.io~secret/a", "containers", "etc-hosts"])
@pytest.mark.parametrize("state", list(InodeState))
def test_without_its_folder_a_pod_was_removed(folder: Path, part: str, state: InodeState) -> None:
    pods = folder / "kubelet" / "pods"
    pods.mkdir(parents=True)
    for uid in (_UID, _STATIC):
        watched = pods / uid / part
        assert _fate(watched, inode_of(folder), state) is Fate.POD_REMOVED
        # its filesystem went with it
        unmounted = inode_of(folder)._replace(dev=_NOWHERE)
        assert _fate(watched, unmounted, state) is Fate.POD_REMOVED


@pytest.mark.parametrize("state", list(InodeState))
@pytest.mark.parametrize(
    ("exists", "of_folder", "of_cgroup"),
    [
        (False, Fate.POD_REMOVED, Fate.POD_REMOVED),
        # what is told of the pod and of its watches must not disagree
        (True, Fate.UNMOUNTED, Fate.UNMOUNTED),
        # one that has ended has a folder, but no cgroup
        (None, Fate.POD_REMOVED, Fate.UNMOUNTED),
    ],
)
def test_only_a_pod_that_is_gone_was_removed(
    folder: Path, state: InodeState, exists: bool | None, of_folder: Fate, of_cgroup: Fate
) -> None:
    unmounted = inode_of(folder)._replace(dev=_NOWHERE)
    pods = _Pods(exists)
    for parent, part, fate in (
        ("kubelet/pods", f"{_UID}/volumes/a", of_folder),
        ("kubepods", f"pod{_UID}/cgroup.events", of_cgroup),
    ):
        (folder / parent).mkdir(parents=True)
        path = os.fsencode(folder / parent / part)
        fates = Fates(lambda _: state, pods)
        assert fates.of(this_process(), path, unmounted) is fate
    assert set(pods.asked) == {_UID}


class _Pods(Pods):
    def __init__(self, exists: bool | None) -> None:
        super().__init__()
        self._answer = exists
        self.asked: list[str] = []

    def exists(self, uid: str) -> bool | None:
        self.asked.append(uid)
        return self._answer


def test_a_pod_that_is_there_was_not_removed(folder: Path) -> None:
    watched = folder / "pods" / _UID / "volumes" / "a"
    watched.parent.mkdir(parents=True)
    assert _fate(watched, inode_of(folder), InodeState.DELETED) is Fate.DELETED


def test_without_the_folder_of_all_pods_nothing_is_known_of_one(folder: Path) -> None:
    """GIVEN a disk of the kubelet that is not mounted there."""
    watched = folder / "pods" / _UID / "volumes" / "a"
    assert _fate(watched, inode_of(folder), InodeState.LINKED) is Fate.MOVED


@pytest.mark.parametrize(
    ("path", "pod"),
    [
        (f"/var/lib/kubelet/pods/{_UID}/volumes/a/b", f"/var/lib/kubelet/pods/{_UID}"),
        (f"/k/pods/{_UID}/plugins", f"/k/pods/{_UID}"),
        (f"/k/pods/{_UID}/volumes-of-mine", None),
        (f"/k/pods/{_UID}/src", None),
        (f"/k/pods/{_UID}", None),
        (f"/k/pods/x{_UID}/volumes", None),
        ("/k/pods/backup/volumes", None),
        (f"/c/kubepods/burstable/pod{_UID}/x", f"/c/kubepods/burstable/pod{_UID}"),
        (f"/c/kubepods/pod{_STATIC}", f"/c/kubepods/pod{_STATIC}"),
        (
            f"/c/kubepods.slice/kubepods-pod{_UID.replace('-', '_')}.slice/cri-1.scope",
            f"/c/kubepods.slice/kubepods-pod{_UID.replace('-', '_')}.slice",
        ),
        (f"/c/pod{_UID}/x", None),
        (f"/c/pod{_UID}/kubepods", None),
    ],
)
def test_the_folder_of_a_pod_is_told_by_its_path(path: str, pod: str | None) -> None:
    assert pod_folder(path.encode()) == (pod.encode() if pod else None)


@pytest.mark.parametrize("part", [b"/pods/", b"pod", b"/kubepods", b"/pods/" + _UID.encode()])
def test_no_path_takes_long_to_tell_a_pod_by(part: bytes) -> None:
    began = time.thread_time()
    for _ in range(100):
        assert pod_folder(b"/" + part * (4096 // len(part))) is None
    assert time.thread_time() - began < 1


# --- kinds of filesystems ---


@pytest.mark.parametrize("state", [InodeState.LINKED, InodeState.UNKNOWN])
@pytest.mark.parametrize(
    ("kind", "fate"),
    [
        (b"cgroup2", Fate.CGROUP_REMOVED),
        (b"cgroup", Fate.CGROUP_REMOVED),
        (b"proc", Fate.PATH_GONE),
        (b"sysfs", Fate.PATH_GONE),
    ],
)
def test_where_links_stay_the_path_tells(
    folder: Path, kind: bytes, fate: Fate, state: InodeState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a kind that never counts the links of a folder down."""
    _mount_as(monkeypatch, kind, folder)
    watched = folder / "group" / "events"
    inode = inode_of(folder)._replace(dev=60)
    assert _fate(watched, inode, state) is fate
    # not where it is mounted
    assert _fate(folder.parent / "none", inode, state) is Fate.UNKNOWN
    # links say nothing
    assert _fate(None, inode, state) is Fate.UNKNOWN


@pytest.mark.parametrize("kind", [b"fuse.sshfs", b"nfs4"])
def test_what_a_server_says_of_links_is_not_believed(
    folder: Path, kind: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    _mount_as(monkeypatch, kind, folder)
    inode = inode_of(folder)._replace(dev=60)
    assert _fate(folder / "none", inode, InodeState.DELETED) is Fate.UNKNOWN
    assert _fate(folder / "none", inode, InodeState.LINKED) is Fate.THERE


def _mount_as(monkeypatch: pytest.MonkeyPatch, kind: bytes, where: Path) -> None:
    mount = Mount(60, kind, b"/", os.fsencode(where))
    monkeypatch.setattr(mounts, "mounts_of", lambda pid: [*mounts_of(pid), mount])
