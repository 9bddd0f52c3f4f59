"""The report for people: whole reports at two widths, and names that must stay names."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from build import (
    ANOTHER_STACK,
    STACK,
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
    target,
    widest,
)
from hypothesis import given
from hypothesis import strategies as st

from tracer.core.cause import Cause
from tracer.core.evidence import Evidence
from tracer.core.report import (
    AuditRow,
    PodRow,
    ProcessRow,
    Report,
    SuppressedRow,
    Unit,
    Use,
    UserLimits,
)
from tracer.core.stack import Frame, Stack, StackState, missing
from tracer.core.verdict import Verdict, unseen
from tracer.views.report import limit_sentence, limit_style, report_lines
from tracer.views.text import rendered


def _lines(of: Report, width: int = 80, **options: Any) -> list[str]:
    return plain(report_lines(of, width, **options))


def _text(of: Report, width: int = 80, **options: Any) -> str:
    return rendered(lambda fit: report_lines(of, fit, **options), None, width)


# --- whole reports ---

_BUSY_80 = """\
inotrace  2 min 13 s   6.1.0-25-amd64, tracepoint
          294 added  261 removed  5 gone otherwise  0 lost   ledger = kernel

LEAK  23 watches, one place in agent[1173], none ever removed
      attach        secrets.c:88
      mount_volume  agent
      + 2 more frames of runtime and library   --full-stacks
  why   grew in each of 4 parts of 2 min 13 s, up to the end
        none was ever removed
  where /run/secrets/1   and 22 more

HELD  7,481 watches, 1 place, 7,476 from before the trace
      5  mount_volume  agent[1173]  did not grow in the last 2 min 1 s
CLEAN 266 added and removed, 1 place
      266  stack missing: the process en…fore its symbols could be read  agent

FAILED 17 failed calls
      17  inotify_add_watch ENOSPC  agent[1173]
        the user has as many watches as fs.inotify.max_user_watches allows

 PID  COMMAND   LIVE  BEFORE  ADDED  REMOVED  INSTANCES  VERDICT
1173  agent    7,491   7,463    294      266         28  23 leaked
 450  udevd       13      13      0        0          1  held

root has 7,491 of 8,192 watches and 28 of 128 instances
"""

_BUSY_160 = """\
inotrace  2 min 13 s   6.1.0-25-amd64, tracepoint   294 added  261 removed  5 gone otherwise  \
0 lost   ledger = kernel

LEAK  23 watches, one place in agent[1173], none ever removed
      attach        secrets.c:88
      mount_volume  agent
      + 2 more frames of runtime and library   --full-stacks
  why   grew in each of 4 parts of 2 min 13 s, up to the end
        none was ever removed
  where /run/secrets/1   and 22 more

HELD  7,481 watches, 1 place, 7,476 from before the trace
      5  mount_volume  agent[1173]  did not grow in the last 2 min 1 s
CLEAN 266 added and removed, 1 place
      266  stack missing: the process ended before its symbols could be read  agent

FAILED 17 failed calls
      17  inotify_add_watch ENOSPC  agent[1173]
        the user has as many watches as fs.inotify.max_user_watches allows

 PID  COMMAND   LIVE  BEFORE  ADDED  REMOVED  INSTANCES  VERDICT
1173  agent    7,491   7,463    294      266         28  23 leaked
 450  udevd       13      13      0        0          1  held

root has 7,491 of 8,192 watches and 28 of 128 instances
"""

_INCOMPLETE_80 = """\
inotrace  2 min 13 s   6.1.0-25-amd64, tracepoint
          1 added  0 removed  0 gone otherwise  1,300 lost   ledger ≠ kernel
1,300 records did not fit the buffers: what was counted, by whom, and what exits
freed may be short. The verdicts are inconclusive.
The ledger could not be verified against the kernel's list at the end: the
verdicts are inconclusive.

UNSURE 1 watch, one place in agent[1173], not seen being added
      stack missing: inotrace did not see them being added
  why   in the kernel's list: call lost, 32-bit, or made by an untraced process
  where /run/secrets/1


 PID  COMMAND  LIVE  BEFORE  ADDED  REMOVED  INSTANCES  VERDICT
