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
from typing import Callable

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


@contextmanager
def _watching(*arguments: object, errors: str = "") -> Iterator[Iterator[str]]:
    """The lines of a command that then ends on Ctrl-C, with exit code 0 and those `errors`."""
    child = subprocess.Popen(
        [*LS, *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
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
