"""Names of frames: of the mapped file itself, never of another, never the nearest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from harness import Puppet, until

from tracer.core.events import Caller, CallEvent, Instance, Op, Process, RawStack
from tracer.core.stack import Stack, StackState
from tracer.core.wire import Arrival
from tracer.kernel import symbols
from tracer.kernel.elf import SymbolTable, demangled
from tracer.kernel.maps import Mappings, file_identity
from tracer.kernel.symbols import BccStacks

pytestmark = pytest.mark.usefixtures("root")

_SOURCE = """
#include <sys/inotify.h>
#include <unistd.h>

__attribute__((noinline)) int {name}(int fd)
{{
	return inotify_add_watch(fd, "/", IN_CREATE);
}}

int main(void)
{{
	{name}(inotify_init());
	pause();
	return 0;
}}
"""


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[[str], Path]:
    """A static program at fixed addresses whose one function has the given name."""

    def build(name: str) -> Path:
        source = tmp_path / f"{name}.c"
        source.write_text(_SOURCE.format(name=name))
        program = tmp_path / name
        flags = ["-O1", "-static", "-no-pie", "-fno-omit-frame-pointer"]
        subprocess.run(["gcc", *flags, "-o", program, source], check=True)
        return program

    return build


@pytest.fixture
def stacks() -> Iterator[BccStacks]:
    resolver = BccStacks()
    yield resolver
    resolver.close()


def _function_start(program: Path, name: str) -> int:
    """Where nm says the function begins."""
    listing = subprocess.run(["nm", program], check=True, capture_output=True, text=True).stdout
    return next(
        int(line.split()[0], 16) for line in listing.splitlines() if line.endswith(f" {name}")
    )


def _after_call(program: Path, name: str) -> int:
    """Where the first call in a function returns to."""
    command = ["objdump", "-d", f"--disassemble={name}", "--no-show-raw-insn", program]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"\t(?:call|bl)\s.*\n\s*([0-9a-f]+):", listing)
    assert found
    return int(found[1], 16)


def _call(pid: int, birth: int, *addresses: int) -> CallEvent:
    frames = b"".join(address.to_bytes(8, "little") for address in addresses)
    stack = RawStack(frames, 0, 0)
    caller = Caller(Op.ADD, Process(pid, birth), Instance(1, 1), 1, pid, 0, 3, b"x", stack)
    return CallEvent(1, caller, 1, 0, b"/")


def _names(stack: Stack) -> list[str | None]:
    return [frame.function for frame in stack.frames]


def test_a_function_is_found_from_its_first_byte_to_its_last(
    compiled: Callable[[str], Path],
) -> None:
    program = compiled("watch_here")
    table = SymbolTable(os.fsencode(program))
    # a static program without relocation: file offset and address differ by a constant
    start = _function_start(program, "watch_here")
    segment = next(s for s in table._segments if s[0] <= start < s[0] + s[1])
    offset = start - segment[0] + segment[2]

    assert table.find(offset) == ("watch_here", 0)
    assert table.find(offset + 1) == ("watch_here", 1)
    assert table.find(offset - 1) != ("watch_here", 0)


def test_what_lies_between_functions_has_no_name(tmp_path: Path) -> None:
    """GIVEN a gap of 64 bytes after a function WHEN looked up THEN it is not that function."""
    source = tmp_path / "gap.s"
    source.write_text(
        ".globl one\n.type one,@function\none: .byte 0\n.size one,1\n"
        ".skip 64,0x90\n.globl two\n.type two,@function\ntwo: .byte 0\n.size two,1\n".replace(
            "\\\n", "\n"
        )
    )
    library = tmp_path / "gap.so"
    subprocess.run(["gcc", "-shared", "-nostdlib", "-o", library, source], check=True)
    table = SymbolTable(os.fsencode(library))
    address = _function_start(library, "one")
    segment = next(s for s in table._segments if s[0] <= address < s[0] + s[1])
    offset = address - segment[0] + segment[2]

    assert table.find(offset) == ("one", 0)
    assert [table.find(offset + at) for at in (1, 32, 64)] == [None] * 3
    assert table.find(offset + 65) == ("two", 0)


@pytest.mark.kernels
def test_every_file_with_code_is_known_for_sure() -> None:
    files = Mappings(os.getpid()).files
    program = os.readlink(b"/proc/self/exe")

    assert files[program].identity == file_identity(program)
    assert all(file_identity(file.path) == file.identity for file in files.values())
    assert b"[vdso]" not in files


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF" + bytes(300), b"#!/bin/sh\n"])
def test_a_file_that_is_no_program_has_no_symbols(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)

    assert SymbolTable(os.fsencode(path)).find(0) is None


def test_names_are_shown_as_the_source_has_them() -> None:
    assert demangled(b"_ZN8ProcSyms6Module9find_addrEm").startswith("ProcSyms::Module::find_addr(")
    assert demangled(b"watch_here") == "watch_here"
    assert demangled(b"_Zgarbage") == "_Zgarbage"


@pytest.mark.kernels
def test_another_program_under_the_same_pid_has_its_own_names(
    compiled: Callable[[str], Path], stacks: BccStacks
) -> None:
    """GIVEN two programs at the same addresses WHEN the pid is reused THEN each has its names."""
    names = []
    for birth, name in ((11, "first_place"), (13, "other_place")):
        program = compiled(name)
        address = _function_start(program, name) + 1
        with subprocess.Popen([program]) as process:
            _until_running(process.pid, program)
            # the kernel gives the pid; that it is the same is what the resolver is told
            stacks.meet(Arrival(birth, process.pid, 1))
            names.append(_names(stacks.resolve(_call(process.pid, birth, address))))
            process.kill()

    assert names == [["first_place"], ["other_place"]]


def test_a_deleted_program_keeps_its_names(
    compiled: Callable[[str], Path], stacks: BccStacks
) -> None:
    program = compiled("deleted_place")
    address = _function_start(program, "deleted_place") + 1
    with subprocess.Popen([program]) as process:
        _until_running(process.pid, program)
        program.unlink()
        shutil.copy("/bin/true", program)
        stack = stacks.resolve(_call(process.pid, 11, address))
        process.kill()

    assert _names(stack) == ["deleted_place"]


@pytest.mark.kernels
def test_a_program_that_has_ended_keeps_the_names_that_were_read(
    compiled: Callable[[str], Path], stacks: BccStacks
) -> None:
    program = compiled("ended_place")
    address = _function_start(program, "ended_place") + 1
    with subprocess.Popen([program]) as process:
        _until_running(process.pid, program)
        stacks.meet(Arrival(11, process.pid, 1))
        process.kill()
    program.unlink()

    assert _names(stacks.resolve(_call(process.pid, 11, address))) == ["ended_place"]


def test_a_caller_that_cannot_be_confirmed_is_not_skipped_over(
    compiled: Callable[[str], Path], stacks: BccStacks
) -> None:
    """GIVEN a process that ended WHEN its memory would tell the caller THEN the stack ends."""
    program = compiled("gone_place")
    address = _function_start(program, "gone_place") + 1
    outer = _function_start(program, "main") + 10
    with subprocess.Popen([program]) as process:
        _until_running(process.pid, program)
        stacks.meet(Arrival(11, process.pid, 1))
        process.kill()
    event = _call(process.pid, 11, address, outer)
    caller = event.caller._replace(stack=event.caller.stack._replace(caller=address))
    stack = stacks.resolve(event._replace(caller=caller))

    assert _names(stack) == ["gone_place"]
    assert stack.state is StackState.TRUNCATED and "ended before" in stack.reason


@pytest.mark.parametrize(("has_link_register", "own_frames"), [(True, 1), (False, 2)])
def test_only_a_link_register_may_be_stale(
    compiled: Callable[[str], Path],
    stacks: BccStacks,
    monkeypatch: pytest.MonkeyPatch,
    has_link_register: bool,
    own_frames: int,
) -> None:
    """GIVEN a function that seems to be its own caller THEN without such a register it is."""
    monkeypatch.setattr(symbols, "HAS_LINK_REGISTER", has_link_register)
    program = compiled("own_place")
    address = _function_start(program, "own_place")
    outer = _after_call(program, "main")
    with subprocess.Popen([program]) as process:
        _until_running(process.pid, program)
        event = _call(process.pid, 11, address + 1, outer)
        earlier = event.caller.stack._replace(caller=_after_call(program, "own_place"))
        stack = stacks.resolve(event._replace(caller=event.caller._replace(stack=earlier)))
        process.kill()

    assert _names(stack) == [*["own_place"] * own_frames, "main"]


def test_processes_that_are_gone_cost_no_descriptor_and_close_none(stacks: BccStacks) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    before = _descriptors()
    for birth in range(1009):
        stacks.meet(Arrival(birth, process.pid, 1))
        stack = stacks.resolve(_call(process.pid, birth, 0x401000))
        assert stack.reason == "the process ended before its symbols could be read"

    assert _descriptors() == before


def test_many_programs_cost_a_bounded_number_of_descriptors(
    stacks: BccStacks, puppet: Puppet
) -> None:
    before = len(_descriptors())
    for exec_id in range(307):
        stacks.meet(Arrival(11, puppet.pid, exec_id))

    assert len(_descriptors()) - before <= 128


def _descriptors() -> set[tuple[str, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:
            # the listing itself
            continue
    return found


def _until_running(pid: int, program: Path) -> None:
    code = re.compile(rf" r-xp .* {re.escape(os.fspath(program))}$", re.MULTILINE)
    until(lambda: bool(code.search(Path(f"/proc/{pid}/maps").read_text())), "the program's code")
