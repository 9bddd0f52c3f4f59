"""Differences for people: whole texts at two widths, and names that must stay names."""

from __future__ import annotations

import json
from typing import Any

import pytest
from build import ANOTHER_STACK, STACK, plain, widest
from hypothesis import given
from hypothesis import strategies as st

from tracer.core.delta import Change, Delta, Fate, ProcessDelta, SiteDelta, TargetDelta
from tracer.core.kept import LS_SCHEMA, REPORT_SCHEMA
from tracer.core.report import Unit
from tracer.core.stack import Frame, Stack, StackState, missing
from tracer.views.delta import delta_lines
from tracer.views.json_delta import delta_json, delta_object
from tracer.views.text import rendered


def _delta(**changes: Any) -> Delta:
    values: dict[str, Any] = {
        "schema": REPORT_SCHEMA,
        "watches": Change(7468, 7491),
        "instances": Change(28, 28),
        "sites": (),
        "processes": (),
        "targets": (),
        "unlisted": Change(0, 0),
        "caveats_before": (),
        "caveats_after": (),
    }
    return Delta(**{**values, **changes})


def _site(before: int, after: int, **changes: Any) -> SiteDelta:
    values: dict[str, Any] = {
        "kind": Unit.WATCHES,
        "id": "feed",
        "comm": "agent",
        "stack": STACK,
        "live": Change(before, after),
        "verdict_before": "held",
        "verdict_after": "held",
    }
    return SiteDelta(**{**values, **changes})


def _process(before: int, after: int, **changes: Any) -> ProcessDelta:
    values: dict[str, Any] = {
        "pid": 1173,
        "comm": "agent",
        "fate": Fate.GREW if after > before else Fate.SHRANK,
        "live": Change(before, after),
        "instances": Change(28, 28),
        "added": Change(40, 1300),
        "ended": Change(0, 0),
    }
    return ProcessDelta(**{**values, **changes})


def _target(before: int, after: int, path: str | None = "/run/a") -> TargetDelta:
    return TargetDelta(path, None, None, Change(before, after))


def _lines(of: Delta, width: int = 80, **options: Any) -> list[str]:
    return plain(delta_lines(of, width, **options))


# --- whole texts ---

_BUSY_80 = """\
+23 watches (7,468 → 7,491)
-2 instances (30 → 28)
1 place grew, 1 shrank, 1 is new, 1 is gone, 1 has another verdict
Numbers of B may be off: records were lost, the ledger was not verified against
the kernel's list.

BY PLACE, watches
CHANGE      A      B  VERDICT         PLACE                          COMMAND
   +23      0     23  held → leak     attach                         agent
    +5      0      5  new, held       mount_volume                   agent
    -4      4      0  gone, was held  stack missing: gone too early  agent
     0  7,463  7,463  held → clean    attach                         agent

BY PLACE, instances
CHANGE   A   B  VERDICT  PLACE   COMMAND
    -2  30  28  held     attach  agent

BY PROCESS, watches
CHANGE      A      B         PID  COMMAND          INSTANCES       ADDED
   +23  7,468  7,491        1173  agent              30 → 28  40 → 1,300
    +5      0      5  new    450  udevd                    1       0 → 5
     0      0      0       ended  sh (23 → 1,300)          0     23 → 29

BY TARGET, watches added in the traces
CHANGE  A  B        TARGET
    +2  1  3        /run/secrets/1
    +1  0  1  new   /run/a
    -1  1  0  gone  inode 5 on device 8:1
    -1  1  0  gone  not known
The targets are not whole, those of 1,300 watches in B are not listed: one that
seems to have come or gone may only be unlisted.
"""

_SHORT_160 = """\
+23 watches (7,468 → 7,491)   1 process grew, 2 are gone

BY PROCESS, watches
CHANGE      A      B         PID  COMMAND  INSTANCES
   +23  7,468  7,491        1173  agent           28
    -3      3      0  gone     7  vi           1 → 0
    -2      2      0  gone     8  vi           1 → 0
"""


