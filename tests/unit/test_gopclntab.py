"""Go's functions, lines, inlined calls and frames, against Go's own tools and runtime."""

from __future__ import annotations

import os
import platform
import random
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from go_programs import Programs
from go_table import DEADLINE, WORDS, ask
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.stacks.elf import BytesContent, ElfError, ElfFile
from tracer.stacks.gopclntab import GoFrame, GoTable

_CALLERS = [
    "main.through",
    "main.(*watcher).add",
    "main.outer",
    "main.main",
    "runtime.main",
    "runtime.goexit",
]
_OUTERMOST = {"runtime.goexit", "runtime.mstart", "runtime.rt0_go"}


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs(tmp_path_factory.mktemp("go"))


def _plain(name: str) -> str:
    """Without type arguments, which the table leaves out, and letters that nm replaces."""
    return re.sub(r"\[.*\]", "[...]", name).replace("\N{MIDDLE DOT}", ".")


@pytest.mark.parametrize("variant", ["plain", "pie", "c", "external-pie"])
def test_every_function_is_that_of_nm(programs: Programs, variant: str) -> None:
    table = programs.table(variant)
    names = {symbol.address: _plain(symbol.name) for symbol in programs.symbols(variant)}
    found = {
        address: _plain(frames[-1].function)
        for address in names
        if (frames := table.frames(address))
    }

    assert len(found) > 1009
    assert {address: name for address, name in found.items() if names[address] != name} == {}
    missing = {name for address, name in names.items() if address not in found}
    # C's have no dot but those that gcc makes of parts of a function
    assert {name for name in missing if "." in name and not name.endswith(".cold")} == set()
    assert {"main.outer", "main.report", "runtime.goexit"} <= set(found.values())


@pytest.mark.parametrize("variant", ["plain", "c"])
def test_every_line_is_that_of_addr2line(programs: Programs, variant: str) -> None:
    table = programs.table(variant)
    rng = random.Random(1009)
    symbols = [symbol for symbol in programs.symbols(variant) if table.covers(symbol.address)]
    addresses = [
        symbol.address + rng.randrange(symbol.size) for symbol in rng.choices(symbols, k=1511)
    ]
    asked = "".join(f"{address:#x}\n" for address in addresses)
    answers = programs.tool("addr2line", os.fspath(programs.get(variant)), stdin=asked)
    lines = answers.splitlines()
    frames = [table.frames(address) for address in addresses]

    assert [_plain(found[-1].function) for found in frames] == [_plain(x) for x in lines[::2]]
    assert [f"{found[0].file}:{found[0].line}" for found in frames] == lines[1::2]
    assert sum(len(found) > 1 for found in frames) > 101


