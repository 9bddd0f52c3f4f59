"""What a search takes: so much time, entries and memory, whatever is mounted and watched."""

from __future__ import annotations

import ctypes
import errno
import os
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_fate import inode_of
from test_path import this_process

from tracer.core.walk import Inode
from tracer.kernel.fdinfo import FdWatch, Handle, read_watches
from tracer.kernel.inodes import InodeState
from tracer.kernel.procfs import Mount
from tracer.targets import by_handle, locate, search
from tracer.targets.joined import Joined
from tracer.targets.locate import How, Location, Locator, Sought
from tracer.targets.mounts import Mounts, MountTable, Vantage
from tracer.targets.path import Paths, Scene
from tracer.targets.search import Search, _Hunt

_NOWHERE = Location(None, How.UNRESOLVED)
_TICK_S = 0.01


class _Clock:
    """Goes on whenever it is looked at."""

    def __init__(self) -> None:
        self.now = 1173.0

    def monotonic(self) -> float:
        self.now += _TICK_S
        return self.now


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process is, and with what else is searched out of reach."""
    folder = tmp_path.resolve() / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(search, "_own_folders", lambda process, scene: (os.fsencode(folder),))
    monkeypatch.setattr(search, "_tops", lambda hunt: ())
    return folder


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    made = _Clock()
    monkeypatch.setattr(search, "time", made)
    return made


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The folders that were opened."""
    paths: list[bytes] = []
    folder = Paths.folder

    @contextmanager
    def counting(self: Paths, process: object, path: bytes, **options: bool) -> Iterator[int]:
        paths.append(path)
        with folder(self, process, path, **options) as file:  # type: ignore[arg-type]
            yield file

    monkeypatch.setattr(Paths, "folder", counting)
    return paths


def _search() -> Search:
    paths = Paths(Mounts())
    return Search(paths, Joined(paths))


def _found(hunting: Search, *wanted: Path | Inode) -> dict[int, bytes]:
    inodes = [each if isinstance(each, Inode) else inode_of(each) for each in wanted]
    return dict(hunting.find({key: (this_process(), each) for key, each in enumerate(inodes)}))


def _nowhere(beside: Path, count: int) -> list[Inode]:
    """Inodes of the same filesystem that are in no folder."""
    return [inode_of(beside)._replace(ino=(1 << 40) + at) for at in range(count)]


def _hunt(*mounts: Mount) -> _Hunt:
    return _Hunt(
        this_process(), Scene(Mounts().vantage(os.getpid()) or _none(), _table(*mounts), b"")
    )


def _none() -> Vantage:
    raise AssertionError


def _table(*mounts: Mount) -> MountTable:
    return MountTable(mounts)


# --- what is searched for ---


@pytest.mark.parametrize("kind", [b"overlay", b"btrfs", b"bcachefs", b"nfs4", b"fuse.sshfs"])
def test_only_where_a_number_is_of_one_inode(kind: bytes) -> None:
    """GIVEN two filesystems WHEN one number may be of several inodes in one THEN it is left out."""
    hunt = _hunt(Mount(1, kind, b"/", b"/a"), Mount(2, b"ext4", b"/", b"/b"))
    for dev in (1, 2, 3):
        hunt.add(dev, Inode(0, 17, dev, 0))
    assert hunt.left == {2: {17: [2]}}


def test_all_watches_of_one_inode_get_its_path(folder: Path, opened: list[bytes]) -> None:
    """GIVEN 211 watches of each of two inodes THEN each is looked up once."""
    (folder / "a").mkdir()
    (folder / "b").touch()
    found = _found(_search(), *[folder / "a", folder / "b"] * 211)
    paths = {os.fsencode(folder / "a"), os.fsencode(folder / "b")}
    assert (len(found), set(found.values())) == (422, paths)
    assert len(opened) < 7


def test_a_file_that_is_mounted_is_where_a_search_begins(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / "file").touch()
    at = os.fsencode(folder.parent / "file")
    monkeypatch.setattr(search, "_tops", lambda hunt: (at,))
    assert _found(_search(), folder.parent / "file") == {0: at}


def test_what_is_mounted_in_a_folder_is_not_entered_from_there(folder: Path) -> None:
    """GIVEN mounts of what is searched and of something else, which may be hidden by now."""
    hunt = _hunt(
        Mount(1, b"ext4", b"/", b"/"),
        Mount(1, b"ext4", b"/c", b"/a"),
        Mount(2, b"tmpfs", b"/", b"/b"),
    )
    hunt.add(0, Inode(0, 17, 1, 0))
    for at in (b"/a", b"/b", b"/c", os.fsencode(folder)):
        hunt.wait(at)
    assert [at for at, is_start in hunt.folders() if not is_start] == [b"/b", b"/c"]


