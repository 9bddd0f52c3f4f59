"""From watches to paths, with what needs no privileges: calls, names as given, and searching."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from test_fate import inode_of
from test_path import this_process

from tracer.core.events import Process
from tracer.core.walk import Inode
from tracer.kernel.fdinfo import Handle
from tracer.kernel.inodes import DentryNames, InodeState
from tracer.kernel.procfs import Mount
from tracer.targets import by_handle, joined, path, search
from tracer.targets.joined import _places, is_on
from tracer.targets.locate import How, Location, Locator, Sought
from tracer.targets.mounts import MountTable, kernel_device

_ENDED = Process(1 << 22, 0)
_NOWHERE = Location(None, How.UNRESOLVED)


@pytest.fixture(autouse=True)
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No handle may be opened, as without privileges."""

    def refuse(mount: int, handle: Handle) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(by_handle, "open_by_handle", refuse)


@pytest.fixture
def unsearched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_SECONDS_MAX", 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process is: searched before everything else."""
    folder = tmp_path.resolve() / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def _sought(where: Path, traced: Path | str | None = None, *holders: Process) -> Sought:
    passed = None if traced is None else os.fsencode(traced)
    return Sought(holders or (this_process(),), -1, 1, inode_of(where), passed)


def _linked(_: Inode) -> InodeState:
    return InodeState.LINKED


def _names(where: Path) -> Callable[[Inode], DentryNames | None]:
    """What the kernel would say if everything was on the filesystem that is mounted at /."""
    found = DentryNames(os.fsencode(where.parent), os.fsencode(where.name))
    return lambda _: found


def _at(where: Path, how: How) -> Location:
    return Location(os.fsencode(where), how, this_process())


# --- as passed ---


def test_what_was_passed_comes_first(folder: Path, unsearched: None) -> None:
    assert Locator().locate(_sought(folder, folder)) == _at(folder, How.TRACED)
    through = folder / ".." / "folder"
    assert Locator().locate(_sought(folder, through)) == _at(through, How.TRACED)


def test_a_relative_path_becomes_an_absolute_one(folder: Path, unsearched: None) -> None:
    (folder / "below").mkdir()
    assert Locator().locate(_sought(folder / "below", "below")) == _at(folder / "below", How.TRACED)
    assert Locator().locate(_sought(folder, ".")) == _at(folder, How.TRACED)


def test_what_was_passed_and_leads_elsewhere_is_not_given(folder: Path, unsearched: None) -> None:
    (folder / "other").mkdir()
    assert Locator().locate(_sought(folder, folder / "other")) == _NOWHERE
    assert Locator().locate(_sought(folder, folder / "none")) == _NOWHERE


# --- names ---


@pytest.mark.skipif(os.lstat("/").st_dev != os.lstat("/tmp").st_dev, reason="/tmp is not on /")
def test_names_are_joined_with_what_is_mounted(folder: Path, unsearched: None) -> None:
    located = Locator(_names(folder)).locate(_sought(folder, "none"))
    assert located == _at(folder, How.DENTRY)


def test_names_that_lead_to_another_inode_are_not_given(folder: Path, unsearched: None) -> None:
    (folder / "a").touch()
    (folder / "b").touch()
    assert Locator(_names(folder / "b")).locate(_sought(folder / "a")) == _NOWHERE
    assert Locator(_names(folder / "none")).locate(_sought(folder / "a")) == _NOWHERE
    (folder / "link").symlink_to("a")
    assert Locator(_names(folder / "link")).locate(_sought(folder / "a")) == _NOWHERE
    (folder / "to").symlink_to(folder)
    assert Locator(_names(folder / "to" / "a")).locate(_sought(folder / "a")) == _NOWHERE


def test_without_an_address_no_names_are_asked_for(folder: Path, unsearched: None) -> None:
    def names(_: Inode) -> DentryNames | None:
        raise AssertionError

    sought = _sought(folder)
    assert (
        Locator(names).locate(sought._replace(inode=sought.inode._replace(address=0))) == _NOWHERE
    )


def test_nobody_who_has_ended_sees_a_path(folder: Path) -> None:
    assert Locator(_names(folder)).locate(_sought(folder, folder, _ENDED)) == _NOWHERE


@pytest.mark.parametrize("at", [0, 1])
def test_another_holder_sees_for_who_has_ended(folder: Path, at: int) -> None:
    holders = [this_process()]
    holders.insert(at, _ENDED)
    assert Locator().locate(_sought(folder, folder, *holders)) == _at(folder, How.TRACED)


