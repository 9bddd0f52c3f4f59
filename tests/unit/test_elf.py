"""Headers of ELF files: those that linkers write, and those that nobody should believe."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from frame_tables import (
    BASE,
    ENTRIES,
    ENTRIES_AT,
    HEADER,
    IDENTITY,
    SECTION,
    SEGMENT,
    elf,
    entries,
    frame_index,
    gcc,
    program,
)

from tracer.stacks.elf import (
    PT_GNU_EH_FRAME,
    PT_LOAD,
    PT_NOTE,
    SHF_COMPRESSED,
    SHT_NOBITS,
    BytesContent,
    ElfError,
    ElfFile,
    FileContent,
    Section,
    c_string,
)

_EMPTY = "int main(void) { return 0; }"
_MIB = 1 << 20


def _file(
    segments: list[bytes], sections: list[bytes] | None = None, rest: bytes = b"", **fields: Any
) -> bytes:
    """A file of these headers; `fields` are those of elf(5), e_..., that lie."""
    sections = sections or []
    said = {
        "identity": IDENTITY,
        "phoff": HEADER.size,
        "shoff": HEADER.size + len(segments) * SEGMENT.size if sections else 0,
        "phentsize": SEGMENT.size,
        "phnum": len(segments),
        "shentsize": SECTION.size,
        "shnum": len(sections),
        "shstrndx": 0,
        **fields,
    }
    header = HEADER.pack(
        said["identity"],
        2,
        62,
        1,
        0x1234,
        said["phoff"],
        said["shoff"],
        0,
        64,
        said["phentsize"],
        said["phnum"],
        said["shentsize"],
        said["shnum"],
        said["shstrndx"],
    )
    return header + b"".join(segments) + b"".join(sections) + rest


def _load(offset: int, address: int, size: int, flags: int = 5) -> bytes:
    return SEGMENT.pack(PT_LOAD, flags, offset, address, address, size, size, 4096)


def _notes(notes: bytes, size: int | None = None, number: int = 1) -> ElfFile:
    at = HEADER.size + number * SEGMENT.size
    size = len(notes) if size is None else size
    return elf(_file([SEGMENT.pack(PT_NOTE, 4, at, 0, 0, size, size, 4)] * number, rest=notes))


def _note(name: bytes, kind: int, content: bytes) -> bytes:
    padded = [part + bytes(-len(part) % 4) for part in (name, content)]
    return struct.pack("<III", len(name), len(content), kind) + b"".join(padded)


# --- what linkers write ---


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gcc(tmp_path_factory.mktemp("elf"), _EMPTY, "-Wl,--build-id=0x00ffc0de")


def test_a_real_program_is_what_readelf_says(real: Path) -> None:
    content = real.read_bytes()
    file = elf(content)
    command = [shutil.which("readelf") or pytest.skip("readelf is missing"), "-SWh", str(real)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    rows = [line.partition("]")[2].split() for line in told.splitlines() if "] ." in line]
    assert [
        (one.name.decode(), one.address, one.offset, one.size) for one in file.sections[1:]
    ] == [(row[0], *(int(number, 16) for number in row[2:5])) for row in rows]
    assert f"{file.entry:#x}" in told
    assert file.build_id == "00ffc0de"
    assert file.machine == 62


def test_addresses_are_those_where_the_bytes_are_loaded(real: Path) -> None:
    file = elf(real.read_bytes())
    section = file.section(b".text")
    assert section is not None

    assert file.address_of(section.offset + 23) == section.address + 23
    assert file.offset_of(section.address + 23) == section.offset + 23
    assert file.read(section.offset, 4) == file.section_bytes(section, section.size)[:4]


def test_a_stripped_program_keeps_its_segments(real: Path, tmp_path: Path) -> None:
    stripped = tmp_path / "stripped"
    strip = shutil.which("strip") or pytest.skip("strip is missing")
    subprocess.run([strip, "-o", str(stripped), str(real)], check=True)
    file = elf(stripped.read_bytes())

    assert file.section(b".symtab") is None
    assert file.segment(PT_GNU_EH_FRAME) == elf(real.read_bytes()).segment(PT_GNU_EH_FRAME)


def test_a_program_without_build_id(tmp_path: Path) -> None:
    assert elf(gcc(tmp_path, _EMPTY, "-Wl,--build-id=none").read_bytes()).build_id is None


def test_files_are_read_without_being_mapped(real: Path) -> None:
    """GIVEN an open file WHEN it is cut short THEN what is gone is an error, not a signal."""
    copy = real.with_name("cut")
    copy.write_bytes(real.read_bytes())
    descriptor = os.open(copy, os.O_RDONLY)
    try:
        file = ElfFile(FileContent(descriptor))
        os.truncate(copy, 100)
        assert len(file.read_up_to(64, 100)) == 36
        with pytest.raises(ElfError):
            file.read(64, 100)
        assert file.sections == ()
        assert file.build_id is None
    finally:
        os.close(descriptor)


# --- segments ---


def test_a_mapping_has_what_no_segment_claims() -> None:
    """GIVEN two segments in one page THEN each has its part, and the first page is whole."""
    file = elf(_file([_load(0x1230, 0x401230, 0x500), _load(0x1730, 0x402730, 0x100)]))

    assert file.address_of(0x1000) == 0x401000
    assert file.address_of(0x172F) == 0x40172F
    assert file.address_of(0x1730) == 0x402730
    assert file.address_of(0xFFF) is None
    assert file.address_of(0x1830) is None
    assert file.offset_of(0x40122F) is None
    assert file.offset_of(0x401230) == 0x1230
    assert file.offset_of(0x402830) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x7fELF",
        b"#!/bin/sh\n" + bytes(100),
        _file([], identity=b"\x7fELF\x01\x01\x01".ljust(16, b"\0")),
        _file([], identity=b"\x7fELF\x02\x02\x01".ljust(16, b"\0")),
        _file([])[: HEADER.size - 1],
        _file([], phentsize=32, phnum=1),
        _file([_load(0, 0, 0)], phoff=1 << 63),
        _file([_load(0, 0, 0)], phoff=(1 << 64) - 1),
        _file([_load(0, 0, 0)], phnum=2),
        _file([_load(0, 0, 0)] * 4, phnum=0xFFFF),
    ],
    ids=range(11),
)
def test_what_is_no_such_file_is_an_elf_error(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ElfError):
        elf(content)
    path = tmp_path / "file"
    path.write_bytes(content)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(ElfError):
            ElfFile(FileContent(descriptor))
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("offset", [-1, 1 << 40, (1 << 63) - 1, 1 << 63, 1 << 64, 1 << 80])
def test_no_offset_is_more_than_an_error(offset: int) -> None:
    descriptor = os.open("/proc/self/exe", os.O_RDONLY)
    try:
        file = ElfFile(FileContent(descriptor))
        assert file.read_up_to(offset, 8) == b""
        with pytest.raises(ElfError):
            file.read(offset, 8)
        with pytest.raises(ElfError):
            ElfFile(BytesContent(_file([]))).read(offset, 8)
    finally:
        os.close(descriptor)


# --- sections ---


def test_numbers_too_large_for_the_header_are_in_the_first_section() -> None:
    """elf(5), e_shnum and e_shstrndx"""
    names = b"\0.data\0"
    at = HEADER.size + 2 * SECTION.size
    sections = [
        SECTION.pack(0, 0, 0, 0, 0, 2, 1, 0, 0, 0),
        SECTION.pack(1, 3, 0, 0, at, len(names), 0, 0, 1, 0),
    ]
    file = elf(_file([], sections, names, shnum=0, shstrndx=0xFFFF))

    assert [section.name for section in file.sections] == [b"", b".data"]


@pytest.mark.parametrize(
    "said",
    [
        {"shnum": 0xFFFF},
        {"shentsize": 0},
        {"shentsize": 40},
        {"shstrndx": 1},
        {"shstrndx": 0xFFFF},
        {"shoff": 1 << 63},
        {"shoff": (1 << 64) - 64},
        {"shoff": 65},
    ],
    ids=str,
)
def test_sections_that_make_no_sense_are_none(said: dict[str, Any]) -> None:
    assert elf(_file([], [SECTION.pack(0, 0, 0, 0, 0, 0, 7, 0, 0, 0)], **said)).sections == ()


@pytest.mark.parametrize(
    "section",
    [
        Section(b".x", 1, 0, 0, 0, 1 << 32, 0),
        Section(b".x", 1, 0, 0, 0, 101, 0),
        Section(b".x", 1, 0, 0, 1 << 63, 10, 0),
        Section(b".x", SHT_NOBITS, 0, 0, 0, 10, 0),
        Section(b".x", 1, SHF_COMPRESSED, 0, 0, 10, 0),
    ],
    ids=["huge", "larger than agreed", "nowhere", "not in the file", "compressed"],
)
def test_sections_that_cannot_be_read(section: Section) -> None:
    with pytest.raises(ElfError):
        elf(_file([], rest=bytes(200))).section_bytes(section, 100)


def test_names_without_end_take_no_memory() -> None:
    """GIVEN 4,096 sections, each with a name of a megabyte THEN memory stays small."""
    number = 4096
    at = HEADER.size + number * SECTION.size
    sections = [SECTION.pack(one, 1, 0, 0, at, _MIB, 0, 0, 1, 0) for one in range(number)]
    file = elf(_file([], sections, b"A" * _MIB))

    tracemalloc.start()
    begin = time.process_time()
    assert len(file.sections) == number
    assert time.process_time() - begin < 0.5
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * _MIB


def test_a_string_ends_at_its_nul_or_with_the_table() -> None:
    assert c_string(b"\0main\0", 1) == b"main"
    assert c_string(b"\0main", 2) == b"ain"
    assert c_string(b"\0main", 1 << 40) == b""


# --- notes ---


def test_the_build_id_comes_after_other_notes() -> None:
    notes = _note(b"GNU\0", 1, bytes(16)) + _note(b"stapsdt\0", 3, b"x" * 5)

    assert _notes(notes + _note(b"GNU\0", 3, bytes(range(20)))).build_id == bytes(range(20)).hex()
    assert _notes(notes).build_id is None


@pytest.mark.parametrize(
    "notes",
    [
        b"",
        bytes(11),
        _note(b"GNU\0", 3, b""),
        _note(b"GNU\0", 3, bytes(65)),
        _note(b"GNU\0", 3, bytes(20))[:-1],
        struct.pack("<III", 0xFFFFFFFF, 20, 3) + b"GNU\0" + bytes(20),
        struct.pack("<III", 4, 0xFFFFFFFF, 3) + b"GNU\0" + bytes(20),
        struct.pack("<III", 0, 0, 0) * 3,
    ],
    ids=range(8),
)
def test_notes_without_a_build_id(notes: bytes) -> None:
    assert _notes(notes).build_id is None


def test_notes_that_are_larger_than_the_file() -> None:
    assert _notes(_note(b"GNU\0", 3, b"\x23"), size=1 << 63).build_id == "23"


def test_as_many_notes_as_can_be_are_read_in_time() -> None:
    """GIVEN 128 segments of 5,461 empty notes each WHEN read THEN that ends soon."""
    file = _notes(bytes(1 << 16), number=128)

    begin = time.process_time()
    assert file.build_id is None
    assert time.process_time() - begin < 1


def test_the_miniature_is_what_it_says() -> None:
    """The files that other tests are made of are ELF files."""
    content, index = entries((0x800000, 16, b""))
    file = elf(program(content, frame_index(index)))
    section = file.section(b".eh_frame")

    assert section is not None
    assert file.section_bytes(section, _MIB) == content
    assert file.offset_of(ENTRIES_AT) == ENTRIES == ENTRIES_AT - BASE
