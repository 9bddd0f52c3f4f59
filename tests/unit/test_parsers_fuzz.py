"""ELF files of strangers can neither crash the reading of unwind tables, nor hang or swell it."""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
import tracemalloc
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from frame_tables import (
    ENTRIES,
    ENTRIES_AT,
    HEADER,
    INDEX,
    SEGMENT,
    TEXT,
    block,
    cie,
    entries,
    fde,
    frame_index,
    gcc,
    program,
    uleb,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.stacks.cfi import CfaRule, rules_at
from tracer.stacks.elf import PT_GNU_EH_FRAME, PT_LOAD, BytesContent, ElfError, ElfFile
from tracer.stacks.frame_entry import FrameTable
from tracer.stacks.module import Module
from tracer.stacks.registers import OWN
from tracer.stacks.row import Row
from tracer.stacks.row_compiler import compiled
from tracer.stacks.symbol_cache import SymbolCache
from tracer.stacks.unwinder import TableRules

_SECONDS, _BYTES = 0.5, 64 << 20
_WORD = (1 << 64) - 1
_KIB = 1024

_SOURCE = """
#include <stdio.h>
__attribute__((noinline)) void use(void *p) { __asm__ volatile("" :: "r"(p) : "memory"); }
int realigned(int a, int b, int c, int d, int e, int f, int g, int n) {
    int wide[16] __attribute__((aligned(64)));
    use(wide);
    use(__builtin_alloca(n));
    return g + wide[3];
}
int main(int n, char **v) { return puts("23") + realigned(1, 2, 3, 4, 5, 6, 7, n); }
"""
_BUILDS = {
    "indexed": (),
    "lazy": ("-Wl,-z,lazy",),
    "unindexed": ("-Wl,--no-eh-frame-hdr",),
    "library": ("-shared", "-fPIC"),
    "without tables": ("-fno-asynchronous-unwind-tables",),
    "stripped": ("-s",),
}


def _read_within_bounds(content: bytes, addresses: list[int]) -> None:
    """In no more time and memory than a stranger's file may take; each for itself."""
    begin = time.process_time()
    _read(content, addresses)
    took = time.process_time() - begin
    assert took < _SECONDS, f"{took:.2f} s"
    tracemalloc.start()
    try:
        _read(content, addresses)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < _BYTES, f"{peak >> 20} MiB"


def _read(content: bytes, addresses: list[int]) -> None:
    """All that is asked of a file; where it makes no sense the outcome is what is documented."""
    with suppress(ElfError):
        elf = ElfFile(BytesContent(content))
        _read_headers(elf, addresses)
        table = FrameTable(elf)
        for address in addresses:
            with suppress(ElfError):
                _read_rules(table, address)
    module = _module(content)
    for address in addresses:
        linked = module.address_of(address)
        for one in (address, address if linked is None else linked):
            leaving = module.leaving(one)
            assert leaving is None or isinstance(leaving, (TableRules, Row))
            assert all(isinstance(place.function, str) for place in module.places(one))
    assert module.build_id is None or int(module.build_id, 16) >= 0


def _module(content: bytes) -> Module:
    demangler = partial(str, encoding="utf-8", errors="replace")
    return Module(BytesContent(content), demangler, SymbolCache())


def _read_headers(elf: ElfFile, addresses: list[int]) -> None:
    assert len(elf.segments) <= 128 and len(elf.sections) <= 4096
    assert elf.build_id is None or len(elf.build_id) <= 128
    for section in elf.sections:
        assert len(section.name) < _KIB
        with suppress(ElfError):
            assert len(elf.section_bytes(section, 1 << 20)) == section.size
    for address in addresses:
        for answer in (elf.offset_of(address), elf.address_of(address)):
            assert answer is None or isinstance(answer, int)


def _read_rules(table: FrameTable, address: int) -> None:
    found = table.find(address)
    if found is None:
        return
    assert found.start <= address < found.start + found.size
    rules = rules_at(found, address)
    assert isinstance(rules.cfa, (CfaRule, bytes))
    assert len(compiled(rules, OWN, address).packed()) == 16


# --- real files that were tampered with ---


class _Original:
    """A file, what in it is worth changing, and addresses that it has functions at."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        elf = ElfFile(BytesContent(content))
        segments = struct.unpack_from("<Q", content, 32)[0]
        sections = struct.unpack_from("<Q", content, 40)[0]
        self.places = [(0, HEADER.size), (segments, SEGMENT.size * len(elf.segments))]
        self.places.append((sections, len(content) - sections))
        self.addresses = [-1, 0, elf.entry, _WORD, 1 << 63]
        for name in (b".eh_frame_hdr", b".eh_frame", b".symtab", b".plt", b".text"):
            section = elf.section(name)
            if section is not None:
                self.places.append((section.offset, section.size))
                self.addresses += [section.address, section.address + section.size // 2]
        index = elf.section(b".eh_frame_hdr")
        if index is not None:
            table = elf.section_bytes(index, 1 << 20)[12:]
            starts = [start for start, _ in struct.iter_unpack("<ii", table)]
            self.addresses += [index.address + start + 1 for start in starts]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[_Original]:
    folder = tmp_path_factory.mktemp("originals")
    built = [gcc(folder, _SOURCE, *flags) for flags in _BUILDS.values()]
    return [_Original(path.read_bytes()) for path in built]


_HUGE = [0, 1, 0x7F, 0xFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 63, _WORD - 7, _WORD]


@st.composite
def _tampered(draw: st.DrawFn, original: _Original) -> bytes:
    """Bytes flipped, numbers made huge, parts laid over others, and the end cut off."""
    content = bytearray(original.content)

    def place(size: int) -> int:
        begin, length = draw(st.sampled_from(original.places))
        at: int = begin + draw(st.integers(0, max(0, length - 1)))
        return min(at, len(content) - size)

    for change in draw(st.lists(st.sampled_from(["flip", "number", "part"]), max_size=8)):
        if change == "flip":
            content[place(1)] = draw(st.integers(0, 255))
        elif change == "number":
            size = draw(st.sampled_from([1, 2, 4, 8]))
            number = draw(st.sampled_from(_HUGE) | st.integers(0, len(content) + 4096))
            at = place(8) & -size
            content[at : at + size] = (number & (1 << 8 * size) - 1).to_bytes(size, "little")
        else:
            size = draw(st.integers(1, 200))
            source, target = place(size), place(size)
            content[target : target + size] = content[source : source + size]
    end = draw(st.just(len(content)) | st.integers(0, len(content)))
    return bytes(content[:end])


@settings(max_examples=250, deadline=timedelta(seconds=2 * _SECONDS))
@given(data=st.data())
def test_files_that_were_tampered_with(originals: list[_Original], data: st.DataObject) -> None:
    """GIVEN a program as gcc makes it, changed in eight places WHEN read THEN within bounds."""
    original = data.draw(st.sampled_from(originals))
    content = data.draw(_tampered(original))
    addresses = data.draw(st.lists(st.sampled_from(original.addresses), max_size=6))
    _read_within_bounds(content, addresses)


@settings(max_examples=100, deadline=timedelta(seconds=2 * _SECONDS))
@given(st.binary(max_size=600), st.binary(max_size=300), st.integers(-4, 40))
def test_tables_of_any_bytes(frames: bytes, index: bytes, offset: int) -> None:
    """GIVEN a sound file with any bytes for its tables WHEN read THEN within bounds."""
    head = frame_index([])[:8]
    _read_within_bounds(program(frames, index), [TEXT + offset])
    _read_within_bounds(program(cie() + frames, head + index), [TEXT + offset])
    _read_within_bounds(program(frames), [TEXT + offset])


@settings(max_examples=150)
@given(st.binary(max_size=200), st.binary(max_size=60), st.integers(0, 63))
def test_functions_of_any_instructions(body: bytes, common: bytes, offset: int) -> None:
    content, index = entries((TEXT, 64, body), common=cie(common))
    _read_within_bounds(
        program(content, frame_index(index), machine=OWN.elf_machine), [TEXT + offset]
    )


def test_originals_are_read(originals: list[_Original]) -> None:
    """What is tampered with has something to tell while it is whole."""
    for original in originals:
        module = _module(original.content)
        known = [module.leaving(address) for address in original.addresses]
        assert any(known)


# --- the worst that can be thought of ---


def _function(instructions: bytes, common: bytes | None = None) -> bytes:
    content, index = entries((TEXT, 64, instructions), common=common)
    return program(content, frame_index(index), machine=OWN.elf_machine)


def _changed(content: bytes, at: int, form: str, *values: int) -> bytes:
    changed = bytearray(content)
    struct.pack_into(f"<{form}", changed, at, *values)
    return bytes(changed)


_SOUND = _function(b"\x41\x0e\x10")
_SECTIONS_AT = struct.unpack_from("<Q", _SOUND, 40)[0]


def _cie_cycle() -> bytes:
    common = cie()
    at = len(common)
    pair = fde(b"", TEXT, 64, at=at, cie_at=at + 24) + fde(b"", TEXT, 64, at=at + 24, cie_at=at)
    return program(common + pair, frame_index([(TEXT, at), (TEXT + 1, at + 24)]))


def _many_entries(number: int) -> bytes:
    common = cie()
    each = [fde(b"", TEXT + at, 1, at=len(common) + 24 * at, cie_at=0) for at in range(number)]
    return program(common + b"".join(each))


def _every_segment_is_all_of_it() -> bytes:
    """128 segments that say they have 2^63 bytes, all at the same place."""
    segment = SEGMENT.pack(PT_LOAD, 5, 0, 0, 0, 1 << 63, 1 << 63, 4096)
    notes = SEGMENT.pack(4, 4, 0x4000, 0, 0, 1 << 63, 1 << 63, 4)
    index = SEGMENT.pack(PT_GNU_EH_FRAME, 4, INDEX, INDEX, INDEX, 1 << 63, 1 << 63, 4)
    content = bytearray(_SOUND.ljust(0x4000 + (1 << 16), b"\0"))
    content[64 : 64 + 128 * SEGMENT.size] = segment * 60 + notes * 67 + index
    return _changed(bytes(content), 56, "H", 128)


_WORST = {
    "4 GiB of .eh_frame": _changed(_SOUND, _SECTIONS_AT + 64 + 32, "Q", 1 << 32),
    "names of 4 GiB": _changed(_SOUND, _SECTIONS_AT + 2 * 64 + 32, "Q", 1 << 32),
    "65,535 sections": _changed(_SOUND, 60, "H", 0xFFFF),
    "2^64 sections": _changed(_changed(_SOUND, 60, "H", 0), _SECTIONS_AT + 32, "Q", _WORD),
    "sections within the header": _changed(_SOUND, 40, "Q", 1),
    "segments within the header": _changed(_SOUND, 32, "Q", 1),
    "segments all over": _every_segment_is_all_of_it(),
    "2^31 functions": _changed(_SOUND, INDEX + 8, "I", 1 << 31),
    "an index of 2^63 bytes": _changed(
        _changed(_SOUND, 64 + SEGMENT.size + 32, "Q", 1 << 63), INDEX + 8, "I", (1 << 32) - 1
    ),
    "a cycle of CIEs": _cie_cycle(),
    "40,000 entries": _many_entries(40_000),
    "100,000 entries of 4 bytes": program(struct.pack("<II", 4, 1) * 100_000),
    "an entry of 4 GiB": _changed(_SOUND, ENTRIES, "I", 0xFFFFFFF0),
    "a number of 10,000 bytes": _function(b"\x83" + b"\xff" * 10_000),
    "a CIE of numbers": _function(b"", cie(b"\xff" * 900)),
    "states that pile up": _function(b"\x0a" * 30 * _KIB),
    "there and back": _function(b"\x0a\x0b" * 15 * _KIB),
    "registers that pile up": _function(
        b"".join(b"\x05" + uleb(number) + b"\x01" for number in range(8000))
    ),
    "an expression of 30 KiB": _function(b"\x0f" + block(b"\x96" * 30 * _KIB)),
    "an expression of 60 KiB": _function(b"\x0f" + block(b"\x96" * 60 * _KIB)),
    "an expression that squares": _function(b"\x0f" + block(b"\x3f" + b"\x12\x1e" * 400)),
    "an expression that piles up": _function(b"\x0f" + block(b"\x30" * 1000)),
    "nothing for 30 KiB": _function(bytes(30 * _KIB)),
    "far jumps": _function(b"\x04\xff\xff\xff\xff" * 6000, cie(code_alignment=_WORD)),
}


@pytest.mark.parametrize("content", _WORST.values(), ids=_WORST)
def test_the_worst_is_within_bounds(content: bytes) -> None:
    _read_within_bounds(content, [TEXT, TEXT + 63, ENTRIES_AT, 0, _WORD])


def test_names_that_overlap_are_within_bounds() -> None:
    """GIVEN symbols that share a megabyte without a NUL as their names THEN none has one."""
    number, names = 4000, 1 << 20
    symbol = struct.Struct("<IBBHQQ")
    symbols = b"".join(symbol.pack(one, 0x12, 0, 1, TEXT, 64) for one in range(number))
    at = HEADER.size + 4 * 64
    section = struct.Struct("<IIQQQQIIQQ")
    headers = [
        bytes(64),
        section.pack(1, 2, 0, 0, at, len(symbols), 2, 0, 8, 24),
        section.pack(1, 3, 0, 0, at + len(symbols), names, 0, 0, 1, 0),
        section.pack(1, 3, 0, 0, at + len(symbols), names, 0, 0, 1, 0),
    ]
    header = bytearray(_SOUND[: HEADER.size])
    struct.pack_into("<QQ", header, 32, HEADER.size, HEADER.size)
    struct.pack_into("<HHHHH", header, 54, 56, 0, 64, 4, 3)
    _read_within_bounds(
        bytes(header) + b"".join(headers) + symbols + b"A" * names, [TEXT, TEXT + 1]
    )


def test_a_file_that_is_cut_anywhere_is_within_bounds(tmp_path: Path) -> None:
    path = gcc(tmp_path, _SOURCE)
    strip = shutil.which("strip")
    if strip is not None:
        subprocess.run([strip, str(path)], check=True)
    original = _Original(path.read_bytes())
    for end in range(0, len(original.content), 397):
        _read_within_bounds(original.content[:end], original.addresses[:8])