def _runtimes_own(program: Path) -> Iterator[tuple[int, GoFrame]]:
    """Addresses in the file, and what Go's runtime has to say about them."""
    command = [os.fspath(program)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    bias = _bias(output, program)
    for pc, function, file, line in re.findall(r"^(\w+) (\S+) (\S+) (\d+)$", output, re.M):
        if not pc.isdigit() or file.endswith((".go", ".s")):
            yield int(pc, 16) - bias, GoFrame(function, file, int(line))


def _bias(maps: str, program: Path) -> int:
    """What was added to the addresses of the file."""
    mapped = re.search(rf"^([0-9a-f]+)-\S+ \S+ 0+ .* {re.escape(str(program))}$", maps, re.M)
    first = ElfFile(BytesContent(program.read_bytes())).address_of(0)
    assert mapped and first is not None
    return int(mapped[1], 16) - first


@pytest.mark.parametrize(
    "variant",
    [
        variant + strip
        for variant in ("plain", "pie", "c", "external-pie")
        for strip in ("", "+strip")
    ],
)
def test_inlined_calls_are_those_of_gos_runtime(programs: Programs, variant: str) -> None:
    table = programs.table(variant)
    expected = list(_runtimes_own(programs.get(variant)))
    # the runtime gives the address of the call for each frame, also for one that was inlined
    found = [(address, table.frames(address)[0]) for address, _ in expected]

    assert found == expected
    functions = [frame.function for _, frame in expected]
    assert functions == ["main.report", *_CALLERS]
    innermost = table.frames(expected[1][0])
    assert [frame.function for frame in innermost] == functions[1:4]
    assert innermost == tuple(frame for _, frame in expected[1:4])


def test_pointers_may_be_in_relocations_alone(programs: Programs) -> None:
    """GIVEN a PIE whose linker left pointers zero WHEN read THEN it is as before."""
    path = programs.get("external-pie")
    content = bytearray(path.read_bytes())
    elf = ElfFile(BytesContent(bytes(content)))
    relocations = elf.section(b".rela.dyn")
    assert relocations
    rows = struct.iter_unpack("<QQQ", elf.section_bytes(relocations, 1 << 30))
    places = [place for place, kind, _ in rows if kind in (8, 1027)]
    for place in places:
        offset = elf.offset_of(place)
        assert offset is not None
        content[offset : offset + 8] = bytes(8)
    table = GoTable(ElfFile(BytesContent(bytes(content))))

    assert len(places) > 101
    for address, frame in _runtimes_own(path):
        assert table.frames(address)[0] == frame


@pytest.mark.parametrize("variant", ["plain", "pie", "external-pie+strip"])
def test_a_file_needs_no_section_headers(programs: Programs, variant: str) -> None:
    path = programs.get(variant)
    content = bytearray(path.read_bytes())
    content[40:48] = bytes(8)
    table = GoTable(ElfFile(BytesContent(bytes(content))))

    for address, frame in _runtimes_own(path):
        assert table.frames(address)[0] == frame


def test_what_lies_between_functions_is_not_covered(programs: Programs) -> None:
    table = programs.table("plain")
    symbols = [symbol for symbol in programs.symbols("plain") if symbol.size]
    followers = {symbol.address for symbol in symbols}
    padded = [s for s in symbols if s.address + s.size not in followers]

    assert len(padded) > 101
    for symbol in symbols:
        assert table.covers(symbol.address + symbol.size - 1), symbol
    for symbol in padded:
        end = symbol.address + symbol.size
        assert not table.covers(end) and table.frames(end) == (), symbol


def test_c_is_not_covered(programs: Programs) -> None:
    symbols = {symbol.name: symbol.address for symbol in programs.symbols("c")}
    table = programs.table("c")

    assert not table.covers(symbols["twice"])
    assert table.frames(symbols["twice"]) == ()
    assert table.cfa_offset(symbols["twice"]) is None
    assert table.covers(symbols["main.outer"])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="frames of x86-64")
def test_a_function_begins_with_its_return_address_alone(programs: Programs) -> None:
    table = programs.table("c")
    begins = {
        (table.cfa_offset(symbol.address), table.frame_pointer_offset(symbol.address))
        for symbol in programs.symbols("c")
        if table.covers(symbol.address) and not table.frame_pointer_to_cfa(symbol.address)
    }

    # those that write sp are not known
    assert begins == {(8, None), (None, None)}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="frames of x86-64")
def test_the_frame_pointer_leads_back_from_c(programs: Programs) -> None:
    table = programs.table("c")
    starts = {symbol.name: symbol.address for symbol in programs.symbols("c")}
    switch, callback = starts["runtime.asmcgocall"], starts["runtime.cgocallback"]

    assert table.cfa_offset(switch) is None
    assert (table.frame_pointer_to_cfa(switch), table.frame_pointer_offset(switch)) == (16, -16)
    assert (table.cfa_offset(callback), table.frame_pointer_to_cfa(callback)) == (8, None)


def test_stacks_end_where_nothing_was_called(programs: Programs) -> None:
    table = programs.table("c")
    symbols = programs.symbols("c")
    outermost = {symbol.name for symbol in symbols if table.is_outermost(symbol.address)}

    # some releases add the handler of signals
    assert outermost - {"runtime.sigtramp"} == _OUTERMOST


