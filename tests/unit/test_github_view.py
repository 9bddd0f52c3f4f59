"""Annotations: whole commands, read back as GitHub's runner does, and names that stay names."""

from __future__ import annotations

import dataclasses
import unicodedata
from typing import NamedTuple

import pytest
from build import (
    ANOTHER_STACK,
    ATTACH,
    MOUNT,
    STACK,
    WRAPPER,
    busy_report,
    leak,
    report,
    site,
    target,
)
from hypothesis import given
from hypothesis import strategies as st

from tracer.core.evidence import Evidence
from tracer.core.report import Report, Unit
from tracer.core.stack import Frame, Stack, StackState, missing
from tracer.core.verdict import Verdict
from tracer.views.github import github_lines


class _Command(NamedTuple):
    name: str
    properties: dict[str, str]
    data: str


def _read(line: str) -> _Command:
    """As TryParseV2 of ActionCommand.cs in github.com/actions/runner."""
    assert line.startswith("::")
    info, _, data = line[2:].partition("::")
    name, _, properties = info.partition(" ")
    pairs = (one.partition("=") for one in properties.split(","))
    return _Command(name, {key: _unescaped(value) for key, _, value in pairs}, _unescaped(data))


def _unescaped(text: str) -> str:
    for escape, sign in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(escape, sign)
    return text


def _commands(of: Report) -> list[_Command]:
    return [_read(line) for line in github_lines(of)]


def _first(stack: Stack) -> _Command:
    return _commands(report([leak(stack=stack)]))[0]


def test_a_leak_is_an_error_and_the_end_a_notice() -> None:
    assert list(github_lines(busy_report())) == [
        "::error file=secrets.c,line=88,title=23 watches leaked%3A attach::"
        "23 added by agent[1173]%0A"
        "grew in each of 4 parts of 2 min 13 s, up to the end%0A"
        "none was ever removed%0A"
        "on /run/secrets/1 and 22 more%0A"
        "at attach secrets.c:88%0A"
        "at mount_volume agent",
        "::notice title=inotrace::23 watches leaked at 1 place (294 added in 2 min 13 s)",
    ]


def test_a_suspect_is_a_warning_and_nothing_else_is_annotated() -> None:
    """GIVEN a site of every verdict THEN the leak is an error, the suspect a warning."""
    commands = _commands(report([site(verdict, 2) for verdict in Verdict]))

    assert [(one.name, one.properties["title"]) for one in commands] == [
        ("error", "2 watches leaked: attach"),
        ("warning", "2 watches suspect: attach"),
        ("notice", "inotrace"),
    ]


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (report(), "no leak found"),
        (report([site(Verdict.HELD, 3)]), "no leak found"),
        (report([leak(), leak(1)]), "24 watches leaked at 2 places"),
        (report([site(Verdict.SUSPECT, 1)]), "1 watch suspect at 1 place"),
        (
            report([leak(), site(Verdict.SUSPECT, 2), site(Verdict.INCONCLUSIVE, 5)]),
            "23 watches leaked at 1 place; 2 watches suspect at 1 place; "
            "5 watches not seen being added",
        ),
        (
            report(complete=False),
            "inconclusive: records were lost or the ledger was not verified",
        ),
        (
            report([leak()], lost=1),
            "inconclusive: records were lost or the ledger was not verified; "
            "23 watches leaked at 1 place",
        ),
    ],
)
def test_the_notice_is_the_answer(of: Report, text: str) -> None:
    assert _commands(of)[-1] == ("notice", {"title": "inotrace"}, f"{text} (0 added in 2 min 13 s)")


def test_no_more_than_github_keeps_and_the_rest_is_counted() -> None:
    commands = _commands(report([leak(3) for _ in range(23)]))

    assert [one.name for one in commands] == ["error"] * 10 + ["notice"]
    assert commands[-1].data.startswith("69 watches leaked at 23 places, 10 of them shown (")


def test_what_is_suppressed_is_not_annotated() -> None:
    known = dataclasses.replace(leak(), suppressed_by="^attach$")

    assert [one.data for one in _commands(report([known]))] == [
        "no leak found (0 added in 2 min 13 s)"
    ]


def test_instances_leak_too() -> None:
    instances = dataclasses.replace(leak(3, targets=()), unit=Unit.INSTANCES)
    first, second, notice = _commands(report([leak(), instances]))

    assert first.properties["title"] == "23 watches leaked: attach"
    assert second.properties["title"] == "3 instances leaked: attach"
    assert second.data.startswith("3 opened by agent[1173]\n")
    assert notice.data.startswith("23 watches and 3 instances leaked at 2 places (")


