"""Function symbols: never the nearest, the innermost, and one name of many, always the same."""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from time import perf_counter
from typing import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.stacks import symbol_table
from tracer.stacks.elf import BytesContent, ElfError, ElfFile
from tracer.stacks.symbol_table import Symbol, SymbolTable

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="no compiler")

# What nm calls the bindings, in the order of preference.
_RANKS = {"T": 0, "u": 0, "i": 0, "W": 1, "V": 1, "w": 1, "t": 2}


def _table(path: Path) -> SymbolTable:
    return SymbolTable(ElfFile(BytesContent(path.read_bytes())))


def _function(name: str, size: int | None, binding: str = "globl") -> str:
    sized = f".size {name},{size}\n" if size is not None else ""
    return f".{binding} {name}\n.type {name},@function\n{name}:\n{sized}"


@pytest.fixture
def assembled(tmp_path: Path) -> Callable[..., tuple[Path, int]]:
    """A library of the given assembly, and where its code begins."""

    def build(text: str) -> tuple[Path, int]:
        source, library = tmp_path / "code.s", tmp_path / "code.so"
        source.write_text(f".local begin\nbegin:\n{text}")
        subprocess.run(["gcc", "-shared", "-nostdlib", "-o", library, source], check=True)
        listing = subprocess.run(["nm", library], check=True, capture_output=True, text=True).stdout
        begin = next(line for line in listing.splitlines() if line.endswith(" begin"))
        return library, int(begin.split()[0], 16)

    return build


def _name(table: SymbolTable, address: int) -> bytes | None:
    found = table.find(address)
    return found.name if found else None


def test_what_lies_between_functions_has_no_name(
    assembled: Callable[..., tuple[Path, int]],
) -> None:
    """GIVEN a gap of 64 bytes after a function WHEN looked up THEN it is not that function."""
    gap = ".skip 64,0x90\n"
    path, begin = assembled(
        _function("one", 3) + ".skip 3\n" + gap + _function("two", 1) + ".skip 1\n"
    )
    table = _table(path)

    assert [table.find(begin + at) for at in (0, 2)] == [Symbol(b"one", begin, 3)] * 2
    assert [_name(table, begin + at) for at in (-1, 3, 35, 66, 67, 68)] == [
        *[None] * 4,
        b"two",
        None,
    ]
    assert [_name(table, at) for at in (0, -1, 1 << 63, (1 << 64) - 1, 1 << 70)] == [None] * 5


def test_the_innermost_function_counts(assembled: Callable[..., tuple[Path, int]]) -> None:
    """GIVEN functions inside of another WHEN it goes on after them THEN it has its name again."""
    path, begin = assembled(
        _function("outer", 40)
        + ".skip 10\n"
        + _function("inner", 10, "local")
        + ".skip 2\n"
        + _function("core", 2, "local")
        + _function("unsized", None)
        + ".skip 28\n"
    )
    table = _table(path)

    names = [_name(table, begin + at) for at in (0, 9, 10, 11, 12, 13, 14, 19, 20, 39, 40)]
    outer, inner, core = b"outer", b"inner", b"core"
    assert names == [outer, outer, inner, inner, core, core, inner, inner, outer, outer, None]


@pytest.mark.parametrize(
    ("symbols", "expected"),
    [
        ([("weak_one", "weak"), ("global_one", "globl"), ("a", "local")], "global_one"),
        (
            [("__write", "globl"), ("_w", "globl"), ("write_long", "globl"), ("wrote", "globl")],
            "wrote",
        ),
        ([("a", "local"), ("weak_long_name", "weak")], "weak_long_name"),
        ([("bb", "globl"), ("ba", "globl")], "ba"),
    ],
)
def test_of_aliases_it_is_always_the_same(
    assembled: Callable[..., tuple[Path, int]],
    symbols: list[tuple[str, str]],
    expected: str,
) -> None:
    for order in (symbols, symbols[::-1]):
        text = "".join(_function(name, 8, binding) for name, binding in order)
        path, begin = assembled(text + ".skip 8\n")
        table = _table(path)

        assert _name(table, begin + 7) == expected.encode()
        assert table.begins_at(begin) == expected.encode()


def test_a_smaller_alias_names_only_its_own_part(
    assembled: Callable[..., tuple[Path, int]],
) -> None:
    path, begin = assembled(
        _function("whole", 16, "local")
        + _function("half", 8)
        + _function("entry", None)
        + ".skip 16\n"
    )
    table = _table(path)

    assert [_name(table, begin + at) for at in (0, 7, 8, 15)] == [
        b"half",
        b"half",
        b"whole",
        b"whole",
    ]


def test_what_has_no_size_is_only_known_to_begin(
    assembled: Callable[..., tuple[Path, int]],
) -> None:
    path, begin = assembled(
        _function("entry", None) + ".skip 8\n" + _function("next", 1) + ".skip 1"
    )
    table = _table(path)

    assert table.find(begin) is None
    assert [table.begins_at(begin + at) for at in (-1, 0, 1, 8, 9)] == [
        None,
        b"entry",
        None,
        b"next",
        None,
    ]


