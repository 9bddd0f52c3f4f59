"""The BPF iterator against /proc: two ways to read one list."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracer.core.walk import Walk, WalkedInstance
from tracer.kernel.fdinfo import read_watches
from tracer.kernel.probe import Probe, Scope
from tracer.kernel.walk import KernelList

pytestmark = pytest.mark.usefixtures("root")

_LIBC = ctypes.CDLL(None, use_errno=True)
_IN_CREATE, _IN_ALL_EVENTS = 0x100, 0xFFF
_CLONE_NEWUSER = 0x10000000
_IN_ONLYDIR, _IN_EXCL_UNLINK, _IN_ONESHOT = 0x01000000, 0x04000000, 0x80000000


@pytest.fixture(scope="module")
def kernel(root: None) -> Iterator[KernelList]:
    with Probe(Scope()) as probe:
        listed = KernelList(probe.bpf)
        yield listed
        listed.close()


@pytest.fixture
def instance() -> Iterator[int]:
    """An inotify instance of this process."""
    fd = _LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    assert fd >= 0
    yield fd
    os.close(fd)


def _add(fd: int, path: Path, mask: int) -> int:
    wd: int = _LIBC.inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint32(mask))
    assert wd > 0, os.strerror(ctypes.get_errno())
    return wd


def _folders(parent: Path, number: int) -> list[Path]:
    folders = [parent / str(i) for i in range(number)]
    for folder in folders:
        folder.mkdir()
    return folders


def _own(walk: Walk, fd: int) -> WalkedInstance:
    (walked,) = [
        walked
        for walked in walk.instances.values()
        if any((held.process.pid, held.fd) == (os.getpid(), fd) for held in walked.holders)
    ]
    return walked


def _by_iterator(kernel: KernelList, fd: int) -> dict[int, tuple[int, int, int]]:
    walked = _own(kernel.walk(), fd)
    assert walked.watches is not None
    return {wd: (watch.inode.ino, watch.inode.dev, watch.mask) for wd, watch in walked.watches}


def _by_fdinfo(fd: int) -> dict[int, tuple[int, int, int]]:
    watches = read_watches(os.getpid(), fd)
    assert watches is not None
    return {watch.wd: (watch.ino, watch.dev, watch.mask) for watch in watches}


@pytest.mark.kernels
def test_both_tell_the_same_inode_device_and_mask(
    kernel: KernelList, instance: int, tmp_path: Path
) -> None:
    masks = (
        _IN_CREATE,
        _IN_ALL_EVENTS,
        _IN_CREATE | _IN_ONESHOT,
        _IN_CREATE | _IN_EXCL_UNLINK,
        _IN_CREATE | _IN_ONLYDIR,
    )
    for folder, mask in zip(_folders(tmp_path, len(masks)), masks):
        _add(instance, folder, mask)
    _add(instance, Path("/proc"), _IN_CREATE)
    _add(instance, Path("/sys"), _IN_CREATE)

    assert _by_iterator(kernel, instance) == _by_fdinfo(instance)
    assert len(_by_fdinfo(instance)) == len(masks) + 2


@pytest.mark.kernels
def test_an_instance_without_watches_is_listed(kernel: KernelList, instance: int) -> None:
    assert _by_iterator(kernel, instance) == {}


@pytest.mark.kernels
@pytest.mark.parametrize("number", [511, 512, 513, 5003])
def test_more_watches_than_one_visit_reads(
    kernel: KernelList, instance: int, tmp_path: Path, number: int
) -> None:
    for folder in _folders(tmp_path, number):
        _add(instance, folder, _IN_CREATE)

    assert _by_iterator(kernel, instance) == _by_fdinfo(instance)
    assert len(_by_iterator(kernel, instance)) == number


@pytest.mark.kernels
def test_a_list_that_changes_under_the_walk_is_never_told_short(
    kernel: KernelList, instance: int, tmp_path: Path
) -> None:
    """GIVEN 23 watches that stay among others that come and go WHEN read THEN all are there."""
    *steady, passing = _folders(tmp_path, 24)
    stay = {_add(instance, folder, _IN_CREATE) for folder in steady[:13]}
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            _LIBC.inotify_rm_watch(instance, _add(instance, passing, _IN_CREATE))

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        stay |= {_add(instance, folder, _IN_CREATE) for folder in steady[13:]}
        readings = [_own(kernel.walk(), instance).watches for _ in range(211)]
    finally:
        stop.set()
        thread.join()
    whole = [reading for reading in readings if reading is not None]
    assert all(stay <= {wd for wd, _ in reading} for reading in whole)
    assert len(whole) > len(readings) // 2


@pytest.mark.kernels
def test_a_user_namespaces_maker_pays_as_well(kernel: KernelList, tmp_path: Path) -> None:
    """GIVEN a watch in a namespace of its own WHEN walked THEN both users are charged for it."""
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        _LIBC.unshare(_CLONE_NEWUSER)
        _add(_LIBC.inotify_init1(os.O_CLOEXEC), tmp_path, _IN_CREATE)
        os.write(ready[1], b".")
        os.read(done[0], 1)
        os._exit(0)
    try:
        assert os.read(ready[0], 1) == b"."
        walk = kernel.walk()
        inner = os.stat(f"/proc/{child}/ns/user").st_ino
    finally:
        os.write(done[1], b".")
        assert os.waitpid(child, 0) == (child, 0)
        for end in (*ready, *done):
            os.close(end)

    (walked,) = [
        one
        for one in walk.instances.values()
        if child in {held.process.pid for held in one.holders}
    ]
    outer = os.stat("/proc/self/ns/user").st_ino
    assert [userns for userns, _ in walked.payers] == [inner, outer]
    used = {(user.userns, user.uid): user for user in walk.users}
    assert (used[walked.payers[0]].watches, used[walked.payers[0]].instances) == (1, 1)
    assert used[walked.payers[1]].watches >= 1
