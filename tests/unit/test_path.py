"""Where paths lead, without waiting for anyone to tell."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tracer.core.events import Process
from tracer.core.walk import Target
from tracer.kernel.procfs import Mount, birth_ticks, mounts_of
from tracer.targets import mounts, path
from tracer.targets.mounts import Mounts, kernel_device
from tracer.targets.path import Paths

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_ENDED = Process(1 << 22, 0)
_READLINK = os.readlink


def this_process() -> Process:
    ticks = birth_ticks(os.getpid())
    assert ticks is not None
    return Process(os.getpid(), ticks * _TICK_NS)


def target_of(where: Path) -> Target:
    found = where.lstat()
    return Target(kernel_device(found), found.st_ino)


def _state(where: Path | str, target: Target | None, process: Process | None = None) -> str:
    passed = os.fsencode(where)
    return Paths(Mounts()).state(process or this_process(), passed, target)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path.resolve() / "folder"
    folder.mkdir()
    return folder


def test_a_path_leads_to_its_target_to_another_or_nowhere(folder: Path) -> None:
    assert _state(folder, target_of(folder)) == "verified"
    assert _state(folder, target_of(folder.parent)) == "changed"
    assert _state(folder / "none", target_of(folder)) == "gone"
    assert _state(folder / "none" / "below", target_of(folder)) == "gone"


def test_what_is_below_a_file_is_gone(folder: Path) -> None:
    (folder / "file").touch()
    assert _state(folder / "file" / "below", target_of(folder)) == "gone"


def test_another_device_number_tells_nothing(folder: Path) -> None:
    """GIVEN btrfs, where stat(2) does not tell the number that the kernel has."""
    target = target_of(folder)
    assert _state(folder, target._replace(dev=target.dev + 1)) == "unverified"


def test_without_an_inode_a_path_can_only_be_gone(folder: Path) -> None:
    assert _state(folder, None) == "unverified"
    assert _state(folder / "none", None) == "gone"


def test_links_are_followed_wherever_they_are(folder: Path) -> None:
    (folder / "below").mkdir()
    (folder.parent / "absolute").symlink_to(folder)
    (folder.parent / "relative").symlink_to("folder/../absolute/.")
    (folder / "last").symlink_to("below")
    below = target_of(folder / "below")

    for way in ("absolute", "relative", "folder/../relative"):
        for name in ("below", "last", "last/", "last/../below"):
            assert _state(f"{folder.parent}/{way}/{name}", below) == "verified", (way, name)
        assert _state(f"{folder.parent}/{way}/none", below) == "gone"


def test_a_watch_on_a_link_itself_is_verified(folder: Path) -> None:
    """GIVEN IN_DONT_FOLLOW."""
    link = folder / "link"
    link.symlink_to("none")
    assert _state(link, target_of(link)) == "verified"
    link.unlink()
    link.symlink_to(folder)
    assert _state(link, target_of(link)) == "verified"
    assert _state(link, target_of(folder)) == "verified"


def test_links_that_lead_to_each_other_are_left_alone(folder: Path) -> None:
    (folder / "one").symlink_to("other")
    (folder / "other").symlink_to("one")
    (folder / "grows").symlink_to("grows/grows/grows")
    assert _state(folder / "one", target_of(folder)) == "unverified"
    assert _state(folder / "one" / "below", target_of(folder)) == "unverified"
    assert _state(folder / "grows" / "below", target_of(folder)) == "unverified"


@pytest.mark.parametrize("hostile", [b"", b"/\0", b"/" + b"a" * 5000, b"/" + b"a/" * 3000])
def test_paths_that_none_can_have_are_unverified(hostile: bytes) -> None:
    assert Paths(Mounts()).state(this_process(), hostile, None) == "unverified"


def test_links_of_proc_lead_each_process_elsewhere() -> None:
    target = target_of(Path("/"))
    for magic in ("/proc/self/root", "/proc/self/cwd/x", f"/proc/{os.getpid()}/root/none"):
        assert _state(magic, target) == "unverified"


def test_a_relative_path_is_verified_or_unknown(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a process that may have changed its folder meanwhile."""
    monkeypatch.chdir(folder.parent)
    assert _state("folder", target_of(folder)) == "verified"
    assert _state("../" + folder.parent.name + "/folder/.", target_of(folder)) == "verified"
    assert _state("folder", target_of(folder.parent)) == "unverified"
    assert _state("none", target_of(folder)) == "unverified"


def test_who_has_ended_may_have_seen_other_files(folder: Path) -> None:
    assert _state(folder, target_of(folder), _ENDED) == "verified"
    assert _state(folder / "none", target_of(folder), _ENDED) == "unverified"
    assert _state("folder", target_of(folder), _ENDED) == "unverified"


def test_a_later_owner_of_the_pid_sees_other_files(folder: Path) -> None:
    later = this_process()._replace(birth=0)
    assert _state(folder / "none", target_of(folder), later) == "unverified"


def test_a_path_is_looked_up_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = _count_lookups(monkeypatch)
    paths, process = Paths(Mounts()), this_process()
    for _ in range(23):
        paths.state(process, os.fsencode(folder), target_of(folder))
        assert paths.sight(process, os.fsencode(folder)) is not None
    assert looked_up == [os.fsencode(folder)]


