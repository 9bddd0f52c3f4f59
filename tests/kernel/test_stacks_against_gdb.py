"""
The stacks of real programs as gdb unwinds them: the same call, frame by frame.

gdb holds the program where the kernel is about to return from the call that inotrace tells of. What
it has nothing to unwind by leads it to words that are no code: what compilers at run time make
(node, CPython's trampolines), C called by Go, and a coroutine's start. Up to there all must agree.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from chains import plain
from debugger import Debugger, Theirs
from native_programs import NATIVE_PROGRAMS
from performance import Performance, Program
from runtime_programs import RUNTIME_PROGRAMS
from stage import Stage

pytestmark = pytest.mark.usefixtures("root")
pytest_plugins = ("program_fixtures",)

PROGRAMS = [program for program in (*NATIVE_PROGRAMS, *RUNTIME_PROGRAMS) if program.no_gdb is None]
# glibc has several names for one function: __GI_ are its own, _impl the newest of several versions
_ALIAS = re.compile(r"^_*(?:GI_)?_*|_impl$|@.*$")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_stack_is_that_of_gdb(stage: Stage, performance: Performance, program: Program) -> None:
    if program.on_two_stacks:
        performance.go()
        stage.stream.watch_calls(performance.pid, 1)
    with Debugger(performance.pid) as debugger:
        performance.go()
        theirs = debugger.frames(inlined=program.inlined)
    (call,) = stage.stream.watch_calls(performance.pid, 1)

    found = differences(call["frames"], theirs, guesses=program.gdb_guesses)
    assert found == [], "\n".join([f"{call['stack']} ({call['stack_reason']})", *found])


def differences(ours: list[Any], theirs: list[Theirs], *, guesses: bool) -> list[str]:
    """What of gdb's frames is not ours, one line each."""
    sure = [frame for frame in theirs if frame.is_code]
    if guesses:
        return _missing(ours, sure)
    astray = next((at for at, frame in enumerate(theirs) if not frame.is_code), None)
    assert astray is None or astray > 1, "gdb has nothing to compare with"
    sure = theirs[:astray]
    found = [
        f"#{at} is {_shown(mine)}, and for gdb {_said(other)}"
        for at, (mine, other) in enumerate(zip(ours, sure))
        if not _agree(mine, other)
    ]
    if len(ours) < len(sure) or (astray is None and len(ours) > len(sure)):
        found.append(f"{len(ours)} frames, {len(sure)} for gdb: {[*map(_said, sure)]}")
    return found


def _missing(ours: list[Any], theirs: list[Theirs]) -> list[str]:
    """What of gdb's frames does not come among ours, in their order."""
    left = iter(ours)
    return [
        f"{_said(frame)} is for gdb, but not in {[*map(_shown, ours)]}"
        for frame in theirs
        if not any(_agree(mine, frame) for mine in left)
    ]


def _agree(mine: Any, other: Theirs) -> bool:
    if mine["address"] != other.address:
        return False
    if mine["function"] is None:
        return other.linked is None or mine["offset"] == other.linked
    return not other.names or _alias(mine["function"]) in map(_alias, other.names)


def _alias(name: str) -> str:
    return _ALIAS.sub("", plain(name))


def _shown(mine: Any) -> str:
    return f"{mine['address']:#x} {mine['function']} {mine['module']}+{mine['offset']:#x}"


def _said(other: Theirs) -> str:
    return f"{other.address:#x} {'|'.join(sorted(other.names))}"