1173  agent       1       0      0        0          1  unsure
"""

_QUIET_80 = """\
inotrace  2 min 13 s   6.1.0-25-amd64, tracepoint
          0 added  0 removed  0 gone otherwise  0 lost   ledger = kernel

CLEAN no watch was added during the trace
"""


def _incomplete() -> Report:
    appeared = site(
        Verdict.INCONCLUSIVE,
        1,
        0,
        stack=missing("inotrace did not see them being added"),
        evidence=unseen(1, 0).evidence,
    )
    row = process(live=1, verdict=Verdict.INCONCLUSIVE)
    return report([appeared], [row], added=1, lost=1300, complete=False)


_ROUNDS_80 = """\
inotrace  2 min 13 s, 5 rounds   6.1.0-25-amd64, tracepoint
          38 added  10 removed  0 gone otherwise  0 lost   ledger = kernel

LEAK  15 watches, one place in agent[1173], none ever removed
      attach        secrets.c:88
      mount_volume  agent
      + 2 more frames of runtime and library   --full-stacks
  why   +3 in each of 5 rounds
  where /run/secrets/1   and 14 more
  then  +180 an hour; root reaches the limit of 8,192 watches in about 4 h

SUSPECT 7 instances, one place in agent[1173], 5 of 12 were closed
      attach        secrets.c:88
      mount_volume  agent
      + 2 more frames of runtime and library   --full-stacks
  why   7 have no watch, on 5 of them inotify_add_watch failed
  where /proc/1173/fd/3, /proc/1173/fd/4, /proc/1173/fd/5, /proc/1173/fd/6,
        /proc/1173/fd/7 and 2 more
  then  +2.4 a day at this pace

HELD  3 watches and 2 instances, 2 places
      3  mount_volume        agent[1173]  never more than 4 at a time
      2  attach (instances)  agent[1173]  too few to judge
CLEAN 20 added and removed, 4 opened and closed, 2 places
      20  mount_volume        agent
       4  attach (instances)  agent
SUPPRESSED known, and not counted
      2 watches and 1 instance  2 places  leak:known_leak

 PID  COMMAND  LIVE  BEFORE  ADDED  REMOVED  INSTANCES  VERDICT
1173  agent      20       0     38        0         12  15 leaked

