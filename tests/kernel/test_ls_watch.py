"""`inotrace ls --watch`: again and again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import pytest
from harness import PATIENCE_S, Terminal, environment, until
from listings import LS, StartChild, ls


def test_in_a_pipe_each_look_is_a_block(
    start_child: StartChild, folders: list[Path], tmp_path: Path
) -> None:
    """GIVEN a watch that is added between two looks WHEN watched THEN a later look has it."""
    go = tmp_path / "go"
    os.mkfifo(go)
    code = """
fd = instance(*paths[1:3])
if os.fork():
    ready()
open(paths[0]).read()
checked(libc.inotify_add_watch(fd, os.fsencode(paths[3]), 0x100))
wait()
"""
    pid, _ = start_child(code, go, *folders[:3])
    with _watching("--watch", "0.1", "-f", "json", "-p", pid) as lines:
        assert len(json.loads(next(lines))["watches"]) == 2
        go.write_text("x")
        until(lambda: len(json.loads(next(lines))["watches"]) == 3, "the third watch")


def test_blocks_have_the_time(start_child: StartChild, folders: list[Path]) -> None:
    pid, _ = start_child("ready(fd=instance(*paths))", *folders)

    with _watching("--watch=0.1", "--by", "fd", pid) as lines:
        shown = [next(lines).rstrip() for _ in range(8)]

    assert re.fullmatch(r"\d\d:\d\d:\d\d", shown[0]) and re.fullmatch(
        r"\d\d:\d\d:\d\d", shown[4 + 1]
    )
    assert shown[1].split()[:2] == ["PID", "FD"]
    assert shown[2].split()[0] == str(pid)
    assert shown[4] == ""


def test_the_end_of_a_process_asked_for_is_told_once(
    start_child: StartChild, folders: list[Path]
) -> None:
    pid, _ = start_child("ready(fd=instance(*paths))", *folders)

    with _watching(
        "--watch=0.1", "-f", "json", pid, errors=f"inotrace: process {pid} has ended\n"
    ) as lines:
        assert len(json.loads(next(lines))["watches"]) == 23
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        until(lambda: not json.loads(next(lines))["watches"], "the end of the process")
        # of two more looks, none tells it again
        next(lines), next(lines)


def test_without_root_paths_stay_and_new_ones_are_found(
    start_child: StartChild, watchable: list[Path], tmp_path: Path, nobody: int
) -> None:
    """
    GIVEN no privileges, so that paths are only found by a search
    WHEN watched THEN each look has them, and that of a watch which is added meanwhile
    WHEN one leads to another folder by now THEN it is not given any more
    """
    go = tmp_path / "go"
    os.mkfifo(go)
    code = """
import select
os.chdir(os.path.dirname(paths[1]))
line = os.open(paths[0], os.O_RDWR)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
libc.prctl(4, 1)
fd = instance(*paths[1:4])
print("{}", flush=True)
if line in select.select([0, line], [], [])[0]:
    checked(libc.inotify_add_watch(fd, os.fsencode(paths[4]), 0x100))
wait()
"""
    *first, second = made = [watchable[0] / str(at) for at in range(4)]
    for each in made:
        each.mkdir()
    pid, _ = start_child(code, go, *made)
    drop = {"user": nobody, "group": nobody, "extra_groups": []}
    with _watching("--watch", "0.1", "-f", "json", "-p", pid, cwd="/", **drop) as lines:

        def paths() -> set[str | None]:
            watches = json.loads(next(lines))["watches"]
            assert {one["resolved_by"] for one in watches} <= {"search", "unresolved"}
            return {one["path"] for one in watches}

        for _ in range(5):
            assert paths() == set(map(str, first))
        go.write_text("x")
        until(lambda: paths() == set(map(str, made)), "the fourth path")
        first[0].rename(first[0].with_name("renamed"))
        first[0].mkdir()
        until(lambda: paths() != set(map(str, made)), "a path that is gone")
        assert str(first[0]) not in paths()


@contextmanager
def _watching(*arguments: object, errors: str = "", **options: Any) -> Iterator[Iterator[str]]:
    """The lines of a command that then ends on Ctrl-C, with exit code 0 and those `errors`."""
    child = subprocess.Popen(
        [*LS, *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    assert child.stdout is not None
    try:
        yield iter(child.stdout)
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=PATIENCE_S)
    finally:
        child.kill()
        child.wait()
    assert (child.returncode, told) == (0, errors)


def test_a_terminal_is_refreshed_until_ctrl_c(
    start_child: StartChild, folders: list[Path], terminal: Callable[..., Terminal]
) -> None:
    """GIVEN a screen of 12 lines WHEN watched THEN it is left as it was, and no line is longer."""
    pid, _ = start_child("ready(fd=instance(*paths))", *folders)
    tool = terminal("ls", pid, "--by", "target", "--watch", "0.1", width=80, height=12)
    tool.until_seen(b"Ctrl-C ends", 3)
    tool.type(b"\x03")
    assert tool.wait() == 0

    text = tool.rest().decode()
    assert text.count("\x1b[?1049h") == text.count("\x1b[?1049l") == 1
    assert "23 watches on 23 targets" in text
    assert re.search(r"and \d+ more lines", text)
    plain = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "\n", text)
    assert max(map(len, plain.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments",
    [
        ("--watch", "-o", "/tmp/never"),
        ("--tree", "--by", "fd"),
        ("--watch", "3601"),
        ("--watch=0",),
    ],
)
def test_what_does_not_go_together(arguments: tuple[str, ...]) -> None:
    done = ls(*arguments)

    assert (done.returncode, done.stdout) == (2, "")
