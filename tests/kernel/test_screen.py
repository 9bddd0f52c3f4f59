"""The live screens, of `trace` and of `ls --watch`, on terminals of every kind."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Callable

import pytest
from harness import Puppet, Terminal, environment

StartTerminal = Callable[..., Terminal]

_ENTER, _LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"
_SHOW_CURSOR, _HIDE_CURSOR = b"\x1b[?25h", b"\x1b[?25l"
_HINT = b"Ctrl-C ends"
_LIVE = (("trace",), ("ls", "--watch", "0.1"))
# A shell of one job: when that stops, the terminal is its own until Enter, which is `fg`.
_SHELL = """
import os, signal, subprocess, sys, termios
signal.signal(signal.SIGTTOU, signal.SIG_IGN)

def begin():
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)

job = subprocess.Popen(sys.argv[1:], preexec_fn=begin)
while True:
    _, status = os.waitpid(job.pid, os.WUNTRACED)
    os.tcsetpgrp(0, os.getpgrp())
    if not os.WIFSTOPPED(status):
        sys.exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
    modes = termios.tcgetattr(0)[3]
    are_lines = bool(modes & termios.ICANON and modes & termios.ECHO)
    print(f"stopped, lines: {are_lines}", flush=True)
    input()
    os.tcsetpgrp(0, job.pid)
    os.killpg(job.pid, signal.SIGCONT)
"""
_UNDER_A_SHELL = (sys.executable, "-c", _SHELL)


@pytest.mark.parametrize("command", _LIVE)
def test_ctrl_z_gives_the_shell_its_screen_and_fg_takes_it_back(
    terminal: StartTerminal, command: tuple[str, ...]
) -> None:
    """
    WHEN Ctrl-Z is typed, twice THEN the shell has its screen, a cursor, and lines typed on it
    WHEN it continues THEN the live screen is there again, and Ctrl-C ends it with 0
    """
    tool = terminal(*command, "-p", os.getpid(), under=_UNDER_A_SHELL)
    for times in (1, 2):
        tool.until_seen(_ENTER, times)
        tool.until_seen(_HINT, tool.until(_HINT).count(_HINT) + 1)
        tool.type(b"\x1a")
        tool.until_seen(b"stopped, ", times)
        tool.until_seen(b"lines: True\r\n", times)
        seen = tool.until(b"stopped, ")
        assert seen.count(_ENTER) == seen.count(_LEAVE) == times
        assert seen.rindex(_LEAVE) < seen.rindex(b"stopped, ")
        assert seen.rindex(_SHOW_CURSOR) > seen.rindex(_HIDE_CURSOR)
        # nothing was drawn on the shell's screen
        assert seen.rindex(_HINT) < seen.rindex(_LEAVE)
        tool.type(b"\n")
    tool.until_seen(_ENTER, 3)
    tool.until_seen(_HINT, tool.until(_HINT).count(_HINT) + 1)
    tool.type(b"\x03")

    assert tool.wait() == 0
    shown = tool.rest()
    assert shown.count(_ENTER) == shown.count(_LEAVE) == 3
    assert shown.rindex(_SHOW_CURSOR) > shown.rindex(_HIDE_CURSOR)


def test_keys_are_read_again_after_a_stop(terminal: StartTerminal, puppet: Puppet) -> None:
    tool = terminal("trace", "-p", puppet.pid, under=_UNDER_A_SHELL)
    tool.until(_HINT)
    tool.type(b"\x1a")
    tool.until(b"lines: True")
    tool.type(b"\n")
    tool.until_seen(_ENTER, 2)
    # without Enter
    tool.type(b"m")
    tool.until(b"round 1")
    tool.type(b"\x03")

    assert tool.wait() == 0


@pytest.mark.parametrize("command", _LIVE)
def test_a_dumb_terminal_gets_lines(
    terminal: StartTerminal, start_puppet: Callable[..., Puppet], command: tuple[str, ...]
) -> None:
    """GIVEN a terminal that cannot move its cursor THEN there is what a pipe would get."""
    puppet = start_puppet()
    puppet.ok("init")
    tool = terminal(*command, "-p", puppet.pid, env=environment(TERM="dumb"))
    tool.until_seen(b"PID", 1)
    if command[0] == "ls":
        tool.until_seen(b"PID", 3)
    tool.type(b"\x03")

    assert tool.wait() == 0
    shown = tool.rest()
    assert b"\x1b" not in shown
    assert re.search(rb"^\d\d:\d\d:\d\d\r$|^TIME ", shown, re.M)


@pytest.mark.parametrize("command", _LIVE)
def test_a_terminal_that_is_not_utf8_gets_escapes(
    terminal: StartTerminal,
    start_puppet: Callable[..., Puppet],
    program_named: Callable[[bytes], bytes],
    tmp_path: Path,
    command: tuple[str, ...],
) -> None:
    """GIVEN names that are longer than the screen is wide THEN an ellipsis is no error."""
    puppet = start_puppet(program_named(b"x" * 90))
    path = tmp_path / ("y" * 90)
    path.mkdir()
    puppet.ok("leak", puppet.ok("init"), path)
    env = environment(PYTHONIOENCODING="latin-1")
    tool = terminal(*command, "-p", puppet.pid, width=60, env=env)
    tool.until(rb"\u2026" if command[0] == "ls" else _HINT)
    puppet.ok("leak", puppet.ok("init"), path)
    tool.until(rb"\u2026")
    tool.type(b"\x03")

    assert tool.wait() == 0
    live, left, after = tool.rest().partition(_LEAVE)
    assert left and b"internal error" not in after
    plain = re.sub(rb"\x1b\[[?0-9;]*[a-zA-Z]", b"\n", live)
    assert max(map(len, plain.splitlines())) <= 60
