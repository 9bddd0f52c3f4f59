"""The live screen and the lines for a pipe: one moment, always within its bounds."""

from __future__ import annotations

import dataclasses

import pytest
from build import (
    ANOTHER_STACK,
    STACK,
    WRAPPER,
    busy_report,
    ended,
    failure,
    leak,
    limits,
    opening,
    plain,
    process,
    report,
    shortage,
    site,
    widest,
)
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from test_report_view import HOSTILE, hostile_report

from tracer.core.cause import Cause
from tracer.core.report import Report, Use
from tracer.core.stack import Frame, Stack, StackState, missing
from tracer.core.verdict import Verdict
from tracer.views.live import LiveHint, live_lines
from tracer.views.plain import HEADER, change_lines


def _lines(of: Report, width: int = 80, height: int = 23) -> list[str]:
    return plain(live_lines(of, width, height))


# --- the screen ---


def test_failures_have_a_short_section_limits_first() -> None:
    missing_path = failure(errno="ENOENT", count=100, explanation="the path did not exist")
    of = report(failures=[missing_path, failure(shortage=shortage())], limits=[limits()])

    lines = _lines(of, 160)

    at = next(i for i, line in enumerate(lines) if " failed " in line)
    assert [line.split(maxsplit=5) for line in lines[at : at + 2]] == [
        [
            *("17", "failed", "inotify_add_watch", "ENOSPC", "agent[1173]"),
            "root has 8,192 of 8,192 watches: agent[1173] holds 7,468, udevd[450] 13, and 2 more",
        ],
        [
            *("100", "failed", "inotify_add_watch", "ENOENT", "agent[1173]"),
            "the path did not exist",
        ],
    ]
    assert lines[at - 1] == lines[at + 2] == ""


def test_the_whole_screen() -> None:
    of = report(
        [
            site(Verdict.YOUNG, 23, stack=STACK),
            site(Verdict.YOUNG, 5, 7, stack=missing("no frames"), comm=b"udevd"),
            opening(Verdict.YOUNG, 2, 4),
        ],
        [
            process(live=1500, baseline=1477, added=30, removed={Cause.RM_WATCH: 7}, rate=2.34),
            process(450, comm=b"udevd", live=13, baseline=13, instances=2),
        ],
        limits=[limits()],
        added=30,
        removed={Cause.RM_WATCH: 7, Cause.DELETED: 2},
        lost=1300,
    )

    assert _lines(of, 100) == [
        "inotrace  2 min 13 s   30 added  9 gone  1,300 lost",
        "",
        " PID  COMMAND   LIVE  BEFORE  ADDED  REMOVED  INSTANCES  ADDS/S",
        "1173  agent    1,500   1,477     30        7          1     2.3",
        " 450  udevd       13      13      0        0          2",
        "",
        "LIVE  ADDED             FROM                      IN",
        "  23     23  watches    attach                    agent",
        "   5      7  watches    stack missing: no frames  udevd",
        "   2      4  instances  attach                    agent",
        "",
        "root has 7,491 of 8,192 watches and 28 of 128 instances",
        "",
        "Ctrl-C ends with the report",
    ]


def test_places_are_the_programs_own_functions() -> None:
    python = Frame("_PyEval_EvalFrameDefault", b"/usr/bin/python3.12", 7)
    script = Frame("watch", b"[anon]", 6, "/srv/agent.py")
    nameless = Frame(None, b"/opt/agent", 0x2B67, build_id="93ac61ec" * 5)
    stacks = [
        Stack((WRAPPER, python, script, python), StackState.GUESSED, "no tables"),
        Stack((WRAPPER, nameless, nameless), StackState.TRUNCATED, "cut"),
    ]
    lines = _lines(report([leak(stack=stack) for stack in stacks]))

    at = next(i for i, line in enumerate(lines) if line.startswith("LIVE"))
    assert lines[at + 1 : at + 3] == [
        "  23     23  watches  watch         agent",
        "  23     23  watches  agent+0x2b67  agent",
    ]


def test_an_empty_screen_says_so() -> None:
    assert _lines(report(), 60) == [
        "inotrace  2 min 13 s   0 added  0 gone  0 lost",
        "",
        "no process uses inotify yet",
        "",
        "no place in the code has added a watch that is still there",
        "",
        "",
        "Ctrl-C ends with the report",
    ]


@pytest.mark.parametrize("height", [1, 5, 23, 200])
@pytest.mark.parametrize("hint", LiveHint)
def test_what_one_can_do_is_always_the_last_line(hint: LiveHint, height: int) -> None:
    lines = plain(live_lines(busy_report(), 80, height, hint))

    assert lines[-1] == hint.value
    assert ("m begins a round" in lines[-1]) is (hint is LiveHint.KEYS)
    assert len(lines) <= height


@pytest.mark.parametrize(
    ("rounds", "title"),
    [(0, "inotrace  2 min 13 s   0 added"), (1_234, "inotrace  2 min 13 s  round 1,234   0 added")],
)
def test_the_title_tells_which_round_it_is(rounds: int, title: str) -> None:
    assert _lines(report(rounds=rounds))[0].startswith(title)


@pytest.mark.parametrize(("height", "shown"), [(24, 11), (30, 17), (40, 23)])
def test_processes_get_the_room_that_is_left(height: int, shown: int) -> None:
    of = report([leak(), leak()], [process(100 + i) for i in range(23)], limits=[limits()])
    lines = _lines(of, height=height)

    assert len(lines) <= height
    assert sum("agent" in line for line in lines) - 2 == shown
    assert (f"and {23 - shown} more processes" in lines) is (shown < 23)
    assert lines[-3].startswith("root has")