@pytest.mark.skipif(platform.machine() != "x86_64", reason="registers of x86-64")
@pytest.mark.parametrize("variant", ["plain", "pie", "c+strip"])
def test_a_waiting_program_is_unwound_to_its_goroutines_start(
    programs: Programs, variant: str
) -> None:
    path = programs.get(variant)
    with subprocess.Popen([path, "wait"]) as process:
        sp, pc = _paused(process)
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        memory = os.open(f"/proc/{process.pid}/mem", os.O_RDONLY)
        walked = list(_walk(programs.table(variant), sp, pc, _bias(maps, path), memory))
        os.close(memory)
        process.kill()

    first = walked.index("main.wait")
    assert walked[first - 1] == "syscall.Syscall"
    assert walked[first:] == ["main.wait", *_CALLERS]


def _paused(process: subprocess.Popen[bytes]) -> tuple[int, int]:
    """The sp and pc of the program once it waits, of proc(5)."""
    number = {"x86_64": "34"}[platform.machine()]
    while process.poll() is None:
        call = Path(f"/proc/{process.pid}/syscall").read_text().split()
        if call[0] == number:
            return int(call[-2], 16), int(call[-1], 16)
    raise AssertionError("the program ended")


def _walk(table: GoTable, sp: int, pc: int, bias: int, memory: int) -> Iterator[str]:
    address = pc - bias
    while True:
        yield from (frame.function for frame in table.frames(address))
        if table.is_outermost(address):
            return
        size, back = table.cfa_offset(address), table.return_address_offset(address)
        assert size is not None and back is not None
        sp += size
        address = int.from_bytes(os.pread(memory, 8, sp + back), sys.byteorder) - bias - 1


def test_other_programs_have_no_table() -> None:
    with pytest.raises(ElfError):
        GoTable(ElfFile(BytesContent(Path("/bin/true").read_bytes())))


class Victim(NamedTuple):
    """A real program that is there before it is changed, and places in it to ask for."""

    content: bytes
    functions: list[int]


def _victim(programs: Programs, variant: str) -> Victim:
    functions = [symbol.address for symbol in programs.symbols(variant)]
    return Victim(programs.get(variant).read_bytes(), functions)


@pytest.fixture(scope="session")
def plain(programs: Programs) -> Victim:
    return _victim(programs, "plain")


@pytest.fixture(scope="session")
def relocated(programs: Programs) -> Victim:
    return _victim(programs, "external-pie")


@settings(max_examples=101, deadline=DEADLINE)
@given(
    changes=st.lists(st.tuples(st.integers(0, 1 << 32), st.integers(0, 255)), max_size=64),
    cut=st.integers(0, 99),
    function=st.integers(0, 1 << 16),
)
def test_a_real_program_changed(
    relocated: Victim, changes: list[tuple[int, int]], cut: int, function: int
) -> None:
    content = bytearray(relocated.content)
    if cut < 11:
        del content[len(content) * cut // 11 :]
    for at, byte in changes:
        if content:
            content[at % len(content)] = byte
    ask(bytes(content), _around(relocated, function))


@settings(max_examples=211, deadline=DEADLINE)
@given(
    words=st.lists(st.tuples(st.integers(0, 1 << 32), WORDS), min_size=1, max_size=31),
    header=st.none() | st.tuples(st.integers(0, 16), WORDS),
    function=st.integers(0, 1 << 16),
)
def test_a_real_table_changed(
    plain: Victim,
    words: list[tuple[int, int]],
    header: tuple[int, int] | None,
    function: int,
) -> None:
    content = bytearray(plain.content)
    section = ElfFile(BytesContent(plain.content)).section(b".gopclntab")
    assert section
    for at, word in words:
        struct.pack_into("<Q", content, (section.offset + at % (section.size - 8)) & -4, word)
    if header:
        struct.pack_into("<Q", content, section.offset + header[0] * 4, header[1])
    ask(bytes(content), _around(plain, function))


def _around(victim: Victim, function: int) -> range:
    start = victim.functions[function % len(victim.functions)]
    return range(start, start + 101, 10)
