"""Which file an address belongs to, out of maps that hold any file name."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.stacks.mappings import Mapping, Mappings, parse_maps, read_mappings

_HEAD = b"00401000-00405000 r-xp 00001000 08:01 1173                       "
_DEV = os.makedev(8, 1)


def _line(start: int, end: int, permissions: bytes, offset: int, path: bytes = b"") -> bytes:
    head = b"%08x-%08x %s %08x 08:01 1173 " % (start, end, permissions, offset)
    # proc(5): the path is at column 73, if there is one
    return head.ljust(73) + path + b"\n" if path else head + b"\n"


# --- parsing ---


@pytest.mark.parametrize(
    "path",
    [
        b"/usr/bin/agent",
        b"/opt/two  words/agent ",
        rb"/opt/new\012line",
        b"/opt/agent (deleted)",
        b"/opt/\xff\xfe\x1b[31m",
        b"/opt/00500000-00600000 r-xp 00000000 08:01 1 /fake",
        b"/memfd:jit (deleted)",
        b"//anon",
        b"[vdso]",
        b"[uprobes]",
        b"/opt/carriage\rreturn",
    ],
)
def test_any_path_is_read_whole(path: bytes) -> None:
    text = _line(0x400000, 0x401000, b"r--p", 0, b"/x") + _HEAD + path + b"\n"

    assert parse_maps(text) == [Mapping(0x401000, 0x405000, 0x1000, _DEV, 1173, path)]


def test_code_without_a_file_is_anonymous() -> None:
    text = b"00007000-00009000 rwxp 00000000 00:00 0 \n"

    assert parse_maps(text) == [Mapping(0x7000, 0x9000, 0, 0, 0, b"[anon]")]


@pytest.mark.parametrize(
    ("permissions", "is_code"),
    [(b"r-xp", True), (b"--xp", True), (b"rwxs", True), (b"r--p", False), (b"---p", False)],
)
def test_only_what_can_be_executed_is_kept(permissions: bytes, is_code: bool) -> None:
    assert bool(parse_maps(_line(0x1000, 0x2000, permissions, 0, b"/x"))) is is_code


def test_addresses_of_64_bits() -> None:
    text = b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0        [vsyscall]\n"
    start = 0xFFFFFFFFFF600000

    assert parse_maps(text) == [Mapping(start, start + 4096, 0, 0, 0, b"[vsyscall]")]


def test_devices_are_those_of_stat() -> None:
    """GIVEN numbers beyond eight bits, as of device mapper and NVMe THEN they are not cut."""
    text = b"00001000-00002000 r-xp 00000000 103:1ff 1173 /x\n"

    assert parse_maps(text)[0].dev == os.makedev(0x103, 0x1FF)


_TEXT = st.lists(
    st.sampled_from([b"00001000-00002000 ", b"r-xp ", b"0 ", b"8:1 ", b"1 ", b"/x", b"\n"])
    | st.binary(max_size=8)
).map(b"".join)


@given(_TEXT)
def test_any_text_is_read_without_an_error(text: bytes) -> None:
    assert all(b"\n" not in mapping.name for mapping in parse_maps(text))


def test_no_more_mappings_are_kept_than_a_process_may_have_by_default() -> None:
    """GIVEN a process that was allowed more than 65,536 of them THEN the first are kept."""
    text = b"".join(b"%x-%x r-xp 0 8:1 1 /x\n" % (at, at + 1) for at in range(70_000))

    assert len(parse_maps(text)) == 65_536


# --- finding ---


def test_an_address_is_in_one_mapping_or_in_none() -> None:
    first, second = (Mapping(at, at + 0x1000, 0x2000, 0, 1, b"/x") for at in (0x1000, 0x2000))
    third = Mapping(0x8000, 0x9000, 0, 0, 1, b"/y")
    mappings = Mappings([first, second, third])

    for address, mapping in [
        (-1, None),
        (0, None),
        (0xFFF, None),
        (0x1000, first),
        (0x1FFF, first),
        (0x2000, second),
        (0x3000, None),
        (0x8FFF, third),
        (0x9000, None),
        (1 << 64, None),
    ]:
        assert mappings.find(address) == mapping
    assert Mappings([]).find(0x1000) is None
    assert first.file_offset(0x1023) == 0x2023


# --- processes ---


@pytest.fixture
def code(tmp_path: Path) -> Iterator[tuple[Path, mmap.mmap]]:
    """The second and third page of a file with a hostile name, mapped to be executed."""
    path = tmp_path / "two words\n[bold]"
    path.write_bytes(bytes(5 * mmap.PAGESIZE))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        mapped = mmap.mmap(
            descriptor,
            2 * mmap.PAGESIZE,
            flags=mmap.MAP_PRIVATE,
            prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC,
            offset=mmap.PAGESIZE,
        )
    finally:
        os.close(descriptor)
    yield path, mapped


def test_an_address_is_found_in_its_file(code: tuple[Path, mmap.mmap]) -> None:
    """GIVEN mapped code WHEN its addresses are looked up THEN they are file and offset."""
    path, mapped = code
    start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    size = 2 * mmap.PAGESIZE
    mappings = read_mappings(os.getpid())
    found = mappings.find(start)

    assert found is not None
    assert found.name == os.fsencode(path).replace(b"\n", rb"\012")
    assert found.file_offset(start + 23) == mmap.PAGESIZE + 23
    assert mappings.find(start + size - 1) == found
    assert found not in (mappings.find(start + size), mappings.find(start - 1))
    assert found.ino == path.stat().st_ino


def test_what_is_no_code_is_not_found() -> None:
    mappings = read_mappings(os.getpid())
    data = ctypes.create_string_buffer(23)

    assert mappings.find(0) is None
    assert mappings.find(ctypes.addressof(data)) is None


def test_made_code_is_anonymous() -> None:
    anonymous = mmap.mmap(
        -1,
        mmap.PAGESIZE,
        prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC,
        flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
    )
    found = read_mappings(os.getpid()).find(ctypes.addressof(ctypes.c_char.from_buffer(anonymous)))

    assert found is not None
    assert (found.name, found.ino) == (b"[anon]", 0)


def test_a_process_that_is_gone_is_an_os_error() -> None:
    with pytest.raises(OSError):
        read_mappings(2**22 + 1)
