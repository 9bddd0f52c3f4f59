"""Handles: as fdinfo has them, as they are made, and those that overlayfs wraps."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_path import this_process

from tracer.core.walk import Inode
from tracer.kernel.fdinfo import Handle, parse_handles, read_handles
from tracer.kernel.filesystem import filesystem_uuid, mount_id
from tracer.kernel.handles import made_handle, open_by_handle
from tracer.kernel.procfs import parse_mounts
from tracer.targets import folders
from tracer.targets.folders import Folders
from tracer.targets.mounts import Mounts, MountTable, Vantage
from tracer.targets.overlay import Ground, Layers, RealHandle, real_handle, upper_first
from tracer.targets.path import Paths

_INODE = Inode(0xFFFF888100000000, 0x1_0000_0A0B, 0x0800001, 0x01020304)
_FID = Handle(1, b"\x01\0\0\0\x02\0\0\0")
_UUID = bytes(range(16))
_REAL = RealHandle(_FID, _UUID)
_LITTLE = struct.pack("=H", 1) == struct.pack("<H", 1)


# --- fdinfo ---


def test_handles_go_by_wd_and_inode_number() -> None:
    """GIVEN lines as fs/notify/fdinfo.c writes them, all numbers hexadecimal."""
    text = (
        b"pos:\t0\nflags:\t00\nmnt_id:\t15\nino:\t1057\n"
        b"inotify wd:1f ino:a0b sdev:800001 mask:2 ignored_mask:0 "
        b"fhandle-bytes:8 fhandle-type:1 f_handle:0b0a000004030201\n"
        b"inotify wd:1 ino:1 sdev:1b mask:2 ignored_mask:0 "
        b"fhandle-bytes:c fhandle-type:f8 f_handle:0403020101000000000000ff\n"
    )
    assert parse_handles(text) == {
        (0x1F, 0xA0B): Handle(1, bytes.fromhex("0b0a000004030201")),
        (1, 1): Handle(0xF8, bytes.fromhex("0403020101000000000000ff")),
    }


@pytest.mark.parametrize(
    "line",
    [
        b"inotify wd:1 ino:1 sdev:1b mask:2 ignored_mask:0 ",
        b"inotify wd:1 ino:1 sdev:1b mask:2 fhandle-bytes:8 fhandle-type:1 f_handle:",
        b"inotify wd:1 ino:1 fhandle-bytes:8 fhandle-type:1 f_handle:0g",
        b"inotify wd:1 ino:1 fhandle-bytes:8 fhandle-type:1 f_handle:012",
        b"fanotify ino:1 fhandle-bytes:8 fhandle-type:1 f_handle:01",
        b"",
    ],
)
def test_a_line_without_a_handle_is_passed_over(line: bytes) -> None:
    assert parse_handles(line + b"\n") == {}


def test_of_what_is_no_descriptor_there_are_no_handles() -> None:
    assert read_handles(os.getpid(), -1) == {}
    assert read_handles(1 << 22, 0) == {}


@given(st.binary(max_size=200))
def test_any_text_is_parsed(text: bytes) -> None:
    parse_handles(text)
    parse_handles(b"inotify wd:1 ino:1 fhandle-bytes:8 fhandle-type:1 f_handle:" + text)


# --- opened and made ---


def test_what_no_kernel_writes_is_not_passed_to_it(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        for handle in (Handle(1, bytes(129)), Handle(1 << 31, bytes(8))):
            with pytest.raises(ValueError, match="handle"):
                open_by_handle(folder, handle)
        with pytest.raises(OSError) as refused:
            open_by_handle(folder, Handle(0x7F, bytes(8)))
        assert refused.value.errno in (errno.EPERM, errno.ESTALE, errno.EOPNOTSUPP, errno.ENOSYS)
    finally:
        os.close(folder)


@pytest.mark.parametrize("kind", [b"ext2", b"ext3", b"ext4"])
def test_ext_filesystems_take_number_and_generation(kind: bytes) -> None:
    expected = struct.pack("=II", 0xA0B, 0x01020304)
    assert made_handle(_INODE, kind) == Handle(1, expected)


@pytest.mark.parametrize(
    "kind", [b"xfs", b"tmpfs", b"btrfs", b"overlay", b"proc", b"fuse.ext4", b""]
)
def test_where_the_format_is_not_certain_none_is_made(kind: bytes) -> None:
    assert made_handle(_INODE, kind) is None


# --- overlays ---


def _wrapped(
    fid: bytes = _FID.content,
    kind: int = _FID.kind,
    *,
    version: int = 0,
    magic: int = 0xFB,
    flags: int = 0 if _LITTLE else 1,
    length: int | None = None,
) -> bytes:
    length = 21 + len(fid) if length is None else length
    return struct.pack("=BBBBB16s", version, magic, length, flags, kind, _UUID) + fid


def test_the_handle_within_one_of_an_overlay() -> None:
    """GIVEN the format since Linux 5.8, and the one before without padding."""
    assert real_handle(Handle(0xF8, bytes(3) + _wrapped())) == _REAL
    assert real_handle(Handle(0xFB, _wrapped())) == _REAL
    # what comes after its own length is padding as well
    assert real_handle(Handle(0xF8, bytes(3) + _wrapped() + bytes(4))) == _REAL
    assert real_handle(Handle(0xF8, bytes(3) + _wrapped(flags=2))) == _REAL


@pytest.mark.parametrize(
    "handle",
    [
        Handle(1, bytes(3) + _wrapped()),
        Handle(0xF8, b""),
        Handle(0xF8, bytes(3) + _wrapped()[:20]),
        Handle(0xF8, bytes(3) + _wrapped(version=1)),
        Handle(0xF8, bytes(3) + _wrapped(magic=0)),
        Handle(0xF8, bytes(3) + _wrapped(length=20)),
        Handle(0xF8, bytes(3) + _wrapped(fid=b"")),
        Handle(0xF8, bytes(3) + _wrapped(flags=1 if _LITTLE else 0)),
    ],
)
def test_what_is_no_handle_of_an_overlay(handle: Handle) -> None:
    assert real_handle(handle) is None


def _layers(mountinfo: bytes, dev: int) -> list[bytes]:
    return upper_first(MountTable(parse_mounts(mountinfo)).overlay_options(dev))


def test_the_layers_of_an_overlay_the_upper_first() -> None:
    """GIVEN names with what separates layers and options, and with blanks."""
    text = (
        b"30 1 0:26 / / rw - ext4 /dev/vda rw\n"
        b"41 30 0:52 / /other rw - overlay none rw,lowerdir=/x,upperdir=/y\n"
        b"42 30 0:53 / /on rw,relatime shared:3 - overlay a\\040b rw,"
        b"lowerdir=/one\\134:1:/two\\0402,upperdir=/up\\134\\054per,workdir=/work,index=off\n"
    )
    assert _layers(text, 53) == [b"/up,per", b"/one:1", b"/two 2"]
    assert _layers(text, 52) == [b"/y", b"/x"]
    assert _layers(text, 26) == []


def test_layers_that_were_given_one_by_one() -> None:
    """GIVEN the options of fsconfig(2) since Linux 6.8, and layers of data only."""
    text = b"1 1 0:53 / / rw - overlay none ro,lowerdir+=/a:b,lowerdir+=/c,datadir+=/d\n"
    assert _layers(text, 53) == [b"/a:b", b"/c", b"/d"]
    text = b"1 1 0:53 / / rw - overlay none ro,lowerdir=/a:/b::/data\n"
    assert _layers(text, 53) == [b"/a", b"/b", b"/data"]


@given(st.binary(max_size=100))
def test_any_options_are_parsed(options: bytes) -> None:
    _layers(b"1 1 0:53 / / rw - overlay none " + options + b"\n", 53)
    real_handle(Handle(0xF8, options))


def _vantage() -> Vantage:
    found = Mounts().vantage(os.getpid())
    assert found is not None
    return found


def _ground(dev: int, uuid: bytes | None, *tops: bytes) -> Ground:
    return Ground(this_process(), _vantage(), b"/", dev, uuid, list(tops))


def test_a_handle_may_be_of_any_layer_unless_a_uuid_tells() -> None:
    one, other, unknown = _ground(1, _UUID), _ground(2, bytes(15) + b"x"), _ground(3, None)
    grounds = (one, other, unknown)
    anywhere = RealHandle(_FID, bytes(16))
    assert list(Layers(grounds, True).that_may_have(_REAL)) == [one]
    assert list(Layers(grounds[1:], True).that_may_have(_REAL)) == [unknown]
    assert list(Layers(grounds, True).that_may_have(anywhere)) == list(grounds)


def test_a_handle_may_be_of_a_layer_that_is_not_seen() -> None:
    one, other, unknown = _ground(1, _UUID), _ground(2, bytes(15) + b"x"), _ground(3, None)
    assert list(Layers((one, unknown), False).that_may_have(_REAL)) == [one]
    assert list(Layers((other, unknown), False).that_may_have(_REAL)) == []
    anywhere = RealHandle(_FID, bytes(16))
    assert list(Layers((one, other), False).that_may_have(anywhere)) == []


def test_where_an_overlay_has_what_is_in_its_layers() -> None:
    """GIVEN layers that are in one another, one that begins like another, and a whole filesystem"""
    ground = _ground(1, None, b"/a", b"/a/b", b"/ab", b"/")
    assert list(ground.below(b"/a/b/c")) == [b"/b/c", b"/c", b"/a/b/c"]
    assert list(ground.below(b"/a")) == [b"", b"/a"]
    assert list(ground.below(b"not reachable")) == []


# --- folders ---


def test_a_few_folders_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_OPEN_MAX", 3)
    names = [tmp_path.resolve() / str(at) for at in range(7)]
    for name in names:
        name.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    kept = Folders(Paths(Mounts()))
    for name in (*names, *names):
        folder = kept.of(this_process(), _vantage(), os.fsencode(name))
        assert folder is not None
        assert folder.found == os.fstat(folder.file)
        assert os.path.samestat(folder.found, name.stat())
        assert len(os.listdir("/proc/self/fd")) <= before + 3
    kept.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_descriptors_no_folder_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "dup", refuse)
    kept = Folders(Paths(Mounts()))
    assert kept.of(this_process(), _vantage(), os.fsencode(tmp_path.resolve())) is None
    kept.close()


def test_what_a_descriptor_is_on() -> None:
    file = os.open("/proc", os.O_RDONLY)
    try:
        line = b"%d " % mount_id(file)
        # of the kernel's own there are none
        assert filesystem_uuid(file) is None
    finally:
        os.close(file)
    with open("/proc/self/mountinfo", "rb") as table:
        points = [each.split()[4] for each in table if each.startswith(line)]
    assert points == [b"/proc"]
