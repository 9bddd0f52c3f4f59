"""A command before it is let start, and what of inotrace's signals it must not inherit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tracer.command import Command

_CHECKOUT = Path(__file__).parents[2]
_SHOW = ["grep", "-E", "^Sig(Blk|Ign|Cgt):", "/proc/self/status"]
# an inotrace with a handler of its own
_THROUGH_COMMAND = f"""
import signal
from tracer.command import Command

signal.signal(signal.SIGTERM, lambda *_: None)
child = Command({_SHOW!r})
child.release()
while not child.poll():
    pass
"""


@contextmanager
def _handled(number: int) -> Iterator[list[int]]:
    """Notes the signals that come in this process."""
    came: list[int] = []
    before = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield came
    finally:
        signal.signal(number, before)


def _finished(command: Command) -> int:
    while not command.poll():
        pass
    return command.exit_code


@pytest.mark.parametrize("ignored", [(), (signal.SIGHUP,), (signal.SIGINT, signal.SIGQUIT)])
def test_the_program_has_the_signals_that_it_would_have_without(
    ignored: tuple[int, ...],
) -> None:
    """GIVEN ignored signals, as by nohup WHEN started through Command THEN nothing differs."""

    def ignore() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    def shown(*argv: str) -> bytes:
        done = subprocess.run(
            argv, preexec_fn=ignore, cwd=_CHECKOUT, stdout=subprocess.PIPE, check=True
        )
        return done.stdout

    assert shown(sys.executable, "-c", _THROUGH_COMMAND) == shown(*_SHOW)


def test_a_signal_before_the_start_meets_the_program_not_our_handler(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with _handled(signal.SIGTERM), Command(["touch", str(started)]) as child:
        os.kill(child.pid, signal.SIGTERM)
        child.release()

        assert _finished(child) == 128 + signal.SIGTERM
    assert not started.exists()


def test_one_that_was_killed_while_it_waited_has_ended_by_that() -> None:
    with Command(["true"]) as child:
        os.kill(child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        child.release()

        assert _finished(child) == 128 + signal.SIGKILL


def test_signals_are_handled_again_after_the_fork() -> None:
    with _handled(signal.SIGTERM) as came, Command(["true"]):
        os.kill(os.getpid(), signal.SIGTERM)

        assert came == [signal.SIGTERM]


def test_what_was_not_let_start_never_does(tmp_path: Path) -> None:
    started = tmp_path / "started"
    with Command(["touch", str(started)]) as child:
        pass

    assert child.poll()
    assert not started.exists()
