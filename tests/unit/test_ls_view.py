"""One snapshot as a table, as plain records and as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from tracer.views.json_ls import as_json
from tracer.views.ls import (
    GROUPINGS,
    Holder,
    Instance,
    Snapshot,
    Usage,
    as_plain,
    summary,
    table_lines,
)

_IN_MODIFY, _IN_CREATE = 0x2, 0x100


class FakeWatch(NamedTuple):
    wd: int
    ino: int
    device: str = "8:1"
    mask: int = _IN_CREATE


def _holder(
    pid: int, fd: int = 3, comm: bytes = b"agent", exe: bytes | None = b"/usr/bin/agent"
) -> Holder:
    return Holder(pid, fd, "root", comm, exe)


def _instance(number: int, holders: tuple[Holder, ...], count: int, first: int = 100) -> Instance:
    return Instance(
        number, holders, tuple(FakeWatch(wd + 1, first + wd) for wd in reversed(range(count)))
    )


def _usage(**changes: Any) -> Usage:
    usage = Usage(0, "root", 4026531837, 7300, 8192, 31, 128, "counted", True)
    return dataclasses.replace(usage, **changes)


def _snapshot(*instances: Instance, **changes: Any) -> Snapshot:
    snapshot = Snapshot(
        kernel="6.1.0-25-amd64",
        truth="fdinfo",
        complete=True,
        sharing_known=True,
        pids=frozenset(holder.pid for one in instances for holder in one.holders),
        instances=instances,
        usage=(_usage(),),
    )
    return dataclasses.replace(snapshot, **changes)


def _table(snapshot: Snapshot, by: str = "process", width: int = 80) -> list[str]:
    return [line.plain for line in table_lines(snapshot, by, width)]


def _records(snapshot: Snapshot, by: str) -> list[list[str]]:
    return [line.split() for line in as_plain(snapshot, by).splitlines()]


@pytest.fixture
def shared() -> Snapshot:
    """23 watches held by 7 and its child 11, by 7 twice; 2 more of 7; 5 on the same of 13."""
    return _snapshot(
        _instance(1, (_holder(7, 3), _holder(7, 5), _holder(11, 3)), 23),
        _instance(2, (_holder(7, 4),), 2, first=500),
        _instance(3, (_holder(13, comm=b"two words", exe=None),), 5),
    )


# --- the answer ---


def test_the_answer_comes_first(shared: Snapshot) -> None:
    assert summary(shared) == (
        "30 watches in 3 instances of 3 processes",
        "root has 7,300 of 8,192 watches (counted)",
    )
    assert _table(shared)[:3] == [*summary(shared), ""]
    assert _table(shared, width=160)[:2] == ["   ".join(summary(shared)), ""]


@pytest.mark.parametrize(
    ("usage", "line"),
    [
        (_usage(instances=127), "root has 127 of 128 instances (counted)"),
        (_usage(complete=False), "root has at least 7,300 of 8,192 watches (counted)"),
        (_usage(source="kernel"), "root has 7,300 of 8,192 watches"),
        (_usage(watches=3, watches_limit=0), "root has 3 of 0 watches (counted)"),
    ],
)
def test_the_answer_names_the_limit_that_is_nearest(usage: Usage, line: str) -> None:
    others = _usage(uid=1, user="daemon", watches=8192)

    assert summary(_snapshot(_instance(1, (_holder(7),), 23), usage=(others, usage)))[1:] == (line,)


def test_no_limit_is_named_where_none_is_known() -> None:
    usage = _usage(watches_limit=None, instances_limit=None)

    assert summary(_snapshot(_instance(1, (_holder(7),), 1), usage=(usage,))) == (
        "1 watch in 1 instance of 1 process",
    )


@pytest.mark.parametrize("by", GROUPINGS)
def test_nothing_is_said_of_nothing(by: str) -> None:
    assert _table(_snapshot(), by) == ["0 watches in 0 instances of 0 processes"]
    assert [record[0] for record in _records(_snapshot(), by)][1:] == ["total"]


# --- the table ---


def test_table_by_process(shared: Snapshot) -> None:
    assert _table(shared)[3:] == [
        "  PID  USER  INSTANCES  WATCHES  SHARED WITH  COMMAND    EXECUTABLE",
        "    7  root          2       25  11           agent      /usr/bin/agent",
        "   11  root          1       23  7            agent      /usr/bin/agent",
        "   13  root          1        5               two words  -",
        "total                3       30                          each instance once",
    ]


def test_table_by_fd(shared: Snapshot) -> None:
    assert _table(shared, "fd")[3:] == [
        "  PID  FD  USER  WATCHES  SHARED WITH  COMMAND    EXECUTABLE",
        "    7   3  root       23  7:5 +1       agent      /usr/bin/agent",
        "    7   5  root       23  7:3 +1       agent      /usr/bin/agent",
        "   11   3  root       23  7:3 +1       agent      /usr/bin/agent",
        "   13   3  root        5               two words  -",
        "    7   4  root        2               agent      /usr/bin/agent",
        "total                 30                          each instance once",
    ]


def test_table_by_target_has_those_watched_twice_on_top(shared: Snapshot) -> None:
    lines = _table(shared, "target")[3:]

    assert lines[:3] == [
        "INODE  DEVICE  WATCHES  MASK       HOLDERS",
        "  100     8:1        2  IN_CREATE  agent[7] +2",
        "  101     8:1        2  IN_CREATE  agent[7] +2",
    ]
    assert lines[6] == "  105     8:1        1  IN_CREATE  agent[7] +1"
    assert lines[-1] == "total               30             25 unique targets"


def test_masks_of_one_target_are_joined() -> None:
    snapshot = _snapshot(
        Instance(1, (_holder(7),), (FakeWatch(1, 9, mask=_IN_MODIFY),)),
        Instance(2, (_holder(7, 4),), (FakeWatch(1, 9, mask=_IN_CREATE), FakeWatch(2, 9, "8:2"))),
    )

    assert _records(snapshot, "target")[1:] == [
        ["9", "8:1", "2", "IN_MODIFY|IN_CREATE", "agent[7]"],
        ["9", "8:2", "1", "IN_CREATE", "agent[7]"],
        ["total", "-", "3", "-", "2", "unique", "targets"],
    ]


@pytest.mark.parametrize("by", GROUPINGS)
@pytest.mark.parametrize("width", [80, 160])
def test_lines_are_cut_in_the_middle_to_fit(by: str, width: int) -> None:
    """GIVEN long names of wide characters WHEN shown THEN no line is wider than the terminal."""
    holder = Holder(4194304, 1023, "山" * 16, b"\x1b" * 15, b"/" + "山".encode() * 200 + b"/agent")
    full = Instance(1, (holder, _holder(7)), (FakeWatch(1, 2**64 - 1, "4095:1048575", 2**32 - 1),))
    lines = _table(_snapshot(full), by, width)

    assert max(map(cell_len, lines)) <= width
    assert by == "target" or any(line.endswith("gent") and "…" in line for line in lines)


def test_names_are_never_markup_or_escapes() -> None:
    comm, exe = b"\x1b[2J[bold]\n", b"/tmp/[red]x[/] \xe2\x80\xae(deleted)"
    snapshot = _snapshot(_instance(1, (_holder(7, comm=comm, exe=exe),), 1))

    for text in ("\n".join(_table(snapshot, width=160)), as_plain(snapshot, "process")):
        assert r"\x1b[2J[bold]\n" in text
        assert "/tmp/[red]x[/]" in text
        assert "\x1b" not in text and "‮" not in text


def test_only_the_header_is_bold(shared: Snapshot) -> None:
    styled = [line.plain.split() for line in table_lines(shared, "fd", 80) if _is_styled(line)]

    assert [words[0] for words in styled] == ["PID"]


def _is_styled(line: Text) -> bool:
    return bool(line.style) or any(span.style for span in line.spans)


# --- plain ---


def test_plain_is_for_awk(shared: Snapshot) -> None:
    assert as_plain(shared, "process").splitlines() == [
        "  PID  USER  INSTANCES  WATCHES  SHARED_WITH  COMMAND       EXECUTABLE",
        "    7  root          2       25  11           agent         /usr/bin/agent",
        "   11  root          1       23  7            agent         /usr/bin/agent",
        r"   13  root          1        5  -            two\x20words  -",
        "total  -             3       30  -            -             each instance once",
    ]


def test_plain_cuts_and_groups_nothing() -> None:
    exe = b"/opt/" + b"x" * 300
    snapshot = _snapshot(_instance(1, (_holder(1173, exe=exe),), 7491))

    assert _records(snapshot, "fd")[1] == ["1173", "3", "root", "7491", "-", "agent", exe.decode()]


names = st.binary(max_size=15)


@given(names, st.none() | names, names)
def test_plain_records_always_have_the_same_fields(
    comm: bytes, exe: bytes | None, other: bytes
) -> None:
    """GIVEN any names WHEN split at ASCII blanks THEN each record has one field per column."""
    holders = (_holder(7, comm=comm, exe=exe), _holder(11, comm=other))
    snapshot = _snapshot(_instance(1, holders, 3), _instance(2, (_holder(13, comm=other),), 2))

    for by, width in zip(GROUPINGS, (7, 7, 5)):
        header, *records, total = as_plain(snapshot, by).split("\n")[:-1]
        assert len(header.split()) == width
        assert {len(list(filter(None, record.split(" ")))) for record in records} == {width}
        assert all(record.lstrip()[0].isdigit() for record in records)
        assert total.lstrip().startswith("total")


def test_many_sharers_are_a_number() -> None:
    """GIVEN an instance of 23 processes WHEN listed THEN lines do not grow with their number."""
    snapshot = _snapshot(_instance(1, tuple(_holder(pid) for pid in range(100, 123)), 1))

    assert _records(snapshot, "process")[1][4] == "101,102,103,+19"
    assert _records(snapshot, "process")[-2][4] == "100,101,102,+19"
    assert _records(snapshot, "fd")[1][4] == "101:3,102:3,103:3,+19"
    assert _records(snapshot, "target")[1][4] == "agent[100],agent[101],agent[102],+20"
    assert _table(snapshot)[4].split()[4:6] == ["101", "+21"]
    assert len(_document(snapshot)["instances"][0]["holders"]) == 23


def test_a_comma_in_a_name_separates_nothing() -> None:
    snapshot = _snapshot(_instance(1, (_holder(7, comm=b"a[1],b"), _holder(11)), 1))

    assert _records(snapshot, "target")[1][-1] == r"a[1]\x2cb[7],agent[11]"


def test_others_are_listed_only_as_sharers(shared: Snapshot) -> None:
    """GIVEN only 11 is asked for WHEN it shares with 7 THEN 7 has no record of its own."""
    asked = dataclasses.replace(shared, pids=frozenset({11}), instances=shared.instances[:1])

    assert _records(asked, "process")[1][:5] == ["11", "root", "1", "23", "7"]
    assert [record[0] for record in _records(asked, "fd")] == ["PID", "11", "total"]
    assert summary(asked)[0] == "23 watches in 1 instance of 1 process"


# --- JSON ---


def _document(snapshot: Snapshot) -> Any:
    text = as_json(snapshot)
    assert text.isascii() and text.count("\n") == 1
    return json.loads(text)


def test_json_has_each_watch_once(shared: Snapshot) -> None:
    document = _document(shared)

    assert document["schema"] == "inotrace.ls/1"
    assert document["host"] == {"kernel": "6.1.0-25-amd64", "truth": "fdinfo"}
    assert document["complete"] is True
    assert [len(one["holders"]) for one in document["instances"]] == [3, 1, 1]
    assert sum(one["watches"] for one in document["instances"]) == len(document["watches"]) == 30
    assert document["watches"][0] == {
        "pid": 7,
        "fd": 3,
        "instance": 1,
        "wd": 23,
        "ino": 122,
        "dev": "8:1",
        "mask": ["IN_CREATE"],
        "path": None,
        "resolved_by": "unresolved",
    }
    assert document["limits"] == [
        {
            "uid": 0,
            "user": "root",
            "userns": 4026531837,
            "watches": {"used": 7300, "limit": 8192},
            "instances": {"used": 31, "limit": 128},
            "source": "counted",
            "complete": True,
        }
    ]


@given(names, st.none() | names)
def test_json_names_are_exact(comm: bytes, exe: bytes | None) -> None:
    document = _document(_snapshot(_instance(1, (_holder(7, comm=comm, exe=exe),), 0)))
    (holder,) = document["instances"][0]["holders"]

    assert (holder["pid"], holder["fd"], holder["user"]) == (7, 3, "root")
    assert holder["comm"].encode("utf-8", "surrogateescape") == comm
    shown = holder["exe"]
    assert (None if shown is None else shown.encode("utf-8", "surrogateescape")) == exe
