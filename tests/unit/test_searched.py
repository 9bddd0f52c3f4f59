"""What was found by searching stays found, and what was not costs nothing again."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from test_fate import inode_of
from test_path import this_process

from tracer.core.events import Process
from tracer.core.walk import Inode
from tracer.kernel.fdinfo import Handle
from tracer.kernel.inodes import InodeState
from tracer.targets import by_handle, searched
from tracer.targets.locate import How, Location, Locator, Sought
from tracer.targets.search import Search
from tracer.targets.searched import Searched

_NOWHERE = Location(None, How.UNRESOLVED)


class _Clock:
    def __init__(self) -> None:
        self.now = 1173.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No handle may be opened, as without privileges."""

    def refuse(mount: int, handle: Handle) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(by_handle, "open_by_handle", refuse)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process is, and with what else is searched out of reach."""
    folder = tmp_path.resolve() / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr("tracer.targets.search._tops", lambda hunt: ())
    return folder


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock()
    monkeypatch.setattr(searched, "time", made)
    return made


@pytest.fixture
def hunted(monkeypatch: pytest.MonkeyPatch, clock: _Clock) -> list[int]:
    """How many inodes each search was for; a search takes no time on the clock."""
    counts: list[int] = []
    find = Search.find

    def counting(
        search: Search, wanted: Mapping[int, tuple[Process, Inode]]
    ) -> Iterator[tuple[int, bytes]]:
        if wanted:
            counts.append(len(wanted))
        return find(search, wanted)

    monkeypatch.setattr(Search, "find", counting)
    return counts


def _sought(inode: Inode) -> Sought:
    return Sought((this_process(),), -1, 1, inode)


def _look(known: Searched, *inodes: Inode) -> list[Location]:
    locator = Locator(state_of=lambda _: InodeState.LINKED, searched=known)
    return list(locator.locate_all([_sought(inode) for inode in inodes]))


def _at(where: Path) -> Location:
    return Location(os.fsencode(where), How.SEARCH, this_process())


def _made(*folders: Path) -> list[Inode]:
    for each in folders:
        each.mkdir()
    return [inode_of(each) for each in folders]


def test_what_was_found_is_not_searched_for_again(folder: Path, hunted: list[int]) -> None:
    known = Searched()
    inodes = _made(folder / "a", folder / "b")

    for _ in range(3):
        assert _look(known, *inodes) == [_at(folder / "a"), _at(folder / "b")]
    assert hunted == [2]


def test_what_was_not_found_is_searched_for_once(
    folder: Path, tmp_path: Path, hunted: list[int]
) -> None:
    known = Searched()
    near, far = _made(folder / "near", tmp_path / "far")

    for _ in range(3):
        assert _look(known, near, far) == [_at(folder / "near"), _NOWHERE]
    assert hunted == [2]


def test_what_is_new_is_searched_for(folder: Path, hunted: list[int]) -> None:
    known = Searched()
    first, second = _made(folder / "first", folder / "second")

    _look(known, first)
    assert _look(known, first, second) == [_at(folder / "first"), _at(folder / "second")]
    assert hunted == [1, 1]


def test_a_path_that_leads_elsewhere_by_now_is_not_given(folder: Path, hunted: list[int]) -> None:
    known = Searched()
    (inode,) = _made(folder / "a")
    _look(known, inode)

    (folder / "a").rename(folder / "b")
    (folder / "a").mkdir()

    assert _look(known, inode) == [_at(folder / "b")]
    assert hunted == [1, 1]


def test_what_has_another_name_each_time_is_not_searched_for_for_ever(
    folder: Path, hunted: list[int]
) -> None:
    known = Searched()
    (inode,) = _made(folder / "0")

    for at in range(7):
        _look(known, inode)
        (folder / str(at)).rename(folder / str(at + 1))
    assert hunted == [1, 1, 1]
    assert _look(known, inode) == [_NOWHERE]


def test_who_sees_other_files_has_another_path(folder: Path, hunted: list[int]) -> None:
    """GIVEN an inode that one process was found to see WHEN asked for another THEN it is new."""
    known = Searched()
    (inode,) = _made(folder / "a")
    _look(known, inode)
    ended = Process(1 << 22, 0)

    sought = Sought((ended,), -1, 1, inode)
    assert list(Locator(searched=known).locate_all([sought])) == [_NOWHERE]


def test_what_is_not_asked_for_is_forgotten(
    folder: Path, tmp_path: Path, hunted: list[int]
) -> None:
    """GIVEN a watch that is gone in one look WHEN it is there again THEN it is new."""
    known = Searched()
    near, far = _made(folder / "near", tmp_path / "far")

    for inodes in ((near, far), (near, far), (), (near, far)):
        _look(known, *inodes)
    assert hunted == [2, 2]


def test_of_one_inode_watched_often_there_is_one_path(
    folder: Path, tmp_path: Path, hunted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN more watches than are looked up at once THEN the first portion is for all."""
    monkeypatch.setattr("tracer.targets.locate._PORTION", 2)
    known = Searched()
    near, far = _made(folder / "near", tmp_path / "far")

    for _ in range(2):
        assert _look(known, *[near, far] * 3) == [_at(folder / "near"), _NOWHERE] * 3
    assert hunted == [2]


def test_long_searches_take_a_tenth_of_the_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch, clock: _Clock
) -> None:
    """
    GIVEN searches that take 2 s each, and something new in each look
    THEN two come one after the other, and then one each 20 s, for all that waited
    """
    hunts: list[int] = []

    def slow(search: Search, wanted: Mapping[int, object]) -> Iterator[tuple[int, bytes]]:
        if wanted:
            hunts.append(len(wanted))
            clock.now += 2.0
        yield from ()

    monkeypatch.setattr(Search, "find", slow)
    known = Searched()
    inodes = _made(*[folder / str(at) for at in range(9)])
    for at in range(1, 8):
        _look(known, *inodes[:at])
        clock.now += 1.0
    assert hunts == [1, 1]

    clock.now += 12.0
    _look(known, *inodes[:8])
    assert hunts == [1, 1, 6]
    _look(known, *inodes)
    assert hunts == [1, 1, 6]


def test_what_waits_for_a_search_keeps_what_was_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, hunted: list[int]
) -> None:
    """GIVEN no search for now WHEN something new is asked for THEN the old is still there."""
    known = Searched()
    first, second = _made(folder / "first", folder / "second")
    _look(known, first)

    monkeypatch.setattr(searched, "_AHEAD_S", -1.0)
    assert _look(known, first, second) == [_at(folder / "first"), _NOWHERE]
    monkeypatch.setattr(searched, "_AHEAD_S", 20.0)
    assert _look(known, first, second) == [_at(folder / "first"), _at(folder / "second")]
