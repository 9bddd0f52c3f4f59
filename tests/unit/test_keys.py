"""Keys typed on a real terminal, and all the cases in which there is none to type on."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tracer.cli.keys import Keys

_CHECKOUT = Path(__file__).parents[2]
# In a session of its own, which the terminal on standard input controls.
_BEGIN = """
import fcntl, os, select, signal, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from tracer.cli.keys import Keys

def told(*values):
    print(*values, flush=True)

def modes():
    return termios.tcgetattr(0)

def waited():
    told(bool(select.select([0], [], [], 60)[0]))
"""


class _Typist:
    """Who sits at the terminal of a script."""

    def __init__(self, terminal: int, script: subprocess.Popen[str]) -> None:
        self._terminal = terminal
        self.script = script

    def type(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    def hang_up(self) -> None:
        os.close(self._terminal)

    def reads(self) -> str:
        assert self.script.stdout is not None
        return self.script.stdout.readline().rstrip("\n")


@contextmanager
def _running(script: str) -> Iterator[_Typist]:
    terminal, own = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", _BEGIN + script],
        cwd=_CHECKOUT,
        stdin=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )
    os.close(own)
    try:
        with child:
            yield _Typist(terminal, child)
            assert child.wait(60) == 0
    finally:
        child.kill()
        with suppress(OSError):
            os.close(terminal)


# --- at a terminal ---


def test_keys_come_one_by_one_and_unseen_and_the_terminal_is_as_before() -> None:
    script = """
before = modes()
with Keys() as keys:
    told(keys.are_read, keys.typed())
    told([bool(modes()[3] & flag) for flag in (termios.ECHO, termios.ICANON, termios.ISIG)])
    waited()
    told(keys.typed(), keys.typed())
told(modes() == before)
"""
    with _running(script) as typist:
        assert typist.reads() == "True b''"
        assert typist.reads() == "[False, False, True]"
        # without Enter
        typist.type(b"mxm")
        assert typist.reads() == "True"
        assert typist.reads() == "b'mxm' b''"
        assert typist.reads() == "True"


def test_the_terminal_is_given_back_for_a_while() -> None:
    """GIVEN keys that are read WHEN inotrace stops THEN lines are, until it asks again."""
    script = """
before = modes()
with Keys() as keys:
    keys.give_back()
    told(modes() == before)
    keys.typed()
    told(bool(modes()[3] & termios.ICANON))
told(modes() == before)
"""
    with _running(script) as typist:
        assert [typist.reads() for _ in range(3)] == ["True", "False", "True"]


def test_what_was_typed_before_is_read_too() -> None:
    """GIVEN a line typed ahead WHEN the keys are read THEN it is not thrown away."""
    script = """
waited()
with Keys() as keys:
    told(keys.typed())
"""
    with _running(script) as typist:
        typist.type(b"m\n")
        assert typist.reads() == "True"
        assert typist.reads() == r"b'm\n'"


def test_ctrl_c_stays_a_signal() -> None:
    script = """
came = []
signal.signal(signal.SIGINT, lambda *_: came.append("SIGINT"))
with Keys() as keys:
    told("ready")
    while not came:
        signal.sigtimedwait([signal.SIGUSR1], 0.01)
    told(came, keys.typed())
"""
    with _running(script) as typist:
        assert typist.reads() == "ready"
        typist.type(b"\x03")
        assert typist.reads() == "['SIGINT'] b''"


def test_the_terminal_is_as_before_after_an_error() -> None:
    script = """
before = modes()
try:
    with Keys():
        raise KeyError
except KeyError:
    told(modes() == before)
"""
    with _running(script) as typist:
        assert typist.reads() == "True"


def test_a_terminal_that_is_gone_has_no_keys_and_is_no_error() -> None:
    """GIVEN an ssh that ended WHEN the trace goes on to its report THEN nothing is in its way."""
    script = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with Keys() as keys:
    told("ready")
    waited()
    told(keys.typed())
told("reported")
"""
    with _running(script) as typist:
        assert typist.reads() == "ready"
        typist.hang_up()
        assert typist.reads() == "True"
        assert typist.reads() == "b''"
        assert typist.reads() == "reported"


def test_in_the_background_the_terminal_is_left_alone() -> None:
    """GIVEN a job in the background WHEN it would read keys THEN it is not stopped for that."""
    script = """
before = modes()
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    with Keys() as keys:
        told(keys.are_read, keys.typed(), modes() == before)
    os._exit(0)
_, status = os.waitpid(child, os.WUNTRACED)
told(os.WIFEXITED(status))
if os.WIFSTOPPED(status):
    os.kill(child, signal.SIGKILL)
"""
    with _running(script) as typist:
        assert typist.reads() == "False b'' True"
        assert typist.reads() == "True"


def test_who_goes_on_in_the_background_leaves_the_terminal_to_the_shell() -> None:
    """
    GIVEN one that reads keys
    WHEN the shell takes the terminal back, as after Ctrl-Z and bg, and has modes of its own
    THEN it takes no keys from the shell, changes nothing, and is not stopped
    """
    script = """
told("ready")
waited()
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    with Keys() as keys:
        told(keys.are_read)
        os.kill(os.getpid(), signal.SIGSTOP)
        told(keys.typed())
    os._exit(0)
os.waitpid(child, os.WUNTRACED)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
os.tcsetpgrp(0, os.getpgrp())
before = modes()
os.kill(child, signal.SIGCONT)
_, status = os.waitpid(child, os.WUNTRACED)
told(os.WIFEXITED(status), modes() == before, os.read(0, 9))
if os.WIFSTOPPED(status):
    os.kill(child, signal.SIGKILL)
"""
    with _running(script) as typist:
        assert typist.reads() == "ready"
        typist.type(b"m\n")
        assert typist.reads() == "True"
        assert typist.reads() == "True"
        assert typist.reads() == "b''"
        assert typist.reads() == r"True True b'm\n'"


# --- without one ---


@pytest.mark.parametrize("stdin", [None, io.StringIO("m")])
def test_without_a_terminal_there_are_no_keys(stdin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    with Keys() as keys:
        assert (keys.are_read, keys.typed()) == (False, b"")


def test_a_pipe_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """GIVEN input for who comes next in a script THEN it is still there."""
    reading, writing = os.pipe()
    with open(reading) as pipe, open(writing, "w") as text:
        monkeypatch.setattr(sys, "stdin", pipe)
        text.write("m")
        text.flush()
        with Keys() as keys:
            assert (keys.are_read, keys.typed()) == (False, b"")
        assert os.read(reading, 1) == b"m"


def test_a_terminal_of_another_session_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, own = pty.openpty()
    with open(terminal, "wb", 0), open(own) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with Keys() as keys:
            assert (keys.are_read, keys.typed()) == (False, b"")
