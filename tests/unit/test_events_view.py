"""The stream of calls, as lines for people and as JSON Lines for programs."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from build import (
    ATTACH,
    IN_CREATE,
    MOUNT,
    STACK,
    add,
    cells,
    failed,
    failure,
    init,
    rm,
    shortage,
)
from hypothesis import given
from hypothesis import strategies as st
from test_report_view import HOSTILE

from tracer.core.events import CallEvent, Op
from tracer.core.stack import Stack, StackState, missing
from tracer.views.events import SCHEMA, WallClock, printer, repeated, summary

_CLOCK = re.compile(r"^\d\d:\d\d:\d\d\.\d{6}")


def _line(event: CallEvent, width: int = 200) -> str:
    """Without the time and the spaces that align."""
    line = printer("table", width, stacks=False).call(event, STACK)
    assert line.endswith("\n")
    assert _CLOCK.match(line)
    return " ".join(_CLOCK.sub("", line).split())


def _objects(*events: CallEvent, stacks: bool = False, stack: Stack = STACK) -> list[Any]:
    out = printer("json", 0, stacks=stacks)
    text = out.header() + "".join(out.call(event, stack) for event in events) + out.footer(23, 5)
    assert text.isascii()
    return [json.loads(line) for line in text.splitlines()]


# --- lines ---


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (init(1, arg=0o2004000), "1173 agent init 3 ok IN_NONBLOCK|IN_CLOEXEC"),
        (init(1), "1173 agent init 3 ok"),
        (failed(Op.INIT, 1, 24, fd=-1), "1173 agent init - EMFILE"),
        (add(1, 23), "1173 agent add_watch 3 wd 23 /run/secrets/23 IN_CREATE"),
        (
            add(1, 23, arg=0x80000300, path=b"/a b"),
            "1173 agent add_watch 3 wd 23 /a b IN_CREATE|IN_DELETE|IN_ONESHOT",
        ),
        (
            failed(Op.ADD, 1, 28, arg=IN_CREATE, path=b"x"),
            "1173 agent add_watch 3 ENOSPC x IN_CREATE",
        ),
        (add(1, 23, path=None), "1173 agent add_watch 3 wd 23 (path unreadable) IN_CREATE"),
        (rm(1, 23), "1173 agent rm_watch 3 ok wd 23"),
        (failed(Op.RM, 1, 22, arg=0xFFFFFFFF), "1173 agent rm_watch 3 EINVAL wd -1"),
    ],
)
def test_a_call_is_a_line(event: CallEvent, line: str) -> None:
    assert _line(event) == line


def test_columns_line_up_under_the_header() -> None:
    out = printer("plain", 0, stacks=False)
    header, line = out.header(), out.call(add(1, 23), STACK)

    for title, text in (("COMMAND", "agent"), ("RESULT", "wd 23"), ("DETAILS", "/run/")):
        assert header.index(title) == line.index(text)
    assert out.footer(23, 5) == ""


def test_a_table_fits_the_terminal_and_a_pipe_gets_all() -> None:
    event = add(1, 23, path=b"/" + b"x" * 400)

    assert cells(printer("table", 80, stacks=False).call(event, STACK).rstrip("\n")) == 80
    assert "x" * 400 in printer("plain", 80, stacks=False).call(event, STACK)


def test_a_stack_is_below_its_call() -> None:
    text = printer("plain", 80, stacks=True).call(rm(1, 23), STACK)

    assert text.splitlines()[1:] == [
        "                inotify_add_watch  libc.so.6",
        "                attach             secrets.c:88",
        "                mount_volume       agent",
        "                __libc_start_main  libc.so.6",
    ]


@pytest.mark.parametrize(
    ("stack", "line"),
    [
        (missing("no frames"), "stack missing: no frames"),
        (Stack(STACK.frames, StackState.TRUNCATED, "cut"), "callers unknown: cut"),
        (Stack(STACK.frames, StackState.GUESSED, "no tables"), "not certain: no tables"),
    ],
)
def test_what_is_not_known_of_a_stack_is_said(stack: Stack, line: str) -> None:
    text = printer("plain", 80, stacks=True).call(rm(1, 23), stack)

    assert text.splitlines()[-1] == " " * 16 + line
    assert text.count(": ") == 1
    complete = printer("plain", 80, stacks=True).call(rm(1, 23), STACK)
    assert complete.splitlines()[-1].split() == ["__libc_start_main", "libc.so.6"]


def test_a_stack_fits_the_terminal_and_a_pipe_gets_all() -> None:
    """GIVEN a name as long as those of C++ THEN the other places stay in their column."""
    name = "store::Watcher<" + "std::vector<char>, " * 7 + "3>::add(int, char const*) const"
    long = ATTACH._replace(function=name, file="/usr/src/" + "agent/" * 17 + "secrets.c")
    stack = Stack((long, MOUNT), StackState.COMPLETE)

    fitted = printer("table", 80, stacks=True).call(rm(1, 23), stack).splitlines()
    whole = printer("plain", 80, stacks=True).call(rm(1, 23), stack).splitlines()

    assert [cells(line) <= 80 for line in fitted] == [True] * 3
    assert fitted[1].endswith("3>::add(…) const  …/secrets.c:88")
    assert f"{name}  {long.file}:88" in whole[1]
    assert whole[2] == f"{'':16}{'mount_volume':<60}  agent"


def test_a_narrow_terminal_cuts_the_details_before_the_call() -> None:
    event = add(1, 23, path=b"/" + b"x" * 400)

    assert " add_watch    3 wd 23    /xx" in printer("table", 80, stacks=False).call(event, STACK)


@given(st.binary(max_size=97), st.binary(max_size=15), st.integers(40, 200))
def test_any_path_is_one_printable_line(path: bytes, comm: bytes, width: int) -> None:
    for format_ in ("table", "plain"):
        text = printer(format_, width, stacks=False).call(add(1, 23, path=path, comm=comm), STACK)

        assert text.endswith("\n")
        assert text[:-1].isprintable()
        assert format_ == "plain" or cells(text[:-1]) <= width


def test_hostile_frames_and_reasons_are_escaped() -> None:
    name = HOSTILE.decode("utf-8", "surrogateescape")
    frame = STACK.frames[0]._replace(function=name, module=HOSTILE)
    out = printer("plain", 80, stacks=True)
    text = out.call(rm(1, 23), Stack((frame,), StackState.TRUNCATED, name))
    text += out.call(rm(1, 23), missing(name))

    assert all(line.isprintable() for line in text.splitlines())
    assert text.count("\n") == 5


# --- JSON Lines ---


def test_the_schema_comes_first_and_the_summary_last() -> None:
    first, *calls, last = _objects(add(1, 23), rm(2, 23))

    assert first == {"schema": SCHEMA} == {"schema": "inotrace.events/1"}
    assert [call["call"] for call in calls] == ["inotify_add_watch", "inotify_rm_watch"]
    assert last == {"summary": {"calls": 23, "lost": 5, "failures": []}}


_COMMON = {"pid": 1173, "tid": 1173, "uid": 0, "comm": "agent", "fd": 3, "errno": None}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            add(17, 23),
            {
                **_COMMON,
                "call": "inotify_add_watch",
                "ret": 23,
                "wd": 23,
                "mask": ["IN_CREATE"],
                "flags": None,
                "path": "/run/secrets/23",
            },
        ),
        (
            init(17, arg=0o2000000),
            {
                **_COMMON,
                "call": "inotify_init",
                "ret": 3,
                "wd": None,
                "mask": None,
                "flags": ["IN_CLOEXEC"],
                "path": None,
            },
        ),
        (
            rm(17, 23),
            {
                **_COMMON,
                "call": "inotify_rm_watch",
                "ret": 0,
                "wd": 23,
                "mask": None,
                "flags": None,
                "path": None,
            },
        ),
        (
            failed(Op.ADD, 17, 28, arg=0x2, path=b"\xff"),
            {
                **_COMMON,
                "call": "inotify_add_watch",
                "ret": -28,
                "errno": "ENOSPC",
                "wd": None,
                "mask": ["IN_MODIFY"],
                "flags": None,
                "path": "\udcff",
            },
        ),
    ],
)
def test_a_call_is_an_object(event: CallEvent, expected: dict[str, Any]) -> None:
    call = _objects(event)[1]

    assert abs(call.pop("time") - (time.time() - time.monotonic())) < 60
    assert call.pop("monotonic_ns") == 17
    assert (call.pop("explanation") is None) == (expected["errno"] is None)
    assert call.pop("limit") is None
    assert call == expected


def test_stacks_are_there_only_if_asked_for() -> None:
    assert "frames" not in _objects(add(1, 23))[1]
    call = _objects(add(1, 23), stacks=True)[1]

    assert (call["stack"], call["stack_reason"]) == ("complete", None)
    assert call["frames"][1] == {
        "function": "attach",
        "file": "secrets.c",
        "line": 88,
        "module": "/usr/bin/agent",
        "offset": 41,
        "build_id": None,
        "address": None,
    }
    gone = _objects(add(1, 23), stacks=True, stack=missing("gone"))[1]
    assert (gone["stack"], gone["stack_reason"], gone["frames"]) == ("missing", "gone", [])


@given(st.binary(max_size=97), st.binary(max_size=15))
def test_bytes_survive_json(path: bytes, comm: bytes) -> None:
    _, call, _ = _objects(add(1, 23, path=path, comm=comm))

    assert call["path"].encode("utf-8", "surrogateescape") == path
    assert call["comm"].encode("utf-8", "surrogateescape") == comm


# --- the rest ---


def test_the_clock_is_the_time_of_day() -> None:
    clock, now = WallClock(), time.monotonic_ns()

    assert abs(clock.seconds(now) - time.time()) < 5
    whole = now - round(clock.seconds(now) * 1e9) % 1_000_000_000
    assert clock.text(whole + 7_000 + 500)[:8] == time.strftime(
        "%H:%M:%S", time.localtime(clock.seconds(whole + 7_500))
    )


def test_the_summary_is_one_line() -> None:
    assert summary(1, 0) == "1 call, 0 lost"
    assert summary(2300, 1700) == "2,300 calls, 1,700 lost"


# --- failures ---


def test_the_record_of_a_failed_call_says_why_and_who_has_it_all() -> None:
    event = failed(Op.ADD, 1, 28, arg=IN_CREATE, path=b"x")
    call = json.loads(printer("json", 0, stacks=False).call(event, STACK, shortage()))

    assert call["explanation"].startswith("the user has all the watches")
    assert (call["limit"]["user"], call["limit"]["used"], call["limit"]["limit"]) == (
        "root",
        8192,
        8192,
    )
    assert [(one["pid"], one["watches"]) for one in call["limit"]["holders"]] == [
        (1173, 7468),
        (450, 13),
    ]


def test_the_summary_counts_the_kinds_of_failures() -> None:
    last = json.loads(printer("json", 0, stacks=False).footer(23, 5, [failure(count=17)]))

    assert last["summary"]["failures"] == [
        {
            "call": "inotify_add_watch",
            "errno": "ENOSPC",
            "count": 17,
            "pid": 1173,
            "comm": "agent",
        }
    ]


def test_only_what_failed_again_is_counted_at_the_end_and_not_without_bounds() -> None:
    kinds = [failure(count=count) for count in (23, 1)]
    flood = [failure(count=3, pid=pid) for pid in range(100, 131)]

    assert list(repeated(kinds)) == ["inotify_add_watch ENOSPC, agent[1173]: 23 times"]
    *told, last = repeated(flood)
    assert (len(told), last) == (8, "and 69 failed calls of 23 more kinds")