# --- how long, and how much ---


def test_places_to_begin_are_looked_at_once_for_all_that_is_searched_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, opened: list[bytes]
) -> None:
    """GIVEN 61 mounts and 1009 watches that have no path."""
    (folder / "deep").mkdir()
    made = [folder / f"{at:02}" for at in range(61)]
    for each in made:
        each.mkdir()
    monkeypatch.setattr(search, "_tops", lambda hunt: map(os.fsencode, made))
    found = _found(_search(), *_nowhere(folder, 1009), folder / "deep")
    assert found == {1009: os.fsencode(folder / "deep")}
    assert len(opened) < 300


def test_the_time_is_looked_at_between_places_to_begin(
    folder: Path, monkeypatch: pytest.MonkeyPatch, clock: _Clock
) -> None:
    drawn: list[int] = []

    def tops(_: _Hunt) -> Iterator[bytes]:
        for at in range(10_007):
            drawn.append(at)
            yield b"/none/%d" % at

    monkeypatch.setattr(search, "_tops", tops)
    assert _found(_search(), *_nowhere(folder, 1)) == {}
    assert 50 < len(drawn) <= 2 / _TICK_S
    # each is an entry, too
    drawn.clear()
    monkeypatch.setattr(search, "_ENTRIES_MAX", 23)
    assert _found(_search(), *_nowhere(folder, 1)) == {}
    assert len(drawn) <= 23


