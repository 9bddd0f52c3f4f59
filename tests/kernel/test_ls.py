"""`inotrace ls` against instances that the test's own child processes made."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import environment
from listings import PRELUDE, StartChild, document, ls, me, needs_kcmp, records
from privileges import NOBODY

from tracer.views.ls import GROUPINGS

# --- what is counted ---


def test_counts_equal_what_was_made(start_child: StartChild, folders: list[Path]) -> None:
    """GIVEN instances of 23, 7 and 0 watches WHEN listed THEN just these, most first."""
    pid, fds = start_child(
        "ready(all=instance(*paths), some=instance(*paths[:7]), none=instance())", *folders
    )
    executable = os.path.realpath(sys.executable)

    (row, total) = records(pid)
    assert [*row[:7], row[8]] == [str(pid), me(), "3", "30", "23", "7", "-", executable]
    assert total[:6] == ["total", "-", "3", "30", "23", "7"]
    assert [row[:4] for row in records("--by", "fd", "-p", pid)] == [
        [str(pid), str(fds["all"]), me(), "23"],
        [str(pid), str(fds["some"]), me(), "7"],
        [str(pid), str(fds["none"]), me(), "0"],
        ["total", "-", "-", "30"],
    ]


def test_targets_watched_more_than_once_come_first(
    start_child: StartChild, folders: list[Path]
) -> None:
    pid, _ = start_child("ready(a=instance(*paths), b=instance(*paths[:7], mask=2))", *folders)

    *rows, total = records("--by", "target", pid)

    inodes = [str(folder.stat().st_ino) for folder in folders]
    assert {row[0] for row in rows[:7]} == set(inodes[:7])
    assert {row[0] for row in rows[7:]} == set(inodes[7:])
    assert [row[2] for row in rows] == ["2"] * 7 + ["1"] * 16
    assert {row[3] for row in rows[:7]} == {"IN_MODIFY|IN_CREATE"}
    assert rows[0][4].endswith(f"[{pid}]")
    assert {row[0]: row[6] for row in rows} == dict(zip(inodes, map(str, folders)))
    assert {row[5] for row in rows} <= {"dentry", "handle", "search"}
    assert total[2:] == ["30", "-", "-", "-", "23", "targets,", "7", "repeated"]


def test_only_duplicates(start_child: StartChild, folders: list[Path]) -> None:
    """GIVEN 7 of 23 targets watched twice WHEN only those are asked for THEN there are 7."""
    pid, _ = start_child("ready(a=instance(*paths), b=instance(*paths[:7], mask=2))", *folders)

    *rows, total = records("--duplicates", pid)
    assert sorted(row[6] for row in rows) == sorted(map(str, folders[:7]))
    assert total[2] == "14"
    assert records("--duplicates", "--by", "process", pid)[0][3:6] == ["14", "7", "7"]

    shown = document("--duplicates", pid)
    assert (shown["duplicates_only"], len(shown["watches"])) == (True, 14)
    assert shown["targets"] == {"unique": 7, "repeated": 7, "repeated_by_itself": 7}


def test_users_processes_instances_watches_as_a_tree(
    start_child: StartChild, folders: list[Path]
) -> None:
    pid, fds = start_child("ready(all=instance(*paths))", *folders)

    done = ls("--tree", pid)

    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0].startswith("23 watches on 23 targets, none of them watched more than once")
    assert lines[2].startswith(f"{me()}  23 watches in 1 instance")
    assert f"[{pid}]  23 watches in 1 instance" in lines[3]
    assert lines[4].startswith(f"    fd {fds['all']}  23 watches")
    # newest first, as the kernel has them
    assert lines[5:15] == [f"      {folder}  IN_CREATE" for folder in reversed(folders[13:])]
    assert lines[15:] == ["      and 13 more watches"]


def test_processes_that_are_of_no_pod(start_child: StartChild, folders: list[Path]) -> None:
    pid, _ = start_child("ready(all=instance(*paths))", *folders)

    (row, total) = records("--by", "pod", pid)

    assert row[:6] == ["1", "1", "23", "23", "0", "-"]
    assert total[0] == "total"
    assert document(pid)["processes"][0]["pod"] is None


def test_by_user(start_child: StartChild, folders: list[Path]) -> None:
    one, _ = start_child("ready(all=instance(*paths))", *folders)
    two, _ = start_child("ready(all=instance(*paths[:7]))", *folders)

    (row, total) = records("--by", "user", one, two)

    assert row == [str(os.geteuid()), me(), "2", "2", "30", "23", "7", "-"]
    assert total == ["total", "-", *row[2:]]


def test_json_has_every_watch(start_child: StartChild, folders: list[Path]) -> None:
    pid, fds = start_child("ready(all=instance(*paths))", *folders)

    shown = document(pid)

    assert (shown["schema"], shown["complete"]) == ("inotrace.ls/1", True)
    assert shown["host"]["kernel"] == os.uname().release
    assert {(watch["pid"], watch["fd"], watch["instance"]) for watch in shown["watches"]} == {
        (pid, fds["all"], shown["instances"][0]["id"])
    }
    assert sorted(watch["ino"] for watch in shown["watches"]) == sorted(
        folder.stat().st_ino for folder in folders
    )
    assert {tuple(watch["mask"]) for watch in shown["watches"]} == {("IN_CREATE",)}
    assert len({watch["wd"] for watch in shown["watches"]}) == 23


def test_use_is_told_against_the_limit(start_child: StartChild, folders: list[Path]) -> None:
    start_child("ready(all=instance(*paths))", *folders)

    (usage,) = [
        one
        for one in document("-p", os.getpid())["limits"]
        if one["uid"] == os.geteuid() and one["userns"] == os.stat("/proc/self/ns/user").st_ino
    ]

    limits = Path("/proc/sys/fs/inotify")
    assert usage["source"] == ("counted" if os.geteuid() else "kernel")
    assert usage["watches"]["used"] >= 23
    assert usage["watches"]["limit"] == int((limits / "max_user_watches").read_text())
    assert usage["instances"]["limit"] == int((limits / "max_user_instances").read_text())


# --- sharing ---


@needs_kcmp
def test_duplicates_forks_and_passed_ones_count_once(
    start_child: StartChild, folders: list[Path]
) -> None:
    """GIVEN one instance held by dup, by a child and sent to it WHEN listed THEN it is one."""
    code = """
