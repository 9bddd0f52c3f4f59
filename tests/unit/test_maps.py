"""Which file an address belongs to, out of maps that hold any file name."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.kernel.maps import Mappings, Place, parse_maps

_HEAD = b"00401000-00405000 r-xp 00001000 08:01 1173                       "


def _line(start: int, end: int, permissions: bytes, offset: int, path: bytes = b"") -> bytes:
    head = b"%08x-%08x %s %08x 08:01 1173 " % (start, end, permissions, offset)
    # proc(5): the path is at column 73, if there is one
    return head.ljust(73) + path + b"\n" if path else head + b"\n"


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

    assert parse_maps(text) == [(0x401000, 0x405000, 0x1000, path)]


def test_code_without_a_file_is_anonymous() -> None:
    assert parse_maps(_line(0x7000, 0x9000, b"rwxp", 0)) == [(0x7000, 0x9000, 0, b"[anon]")]


@pytest.mark.parametrize(
    ("permissions", "is_code"),
    [(b"r-xp", True), (b"--xp", True), (b"rwxs", True), (b"r--p", False), (b"---p", False)],
)
def test_only_what_can_be_executed_is_kept(permissions: bytes, is_code: bool) -> None:
    assert bool(parse_maps(_line(0x1000, 0x2000, permissions, 0, b"/x"))) is is_code


def test_addresses_of_64_bits() -> None:
    text = b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0        [vsyscall]\n"

    assert parse_maps(text) == [(0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000, 0, b"[vsyscall]")]


@given(st.binary(max_size=400))
def test_any_text_is_read_without_an_error(text: bytes) -> None:
    assert all(b"\n" not in path for _, _, _, path in parse_maps(text))


@pytest.fixture
def code(tmp_path: Path) -> tuple[Path, mmap.mmap]:
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
    return path, mapped


def test_an_address_is_found_in_its_file(code: tuple[Path, mmap.mmap]) -> None:
    """GIVEN mapped code WHEN its addresses are looked up THEN they are file and offset."""
    path, mapped = code
    start = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    mappings = Mappings(os.getpid())
    module = os.fsencode(path).replace(b"\n", rb"\012")

    assert mappings.find(start) == Place(module, mmap.PAGESIZE)
    assert mappings.find(start + 23) == Place(module, mmap.PAGESIZE + 23)
    last = 2 * mmap.PAGESIZE - 1
    assert mappings.find(start + last) == Place(module, mmap.PAGESIZE + last)
    beyond = mappings.find(start + last + 1)
    assert beyond is None or beyond.module != module
    before = mappings.find(start - 1)
    assert before is None or before.module != module


def test_what_is_no_code_is_not_found(code: tuple[Path, mmap.mmap]) -> None:
    mappings = Mappings(os.getpid())
    data = ctypes.create_string_buffer(23)

    assert mappings.find(0) is None
    assert mappings.find(ctypes.addressof(data)) is None


def test_anonymous_code_is_only_an_address() -> None:
    anonymous = mmap.mmap(
        -1,
        mmap.PAGESIZE,
        prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC,
        flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
    )
    address = ctypes.addressof(ctypes.c_char.from_buffer(anonymous)) + 23

    assert Mappings(os.getpid()).find(address) == Place(b"[anon]", address)


def test_a_process_that_is_gone_is_an_os_error() -> None:
    with pytest.raises(OSError):
        Mappings(2**22 + 1)