def test_what_is_no_function_here_has_no_name(
    assembled: Callable[..., tuple[Path, int]],
) -> None:
    """GIVEN data, an absolute and an undefined function THEN none of them is one of the file."""
    path, begin = assembled(
        ".globl data\n.type data,@object\ndata: .skip 8\n.size data,8\n"
        f"{_function('code', 8)} call other@PLT\n.skip 3\n"
        ".type other,@function\n.globl absolute\n.type absolute,@function\n"
        "absolute = 0x40\n.size absolute,16\n"
    )
    table = _table(path)

    assert _name(table, begin + 8) == b"code"
    assert [_name(table, at) for at in (begin, 0x40, 0)] == [None] * 3
    assert [table.begins_at(at) for at in (begin, 0x40, 0)] == [None] * 3


def test_versions_are_not_part_of_a_name() -> None:
    """GIVEN what linkers write into .symtab for a versioned symbol THEN the name has none."""
    entry = b"\1\0\0\0\x12\0\1\0" + (0x1000).to_bytes(8, "little") + bytes([9] + [0] * 7)
    functions = symbol_table._Functions(entry, b"\0memcpy@@GLIBC_2.14\0")

    assert [one.symbol.name for one in functions.around(0x1008)] == [b"memcpy"]


@pytest.mark.parametrize("cut", [0, 100])
def test_symbols_in_gnu_debugdata(
    assembled: Callable[..., tuple[Path, int]], tmp_path: Path, cut: int
) -> None:
    """GIVEN a stripped library with MiniDebugInfo WHEN that is whole THEN its names are known."""
    path, begin = assembled(_function("inside", 8, "local") + ".skip 8\n")
    packed = tmp_path / "packed.xz"
    content = lzma.compress(path.read_bytes())
    packed.write_bytes(content[: len(content) - cut])
    subprocess.run(["strip", path], check=True)
    assert _name(_table(path), begin) is None

    subprocess.run(["objcopy", "--add-section", f".gnu_debugdata={packed}", path], check=True)

    assert _name(_table(path), begin) == (None if cut else b"inside")


