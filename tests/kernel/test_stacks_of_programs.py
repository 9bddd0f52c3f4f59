"""
The stacks of real programs, from the call to main or to the start of the thread.

INOTRACE_REQUIRE_PROGRAMS=1 makes it a failure if one cannot be had here.
"""

from __future__ import annotations

from typing import Any

import pytest
from native_programs import C_PROGRAMS, NATIVE_PROGRAMS
from observing import complaint
from performance import Performance, Program
from runtime_programs import RUNTIME_PROGRAMS
from stage import Stage
from workshop import SOURCES

pytestmark = pytest.mark.usefixtures("root")
pytest_plugins = ("program_fixtures",)

PROGRAMS = {program.name: program for program in (*NATIVE_PROGRAMS, *RUNTIME_PROGRAMS)}
# The most frames that are collected.
_DEEPEST = 64


@pytest.fixture
def calls(stage: Stage, performance: Performance, program: Program) -> list[Any]:
    """All calls of the test's program, as JSON."""
    made = []
    for _ in range(program.rounds):
        performance.go()
        made += stage.stream.watch_calls(performance.pid, program.calls)
    return made


def _too_deep(depth: int) -> Program:
    """More frames than are collected."""
    (deep,) = (program for program in C_PROGRAMS if program.name == "c-deep")
    return deep._replace(
        name=f"c-deep-{depth}",
        command=lambda workshop: [deep.command(workshop)[0], str(depth)],
        chain="inotify_add_watch watch_here " + "deeper " * (_DEEPEST - 2),
        states=frozenset({"truncated"}),
    )


def _named(program: Program) -> str:
    return program.name


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=_named)
def test_a_stack_is_the_chain_of_calls(calls: list[Any], program: Program) -> None:
    """
    GIVEN the first call, unwound from a copy, and later ones, walked by the kernel
    THEN each is the chain, and, where code stays where it is, all have the same frames.
    """
    if program.on_two_stacks and calls[0]["stack"] == "truncated":
        begun = calls.pop(0)["frames"]
        assert len(begun) > 2 and begun == calls[0]["frames"][: len(begun)]
    _must_be(program, calls)
    if program.repeats:
        assert all(call["frames"] == calls[0]["frames"] for call in calls)


def _must_be(program: Program, calls: list[Any]) -> None:
    complaints = [complaint(call, program.chain, program.states) for call in calls]
    assert complaints == [""] * len(calls), "\n".join(complaints)


@pytest.mark.parametrize("program", [_too_deep(97), _too_deep(997)], ids=_named)
def test_a_stack_that_is_too_deep_says_so(calls: list[Any], program: Program) -> None:
    """GIVEN more frames than are collected THEN the innermost are true, and it is truncated."""
    _must_be(program, calls)
    assert all(call["stack_reason"] for call in calls)


@pytest.mark.parametrize("program", [PROGRAMS["go-stripped"]], ids=_named)
def test_lines_of_go_are_those_of_the_source(calls: list[Any], program: Program) -> None:
    """GIVEN a stripped program WHEN a function is inlined THEN each frame has its own line."""
    source = (SOURCES / "fsnotify.go").read_text().splitlines()
    for call in calls:
        own = [frame for frame in call["frames"] if (frame["file"] or "").endswith("fsnotify.go")]
        lines = [(frame["function"], source[frame["line"] - 1].strip()) for frame in own]

        assert lines == [
            ("main.watchHere", 'if err := watcher.Add("/"); err != nil {'),
            ("main.inlined", "watchHere(watcher)"),
            ("main.outer", "inlined(watcher)"),
            ("main.main", "outer(watcher)"),
        ]


@pytest.mark.parametrize(
    ("program", "function", "place"),
    [
        pytest.param(PROGRAMS[name], function, place, id=name)
        for name, function, place in (
            ("node-perf-map", "watchHere", "programs/watch.js:7"),
            ("node-compiled", "outer", "programs/watch.js:11"),
            # CPython tells perf no line
            ("python-perf-map", "watch_here", "programs/by_ctypes.py:None"),
        )
    ],
)
def test_functions_made_at_run_time_have_their_place(
    calls: list[Any], program: Program, function: str, place: str
) -> None:
    """GIVEN a map for perf WHEN functions are added while it runs THEN they have their place."""
    for call in calls:
        (frame,) = (each for each in call["frames"] if each["function"] == function)

        assert f"{frame['file']}:{frame['line']}".endswith(place)


@pytest.mark.parametrize("program", [PROGRAMS["node-perf-map"]], ids=_named)
def test_a_function_without_a_name_has_none(calls: list[Any], program: Program) -> None:
    """GIVEN functions whose name is empty in a map for perf THEN it is no name."""
    assert all(frame["function"] != "" for call in calls for frame in call["frames"])