fd = instance(*paths)
twin = os.dup(fd)
here, there = socket.socketpair()
child = os.fork()
if child == 0:
    socket.recv_fds(there, 1, 1)
    there.send(b"x")
    wait()
socket.send_fds(here, [b"x"], [fd])
here.recv(1)
ready(fd=fd, twin=twin, child=child)
"""
    pid, facts = start_child(code, *folders)
    child = facts["child"]

    shown = document(pid)
    assert [one["watches"] for one in shown["instances"]] == [23]
    assert len(shown["watches"]) == 23
    holders = [(one["pid"], one["fd"]) for one in shown["instances"][0]["holders"]]
    assert len(holders) == 5
    assert {(pid, facts["fd"]), (pid, facts["twin"]), (child, facts["twin"])} < set(holders)

    rows = records(pid, child)
    assert sorted([*row[:4], row[6]] for row in rows[:2]) == sorted(
        [[str(pid), me(), "1", "23", str(child)], [str(child), me(), "1", "23", str(pid)]]
    )
    assert rows[2][2:4] == ["1", "23"]
    assert len(records("--by", "fd", pid)) == 2 + 1


@needs_kcmp
def test_equal_instances_stay_two(start_child: StartChild, folders: list[Path]) -> None:
    """GIVEN two instances with the same wds, inodes and masks WHEN listed THEN both count."""
    pid, _ = start_child("ready(a=instance(*paths), b=instance(*paths))", *folders)

    assert [one["watches"] for one in document(pid)["instances"]] == [23, 23]
    assert records(pid)[-1][2:4] == ["2", "46"]


# --- names ---


@pytest.mark.parametrize("name", [b"\x1b[2J[bold]\n) x", b"\xff\xfe,[/]"])
def test_a_hostile_name_is_only_text(
    start_child: StartChild, folders: list[Path], name: bytes
) -> None:
    pid, _ = start_child(f"libc.prctl(15, {name!r}); ready(fd=instance(*paths))", *folders[:2])

    (holder,) = document(pid)["instances"][0]["holders"]
    assert holder["comm"].encode("utf-8", "surrogateescape") == name
    for by in GROUPINGS:
        for format_ in ("table", "plain"):
            shown = ls(pid, "--by", by, "-f", format_, env=environment(COLUMNS="160")).stdout
            assert not re.search(r"[^\n -~…]", shown)
            assert by in ("user", "pod") or "[bold]" in shown or "[/]" in shown


def test_a_deleted_executable(start_child: StartChild, folders: list[Path], tmp_path: Path) -> None:
    """GIVEN a program deleted while it runs, its name with a blank WHEN listed THEN so it says."""
    copy = tmp_path / "my cat"
    shutil.copy(shutil.which("cat") or "/bin/cat", copy)
    code = "os.set_inheritable(instance(*paths[1:]), True); os.execv(paths[0], ['cat'])"
    child = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, copy, *folders[:7]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        # what comes back came through cat: it is running
        child.stdin.write(b"x\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"x\n"
        copy.unlink()

        assert records(child.pid)[0][3:] == [
            "7",
            "7",
            "0",
            "-",
            r"my\x20cat",
            rf"{copy.parent}/my\x20cat\x20(deleted)",
        ]
    finally:
        child.communicate()


def test_name_and_user_select(start_child: StartChild, folders: list[Path]) -> None:
    code = "libc.prctl(15, b'ls-{}'); ready(fd=instance(*paths))"
    one, _ = start_child(code.format("one"), *folders[:2])
    two, _ = start_child(code.format("two"), *folders[:3])

    def pids(*arguments: object) -> set[str]:
        done = ls(*arguments)
        assert done.returncode == 0
        return {line.split()[0] for line in done.stdout.splitlines()[1:-1]} & {str(one), str(two)}

    assert pids("-n", "s-t") == {str(two)}
    assert pids("-n", "ls-") == pids("-u", os.geteuid()) == pids("-u", me())
    assert pids("-n", "ls-", "-p", one) == {str(one)}
    assert pids("-u", NOBODY, "-n", "ls-") == set()
