"""
Go programs in miniature: one function in each layout of the pclntab, also of releases long gone.

main.run is at 0x1000 and has 64 bytes. In bytes 16 to 31 it has main.call, inlined at line 12.
"""

from __future__ import annotations

import struct
from datetime import timedelta

from hypothesis import strategies as st

from tracer.stacks.elf import BytesContent, ElfError, ElfFile
from tracer.stacks.gopclntab import GoTable

TEXT, SIZE = 0x1000, 64
DEADLINE = timedelta(seconds=2)
WORDS = st.one_of(
    st.sampled_from([0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 63, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1),
)
RELEASES = ("1.2", "1.16", "1.18", "1.20", "1.27")

_BASE = 0x400000
_TABLE, _TREE, _MODULE, _END = 0x200, 0x600, 0x800, 0xC00
_TABLE_BYTES = 0x300
# in the table
_NAMES, _UNITS, _PATHS, _VALUES, _ENTRIES, _RECORD = 0x80, 0xA0, 0xA8, 0xC0, 0x200, 0x220
_SP, _FILE, _INLINED, _LINE = 0x01, 0x11, 0x21, 0x31
_MAGIC = {"1.2": 0xFFFFFFFB, "1.16": 0xFFFFFFFA, "1.18": 0xFFFFFFF0}
_GO_FUNC = {"1.18": 38, "1.20": 40, "1.27": 43}
_TABLE_END = 44

# a value and for how many bytes of code it holds
_SPS = ((0, 4), (24, 56), (0, 4))
_LINES = ((10, 8), (12, 8), (71, 16), (13, 32))
_INDICES = ((-1, 16), (0, 16), (-1, 32))


def program(
    release: str, *, parent_pc: int = 12, lines: bytes | None = None, data_lists: int = 4
) -> bytes:
    """An ELF file; `lines` is what its table of lines has, `data_lists` how many _func has."""
    parts = {
        0: _headers(),
        _TABLE: _header(release),
        _TABLE + _NAMES: b"\0main.run\0main.call\0",
        # Go 1.2: how many files there are, and where they are; later how far into the paths
        _TABLE + _UNITS: struct.pack("<II", *((2, _PATHS) if release == "1.2" else (0, 0))),
        _TABLE + _PATHS: b"/src/run.go\0",
        _TABLE + _VALUES + _SP: values(*_SPS),
        _TABLE + _VALUES + _FILE: values((int(release == "1.2"), SIZE)),
        _TABLE + _VALUES + _INLINED: values(*_INDICES),
        _TABLE + _VALUES + _LINE: values(*_LINES) if lines is None else lines,
        _TABLE + _RECORD: _record(release, data_lists),
        _TREE: _tree(release, parent_pc),
        _MODULE: _module(release),
        _END: _sections(),
    }
    content = bytearray(_END)
    for at, part in parts.items():
        content[at : at + len(part)] = part
    return bytes(content)


def ask(content: bytes, addresses: range) -> None:
    """All that a table can be asked; raises what is not documented."""
    try:
        table = GoTable(ElfFile(BytesContent(content)))
    except ElfError:
        return
    for address in addresses:
        covered = table.covers(address)
        assert bool(table.frames(address)) <= covered
        assert (table.cfa_offset(address) is not None) <= covered
        assert table.is_outermost(address) <= covered
        table.return_address_offset(address)
        table.frame_pointer_offset(address)


def values(*runs: tuple[int, int]) -> bytes:
    """Differences in zig-zag, as `step` in go/src/runtime/symtab.go reads them."""
    content, before = b"", -1
    for value, size in runs:
        change, before = value - before, value
        content += varint(change << 1 if change >= 0 else ~change << 1 | 1) + varint(size)
    return content + b"\0"


def varint(number: int) -> bytes:
    low = number & 0x7F
    return bytes([low]) if number < 0x80 else bytes([low | 0x80]) + varint(number >> 7)


def _is_relative(release: str) -> bool:
    return release in _GO_FUNC


def _header(release: str) -> bytes:
    head = struct.pack("<IHBBQ", _MAGIC.get(release, 0xFFFFFFF1), 0, 1, 8, 1)
    if release == "1.2":
        return head + struct.pack("<QQQI", TEXT, _RECORD, TEXT + SIZE, _UNITS)
    parts = struct.pack("<5Q", _NAMES, _UNITS, _PATHS, _VALUES, _ENTRIES)
    # the number of files, and from Go 1.18 on where the code begins, which 1.26 leaves out
    head += struct.pack("<Q", 1) + (struct.pack("<Q", 0) if _is_relative(release) else b"")
    row = (0, _RECORD - _ENTRIES, SIZE) if _is_relative(release) else (TEXT, 0x20, TEXT + SIZE)
    entries = struct.pack("<III" if _is_relative(release) else "<QQQ", *row)
    return (head + parts).ljust(_ENTRIES, b"\0") + entries


def _record(release: str, data_lists: int) -> bytes:
    from_start = release == "1.2"
    name = 1 + (_NAMES if from_start else 0)
    tables = [at + (_VALUES if from_start else 0) for at in (_SP, _FILE, _LINE, _INLINED)]
    record = struct.pack("<I" if _is_relative(release) else "<Q", 0)
    record += struct.pack("<iiIIIII", name, 0, 0, *tables[:3], 3)
    record += b"" if from_start else struct.pack("<I", 0)
    record += struct.pack("<I", 9) if release in ("1.20", "1.27") else b""
    record += struct.pack("<BBBB", 0, 0, 0, data_lists)
    record += struct.pack("<3I", 0, 0, tables[3])
    if _is_relative(release):
        return record + struct.pack("<4I", *[0xFFFFFFFF] * 3, 0)
    record += bytes(-len(record) % 8)
    return record + struct.pack("<4Q", 0, 0, 0, _BASE + _TREE)


def _tree(release: str, parent_pc: int) -> bytes:
    name = 10
    if release in ("1.20", "1.27"):
        return struct.pack("<B3xiii", 0, name, parent_pc, 70)
    return struct.pack("<hBxiiii", -1, 0, 0, 12, name, parent_pc)


def _module(release: str) -> bytes:
    if not _is_relative(release):
        return b""
    words = [0] * 50
    words[0], words[1] = _BASE + _TABLE, _BASE + _TABLE + _NAMES
    words[17], words[22] = 2, TEXT
    words[_GO_FUNC[release]] = _BASE + _TREE
    if release == "1.27":
        words[_TABLE_END] = _BASE + _TABLE + _TABLE_BYTES
    return struct.pack("<50Q", *words)


def _headers() -> bytes:
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", identity, 2, 62, 1, 0, 64, _END, 0, 64, 56, 1, 64, 3, 2
    )
    # all of the file, to be read and changed
    return header + struct.pack("<IIQQQQQQ", 1, 6, 0, _BASE, _BASE, _END, _END, 4096)


def _sections() -> bytes:
    names = b"\0.gopclntab\0.shstrtab\0"
    section = struct.Struct("<IIQQQQIIQQ")
    names_at = _END + 3 * section.size
    return (
        bytes(section.size)
        + section.pack(1, 1, 2, _BASE + _TABLE, _TABLE, _TABLE_BYTES, 0, 0, 8, 0)
        + section.pack(12, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
        + names
    )