@pytest.mark.parametrize("kind", [b"nfs4", b"fuse.sshfs", b"autofs", b"cifs", b"unheard-of"])
def test_no_path_is_looked_up_that_may_wait_for_others(
    folder: Path, kind: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a mount of that kind WHEN a path or a link leads over it THEN nobody asks there."""
    share = folder / "share"
    (share / "local" / "remote").mkdir(parents=True)
    (folder / "link").symlink_to("share/file")
    (folder / "beside").mkdir()
    at = os.fsencode(share)
    _add_mounts(
        monkeypatch,
        Mount(60, kind, b"/", at),
        Mount(61, b"tmpfs", b"/", at + b"/local"),
        Mount(62, kind, b"/", at + b"/local/remote"),
    )
    looked_up = _count_lookups(monkeypatch)

    for over in ("share", "share/file", "link", "beside/../share/x", "share/local/file"):
        assert _state(folder / over, target_of(folder)) == "unverified"
        assert _state(f"{folder}/{over}/../..", target_of(folder)) == "unverified"
    assert _state(folder / "beside", target_of(folder / "beside")) == "verified"
    assert not any(at in one for one in looked_up)


def test_no_path_is_looked_up_below_a_remote_root(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add_mounts(monkeypatch, Mount(60, b"nfs4", b"/", b"/"))
    looked_up = _count_lookups(monkeypatch)
    assert _state(folder, target_of(folder)) == "unverified"
    assert looked_up == []


def test_on_an_overlay_of_unknown_layers_only_memory_is_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN that something there may wait THEN nothing is read, and a link is not followed."""
    share = folder / "share"
    (share / "below").mkdir(parents=True)
    (share / "link").symlink_to("below")
    _add_mounts(monkeypatch, Mount(60, b"overlay", b"/", os.fsencode(share), 1, b"ro,lowerdir=l"))
    asked: list[bool] = []
    opened = path.opened

    def note(*arguments: object, in_memory: bool = False) -> object:
        asked.append(in_memory)
        return opened(*arguments, in_memory=in_memory)  # type: ignore[arg-type]

    monkeypatch.setattr(path, "opened", note)
    monkeypatch.setattr("os.readlink", _read_no_links)
    paths, process, below = Paths(Mounts()), this_process(), os.fsencode(share / "below")

    # before Linux 5.12, nothing can be asked for in memory
    has_memory = paths.state(process, below, target_of(share / "below")) == "verified"
    assert has_memory or _release() < (5, 12)
    assert paths.state(process, below + b"/../link/x", None) == "unverified"
    with pytest.raises(BlockingIOError), paths.folder(process, os.fsencode(share)):
        pass
    with pytest.raises(BlockingIOError), paths.folder(process, below, to_read=True):
        pass
    if has_memory:
        with paths.names(process, os.fsencode(share)) as status_of:
            found = status_of(b"below")
            assert (kernel_device(found), found.st_ino) == target_of(share / "below")
            assert stat.S_ISLNK(status_of(b"link").st_mode)
    assert asked and all(asked)


def _read_no_links(name: bytes, *, dir_fd: int | None = None) -> bytes:
    """Only those of /proc."""
    assert dir_fd is None
    return _READLINK(name)


def _release() -> tuple[int, ...]:
    return tuple(map(int, os.uname().release.split("-")[0].split(".")[:2]))


def test_nothing_is_looked_up_by_a_root_that_is_not_mounted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN one that was unmounted lazily, which has the name of another."""
    assert _state(folder, target_of(folder)) == "verified"
    monkeypatch.setattr(mounts, "root_mount", lambda pid: 1 << 30)
    looked_up = _count_lookups(monkeypatch)
    assert _state(folder, target_of(folder)) == "unverified"
    assert looked_up == []


def test_nothing_is_looked_up_by_a_root_that_may_wait(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN one that something else is mounted over THEN it counts what it is on."""
    _add_mounts(monkeypatch, Mount(60, b"fuse", b"/", b"/elsewhere", 1 << 30))
    monkeypatch.setattr(mounts, "root_mount", lambda pid: 1 << 30)
    looked_up = _count_lookups(monkeypatch)
    assert _state(folder, target_of(folder)) == "unverified"
    assert looked_up == []


def test_paths_made_to_take_long_end_soon(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GIVEN a budget WHEN it is used up THEN what comes then is not looked up."""
    monkeypatch.setattr(path, "_NAMES_MAX", 100)
    paths, process = Paths(Mounts()), this_process()
    words = [
        paths.state(process, os.fsencode(folder / f"none-{i}"), target_of(folder))
        for i in range(123)
    ]
    gone = words.count("gone")
    assert 0 < gone < 100
    assert words == ["gone"] * gone + ["unverified"] * (123 - gone)


def _add_mounts(monkeypatch: pytest.MonkeyPatch, *more: Mount) -> None:
    monkeypatch.setattr(mounts, "mounts_of", lambda pid: [*mounts_of(pid), *more])


def _count_lookups(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    looked_up: list[bytes] = []
    opened = path.opened

    def count(pid: int, name: bytes, *rest: int, in_memory: bool = False) -> object:
        looked_up.append(name)
        return opened(pid, name, *rest, in_memory=in_memory)

    monkeypatch.setattr(path, "opened", count)
    return looked_up
