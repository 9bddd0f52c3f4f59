"""A user's file of suppressions, from the disk to the report, and the lines that go into one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from build import (
    ANOTHER_STACK,
    ATTACH,
    MOUNT,
    STACK,
    busy_report,
    leak,
    opening,
    report,
    site,
    target,
)

from tracer.cli.suppressing import Suppressing, suppressing, suppressions_of
from tracer.core.report import Report, SuppressedRow
from tracer.core.stack import Stack, StackState, missing
from tracer.core.suppressions import SIZE_MAX
from tracer.core.verdict import Verdict
from tracer.errors import EXIT_USAGE, InotraceError


def _file(tmp_path: Path, content: str | bytes) -> str:
    path = tmp_path / "known.supp"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def _suppressing(tmp_path: Path, *patterns: str) -> Suppressing:
    return suppressing(_file(tmp_path, "".join(f"leak:{pattern}\n" for pattern in patterns)))


def _by(report: Report) -> list[str | None]:
    return [one.suppressed_by for one in report.sites]


# --- the file ---


def _refusal(name: str) -> str:
    with pytest.raises(InotraceError) as raised:
        suppressing(name)
    assert raised.value.exit_code == EXIT_USAGE
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    name = str(tmp_path / "none.supp")

    assert _refusal(name) == f"cannot read suppressions from {name}: No such file or directory"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    expected = f"cannot read suppressions from {tmp_path}: Is a directory"

    assert _refusal(str(tmp_path)) == expected


def test_a_wrong_line_is_told_with_its_place(tmp_path: Path) -> None:
    name = _file(tmp_path, "leak:attach\nrace:mount\n")

    expected = f"suppressions: {name}:2: 'race:mount' is not of the form leak:PATTERN"
    assert _refusal(name) == expected


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    assert _refusal("/dev/zero") == f"suppressions: /dev/zero: longer than {SIZE_MAX:,} characters"


def test_a_file_need_not_be_utf8(tmp_path: Path) -> None:
    """GIVEN a path with a byte that is no UTF-8 WHEN its pattern has it too THEN it fits."""
    known = suppressing(_file(tmp_path, b"# caf\xe9\nleak:^/run/\xff$\n"))
    of = known.applied(report([leak(1, targets=(target(path=b"/run/\xff"),))]))

    assert _by(of) == ["^/run/\udcff$"]


def test_the_ends_of_lines_are_those_of_the_file(tmp_path: Path) -> None:
    known = suppressing(_file(tmp_path, "leak:nothing\r\n\rleak:attach\r\n"))
    (row,) = known.applied(report([leak()])).suppressed

    assert row.written_at == f"{tmp_path}/known.supp:2"


def test_an_empty_file_suppresses_nothing(tmp_path: Path) -> None:
    of = suppressing(_file(tmp_path, "")).applied(busy_report())

    assert of == busy_report()


# --- what it does to a report ---


def test_a_leak_that_is_known_no_longer_counts(tmp_path: Path) -> None:
    of = _suppressing(tmp_path, "attach").applied(busy_report())

    assert _by(of) == ["attach", None, None]
    assert of.sites_with(Verdict.LEAK) == ()
    assert of.suppressed == (SuppressedRow("attach", f"{tmp_path}/known.supp:1", 1, 23, 0),)
    # and is still there with all that is known of it
    assert dataclasses.replace(of.sites[0], suppressed_by=None) == busy_report().sites[0]


def test_what_was_used_is_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    sites = [
        leak(3),
        opening(Verdict.LEAK, 5),
        opening(Verdict.SUSPECT, 2, stack=ANOTHER_STACK),
        site(Verdict.SUSPECT, 7),
    ]
    of = _suppressing(tmp_path, "unused", "^mount_volume$", "attach").applied(report(sites))

    # a place is of the first pattern that fits any of its frames
    assert _by(of) == ["^mount_volume$"] * 4
    (row,) = of.suppressed
    assert (row.written_at, row.places) == (f"{tmp_path}/known.supp:2", 4)
    assert (row.watches, row.instances) == (10, 7)

    several = _suppressing(tmp_path, "unused", "attach", "mount").applied(report(sites))
    assert [(row.pattern, row.places) for row in several.suppressed] == [
        ("attach", 3),
        ("mount", 1),
    ]


@pytest.mark.parametrize(
    "verdict", [Verdict.HELD, Verdict.CLEAN, Verdict.YOUNG, Verdict.INCONCLUSIVE]
)
def test_what_is_no_leak_needs_no_suppression(verdict: Verdict, tmp_path: Path) -> None:
    """GIVEN a place that fits WHEN it is no leak THEN no use of the pattern is listed."""
    of = _suppressing(tmp_path, "attach").applied(report([site(verdict, 3)]))

    assert (_by(of), of.suppressed) == ([None], ())


def test_a_pattern_may_be_for_the_targets(tmp_path: Path) -> None:
    known = _suppressing(tmp_path, "^/run/secrets/")
    elsewhere = (target(1), target(2, path=b"/etc"))

    assert _by(known.applied(report([leak(2)]))) == ["^/run/secrets/"]
    assert _by(known.applied(report([leak(2, targets=elsewhere)]))) == [None]
    # instances have none
    assert _by(known.applied(report([opening(Verdict.LEAK, 2)]))) == [None]


# --- lines for a file ---


def test_each_leak_and_suspect_that_counts_gets_a_line() -> None:
    of = report(
        [
            leak(),
            opening(Verdict.SUSPECT, 2, stack=ANOTHER_STACK),
            leak(suppressed_by="known"),
            site(Verdict.HELD, 3),
            site(Verdict.INCONCLUSIVE, 3),
        ]
    )

    assert list(suppressions_of(of)) == ["leak:^attach$", "leak:^mount_volume$"]


def test_what_nothing_tells_from_others_gets_a_comment() -> None:
    of = leak(1, stack=missing("no room"), targets=(target(path=None),))
    (line,) = suppressions_of(report([of]))

    assert line == f"# {of.id}: nothing tells it from other places"


@pytest.mark.parametrize(
    "stack",
    [
        STACK,
        ANOTHER_STACK,
        Stack((ATTACH._replace(function=None), MOUNT), StackState.COMPLETE),
        Stack((ATTACH._replace(function="a*b$\n\x1b"),), StackState.COMPLETE),
        missing("no room"),
    ],
)
def test_the_lines_suppress_what_they_were_made_for(stack: Stack, tmp_path: Path) -> None:
    """GIVEN the lines of a report WHEN it is judged with them THEN nothing fails any more."""
    of = report([leak(3, stack=stack), site(Verdict.SUSPECT, 2, stack=stack)])
    text = "".join(f"{line}\n" for line in suppressions_of(of))
    known = suppressing(_file(tmp_path, text)).applied(of)

    assert known.sites_with(Verdict.LEAK, Verdict.SUSPECT) == ()
    assert list(suppressions_of(known)) == []
