"""One snapshot as a tree: bounded, with paths."""

from __future__ import annotations

import dataclasses

import pytest
from rich.cells import cell_len
from snapshots import holder, instance, shared_snapshot, snapshot

from tracer.views.ls import Instance, Located, Queue, Snapshot
from tracer.views.ls_tree import WATCHES_SHOWN, shown_instances, tree_lines


def _tree(shown: Snapshot, width: int | None = 80) -> list[str]:
    """What stands below the answer."""
    lines = [line.plain for line in tree_lines(shown, width)]
    return lines[lines.index("") + 1 :]


def _located(one: Instance, *paths: bytes | None) -> Instance:
    found = (Located(path, "dentry" if path else "unresolved") for path in paths)
    return dataclasses.replace(one, located=tuple(found))


def test_users_have_processes_that_have_instances_that_have_watches() -> None:
    queue = Queue(5, exact=True, full=False)
    first = _located(
        instance(1, (holder(7, 3), holder(11, 4)), 2, queue=queue), b"/srv/a", b"/srv/\n"
    )
    second = _located(instance(2, (holder(13, exe=b"/bin/a", uid=33, user="www"),), 1), None)

    assert _tree(snapshot(first, second)) == [
        "root  2 watches in 1 instance, 1 target more than once",
        "  agent[7]  2 watches in 1 instance, 1 target more than once  /bin/agent",
        "    fd 3  2 watches  5 events unread  1 target more than once",
        "      /srv/a  IN_CREATE",
        "      /srv/\\n  IN_CREATE  2 watches",
        "  agent[11]  2 watches in 1 instance, 1 target more than once  /bin/agent",
        "    fd 4  2 watches  5 events unread  1 target more than once",
        "www  1 watch in 1 instance, 1 target more than once",
        "  agent[13]  1 watch in 1 instance, 1 target more than once  /bin/a",
        "    fd 3  1 watch  1 target more than once",
        "      unresolved (inode 100 on 8:1)  IN_CREATE  2 watches",
    ]


def test_a_shared_instance_is_opened_once() -> None:
    """GIVEN one of 7, by two descriptors, and 11 WHEN shown THEN 11 refers to 7, and is not cut."""
    lines = _tree(shared_snapshot(), None)

    assert "    fd 3 and 1 more  23 watches  5 targets more than once" in lines
    assert "    fd 3  23 watches  5 targets more than once  as fd 3 of process 7" in lines
    assert lines.count("      and 13 more watches") == 1


@pytest.mark.parametrize(
    ("queue", "words"),
    [
        (Queue(16385, exact=True, full=True), "queue full: 16,385 unread"),
        (Queue(1, exact=False, full=None), "at least 1 event unread"),
        (Queue(0, exact=True, full=False), None),
        (None, None),
    ],
)
def test_what_is_unread_is_said_in_words(queue: Queue | None, words: str | None) -> None:
    (line,) = [
        line
        for line in _tree(snapshot(instance(1, (holder(7),), 1, queue=queue)))
        if line.startswith("    fd 3")
    ]

    assert line == "    fd 3  1 watch" + (f"  {words}" if words else "")


def test_it_is_bounded() -> None:
    """GIVEN many users with many processes, instances, watches WHEN shown THEN the rest is told."""
    many = [
        instance(number, (holder(number, uid=number % 23, user=f"u{number % 23}"),), 31)
        for number in range(1, 1000)
    ]
    one = [instance(2000 + at, (holder(7000, fd=at),), 11) for at in range(31)]
    lines = _tree(snapshot(*many, *one))

    assert "and 4 more users" in lines
    assert any(line.startswith("  and ") and line.endswith("more processes") for line in lines)
    assert "      and 21 more watches" in lines
    assert len(lines) < 20 * 10 * 15
    assert "    and 26 more instances" in _tree(snapshot(*one))


def test_only_what_is_shown_is_looked_up() -> None:
    one = [instance(at, (holder(7000, fd=at),), 31 - at) for at in range(31)]

    assert shown_instances(snapshot(*one)) == frozenset(range(5))
    assert WATCHES_SHOWN == 10


@pytest.mark.parametrize("width", [40, 80, 160])
def test_lines_fit(width: int) -> None:
    wide = "山".encode() * 300
    long = holder(4194304, 1023, "山".encode() * 5, b"/" + wide, user="u" * 200)
    queue = Queue(16385, exact=True, full=True)
    full = _located(instance(1, (long, holder(7)), 1, queue=queue), b"/" + wide)
    lines = [line.plain for line in tree_lines(snapshot(full), width)]

    assert max(map(cell_len, lines[lines.index("") :])) <= width
    assert any("…" in line for line in lines)


def test_names_are_never_markup_or_escapes() -> None:
    hostile = holder(7, comm=b"\x1b[2J[bold]\n", exe=b"/[red]\xe2\x80\xae")
    lines = _tree(snapshot(_located(instance(1, (hostile,), 1), b"/\x1b]0;x\x07")), None)

    assert r"\x1b[2J[bold]\n[7]" in lines[1]
    assert not [line for line in lines if "\x1b" in line or "\u202e" in line or "\x07" in line]


def test_nothing_is_said_of_nothing() -> None:
    assert [line.plain for line in tree_lines(snapshot(), 80)] == [
        "0 watches in 0 instances of 0 processes"
    ]
