"""Files of traced programs: found wherever they are, never taken for others, and never a device."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest

from tracer.stacks.mapped_file import (
    FileIdentity,
    Location,
    MappedFile,
    identified,
    identity_of,
    paths,
)
from tracer.stacks.mappings import Mapping, read_mappings

_NOBODY = FileIdentity(0, 0, 0)
Opened = list[MappedFile]


def _descriptors() -> int:
    # the one that lists them is among them, each time
    return len(os.listdir("/proc/self/fd"))


def _location(path: Path) -> Location:
    """As of a process that has mapped the file at an address where this one has nothing."""
    status = path.stat()
    mapping = Mapping(0x1000, 0x2000, 0, status.st_dev, status.st_ino, os.fsencode(path))
    return Location(os.getpid(), mapping)


def _file(location: Location, opened: Opened) -> MappedFile:
    return MappedFile(location, identified(location) or _NOBODY, opened.append)


@pytest.fixture
def opened() -> Opened:
    """What told that it was opened."""
    return []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "agent"
    made.write_bytes(b"0123456789")
    return made


@pytest.fixture
def mapped(path: Path) -> Iterator[Callable[[], Location]]:
    """Maps the file to be executed; where it is, if that leads to it."""
    with path.open("rb") as file:
        memory = mmap.mmap(
            file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC
        )
    inode = path.stat().st_ino

    def where() -> Location:
        found = next(one for one in read_mappings(os.getpid()).all if one.ino == inode)
        location = Location(os.getpid(), found)
        try:
            os.stat(paths(location)[0][0])
        except PermissionError:
            pytest.skip("takes CAP_CHECKPOINT_RESTORE")
        return location

    yield where
    memory.close()


def test_the_range_leads_to_the_file_and_the_name_to_what_has_it_now() -> None:
    mapping = Mapping(0x401000, 0x405000, 0, 1, 1173, b"/usr/bin/agent")

    assert paths(Location(23, mapping)) == (
        (b"/proc/23/map_files/401000-405000", True),
        (b"/proc/23/root/usr/bin/agent", False),
    )


def test_a_file_is_known_by_what_it_is(path: Path, tmp_path: Path) -> None:
    """GIVEN a file and another link to it THEN they are one; changed, it is another."""
    link, other = tmp_path / "link", tmp_path / "other"
    os.link(path, link)
    other.write_bytes(path.read_bytes())
    first = identified(_location(path))
    assert first == identified(_location(link)) == identity_of(path.stat())
    assert first is not None and first != identified(_location(other))

    os.utime(path, ns=(0, 23))
    changed = identified(_location(path))
    assert changed is not None
    assert changed[:2] == first[:2]
    assert changed.changed_ns == path.stat().st_ctime_ns


def test_it_is_opened_when_it_is_read_and_only_once(path: Path, opened: Opened) -> None:
    before = _descriptors()
    file = _file(_location(path), opened)
    assert (opened, _descriptors()) == ([], before)

    assert (file.read(2, 3), file.read(8, 30), file.read(23, 1)) == (b"234", b"89", b"")
    assert (opened, _descriptors()) == ([file], before + 1)


def test_what_was_closed_is_opened_again(path: Path, opened: Opened) -> None:
    before = _descriptors()
    file = _file(_location(path), opened)
    for number in (1, 2, 3):
        assert file.read(0, 1) == b"0"
        assert _descriptors() == before + 1
        file.close()
        assert (len(opened), _descriptors()) == (number, before)
    file.close()


def test_a_file_that_is_closed_while_it_is_read_is_read(path: Path, opened: Opened) -> None:
    """GIVEN another thread that closes it as soon as it is opened THEN the read has its bytes."""
    file = MappedFile(_location(path), identity_of(path.stat()), MappedFile.close)

    assert file.read(0, 10) == b"0123456789"
    assert file.read(0, 10) == b"0123456789"


def test_a_deleted_file_is_found_by_its_range(
    mapped: Callable[[], Location], path: Path, opened: Opened
) -> None:
    path.unlink()
    location = mapped()
    file = _file(location, opened)

    assert location.mapping.name.endswith(b" (deleted)")
    assert file.read(0, 3) == b"012"
    assert file.is_within_reach


def test_a_file_that_is_deleted_after_it_was_seen_is_found(
    mapped: Callable[[], Location], path: Path, opened: Opened
) -> None:
    """GIVEN an upgrade, which changes when the file changed last THEN it is the same file."""
    file = _file(mapped(), opened)
    path.unlink()

    assert file.read(0, 3) == b"012"


def test_another_file_of_the_same_name_is_refused(path: Path, opened: Opened) -> None:
    """GIVEN a program whose file was replaced WHEN only its name leads there THEN it has none."""
    location = _location(path)
    file = _file(location, opened)
    path.rename(path.with_name("old"))
    path.write_bytes(b"other")
    before = _descriptors()

    assert identified(location) is None
    assert file.read(0, 5) == b"" and not file.is_within_reach
    assert (opened, _descriptors()) == ([], before)


def test_a_file_that_was_touched_is_the_same(path: Path, opened: Opened) -> None:
    """GIVEN a file WHEN its times or its links change THEN its name still leads to it."""
    file = _file(_location(path), opened)
    os.utime(path, ns=(0, 23))
    os.link(path, path.with_name("link"))

    assert file.read(0, 5) == b"01234" and file.is_within_reach


def test_where_devices_have_other_numbers_the_name_of_the_link_tells(
    mapped: Callable[[], Location],
) -> None:
    """GIVEN overlayfs, where maps has another device than stat THEN the range leads to the file."""
    pid, mapping = mapped()
    status = identity_of(os.stat(mapping.name))
    other = mapping._replace(dev=mapping.dev + 1, ino=mapping.ino + 1)

    assert identified(Location(pid, other)) == status
    assert identified(Location(pid, other._replace(name=b"/usr/bin/other"))) is None
    # without the range, whatever has the name may be another file
    assert identified(Location(pid, other._replace(start=0x1000, end=0x2000))) is None


def test_another_file_in_the_same_range_is_refused(
    mapped: Callable[[], Location], opened: Opened
) -> None:
    """GIVEN a library that took the place of another WHEN that is read THEN it has nothing."""
    file = MappedFile(mapped(), identity_of(Path("/bin/sh").stat()), opened.append)

    assert file.read(0, 3) == b"" and not file.is_within_reach


@pytest.mark.parametrize("kind", ["nothing", "folder", "fifo", "device"])
def test_what_is_no_regular_file_is_not_opened(tmp_path: Path, opened: Opened, kind: str) -> None:
    """A FIFO would be waited for, and a device may do anything when it is opened."""
    path = tmp_path / "agent"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/null")
    if kind == "nothing":
        location = Location(os.getpid(), Mapping(1, 2, 0, 1, 1, os.fsencode(path)))
        identity = _NOBODY
    else:
        location, identity = _location(path), identity_of(path.stat())
    before = _descriptors()
    file = MappedFile(location, identity, opened.append)

    assert identified(location) is None
    assert file.read(0, 1) == b"" and not file.is_within_reach
    assert (opened, _descriptors()) == ([], before)


@pytest.mark.parametrize(
    "name", [b"/a\0b", b"anon_inode:[perf_event]", b"/" + b"x" * 5000, b"", b"/../../proc/self"]
)
def test_names_that_are_none_are_no_error(path: Path, opened: Opened, name: bytes) -> None:
    location = _location(path)
    location = location._replace(mapping=location.mapping._replace(name=name))

    assert identified(location) is None
    assert MappedFile(location, identity_of(path.stat()), opened.append).read(0, 1) == b""


def test_of_a_process_that_is_gone_there_is_nothing(path: Path, opened: Opened) -> None:
    location = _location(path)._replace(pid=2**22 + 1)

    assert identified(location) is None
    assert MappedFile(location, identity_of(path.stat()), opened.append).read(0, 1) == b""


@pytest.mark.parametrize("offset", [-1, 1 << 63, 1 << 64])
def test_offsets_that_are_none_are_no_error(path: Path, opened: Opened, offset: int) -> None:
    assert _file(_location(path), opened).read(offset, 1) == b""