root has 7,491 of 8,192 watches and 28 of 128 instances
"""


def _in_rounds() -> Report:
    """A scenario of 5 rounds, with both units and every section that can be."""
    payer = 4026531837, 0
    why_instances = Evidence(
        "without_watch", "7 have no watch, on 5 of them inotify_add_watch failed"
    )
    return report(
        [
            leak(
                15,
                evidence=(Evidence("grows_each_round", "+3 in each of 5 rounds"),),
                per_round=(3,) * 5,
                per_hour=180.0,
                payer=payer,
                full_payer=payer,
                full_in_s=4.2 * 3600,
            ),
            leak(2, suppressed_by="known_leak"),
            opening(
                Verdict.SUSPECT,
                7,
                12,
                removed={Cause.CLOSED: 5},
                evidence=(why_instances,),
                per_hour=0.1,
            ),
            opening(Verdict.SUSPECT, 1, suppressed_by="known_leak"),
            opening(Verdict.HELD, 2, evidence=(Evidence("few", "too few to judge"),)),
            site(
                Verdict.HELD,
                3,
                stack=ANOTHER_STACK,
                evidence=(Evidence("plateau", "never more than 4 at a time"),),
            ),
            opening(Verdict.CLEAN, 0, 4),
            site(Verdict.CLEAN, 0, 20, stack=ANOTHER_STACK),
        ],
        processes=[process(live=20, added=38, instances=12, leaked=15, verdict=Verdict.LEAK)],
        limits=[limits()],
        suppressed=[SuppressedRow("known_leak", "known.supp:3", 2, 2, 1)],
        rounds=5,
        added=38,
        removed={Cause.RM_WATCH: 10},
    )


@pytest.mark.parametrize(
    ("of", "width", "expected"),
    [
        pytest.param(_in_rounds(), 80, _ROUNDS_80, id="rounds at 80"),
        pytest.param(busy_report(), 80, _BUSY_80, id="busy at 80"),
        pytest.param(busy_report(), 160, _BUSY_160, id="busy at 160"),
        pytest.param(_incomplete(), 80, _INCOMPLETE_80, id="incomplete"),
        pytest.param(report(), 80, _QUIET_80, id="quiet"),
    ],
)
def test_the_whole_report(of: Report, width: int, expected: str) -> None:
    assert _text(of, width) == expected


# --- the header and the warnings ---


@pytest.mark.parametrize(
    ("rounds", "shown"), [(0, "s   6."), (1, "s, 1 round   "), (5, ", 5 rounds ")]
)
def test_the_header_tells_how_many_rounds_there_were(rounds: int, shown: str) -> None:
    assert shown in _lines(report(rounds=rounds))[0]


def test_healed_losses_are_told_but_warn_of_nothing() -> None:
    lines = _lines(report(lost=23, healed=23))

    assert "0 lost, 23 healed" in lines[1]
    assert not any("inconclusive" in line for line in lines)


def test_what_only_the_counters_know_is_shown_with_what_it_can_mean() -> None:
    user = UserLimits(1000, "ann\x1b", 4026531837, Use(7, 8192), Use(2, 128))
    text = " ".join(_lines(report(audit=[AuditRow(user, 5, 1, "an instance in a socket")])))

    assert "charges ann\\x1b for 7 watches and 2 instances, 5 and 1 were found: an" in text
    assert "an instance in a socket." in text


def test_processes_that_could_not_be_followed_are_told() -> None:
    text = " ".join(_lines(report(unfollowed=3)))

    assert "3 processes of the command could not be followed" in text


def test_only_what_was_not_healed_is_warned_of() -> None:
    assert "1 record did not fit the buffers" in _lines(report(lost=23, healed=22))[3]


# --- processes, failures and limits ---


def test_more_places_processes_and_failures_than_shown_are_counted() -> None:
    of = report(
        [site(Verdict.CLEAN, 0, 2, stack=ANOTHER_STACK) for _ in range(23)],
        [process(pid) for pid in range(23)],
        [failure() for _ in range(23)],
    )
    text = _text(of)

    assert "CLEAN 46 added and removed, 23 places" in text
    assert "      and 18 more places" in text
    assert "and 8 more processes" in text
    assert "FAILED 391 failed calls" in text


def test_ended_processes_are_one_row_by_name_and_each_counts() -> None:
    of = report(
        processes=[process(live=3, added=3, verdict=Verdict.SUSPECT), process(7)],
        ended=[ended(processes=1500, removed={Cause.RM_WATCH: 30}), ended(b"x", 2, added=0)],
        failures=[failure(pid=None, comm=b"sh")],
    )
    lines = _lines(of)

    assert "      17  inotify_add_watch ENOSPC  sh" in lines
    table = lines[lines.index("") :]
    assert table[-5:] == [
        "  PID  COMMAND     LIVE  BEFORE  ADDED  REMOVED  INSTANCES  VERDICT",
        " 1173  agent          3       0      3        0          1  suspect",
        "ended  sh (1,500)     0       0     30       30          0  clean",
        "    7  agent          0       0      0        0          1  clean",
        "ended  x (2)          0       0      0        0          0  clean",
    ]
    many = report(processes=[process(live=3) for _ in range(15)], ended=[ended(processes=1500)])
    assert "and 1,500 more processes" in _lines(many)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (process(leaked=23, verdict=Verdict.LEAK), "23 leaked"),
        # of instances
        (process(leaked=0, verdict=Verdict.LEAK), "leak"),
        (process(verdict=Verdict.SUSPECT), "suspect"),
        (process(verdict=Verdict.HELD), "held"),
        (ended(), "clean"),
    ],
)
def test_a_process_has_the_worst_of_its_verdicts(row: Any, verdict: str) -> None:
    of = report(ended=[row]) if row == ended() else report(processes=[row])

    assert _lines(of)[-1].endswith(f"  {verdict}")


def test_limits_of_several_users() -> None:
    lines = _lines(report(limits=[limits(), limits(uid=1, user="[daemon]")]))

    assert lines[-2:] == [
        "root has 7,491 of 8,192 watches and 28 of 128 instances",
        "[daemon] has 7,491 of 8,192 watches and 28 of 128 instances",
    ]


# --- width ---

_long = st.text(st.sampled_from("abcdef_.:/山한é"), min_size=1, max_size=197)
_frames = st.builds(
    Frame,
    st.none() | _long,
    st.none() | _long.map(str.encode),
    st.integers(0, 2**40),
    st.none() | _long,
    st.none() | st.integers(1, 9999),
    st.none() | st.just("93ac61ec" * 5),
)
_stacks = st.builds(
    lambda frames, state, words: Stack(tuple(frames), state, "reason " * words),
    st.lists(_frames, max_size=11),
    st.sampled_from([StackState.COMPLETE, StackState.GUESSED, StackState.TRUNCATED]),
    st.integers(1, 23),
)
_sites = st.lists(
    st.builds(
        lambda verdict, live, stack, path, closes: (
            opening(verdict, live, stack=stack, suppressed_by=path if closes else None)
            if closes is not None
            else site(verdict, live, stack=stack, targets=(target(1, path=path.encode()),) * live)
        ),
        st.sampled_from(Verdict),
        st.integers(0, 3),
        _stacks,
        _long,
        st.none() | st.booleans(),
    ),
    max_size=5,
)


_reasons = st.lists(st.builds(Evidence, st.just("plateau"), _long), max_size=2).map(tuple)


@given(
    _sites,
    _reasons,
    st.lists(_long, max_size=3),
    st.sampled_from([80, 100, 160]),
    st.booleans(),
)
def test_no_line_is_wider_than_the_terminal(
    sites: list[Any],
    evidence: tuple[Evidence, ...],
    names: list[str],
    width: int,
    full_stacks: bool,
) -> None:
    # a comm is at most 15 bytes; the table of processes could take more
    pace: dict[str, Any] = {"per_hour": 12_345.6, "full_payer": (4026531837, 0), "full_in_s": 1e6}
    of = report(
        [
            dataclasses.replace(one, comm="山山山山山".encode(), evidence=evidence, **pace)
            for one in sites
        ],
        [process(comm=name.encode(), live=3) for name in names],
        [failure(explanation=name) for name in names],
        [limits()],
        suppressed=[SuppressedRow(name, "known.supp:1", 23, 1_234, 5) for name in names],
    )

    assert widest(report_lines(of, width, full_stacks=full_stacks)) <= width


@pytest.mark.parametrize("width", range(1, 40))
def test_a_tiny_terminal_is_no_reason_to_fail(width: int) -> None:
    held_before = report((), [process(live=5, baseline=5)])

    assert _lines(busy_report(), width)
    assert _lines(held_before, width)


# --- hostile names ---

HOSTILE = b"\x1b[31m[bold]x\n\xff\xe2\x80\xae\x07"
_SHOWN = r"\x1b[31m[bold]x\n\xff\u202e\x07"


def hostile_report() -> Report:
    frame = Frame(HOSTILE.decode("utf-8", "surrogateescape"), HOSTILE, 1)
    stacks = (
        Stack((frame, frame._replace(file=frame.function, line=1)), StackState.TRUNCATED, "[red]"),
        Stack((frame._replace(function=None),), StackState.COMPLETE),
        STACK,
    )
    named: dict[str, Any] = {"comm": HOSTILE, "targets": (target(path=b"/" + HOSTILE),)}
    text = HOSTILE.decode("utf-8", "surrogateescape")
    paid: dict[str, Any] = {"full_payer": (4026531837, 0), "per_hour": 5.0, "full_in_s": 23.0}
    return report(
        [
            *(
                site(verdict, 1, stack=stacks[i % 3], unit=unit, **named, **paid)
                for unit in Unit
                for i, verdict in enumerate(Verdict)
            ),
            leak(suppressed_by=text),
        ],
        [process(comm=HOSTILE, live=1)],
        [failure(comm=HOSTILE)],
        [limits(user=text)],
        suppressed=[SuppressedRow(text, text, 1, 1, 0)],
        lost=1,
    )


@pytest.mark.parametrize("full_stacks", [False, True])
@pytest.mark.parametrize("width", [80, 160, 400])
def test_hostile_names_never_reach_the_terminal_raw(width: int, full_stacks: bool) -> None:
    text = _text(hostile_report(), width, full_stacks=full_stacks)

    assert all(character == "\n" or character.isprintable() for character in text)
    if width == 400:
        assert text.count(_SHOWN) >= 10
        assert f"      {_SHOWN}" in text
        assert f"where /{_SHOWN}" in text
        assert f"{_SHOWN} has 7,491" in text
        assert f"{_SHOWN} reaches the limit" in text
        assert f"leak:{_SHOWN}" in text


# --- where processes run ---

_POD = "5325873d-0b1c-4b6e-9d5c-0123456789ab"
_CONTAINER = "ab" * 32


def _wheres(width: int, *processes: ProcessRow) -> list[str]:
    """The last column of the table of processes, with its header."""
    pods = (PodRow(_POD, "default", "web-0", True),)
    lines = _lines(dataclasses.replace(report(processes=processes), pods=pods), width)
    table = lines[next(at for at, line in enumerate(lines) if "INSTANCES" in line) :]
    return [line.split("  ")[-1].strip() for line in table[: 1 + len(processes)]]


def test_processes_are_told_by_their_pod_container_or_unit() -> None:
    rows = (
        process(1, live=9, pod=_POD, container=_CONTAINER, unit="a.service"),
        process(2, live=8, pod=_POD.replace("5", "6"), container=_CONTAINER),
        process(3, live=7, container=_CONTAINER, unit="a.service"),
        process(4, live=6, container="web\x1b[2J"),
        process(5, live=5, unit="a.service"),
        process(6, live=4),
    )
    assert _wheres(120, *rows) == [
        "WHERE",
        "web-0",
        "pod 6326873d",
        "abababababab",
        "web\\x1b[2J",
        "a.service",
        "clean",
    ]


@pytest.mark.parametrize(("width", "column"), [(80, "WHERE"), (76, "VERDICT")])
def test_where_is_told_if_there_is_room(width: int, column: str) -> None:
    row = process(live=1, unit="a-service-with-a-long-name.service")
    shown = _wheres(width, row)
    assert shown[0] == column
    assert widest(report_lines(report(processes=[row]), width)) <= width


def test_where_is_not_told_if_nothing_is_known() -> None:
    assert _wheres(160, process(live=1)) == ["VERDICT", "clean"]


# --- limits and failures ---


def test_who_is_full_and_who_holds_it_is_said_once_for_failures_in_a_row() -> None:
    rows = [failure(shortage=shortage()), failure(shortage=shortage(), pid=17, count=5)]
    lines = _lines(report(failures=rows), 160)

    at = lines.index("FAILED 22 failed calls")
    assert lines[at + 1 : at + 5] == [
        "      17  inotify_add_watch ENOSPC  agent[1173]",
        "       5  inotify_add_watch ENOSPC  agent[17]",
        "        the user has as many watches as fs.inotify.max_user_watches allows",
        "        root has 8,192 of 8,192 watches: agent[1173] holds 7,468, udevd[450] 13, "
        "and 2 more",
    ]


def test_failures_that_are_not_shown_are_counted() -> None:
    lines = _lines(report(failures=[failure(pid=pid) for pid in range(100, 117)]))

    assert "and 9 more kinds" in [line.strip() for line in lines]


def test_growth_and_when_a_user_is_full_are_said() -> None:
    growing = limits(watches=Use(7491, 8192, 1234.0))

    assert limit_sentence(growing) == (
        "root has 7,491 of 8,192 watches (+1,234 an hour: full in about 34 min) "
        "and 28 of 128 instances"
    )
    assert "(+1,234 an hour: full)" in limit_sentence(limits(watches=Use(8192, 8192, 1234.0)))


def test_a_namespace_without_a_limit_of_its_own_has_none() -> None:
    user = limits(userns=4026532201, watches=Use(23, 2**31 - 1, 7.0))

    assert limit_sentence(user) == (
        "root in user namespace 4026532201 has 23 watches and 28 of 128 instances"
    )


@pytest.mark.parametrize(("used", "style"), [(6553, ""), (6554, "yellow"), (8192, "bold red")])
def test_a_user_near_to_a_limit_is_a_warning(used: int, style: str) -> None:
    assert limit_style(limits(watches=Use(used, 8192))) == style