def test_a_folder_is_looked_for_in_each_mount_that_shows_it() -> None:
    table = MountTable(
        [
            Mount(1, b"ext4", b"/", b"/"),
            Mount(1, b"ext4", b"/a/b", b"/bound"),
            Mount(1, b"ext4", b"/a", b"/wider"),
            Mount(1, b"ext4", b"/ab", b"/not"),
            Mount(2, b"ext4", b"/", b"/other"),
        ]
    )
    assert list(_places(table, 1, b"/a/b")) == [b"/a/b", b"/wider/b", b"/bound"]
    assert list(_places(table, 1, b"/a/b/c")) == [b"/a/b/c", b"/wider/b/c", b"/bound/c"]
    assert list(_places(table, 1, b"/")) == [b"/"]
    assert list(_places(table, 2, b"/x")) == [b"/other/x"]
    assert list(_places(table, 3, b"/x")) == []


def test_many_mounts_of_one_folder_are_not_all_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "_POINTS_MAX", 3)
    table = MountTable([Mount(1, b"ext4", b"/", b"/%d" % at) for at in range(1000)])
    assert list(_places(table, 1, b"/x")) == [b"/0/x", b"/1/x", b"/2/x"]


@pytest.mark.parametrize("kind", [b"overlay", b"btrfs", b"bcachefs"])
def test_a_device_of_their_own_is_none_that_is_mounted(tmp_path: Path, kind: bytes) -> None:
    """GIVEN what stat(2) shows of files on filesystems that have several devices."""
    found = tmp_path.stat()
    mounts = [Mount(1, b"ext4", b"/", b"/"), Mount(2, kind, b"/", b"/m")]
    table = MountTable(mounts)
    assert is_on(found, 2, b"/m/f", table)
    assert not is_on(found, 1, b"/f", table)
    assert not is_on(found, 2, b"/f", table)
    table = MountTable([*mounts, Mount(kernel_device(found), b"tmpfs", b"/", b"/elsewhere")])
    assert not is_on(found, 2, b"/m/f", table)
    assert is_on(found, kernel_device(found), b"/m/f", table)


# --- searching ---


def test_what_is_near_is_searched(folder: Path) -> None:
    deep = folder / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    (deep / "file").touch()
    sought = [_sought(where) for where in (deep, deep / "file", folder)]
    expected = [_at(where, How.SEARCH) for where in (deep, deep / "file", folder)]
    assert list(Locator(state_of=_linked).locate_all(sought)) == expected


def test_links_are_not_followed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside").mkdir()
    (folder / "link").symlink_to(tmp_path / "outside")
    monkeypatch.setattr(search, "_tops", lambda hunt: ())
    assert Locator(state_of=_linked).locate(_sought(tmp_path / "outside")) == _NOWHERE
    assert Locator(state_of=_linked).locate(_sought(folder / "link")) == _at(
        folder / "link", How.SEARCH
    )


def test_a_search_ends_after_some_entries(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in range(53):
        (folder / f"{at:02}").mkdir()
    wanted = folder / "52" / "wanted"
    wanted.mkdir()
    monkeypatch.setattr(search, "_ENTRIES_MAX", 40)
    locator = Locator(state_of=_linked)
    assert locator.locate(_sought(wanted)) == _NOWHERE
    # of all searches together
    assert locator.locate(_sought(folder / "01")) == _NOWHERE
    monkeypatch.setattr(search, "_ENTRIES_MAX", 100_000)
    assert Locator(state_of=_linked).locate(_sought(wanted)) == _at(wanted, How.SEARCH)


def test_what_was_deleted_is_not_searched_for(folder: Path) -> None:
    (folder / "deleted").mkdir()
    (folder / "there").mkdir()
    deleted = inode_of(folder / "deleted")

    def state(inode: Inode) -> InodeState:
        return InodeState.DELETED if inode == deleted else InodeState.LINKED

    locator = Locator(state_of=state)
    assert locator.locate(_sought(folder / "deleted")) == _NOWHERE
    assert locator.locate(_sought(folder / "there")) == _at(folder / "there", How.SEARCH)


def test_a_filesystem_that_may_wait_is_not_searched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a server that all is on."""
    (folder / "wanted").mkdir()
    monkeypatch.setattr("tracer.targets.mounts.LOCAL_KINDS", frozenset())
    monkeypatch.setattr(path, "opened", None)
    assert Locator(_names(folder)).locate(_sought(folder / "wanted", folder)) == _NOWHERE


def test_a_place_that_others_tell_of_is_not_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a server that is mounted just there."""
    (folder / "wanted").mkdir()
    away = os.fsencode(folder / "wanted")
    monkeypatch.setattr(MountTable, "leads_away", lambda _, point: point == away)
    assert Locator(_names(folder / "wanted")).locate(_sought(folder / "wanted")) == _NOWHERE


# --- many ---


def test_all_are_told_in_their_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GIVEN more than are looked up at once, and the same one several times."""
    monkeypatch.setattr("tracer.targets.locate._PORTION", 7)
    for at in range(23):
        (folder / str(at)).touch()
    paths = [folder / str(at % 23) for at in range(60)]
    found = list(Locator(state_of=_linked).locate_all([_sought(where) for where in paths]))
    assert found == [_at(where, How.SEARCH) for where in paths]
    assert list(Locator(state_of=_linked).locate_all([])) == []