@pytest.mark.parametrize(
    "limit", ["_UNPACKED_BYTES_MAX", "_UNPACKING_BYTES_MAX", "_PACKED_BYTES_MAX"]
)
def test_what_unpacks_to_too_much_has_no_symbols(
    assembled: Callable[..., tuple[Path, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
) -> None:
    path, begin = assembled(_function("inside", 8, "local") + ".skip 8\n")
    packed = tmp_path / "packed.xz"
    packed.write_bytes(lzma.compress(path.read_bytes()))
    subprocess.run(["strip", path], check=True)
    subprocess.run(["objcopy", "--add-section", f".gnu_debugdata={packed}", path], check=True)
    monkeypatch.setattr(symbol_table, limit, 101)

    assert _name(_table(path), begin) is None


def test_a_table_is_cut_at_the_limits(
    assembled: Callable[..., tuple[Path, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN more symbols or names than a file may have WHEN read THEN no name is a part of one."""
    names = [f"place_{at:03}" for at in range(200)]
    path, begin = assembled("".join(_function(name, 1) + ".skip 1\n" for name in names))
    whole = _table(path)
    expected = {name.encode() for name in names}
    assert {_name(whole, begin + at) for at in range(200)} == expected

    for limit, most in (("_SYMBOLS_MAX", 101), ("_NAMES_BYTES_MAX", 1009), ("_NAME_BYTES_MAX", 9)):
        monkeypatch.setattr(symbol_table, limit, most)
        table = _table(path)
        found = {_name(table, begin + at) for at in range(200)}
        assert None in found and found <= expected | {None}
        assert table.memory <= whole.memory
        monkeypatch.undo()


# --- compared with nm ---


def _nm(path: Path, *options: str) -> dict[int, list[tuple[int, str, int]]]:
    """Functions as nm lists them: by address, (rank, name, size)."""
    command = ["nm", "--format=sysv", "--defined-only", *options, path]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[int, list[tuple[int, str, int]]] = defaultdict(list)
    for line in listing.splitlines():
        columns = [column.strip() for column in line.split("|")]
        is_function = len(columns) == 7 and (columns[3] == "FUNC" or columns[2] == "i")
        if is_function and columns[6] != "*ABS*":
            name, value, kind, _, size = columns[:5]
            row = (_RANKS[kind], name.partition("@")[0], int(size or "0", 16))
            found[int(value, 16)].append(row)
    return found


def _libc() -> Path:
    maps = Path("/proc/self/maps").read_text()
    return next(
        Path(line.split()[-1]) for line in maps.splitlines() if "libc.so" in line or "musl" in line
    )


@pytest.mark.parametrize(
    "path", [_libc(), Path(os.path.realpath(sys.executable))], ids=["libc", "python"]
)
def test_every_function_that_nm_lists_is_found(path: Path) -> None:
    table = _table(path)
    functions = _nm(path, "-D")
    for address, rows in _nm(path).items() if _has_symtab(path) else ():
        functions[address] += rows
    assert len(functions) > 1000

    for address, rows in functions.items():
        best = min(rows)[0]
        name = (table.begins_at(address) or b"").decode()
        assert (best, name) in {row[:2] for row in rows}
        sized = [row for row in rows if row[2]]
        if sized:
            symbol = table.find(address)
            assert symbol is not None and symbol.start == address
            assert (min(sized)[0], symbol.name.decode(), symbol.size) in rows
            _check_end(table, functions, address, symbol)


def _has_symtab(path: Path) -> bool:
    sections = ElfFile(BytesContent(path.read_bytes())).sections
    return any(section.name == b".symtab" for section in sections)


def _check_end(
    table: SymbolTable, functions: dict[int, list[tuple[int, str, int]]], start: int, symbol: Symbol
) -> None:
    """The last byte belongs to it, or to one that begins later."""
    end = start + max(row[2] for row in functions[start])
    last = table.find(end - 1)
    assert last is not None and start <= last.start
    beyond = table.find(end)
    assert beyond is None or beyond.start <= end < beyond.start + beyond.size


def test_reading_a_function_takes_about_a_microsecond() -> None:
    """GIVEN 100,000 functions in disorder WHEN read THEN quickly, with 32 bytes each."""
    number = 100_000
    starts = [0x1000 + 16 * (at * 7919 % number) for at in range(number)]
    entries = b"".join(
        (1).to_bytes(4, "little")
        + b"\x12\0\x01\0"
        + start.to_bytes(8, "little")
        + bytes([9] + [0] * 7)
        for start in starts
    )
    before = perf_counter()
    functions = symbol_table._Functions(entries, b"\0place\0")
    took = perf_counter() - before

    assert [one.symbol for one in functions.around(0x1008)] == [Symbol(b"place", 0x1000, 9)]
    assert not list(functions.around(0x1009))
    assert took < 20e-6 * number
    assert functions.memory < 33 * number


# --- hostile files ---


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small library with all that is read: .symtab, .dynsym, and .gnu_debugdata."""
    directory = tmp_path_factory.mktemp("victim")
    source, path, packed = (directory / name for name in ("code.s", "code.so", "packed.xz"))
    source.write_text("".join(_function(f"f{at}", 4) + ".skip 4\n" for at in range(17)))
    subprocess.run(["gcc", "-shared", "-nostdlib", "-o", path, source], check=True)
    packed.write_bytes(lzma.compress(path.read_bytes()))
    subprocess.run(["objcopy", "--add-section", f".gnu_debugdata={packed}", path], check=True)
    return path.read_bytes()


def _use(content: bytes) -> None:
    try:
        file = ElfFile(BytesContent(content))
    except ElfError:
        return
    table = SymbolTable(file)
    for address in (0, 0x1000, 0x1004, 0x1041, 1 << 40, (1 << 64) - 1):
        found = table.find(address)
        assert found is None or found.start <= address < found.start + found.size
        assert table.begins_at(address) != b""
    assert table.memory < 3 * len(content) + (32 << 20)


@given(data=st.data())
@settings(max_examples=300, deadline=2000)
def test_any_change_to_a_file_is_survived(victim: bytes, data: st.DataObject) -> None:
    """GIVEN headers, tables and packed data overwritten or cut THEN a table or ElfError, soon."""
    content = bytearray(victim)
    headers = int.from_bytes(victim[40:48], "little")
    interesting = [0, 40, 60, 62, *range(headers, len(victim) - 8, 8)]
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.sampled_from(interesting) | st.integers(0, len(victim) - 8))
        value = data.draw(
            st.sampled_from([0, 1, 0xFF, 1 << 31, 1 << 62, (1 << 64) - 1])
            | st.integers(0, (1 << 64) - 1)
        )
        width = data.draw(st.sampled_from([1, 2, 4, 8]))
        content[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]

    _use(bytes(content))


@given(entries=st.binary(max_size=240), names=st.binary(max_size=40))
def test_any_symbols_are_survived(entries: bytes, names: bytes) -> None:
    functions = symbol_table._Functions(entries, names)

    for address in (0, 1 << 32, (1 << 64) - 1):
        for one in functions.around(address):
            assert one.symbol.start <= address < one.symbol.start + one.symbol.size


def test_symbols_that_hide_an_address_are_given_up() -> None:
    """GIVEN one function around 100,000 empty ones WHEN looked up behind them THEN soon none."""

    def entry(start: int, size: int) -> bytes:
        return b"\1\0\0\0\x12\0\1\0" + start.to_bytes(8, "little") + size.to_bytes(8, "little")

    entries = entry(0, 1 << 40) + b"".join(entry(start, 0) for start in range(100_000))
    functions = symbol_table._Functions(entries, b"\0place\0")

    before = perf_counter()
    assert not list(functions.around(1 << 39))
    assert perf_counter() - before < 0.5
    assert [one.symbol.name for one in functions.around(7)] == [b"place"]
