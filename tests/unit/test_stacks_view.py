"""Stacks as lines: the program's own frames, and what is not known of them."""

from __future__ import annotations

from typing import Any

import pytest
from build import ATTACH, MOUNT, WRAPPER, leak, plain, report

from tracer.core.report import Report
from tracer.core.stack import Frame, Stack, StackState
from tracer.views.report import report_lines
from tracer.views.stacks import name_without_arguments
from tracer.views.text import rendered


def _lines(of: Report, width: int = 80, **options: Any) -> list[str]:
    return plain(report_lines(of, width, **options))


def _text(of: Report, width: int = 80) -> str:
    return rendered(lambda fit: report_lines(of, fit), None, width)


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


def test_wide_function_names_keep_the_columns_apart() -> None:
    stack = Stack(
        (ATTACH._replace(function="監視を追加"), MOUNT._replace(function="mount_volume")),
        StackState.COMPLETE,
    )

    assert _lines(report([leak(stack=stack)]))[4:6] == [
        "      監視を追加    secrets.c:88",
        "      mount_volume  agent",
    ]
