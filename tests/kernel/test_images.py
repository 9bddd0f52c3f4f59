"""Names of frames: of the mapped file itself, whatever became of it and of the process."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

import pytest
from harness import Puppet, until

from tracer.core.events import (
    Caller,
    CallEvent,
    Instance,
    Op,
    Process,
    RawStack,
    StackCopy,
    WalkEnd,
)
from tracer.core.stack import Stack, StackState
from tracer.core.wire import Arrival
from tracer.stacks import collector
from tracer.stacks.collector import Stacks
from tracer.stacks.registers import OWN

pytestmark = pytest.mark.usefixtures("root")

_SOURCE = """
#include <unistd.h>

__attribute__((noinline)) int {name}(int seconds)
{{
	return pause() + seconds;
}}

int main(void)
{{
	return {name}(23) + 1;
}}
"""
_ENDED = "the process ended before its symbols could be read"


@pytest.fixture
def compiled(tmp_path: Path) -> Callable[[str], Path]:
    """A static program at fixed addresses whose one function has the given name."""

    def build(name: str) -> Path:
        source = tmp_path / f"{name}.c"
        source.write_text(_SOURCE.format(name=name))
        program = tmp_path / name
        subprocess.run(["gcc", "-O1", "-static", "-no-pie", "-o", program, source], check=True)
        return program

    return build


@pytest.fixture
def stacks() -> Iterator[Stacks]:
    resolver = Stacks()
    yield resolver
    resolver.close()


def _function_start(program: Path, name: str) -> int:
    """Where nm says the function begins."""
    listing = subprocess.run(["nm", program], check=True, capture_output=True, text=True).stdout
    return next(
        int(line.split()[0], 16) for line in listing.splitlines() if line.endswith(f" {name}")
    )


def _call(pid: int, birth: int, *addresses: int) -> CallEvent:
    frames = b"".join(address.to_bytes(8, "little") for address in addresses)
    stack = RawStack(frames, WalkEnd.OUTERMOST, False)
    caller = Caller(Op.ADD, Process(pid, birth), Instance(1, 1), 1, pid, 0, 3, b"x", stack)
    return CallEvent(1, caller, 1, 0, b"/")


def _copy(pid: int, birth: int, pc: int) -> StackCopy:
    """Of a call there, without any of its stack."""
    registers = tuple(pc if number == OWN.pc else 0x1000 for number in range(33))
    return StackCopy(
        1, Process(pid, birth), 1, pid, pc, True, 0x1000, 0, 0x1000, 0, 0, registers, b""
    )


def _names(stack: Stack) -> list[str | None]:
    return [frame.function for frame in stack.frames]


def _birth(pid: int) -> int:
    """When a process began, in ns, as far as /proc tells."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return int(ticks) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


@contextmanager
def _running(program: Path) -> Iterator[int]:
    """The pid of the program, which runs until then."""
    process = subprocess.Popen([program])
    try:
        _until_running(process.pid, program)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def _until_running(pid: int, program: Path) -> None:
    code = re.compile(rf" r-xp .* {re.escape(os.fspath(program))}$", re.MULTILINE)
    until(lambda: bool(code.search(Path(f"/proc/{pid}/maps").read_text())), "the program's code")


@pytest.mark.kernels
def test_another_program_under_the_same_pid_has_its_own_names(
    compiled: Callable[[str], Path], stacks: Stacks
) -> None:
    """GIVEN two programs at the same addresses WHEN the pid is reused THEN each has its names."""
    names = []
    for exec_id, name in enumerate(("first_place", "other_place")):
        program = compiled(name)
        address = _function_start(program, name) + 1
        with _running(program) as pid:
            # the kernel gives the pid; that it is the same is what the resolver is told
            birth = _birth(pid) + exec_id
            stacks.meet(Arrival(birth, 0, pid, 1))
            names.append(_names(stacks.resolve(_call(pid, birth, address))))

    assert names == [["first_place"], ["other_place"]]


def test_a_return_address_belongs_to_the_call_before_it(
    compiled: Callable[[str], Path], stacks: Stacks
) -> None:
    """GIVEN a call that ends its function WHEN it returns to the next THEN that is not the name."""
    program = compiled("last_place")
    start = _function_start(program, "last_place")
    with _running(program) as pid:
        stack = stacks.resolve(_call(pid, _birth(pid), start, start))

    assert _names(stack)[0] == "last_place" and _names(stack)[1] != "last_place"


def test_a_deleted_and_replaced_program_keeps_its_names(
    compiled: Callable[[str], Path], stacks: Stacks
) -> None:
    program = compiled("deleted_place")
    address = _function_start(program, "deleted_place") + 1
    with _running(program) as pid:
        program.unlink()
        shutil.copy("/bin/true", program)
        stack = stacks.resolve(_call(pid, _birth(pid), address))

    assert _names(stack) == ["deleted_place"]
    assert stack.frames[0].module == os.fsencode(program) + b" (deleted)"


@pytest.mark.kernels
def test_a_program_that_has_ended_keeps_the_names_of_what_it_called_from(
    compiled: Callable[[str], Path], stacks: Stacks
) -> None:
    program = compiled("ended_place")
    address = _function_start(program, "ended_place") + 1
    with _running(program) as pid:
        birth = _birth(pid)
        stacks.learn(_copy(pid, birth, address))
    program.unlink()

    assert _names(stacks.resolve(_call(pid, birth, address))) == ["ended_place"]


def test_files_are_held_until_their_process_has_ended(
    compiled: Callable[[str], Path], stacks: Stacks
) -> None:
    program = compiled("freed_place")
    with _running(program) as pid:
        stacks.meet(Arrival(_birth(pid), 0, pid, 1))
        stacks.tidy()
        assert _holds(program)
    # its last copy may be read in the round in which it is found over
    stacks.tidy()
    assert _holds(program)
    stacks.tidy()

    assert not _holds(program)


def test_nothing_is_held_of_a_program_that_ended_a_while_ago(
    compiled: Callable[[str], Path], stacks: Stacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = compiled("freed_place")
    before = _descriptors()
    with _running(program) as pid:
        stacks.meet(Arrival(_birth(pid), 0, pid, 1))
    stacks.tidy()
    stacks.tidy()
    # its last calls may be waiting to be worked on
    assert len(_descriptors()) == len(before) + 1

    monkeypatch.setattr(collector, "_KEEP_ENDED_S", -1.0)
    stacks.tidy()

    assert _descriptors() == before


def test_processes_that_are_gone_cost_no_descriptor_and_close_none(stacks: Stacks) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    before = _descriptors()
    for birth in range(1009):
        stacks.meet(Arrival(birth, 0, process.pid, 1))
        stack = stacks.resolve(_call(process.pid, birth, 0x401000))
        assert (stack.state, stack.reason) == (StackState.MISSING, _ENDED)

    assert _descriptors() == before


def test_many_programs_cost_a_bounded_number_of_descriptors(stacks: Stacks, puppet: Puppet) -> None:
    before = len(_descriptors())
    for exec_id in range(307):
        stacks.meet(Arrival(_birth(puppet.pid), 0, puppet.pid, exec_id))

    # the memory of each, and the files that all have
    assert len(_descriptors()) - before <= 128 + 7


def _holds(file: Path) -> bool:
    return any(os.fspath(file) in target for _, target in _descriptors())


def _descriptors() -> set[tuple[str, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:
            # the listing itself
            continue
    return found