# --- where ---


def test_the_place_is_the_programs_first_with_a_line() -> None:
    library = WRAPPER._replace(file="inotify.c", line=5)
    without_line = MOUNT._replace(file="volume.c")
    stack = Stack((library, without_line, ATTACH, MOUNT), StackState.COMPLETE)

    assert _first(stack).properties == {
        "file": "secrets.c",
        "line": "88",
        "title": "23 watches leaked: mount_volume",
    }


@pytest.mark.parametrize(
    ("stack", "place"),
    [
        (ANOTHER_STACK, "mount_volume"),
        (Stack((WRAPPER, ATTACH._replace(file="")), StackState.COMPLETE), "attach"),
        (missing("the process ended"), "stack missing: the process ended"),
    ],
)
def test_without_a_line_there_is_no_file(stack: Stack, place: str) -> None:
    assert _first(stack).properties == {"title": f"23 watches leaked: {place}"}


def test_who_and_what() -> None:
    many = leak(pids=(1, 2), targets=(target(1, path=None), target(2)))
    ended = leak(1, pids=(), targets=(), added=0, evidence=())

    assert _commands(report([many]))[0].data.splitlines()[0] == "23 added by agent (2 processes)"
    assert "on /run/secrets/2 and 22 more" in _commands(report([many]))[0].data.splitlines()
    assert _commands(report([ended]))[0].data.splitlines() == [
        "held by agent",
        "at attach secrets.c:88",
        "at mount_volume agent",
    ]


# --- hostile names ---

_HOSTILE = (
    "::error::x\n::set-env name=PATH::/tmp\r\n::stop-commands::t"
    " %0A%250A ##[error]y,line=1 \x1b[31m"
)
_text = st.just(_HOSTILE) | st.text(st.characters(codec=None) | st.sampled_from("%:,=\r\n#[]0AD "))
_raw = _text.map(lambda text: text.encode("utf-8", "surrogatepass"))
_frames = st.builds(
    Frame,
    st.none() | _text,
    st.none() | _raw,
    st.integers(0, 2**40),
    st.none() | _text,
    st.none() | st.integers(0, 2**31),
    st.none() | st.binary(max_size=20).map(bytes.hex),
)


@given(st.lists(_frames, max_size=3), _raw, _raw, _text)
def test_no_name_starts_a_command_or_a_property(
    frames: list[Frame], comm: bytes, path: bytes, reason: str
) -> None:
    hostile = leak(
        1,
        stack=Stack((WRAPPER, *frames), StackState.TRUNCATED, reason),
        comm=comm,
        targets=(target(path=path),),
        evidence=(Evidence("grew", reason),),
    )
    error, notice = github_lines(report([hostile]))

    # a line ends for nobody, whatever ends one for them
    for line in (error, notice):
        assert all(each.isprintable() or unicodedata.category(each) == "Zs" for each in line)
    assert _read(error).name == "error"
    assert set(_read(error).properties) in ({"title"}, {"file", "line", "title"})
    assert _read(error).properties["title"].startswith("1 watch leaked: ")
    assert _read(notice).name == "notice"


def test_hostile_names_are_shown_escaped() -> None:
    stack = Stack((ATTACH._replace(function=_HOSTILE, file=_HOSTILE),), StackState.COMPLETE)
    command = _first(stack)
    shown = _HOSTILE.replace("\n", "\\n").replace("\r", "\\r").replace("\x1b", "\\x1b")

    assert command.properties == {
        "file": shown,
        "line": "88",
        "title": f"23 watches leaked: {shown}",
    }
    assert command.data.splitlines()[-1] == f"at {shown} {shown}:88"


def test_long_names_do_not_make_long_annotations() -> None:
    """GIVEN names without end THEN title and message stay in what GitHub takes."""
    frame = ATTACH._replace(function="f" * 100_000, file="d/" * 100_000)
    hostile = leak(
        stack=Stack((frame,) * 100, StackState.COMPLETE), targets=(target(path=b"/x" * 100_000),)
    )
    command = _commands(report([hostile]))[0]

    assert len(command.properties["title"]) <= 255
    assert len(command.data) <= 10_000
    assert _commands(report([leak(stack=STACK)]))[0].data.count("\nat ") == 2