def test_what_is_near_does_not_wait_for_all_places_to_begin(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN more mounts than can be looked at."""
    (folder / "a" / "b").mkdir(parents=True)
    monkeypatch.setattr(search, "_ENTRIES_MAX", 101)
    monkeypatch.setattr(search, "_tops", lambda hunt: (b"/none/%d" % at for at in range(10_007)))
    found = _found(_search(), folder / "a" / "b")
    assert found == {0: os.fsencode(folder / "a" / "b")}


def test_the_time_is_looked_at_between_the_names_of_a_folder(folder: Path, clock: _Clock) -> None:
    """GIVEN one folder that takes longer than a search may THEN what was found till then counts."""
    for at in range(503):
        (folder / f"{at:03}").touch()
    began = clock.now
    found = _found(_search(), *(folder / f"{at:03}" for at in range(503)))
    assert 100 < len(found) <= 2 / _TICK_S
    assert clock.now - began < 2.1


def test_the_time_is_that_of_all_searches_of_a_report(folder: Path, clock: _Clock) -> None:
    hunting = _search()
    for at in range(503):
        (folder / f"{at:03}").touch()
    assert _found(hunting, *_nowhere(folder, 1)) == {}
    began = clock.now
    assert _found(hunting, folder) == {}
    assert clock.now == began


def test_folders_wait_while_there_is_room() -> None:
    """GIVEN room for so many paths THEN more are left out, and there is room again afterwards."""
    hunt = _hunt(Mount(1, b"ext4", b"/", b"/"))
    path = b"/" + b"n" * ((1 << 20) - 1)
    for at in range(23):
        hunt.wait(path + b"%d" % at)
    assert not hunt.has_room
    looked_into = [at for at, is_start in hunt.folders() if not is_start]
    assert looked_into == [path + b"%d" % at for at in range(16)]
    assert hunt.has_room


def test_many_folders_deep_in_a_long_path_take_little_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN 2003 folders, the paths of which are 7 MB, and room for one."""
    monkeypatch.setattr(search, "_WAITING_MAX", 1 << 20)
    above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    length = len(os.fsencode(folder))
    while length < 3500:
        os.mkdir("d" * 200, dir_fd=above)
        below = os.open("d" * 200, os.O_RDONLY | os.O_DIRECTORY, dir_fd=above)
        os.close(above)
        above, length = below, length + 201
    for at in range(2003):
        os.mkdir(str(at), dir_fd=above)
    os.close(above)
    wanted = _nowhere(folder, 1)
    tracemalloc.start()
    try:
        assert _found(_search(), *wanted) == {}
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 3 << 20


def test_points_are_told_by_filesystem() -> None:
    table = _table(
        Mount(1, b"ext4", b"/below", b"/a"),
        Mount(2, b"tmpfs", b"/", b"/b"),
        Mount(1, b"ext4", b"/", b"/c"),
        Mount(1, b"ext4", b"/below", b"/d"),
    )
    assert table.all_points(1) == [b"/c", b"/a", b"/d"]
    assert (table.all_points(2), table.all_points(3)) == ([b"/b"], [])
    assert (table.is_point(b"/a"), table.is_point(b"/a/b")) == (True, False)


# --- a number that was used again ---


class _Inotify:
    """Instances of this process."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fds: list[int] = []

    def init(self) -> int:
        self.fds.append(self._libc.inotify_init1(os.O_CLOEXEC))
        return self.fds[-1]

    def add(self, fd: int, where: Path) -> Sought:
        wd = self._libc.inotify_add_watch(fd, os.fsencode(where), 0x100)
        assert wd > 0
        inode = inode_of(where)._replace(address=0, generation=0)
        return Sought((this_process(),), fd, wd, inode)

    def remove(self, sought: Sought) -> None:
        assert self._libc.inotify_rm_watch(sought.fd, sought.wd) == 0


@pytest.fixture
def inotify() -> Iterator[_Inotify]:
    made = _Inotify()
    yield made
    for fd in made.fds:
        os.close(fd)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No handle may be opened, as without privileges."""

    def refuse(mount: int, handle: Handle) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(by_handle, "open_by_handle", refuse)


def _at(where: Path) -> Location:
    return Location(os.fsencode(where), How.SEARCH, this_process())


def _during_search(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Something that is done between reading what is watched and searching for it."""
    find = Search.find

    def finding(self: Search, wanted: object) -> Iterator[tuple[int, bytes]]:
        happens()
        return find(self, wanted)  # type: ignore[arg-type]

    monkeypatch.setattr(Search, "find", finding)


def test_a_watch_that_is_gone_meanwhile_has_no_path(
    folder: Path, inotify: _Inotify, refused: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN that what has the number may be another inode: only the watch has kept it."""
    for name in ("stays", "goes"):
        (folder / name).mkdir()
    fd = inotify.init()
    stays, goes = (inotify.add(fd, folder / name) for name in ("stays", "goes"))
    assert list(Locator().locate_all([stays, goes])) == [
        _at(folder / "stays"),
        _at(folder / "goes"),
    ]

    _during_search(monkeypatch, lambda: inotify.remove(goes))
    assert list(Locator().locate_all([stays, goes])) == [_at(folder / "stays"), _NOWHERE]


def test_a_watch_of_the_same_inode_that_is_another_does_not_count(
    folder: Path, inotify: _Inotify, refused: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a watch that is removed, and a new one of who has its number."""
    fd = inotify.init()
    sought = inotify.add(fd, folder)

    def watch_again() -> None:
        inotify.remove(sought)
        assert inotify.add(fd, folder).wd != sought.wd

    _during_search(monkeypatch, watch_again)
    assert Locator().locate(sought) == _NOWHERE


@pytest.mark.parametrize("state", [InodeState.DELETED, InodeState.LINKED])
def test_the_kernel_is_asked_after_the_search(
    folder: Path, refused: None, monkeypatch: pytest.MonkeyPatch, state: InodeState
) -> None:
    states = [InodeState.LINKED]
    _during_search(monkeypatch, lambda: states.append(state))
    sought = Sought((this_process(),), -1, 1, inode_of(folder))
    found = Locator(state_of=lambda _: states[-1]).locate(sought)
    assert found == (_at(folder) if state is InodeState.LINKED else _NOWHERE)


def test_an_instance_that_cannot_be_read_has_no_path_by_searching(
    folder: Path, refused: None
) -> None:
    assert Locator().locate(Sought((this_process(),), -1, 1, inode_of(folder))) == _NOWHERE


def test_each_instance_is_read_once(
    folder: Path, inotify: _Inotify, refused: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN 23 watches of each of two instances."""
    reads: list[int] = []

    def read(pid: int, fd: int) -> tuple[FdWatch, ...] | None:
        reads.append(fd)
        return read_watches(pid, fd)

    monkeypatch.setattr(locate, "read_watches", read)
    made = [folder / f"{at:02}" for at in range(23)]
    for each in made:
        each.mkdir()
    fds = [inotify.init() for _ in range(2)]
    sought = [inotify.add(fd, each) for fd in fds for each in made]
    assert list(Locator().locate_all(sought)) == [_at(each) for each in made * 2]
    assert sorted(reads) == fds