def _busy() -> Delta:
    lost = missing("gone too early")
    return _delta(
        instances=Change(30, 28),
        sites=(
            _site(0, 23, verdict_after="leak"),
            _site(0, 5, verdict_before=None, stack=ANOTHER_STACK),
            _site(4, 0, verdict_after=None, stack=lost),
            _site(30, 28, kind=Unit.INSTANCES),
            _site(7463, 7463, verdict_after="clean"),
        ),
        processes=(
            _process(7468, 7491, instances=Change(30, 28)),
            _process(
                0,
                5,
                pid=450,
                comm="udevd",
                fate=Fate.NEW,
                instances=Change(1, 1),
                added=Change(0, 5),
            ),
            _process(
                0,
                0,
                pid=None,
                comm="sh",
                fate=Fate.GREW,
                instances=Change(0, 0),
                added=Change(23, 29),
                ended=Change(23, 1300),
            ),
        ),
        targets=(
            _target(1, 3, "/run/secrets/1"),
            _target(0, 1),
            TargetDelta(None, "8:1", 5, Change(1, 0)),
            _target(1, 0, None),
        ),
        unlisted=Change(0, 1300),
        caveats_after=(
            "records were lost",
            "the ledger was not verified against the kernel's list",
        ),
    )


def _short() -> Delta:
    gone = {"comm": "vi", "fate": Fate.GONE, "instances": Change(1, 0)}
    return _delta(
        schema=LS_SCHEMA,
        processes=(
            _process(7468, 7491),
            _process(3, 0, pid=7, **gone),
            _process(2, 0, pid=8, **gone),
        ),
    )


@pytest.mark.parametrize(
    ("of", "width", "expected"),
    [(_busy(), 80, _BUSY_80), (_short(), 160, _SHORT_160)],
    ids=["report", "ls"],
)
def test_a_whole_text(of: Delta, width: int, expected: str) -> None:
    assert rendered(lambda fit: delta_lines(of, fit), None, width) == expected


def test_nothing_changed_is_one_line() -> None:
    assert _lines(_delta(watches=Change(7491, 7491))) == [
        "No difference: 7,491 watches in 28 instances in both."
    ]


def test_nothing_changed_is_said_to_be_unsure() -> None:
    """GIVEN a report that may lack some WHEN it differs in nothing THEN that is no proof."""
    lines = _lines(_delta(watches=Change(1, 1), caveats_before=("records were lost",)))

    assert lines[1:] == ["Numbers of A may be off: records were lost."]


def test_as_many_watches_elsewhere() -> None:
    lines = _lines(_delta(watches=Change(1, 1), sites=(_site(1, 0), _site(0, 1))))

    assert lines[0] == "1 watch, as before   1 place grew, 1 shrank"


@pytest.mark.parametrize(
    ("number", "words"), [(1, "-1 watch (1 → 0)"), (1300, "-1,300 watches (1,300 → 0)")]
)
def test_one_and_many(number: int, words: str) -> None:
    assert _lines(_delta(watches=Change(number, 0))) == [words]


# --- what is shown of many ---


def test_the_first_of_many_are_shown_and_the_rest_is_counted() -> None:
    many = _delta(
        sites=tuple(_site(0, n) for n in range(1, 24)),
        processes=tuple(_process(0, n) for n in range(1, 24)),
        targets=tuple(_target(0, n) for n in range(1, 2001)),
    )

    lines = _lines(many)

    assert [line for line in lines if line.startswith("and ")] == [
        "and 13 more: -f json lists all",
        "and 8 more: -f json lists all",
        "and 1,985 more: -f json lists all",
    ]
    assert len(json.loads(delta_json(many))["targets"]) == 2000


# --- stacks ---


def test_full_stacks_show_every_frame_below_its_place() -> None:
    lines = _lines(_delta(sites=(_site(0, 2), _site(0, 1, stack=ANOTHER_STACK))), full_stacks=True)

    assert [line.split()[0] for line in lines[4:]] == [
        "+2",
        "inotify_add_watch",
        "attach",
        "mount_volume",
        "__libc_start_main",
        "+1",
        "inotify_add_watch",
        "mount_volume",
        "__libc_start_main",
    ]