def test_ended_processes_are_one_row_by_name() -> None:
    of = report(processes=[process(live=3)], ended=[ended(processes=1500)])

    assert _lines(of)[3:5] == [
        " 1173  agent          3       0      0        0          1",
        "ended  sh (1,500)     0       0     30        0          0",
    ]
    assert "and 1,501 more processes" in _lines(
        report(processes=[process(live=3)] * 3, ended=[ended(processes=1500)]), height=7 + 3
    )


def test_at_most_six_places_and_three_users_are_shown() -> None:
    of = report([leak(stack=ANOTHER_STACK)] * 23, [process()], limits=[limits()] * 23)
    lines = _lines(of, height=200)

    assert sum("mount_volume" in line for line in lines) == 6
    assert sum("root has" in line for line in lines) == 3


_GROWING = limits(
    user="12345",
    watches=Use(789, 192_536, 70_368.0),
    instances=Use(111, 128, 23.0),
)


@pytest.mark.parametrize(("height", "users"), [(16, 1), (24, 2), (40, 3)])
def test_limits_are_told_whole(height: int, users: int) -> None:
    """GIVEN users whose limits take two lines each WHEN there is little room THEN one is whole."""
    of = report(
        [leak()] * 23,
        [process(100 + i) for i in range(23)],
        [failure(errno="ENOENT")] * 3,
        [_GROWING] * 23,
    )
    lines = _lines(of, height=height)
    first = lines.index(
        "12345 has 789 of 192,536 watches (+70,368 an hour: full in about 3 h) and 111 of"
    )

    assert lines[first + 1] == "128 instances (+23 an hour: full in about 44 min)"
    assert len(lines) <= height
    assert lines[-1] == LiveHint.SIGNAL.value
    assert any("attach" in line for line in lines)
    assert sum(line.startswith("12345") for line in lines) == users


_names = st.text(st.sampled_from("ab/.山é한 "), max_size=41)


@given(
    names=st.lists(_names, max_size=29),
    width=st.integers(1, 200),
    height=st.integers(1, 60),
    number=st.integers(0, 2**40),
)
def test_the_screen_is_never_left(names: list[str], width: int, height: int, number: int) -> None:
    of = report(
        [leak(comm=name.encode()) for name in names],
        [process(comm=name.encode(), live=number) for name in names],
        limits=[limits(user=name) for name in names],
        added=number,
    )
    lines = list(live_lines(of, width, height))

    assert 0 < len(lines) <= height
    assert widest(lines) <= width


@pytest.mark.parametrize("width", [20, 80, 400])
def test_hostile_names_stay_on_their_line(width: int) -> None:
    lines = _lines(hostile_report(), width, 60)

    assert all(line.isprintable() for line in lines)
    assert any(r"\x1b[31m[bold]x\n" in line for line in lines)


# --- the lines for a pipe ---


def test_a_pipe_gets_a_line_for_each_process_that_changed() -> None:
    before = report(processes=[process(7), process(11, live=5, added=5), process(13, live=2)])
    after = report(
        processes=[
            process(7),
            process(11, live=23, added=23, baseline=3),
            process(13, removed={Cause.RM_WATCH: 2}, failed=17),
            process(17, comm=b"new"),
        ]
    )

    assert [HEADER, *change_lines(before, after, "20:15:07")] == [
        "TIME         PID COMMAND              LIVE    BEFORE     ADDED   REMOVED FAILED",
        "20:15:07      11 agent                  23         3        23         0      0",
        "20:15:07      13 agent                   0         0         0         2     17",
        "20:15:07      17 new                     0         0         0         0      0",
    ]


def test_the_first_lines_are_of_all_processes() -> None:
    of = dataclasses.replace(busy_report(), failures=())

    assert len(list(change_lines(None, of, "20:15:07"))) == 2


def test_the_first_failure_of_a_kind_is_explained_and_others_are_only_counted() -> None:
    missing_path = failure(errno="ENOENT", count=1, explanation="the path did not exist")
    before = report(failures=[failure()])
    after = report(failures=[failure(count=23), missing_path, failure(pid=None, count=7)])

    assert list(change_lines(before, after, "20:15:07")) == [
        "20:15:07 inotify_add_watch ENOENT, agent[1173]: the path did not exist"
    ]


def test_a_flood_of_kinds_of_failures_is_told_in_few_lines() -> None:
    of = report(failures=[failure(pid=pid) for pid in range(100, 131)])

    *told, last = change_lines(None, of, "20:15:07")

    assert len(told) == 8
    assert last == "20:15:07 and 23 more kinds of failed calls"


@pytest.mark.parametrize(
    ("before", "after", "told"), [(0, 23, True), (23, 23, False), (17, 23, True), (0, 0, False)]
)
def test_new_losses_are_told_once(before: int, after: int, told: bool) -> None:
    lines = list(change_lines(report(lost=before), report(lost=after), "20:15:07"))

    assert lines == (["20:15:07 23 records lost so far"] if told else [])


def test_a_hostile_name_is_one_field_of_one_line() -> None:
    (line,) = change_lines(None, report(processes=[process(comm=HOSTILE)]), "20:15:07")

    assert line.isprintable()
    assert cell_len(line) == len(line)
    assert line.startswith(r"20:15:07    1173 \x1b[31m[bold]x\n\xff\u202e\x07 ")
