"""
What becomes of a watch for which no call says so, one test for each way.

All tests share one session, and end with :meth:`Case.agreed`: what the ledger takes for live is
what fdinfo shows, watch by watch.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Callable

import pytest
from agreement import Case, assert_removed
from harness import Puppet, kernel_watches, until

pytestmark = [pytest.mark.usefixtures("root"), pytest.mark.kernels]

_IN_CREATE, _IN_ONESHOT = 0x100, 0x80000000


@pytest.fixture
def puppet(traced_puppet: Puppet) -> Puppet:
    return traced_puppet


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.touch()
    return file


# --- the target ---


def test_a_deleted_folder_takes_its_watch(case: Case, puppet: Puppet, folders: list[Path]) -> None:
    fd = puppet.ok("init")
    for folder in folders:
        puppet.ok("add", fd, folder)
    for folder in folders[:7]:
        folder.rmdir()
    found = case.agreed((puppet.pid, fd))

    assert found.live(puppet.pid) == 16
    assert_removed(found.removed, deleted=7)


def test_a_deleted_file_takes_its_watch(case: Case, puppet: Puppet, file: Path) -> None:
    fd = puppet.ok("init")
    puppet.ok("add", fd, file)
    file.unlink()
    found = case.agreed((puppet.pid, fd))

    assert found.live(puppet.pid) == 0
    assert_removed(found.removed, deleted=1)


def test_a_deleted_file_stays_watched_while_it_is_open(
    case: Case, puppet: Puppet, file: Path
) -> None:
    opened = puppet.ok("open", file)
    fd = puppet.ok("init")
    puppet.ok("add", fd, file)
    file.unlink()
    found = case.agreed((puppet.pid, fd))
    assert found.live(puppet.pid) == 1
    assert [target["state"] for site in found.report["sites"] for target in site["targets"]] == [
        "gone"
    ]

    puppet.ok("close", opened)
    found = case.agreed((puppet.pid, fd))
    assert found.live(puppet.pid) == 0
    assert_removed(found.removed, deleted=1)


def test_a_file_stays_watched_until_its_last_link_is_gone(
    case: Case, puppet: Puppet, file: Path
) -> None:
    link = file.with_name("link")
    os.link(file, link)
    fd = puppet.ok("init")
    puppet.ok("add", fd, file)
    file.unlink()
    assert case.agreed((puppet.pid, fd)).live(puppet.pid) == 1

    link.unlink()
    assert_removed(case.agreed((puppet.pid, fd)).removed, deleted=1)


def test_a_renamed_target_stays_watched(case: Case, puppet: Puppet, folders: list[Path]) -> None:
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0])
    folders[0].rename(folders[0].with_name("renamed"))
    found = case.agreed((puppet.pid, fd))

    assert found.live(puppet.pid) == 1
    assert_removed(found.removed)


def test_a_target_that_another_replaces_by_rename_is_gone(
    case: Case, puppet: Puppet, file: Path
) -> None:
    """GIVEN a watched file WHEN a new one is renamed over it THEN the new one is not watched."""
    new = file.with_name("new")
    new.touch()
    fd = puppet.ok("init")
    puppet.ok("add", fd, file)
    new.rename(file)
    found = case.agreed((puppet.pid, fd))

    assert found.live(puppet.pid) == 0
    assert_removed(found.removed, deleted=1)


def test_a_oneshot_watch_is_gone_once_it_fired(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    fd = puppet.ok("init")
    for folder in folders[:5]:
        puppet.ok("add", fd, folder, _IN_CREATE | _IN_ONESHOT)
    for folder in folders[:3]:
        (folder / "new").touch()
    found = case.agreed((puppet.pid, fd))

    assert found.live(puppet.pid) == 2
    assert_removed(found.removed, oneshot=3)


def test_a_removed_cgroup_agrees_whatever_the_kernel_does_with_its_watch(
    case: Case, puppet: Puppet, tmp_path: Path
) -> None:
    """Watches on files of a removed cgroup survive in some kernels."""
    hierarchy = tmp_path / "cgroups"
    hierarchy.mkdir()
    if subprocess.run(["mount", "-t", "cgroup2", "none", hierarchy]).returncode:
        pytest.skip("cannot mount cgroup2")
    group = hierarchy / f"inotrace-test-{os.getpid()}"
    try:
        group.mkdir()
        fd = puppet.ok("init")
        puppet.ok("add", fd, group)
        puppet.ok("add", fd, group / "cgroup.procs", 2)
        group.rmdir()
        found = case.agreed((puppet.pid, fd))
        left = sum(kernel_watches(puppet.pid, fd).values())
        assert found.live(puppet.pid) == left
        assert_removed(found.removed, deleted=2 - left)
        puppet.ok("close", fd)
        case.agreed()
    finally:
        if group.exists():
            group.rmdir()
        subprocess.run(["umount", hierarchy], check=True)


# --- its filesystem ---


def test_an_unmount_takes_its_watches(
    case: Case, puppet: Puppet, folders: list[Path], mounted: Callable[..., Path]
) -> None:
    disk = mounted()
    fd = puppet.ok("init")
    for name in ("a", "b", "c"):
        (disk / name).mkdir()
        puppet.ok("add", fd, disk / name)
    puppet.ok("add", fd, folders[0])
    case.agreed((puppet.pid, fd))
    subprocess.run(["umount", disk], check=True)
    found = case.agreed((puppet.pid, fd))

    assert found.live(puppet.pid) == 1
    assert_removed(found.removed, unmounted=3)


def test_an_unmounted_bind_mount_takes_none(
    case: Case, puppet: Puppet, folders: list[Path], bound: Path
) -> None:
    fd = puppet.ok("init")
    puppet.ok("add", fd, bound)
    subprocess.run(["umount", bound], check=True)
    found = case.agreed((puppet.pid, fd))

    assert found.live(puppet.pid) == 1
    assert_removed(found.removed)


def test_a_lazy_unmount_takes_what_only_watches_hold(
    case: Case, puppet: Puppet, mounted: Callable[..., Path]
) -> None:
    disk = mounted()
    fd = puppet.ok("init")
    puppet.ok("add", fd, disk)
    subprocess.run(["umount", "--lazy", disk], check=True)
    until(lambda: not kernel_watches(puppet.pid, fd), "the end of the filesystem")

    assert_removed(case.agreed((puppet.pid, fd)).removed, unmounted=1)


def test_a_lazily_unmounted_filesystem_stays_watched_while_a_file_is_open(
    case: Case, puppet: Puppet, mounted: Callable[..., Path]
) -> None:
    disk = mounted()
    (disk / "file").touch()
    opened = puppet.ok("open", disk / "file")
    fd = puppet.ok("init")
    puppet.ok("add", fd, disk)
    subprocess.run(["umount", "--lazy", disk], check=True)
    found = case.agreed((puppet.pid, fd))
    assert found.live(puppet.pid) == 1

    puppet.ok("close", opened)
    until(lambda: not kernel_watches(puppet.pid, fd), "the end of the filesystem")
    assert_removed(case.agreed((puppet.pid, fd)).removed, unmounted=1)