@pytest.mark.parametrize(
    ("verdict_before", "state", "unsure"),
    [
        (None, StackState.TRUNCATED, True),
        (None, StackState.COMPLETE, False),
        ("held", StackState.TRUNCATED, False),
    ],
)
def test_a_place_that_came_with_half_a_stack_may_have_been_there(
    verdict_before: str | None, state: StackState, unsure: bool
) -> None:
    stack = Stack(STACK.frames, state, "no unwind information")
    lines = _lines(_delta(sites=(_site(0, 5, verdict_before=verdict_before, stack=stack),)))

    assert any("callers are unknown" in line for line in lines) is unsure


# --- names ---


def test_hostile_names_are_shown_escaped_and_kept_in_json() -> None:
    bad = "\x1b[2J\n\udcff\u202e[red]"
    frame = Frame(bad, b"/\x1b[31m\xff", 0, bad, 1)
    hostile = _delta(
        sites=(_site(0, 1, comm=bad, verdict_after=bad, stack=Stack((frame,), STACK.state)),),
        processes=(_process(0, 1, comm=bad),),
        targets=(_target(0, 1, bad), TargetDelta(None, bad, 5, Change(0, 1))),
    )

    lines = _lines(hostile, 400, full_stacks=True)

    assert all(line.isprintable() for line in lines)
    assert sum(r"\x1b[2J\n\xff\u202e[red]" in line for line in lines) == 5
    document = json.loads(delta_json(hostile))
    assert document["targets"][0]["path"] == document["processes"][0]["comm"] == bad


@given(
    comm=st.text(max_size=99),
    path=st.text(max_size=999),
    width=st.integers(min_value=80, max_value=200),
)
def test_no_line_is_wider_than_the_terminal(comm: str, path: str, width: int) -> None:
    wide = _delta(
        sites=(_site(0, 5, comm=comm),),
        processes=(_process(0, 5, comm=comm),),
        targets=(_target(0, 5, path),),
        unlisted=Change(0, 5),
        caveats_after=("records were lost",),
    )

    assert widest(delta_lines(wide, width, full_stacks=True)) <= width


def test_a_name_of_a_megabyte_is_cut_at_once() -> None:
    """Columns shrink by a cell at a time, which would take minutes."""
    lines = _lines(_delta(targets=(_target(0, 1, "/" + "a" * (1 << 24)),)))

    assert len(lines[-1]) == 80


# --- JSON ---


def test_json_has_both_counts_and_what_became_of_it() -> None:
    document = delta_object(_busy())

    assert document["schema"] == "inotrace.diff/1"
    assert document["of"] == "inotrace.report/1"
    assert document["watches"] == {"a": 7468, "b": 7491}
    assert document["caveats"]["a"] == [] and len(document["caveats"]["b"]) == 2
    grew = document["sites"][0]
    assert grew["frames"][1]["function"] == "attach"
    assert {key: grew[key] for key in grew if key != "frames"} == {
        "id": "feed",
        "kind": "watches",
        "comm": "agent",
        "fate": "grew",
        "live": {"a": 0, "b": 23},
        "verdict": {"a": "held", "b": "leak"},
        "stack": "complete",
        "stack_reason": None,
    }
    assert document["processes"][2] == {
        "pid": None,
        "comm": "sh",
        "fate": "grew",
        "live": {"a": 0, "b": 0},
        "instances": {"a": 0, "b": 0},
        "added": {"a": 23, "b": 29},
        "processes": {"a": 23, "b": 1300},
    }
    assert document["targets"][2] == {
        "path": None,
        "dev": "8:1",
        "ino": 5,
        "fate": "gone",
        "watches": {"a": 1, "b": 0},
    }
    assert document["unlisted"] == {"a": 0, "b": 1300}
    assert delta_json(_busy()).isascii()
