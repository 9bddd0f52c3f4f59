"""The report for people: whole reports at two widths, and names that must stay names."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import pytest
from build import (
    ANOTHER_STACK,
    ATTACH,
    MOUNT,
    SECOND,
    STACK,
    WRAPPER,
    busy_report,
    ended,
    failure,
    leak,
    limits,
    plain,
    process,
    report,
    site,
    target,
    widest,
)
from hypothesis import given
from hypothesis import strategies as st

from tracer.core.accounts import Cause
from tracer.core.report import AuditRow, Report, Use, UserLimits
from tracer.core.stack import Frame, Stack, StackState, missing
from tracer.core.verdict import SiteHistory, Verdict, judge, unseen
from tracer.views.report import report_lines
from tracer.views.stacks import name_without_arguments
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
 450  udevd       13      13      0        0          1  holds

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
 450  udevd       13      13      0        0          1  holds

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
1173  agent       1       0      0        0          1  holds
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
    return report([appeared], [process(live=1)], added=1, lost=1300, complete=False)


@pytest.mark.parametrize(
    ("of", "width", "expected"),
    [
        pytest.param(busy_report(), 80, _BUSY_80, id="busy at 80"),
        pytest.param(busy_report(), 160, _BUSY_160, id="busy at 160"),
        pytest.param(_incomplete(), 80, _INCOMPLETE_80, id="incomplete"),
        pytest.param(report(), 80, _QUIET_80, id="quiet"),
    ],
)
def test_the_whole_report(of: Report, width: int, expected: str) -> None:
    assert _text(of, width) == expected


# --- the header and the warnings ---


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


# --- sites ---


def test_the_verdicts_come_in_order_of_need() -> None:
    sites = [site(verdict, 3) for verdict in reversed(Verdict) if verdict is not Verdict.CLEAN]
    lines = _lines(report(sites))

    labels = [line[:6].strip() for line in lines if line[:1].isupper()]
    assert labels == ["LEAK", "MAYBE", "UNSURE", "YOUNG", "HELD"]


def test_removed_watches_are_set_against_all_that_were_added() -> None:
    (headline,) = [
        line
        for line in _lines(report([site(Verdict.POSSIBLE, 5, 1500, removed={Cause.CLOSED: 1495})]))
        if line.startswith("MAYBE")
    ]

    assert headline == "MAYBE 5 watches, one place in agent[1173], 1,495 of 1,500 are gone"


@pytest.mark.parametrize(
    ("pids", "where"), [((), "agent"), ((7,), "agent[7]"), ((7, 11), "agent (2 processes)")]
)
def test_a_place_names_its_process_or_how_many(pids: tuple[int, ...], where: str) -> None:
    text = _text(report([leak(pids=pids)]))

    assert f"23 watches, one place in {where}, none ever removed" in text


def test_full_stacks_have_the_frames_of_the_runtime() -> None:
    lines = _lines(report([leak()]), full_stacks=True)

    at = lines.index("      inotify_add_watch  libc.so.6")
    assert lines[at : at + 4] == [
        "      inotify_add_watch  libc.so.6",
        "      attach             secrets.c:88",
        "      mount_volume       agent",
        "      __libc_start_main  libc.so.6",
    ]
    assert not any("--full-stacks" in line for line in lines)


def test_frames_without_a_name_are_module_offset_and_build() -> None:
    frames = (
        Frame(None, b"/opt/agent", 0x2B67, build_id="93ac61ec" * 5),
        Frame(None, b"/opt/agent", 0x17),
        Frame(None, None, 0x17),
    )
    stack = Stack(frames, StackState.COMPLETE)
    lines = _lines(report([leak(stack=stack)]))

    assert lines[4:7] == [
        "      agent+0x2b67  (build-id 93ac61ec93ac)",
        "      agent+0x17",
        "      ?+0x17",
    ]


def test_a_file_without_a_line_is_only_the_file() -> None:
    stack = Stack((Frame("watch", b"[anon]", 6, "/srv/agent.py"),), StackState.COMPLETE)

    assert _lines(report([leak(stack=stack)]))[4] == "      watch  /srv/agent.py"


def test_a_script_is_shown_without_its_interpreter() -> None:
    python = Frame("_PyEval_EvalFrameDefault", b"/usr/bin/python3.12", 7)
    script = Frame("watch", b"[anon]", 6, "/srv/agent.py")
    stack = Stack(
        (WRAPPER, python, script, python, script._replace(function="<module>"), python),
        StackState.COMPLETE,
    )
    lines = _lines(report([leak(stack=stack)]))

    assert lines[4:7] == [
        "      watch     /srv/agent.py",
        "      <module>  /srv/agent.py",
        "      + 4 more frames of runtime and library   --full-stacks",
    ]


def test_of_what_is_too_long_the_name_and_the_file_are_kept() -> None:
    frame = ATTACH._replace(
        function="store::Watcher<int, 3>::add(std::vector<char, std::allocator<char> > const&)",
        file="/usr/src/agent/store/secrets.c",
    )
    lines = _lines(report([leak(stack=Stack((frame, MOUNT), StackState.COMPLETE))]))

    assert lines[4:6] == [
        "      store::Watcher<int, 3>::add(…)  /usr/src/agent/store/secrets.c:88",
        f"      {'mount_volume':<30}  agent",
    ]
    narrow = _lines(report([leak(stack=Stack((frame,), StackState.COMPLETE))]), 60)
    assert narrow[5] == "      store::Watcher<int, 3>::add(…)  …/store/secrets.c:88"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("f(a, (b))", "f(…)"),
        ("(anonymous namespace)::f(int) const", "(anonymous namespace)::f(…) const"),
        ("std::function<void (int)>::operator()(int)", "std::function<void (int)>::operator()(…)"),
        ("main.(*manager).attach", "main.(*manager).attach"),
        ("f(int) [clone .cold]", "f(int) [clone .cold]"),
        ("(a)", "(a)"),
        ("a)b(c)", "a)b(c)"),
        ("((a)", "((a)"),
    ],
)
def test_only_arguments_are_left_out_of_a_name(name: str, shown: str) -> None:
    assert name_without_arguments(name) == shown


def test_a_deep_stack_is_cut_and_says_by_how_much() -> None:
    frames = tuple(Frame(f"f{i}", b"/usr/bin/agent", i) for i in range(23))
    lines = _lines(report([leak(stack=Stack(frames, StackState.COMPLETE))]))

    assert lines[11:13] == [
        "      f7  agent",
        "      + 15 more frames   --full-stacks",
    ]


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (StackState.TRUNCATED, "      callers unknown: code without unwind information"),
        (StackState.GUESSED, "      not certain: code without unwind information"),
    ],
)
@pytest.mark.parametrize("full_stacks", [False, True])
def test_a_stack_that_is_not_whole_or_certain_says_why(
    state: StackState, line: str, full_stacks: bool
) -> None:
    stack = Stack((WRAPPER, ATTACH), state, "code without unwind information")
    lines = _lines(report([leak(stack=stack)]), full_stacks=full_stacks)

    assert [each for each in lines if "unwind" in each] == [line]


def test_a_complete_stack_has_nothing_to_say() -> None:
    text = _text(report([leak()]))

    assert "unknown" not in text
    assert "not certain" not in text


def test_gone_targets_are_counted() -> None:
    targets = [target(i, state="gone" if i % 5 else "verified") for i in range(23)]
    lines = _lines(report([leak(targets=tuple(targets))]))

    assert "        18 of 23 paths no longer exist" in lines


def test_unknown_paths_are_passed_over_for_one_that_is_known() -> None:
    targets = (target(1, path=None), target(2), target(3))

    assert "  where /run/secrets/2   and 2 more" in _lines(report([leak(targets=targets, live=3)]))
    assert "where" not in _text(report([leak(targets=(target(1, path=None),))]))


def test_more_sites_than_shown_are_counted() -> None:
    lines = _lines(report([leak(i + 1) for i in range(23)]))

    assert sum(line.startswith("LEAK") for line in lines) == 11
    assert "LEAK  221 watches in 13 more places: -f json lists all" in lines


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


def test_what_was_there_before_and_is_removed_is_no_longer_held() -> None:
    """
    GIVEN 23 watches from before the trace
    WHEN 6 of them are removed, and 3 are added
    THEN 17 of those before are held, and so are the 3
    """
    sites = [site(Verdict.HELD, 3)]
    processes = [process(live=20, baseline=23, added=3, removed={Cause.RM_WATCH: 6})]

    assert "HELD  20 watches, 1 place, 17 from before the trace" in _lines(report(sites, processes))


def test_nothing_is_held_when_all_from_before_is_gone() -> None:
    gone = process(baseline=23, removed={Cause.CLOSED: 23})

    assert not any(line.startswith("HELD") for line in _lines(report((), [gone])))


@pytest.mark.parametrize(
    ("added_at", "number"),
    [((0,), 1), ((0, 2), 2), ((0, 0, 0), 7_481)],
)
def test_a_reason_on_one_line_with_its_place_is_never_cut(
    added_at: tuple[int, ...], number: int
) -> None:
    """GIVEN the longest names WHEN a place is held THEN they are cut at 80 columns, not why."""
    for until in (11, 3599, 359_000):
        added_ns = [at * SECOND for at in added_at]
        judgement = judge(SiteHistory(added_ns, 0, Counter(), until * SECOND, 5.0))
        assert judgement.verdict is Verdict.HELD
        frame = ATTACH._replace(function="a_function_with_a_rather_long_name_" * 3)
        stack = Stack((frame,), StackState.COMPLETE)
        of = site(Verdict.HELD, number, stack=stack, comm=b"fifteen-letters")
        of = dataclasses.replace(of, evidence=judgement.evidence, targets=())
        (line,) = [line for line in _lines(report([of])) if "a_func" in line]

        assert line.endswith(f"  {judgement.evidence[0].text}")
        assert len(line) <= 80
        assert widest(report_lines(report([of]), 60)) <= 60


def test_ended_processes_are_one_row_by_name_and_each_counts() -> None:
    of = report(
        processes=[process(live=3, added=3), process(7)],
        ended=[ended(processes=1500, removed={Cause.RM_WATCH: 30}), ended(b"x", 2, added=0)],
        failures=[failure(pid=None, comm=b"sh")],
    )
    lines = _lines(of)

    assert "      17  inotify_add_watch ENOSPC  sh" in lines
    table = lines[lines.index("") :]
    assert table[-5:] == [
        "  PID  COMMAND     LIVE  BEFORE  ADDED  REMOVED  INSTANCES  VERDICT",
        " 1173  agent          3       0      3        0          1  holds",
        "ended  sh (1,500)     0       0     30       30          0  clean",
        "    7  agent          0       0      0        0          1  clean",
        "ended  x (2)          0       0      0        0          0  clean",
    ]
    many = report(processes=[process(live=3) for _ in range(15)], ended=[ended(processes=1500)])
    assert "and 1,500 more processes" in _lines(many)


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
        lambda verdict, live, stack, path: site(
            verdict, live, stack=stack, targets=(target(1, path=path.encode()),) * live
        ),
        st.sampled_from(Verdict),
        st.integers(0, 3),
        _stacks,
        _long,
    ),
    max_size=5,
)


@given(_sites, st.lists(_long, max_size=3), st.sampled_from([80, 100, 160]), st.booleans())
def test_no_line_is_wider_than_the_terminal(
    sites: list[Any], names: list[str], width: int, full_stacks: bool
) -> None:
    # a comm is at most 15 bytes; the table of processes could take more
    of = report(
        [dataclasses.replace(one, comm="山山山山山".encode()) for one in sites],
        [process(comm=name.encode(), live=3) for name in names],
        [failure(explanation=name) for name in names],
        [limits()],
    )

    assert widest(report_lines(of, width, full_stacks=full_stacks)) <= width


@pytest.mark.parametrize("width", range(1, 40))
def test_a_tiny_terminal_is_no_reason_to_fail(width: int) -> None:
    held_before = report((), [process(live=5, baseline=5)])

    assert _lines(busy_report(), width)
    assert _lines(held_before, width)


def test_wide_function_names_keep_the_columns_apart() -> None:
    stack = Stack(
        (ATTACH._replace(function="監視を追加"), MOUNT._replace(function="mount_volume")),
        StackState.COMPLETE,
    )

    assert _lines(report([leak(stack=stack)]))[4:6] == [
        "      監視を追加    secrets.c:88",
        "      mount_volume  agent",
    ]


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
    return report(
        [site(verdict, 1, stack=stacks[i % 3], **named) for i, verdict in enumerate(Verdict)],
        [process(comm=HOSTILE, live=1)],
        [failure(comm=HOSTILE)],
        [limits(user=HOSTILE.decode("utf-8", "surrogateescape"))],
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
