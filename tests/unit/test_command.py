"""A command that is started through inotrace, and what of inotrace it must not inherit."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tracer.command import Child, Command
from tracer.errors import InotraceError

_CHECKOUT = Path(__file__).parents[2]
_SHOW_SIGNALS = ["grep", "-E", "^Sig(Blk|Ign|Cgt):", "/proc/self/status"]
_SHOW_LIMITS = ["cat", "/proc/self/limits"]
_SHOW_ENVIRONMENT = ["env"]
_SHOW_DESCRIPTORS = [
    sys.executable,
    "-c",
    "import os; print([fd for fd in range(3, 256) if os.path.exists(f'/proc/self/fd/{fd}')])",
]
# 32 and 33: glibc's posix_spawn leaves them ignored, and a program of glibc's sets them anew
_OF_THE_C_LIBRARY = 0b11 << 31
# an inotrace that has changed, since it knows the command, all that it and BCC change
_THROUGH = """
import os, resource, signal, sys
from tracer.cli.signals import HeldSignals, stop_on_signals
from tracer.command import Command

with stop_on_signals():
    command = Command(sys.argv[1:])
    signal.signal(signal.SIGUSR1, lambda *_: None)
    os.environ["BCC_KERNEL_SOURCE"] = "/somewhere"
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    other = 4096 if soft == 0 else 0
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (other, hard))
    with open("/dev/null"), HeldSignals():
        child = command.start()
        while not child.poll():
            pass
    assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == (other, hard)
"""
_THROUGH_COMMAND = (sys.executable, "-c", _THROUGH)


def _shown(*argv: str, **options: Any) -> bytes:
    options.update(cwd=_CHECKOUT, stdout=subprocess.PIPE, check=True, timeout=60)
    done: subprocess.CompletedProcess[bytes] = subprocess.run(argv, **options)
    return done.stdout


def _finished(child: Child) -> int:
    while not child.poll():
        pass
    return child.exit_code


def _run(*argv: object, stdout: int | None = None) -> int:
    return _finished(Command([str(word) for word in argv], stdout).start())


# --- what it finds ---


@pytest.mark.parametrize("ignored", [(), (signal.SIGHUP,), (signal.SIGINT, signal.SIGQUIT)])
@pytest.mark.parametrize("blocked", [(), (signal.SIGTERM, signal.SIGRTMIN)])
def test_the_program_has_the_signals_that_it_would_have_without(
    ignored: tuple[int, ...], blocked: tuple[int, ...]
) -> None:
    """GIVEN ignored signals, as by nohup, and blocked ones THEN nothing differs."""

    def prepare() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, blocked)

    def signals(*argv: str) -> list[int]:
        return [
            int(line.split()[1], 16) & ~_OF_THE_C_LIBRARY
            for line in _shown(*argv, preexec_fn=prepare).splitlines()
        ]

    assert signals(*_THROUGH_COMMAND, *_SHOW_SIGNALS) == signals(*_SHOW_SIGNALS)


@pytest.mark.parametrize("show", [_SHOW_LIMITS, _SHOW_ENVIRONMENT, _SHOW_DESCRIPTORS])
def test_the_program_finds_what_it_would_find_without(show: list[str]) -> None:
    """GIVEN limits, variables and descriptors of inotrace's own THEN nothing differs."""
    assert _shown(*_THROUGH_COMMAND, *show) == _shown(*show)


def test_a_descriptor_that_inotrace_was_given_is_passed_on() -> None:
    own, given = os.pipe()
    with open(own, "rb") as through:
        with open(given, "wb"):
            script = f"echo through >/proc/self/fd/{given}"
            _shown(*_THROUGH_COMMAND, "sh", "-c", script, pass_fds=(given,))
        assert through.read() == b"through\n"


def test_its_output_goes_where_it_is_told(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as out:
        assert _run("echo", "hello", stdout=out.fileno()) == 0

    assert (tmp_path / "out").read_bytes() == b"hello\n"


def test_arguments_and_environment_may_be_any_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = os.fsdecode(b"\xff\xfe = ")
    monkeypatch.setenv("ODD", odd)
    with open(tmp_path / "out", "wb") as out:
        assert _run("sh", "-c", 'printf %s "$1$ODD"', "sh", odd, stdout=out.fileno()) == 0

    assert (tmp_path / "out").read_bytes() == 2 * os.fsencode(odd)


# --- when it starts ---


def test_nothing_runs_before_it_is_started(tmp_path: Path) -> None:
    started = tmp_path / "started"
    command = Command(["touch", str(started)])

    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert not started.exists()
    assert _finished(command.start()) == 0
    assert started.exists()


def test_it_can_be_started_several_times(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as out:
        command = Command(["echo", "round"], out.fileno())
        children = [command.start() for _ in range(5)]
        assert [_finished(child) for child in children] == 5 * [0]

    assert len({child.pid for child in children}) == 5
    assert (tmp_path / "out").read_bytes() == 5 * b"round\n"


def test_threads_that_hold_locks_do_not_matter() -> None:
    """GIVEN threads that allocate and open files WHEN commands are started THEN each runs."""
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            with open("/dev/null"):
                bytes(100_000)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        command = Command(["sh", "-c", "test ! -e /proc/$$/fd/9"])
        assert [_finished(command.start()) for _ in range(100)] == 100 * [0]
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("name", ["no-such-command", "/no/such/command", "/dev/null", "/"])
def test_what_does_not_exist_is_refused_before_any_start(name: str) -> None:
    with pytest.raises(InotraceError, match=f"^cannot run '{name}': no such program$"):
        Command([name])


def test_what_cannot_be_executed_is_refused_at_the_start(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    command = Command([str(program)])

    with pytest.raises(InotraceError, match=f"^cannot run '{program}': No such file or directory$"):
        command.start()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_failed_start_leaves_the_limit_as_it_was(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("no program")
    program.chmod(0o755)
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    command = Command([str(program)])
    changed = (4096 if before[0] == 0 else 0, before[1])
    resource.setrlimit(resource.RLIMIT_MEMLOCK, changed)
    try:
        with pytest.raises(InotraceError, match="Exec format error"):
            command.start()
        assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == changed
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


# --- how it ends ---


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -TERM $$", 128 + signal.SIGTERM),
        ("kill -PIPE $$", 128 + signal.SIGPIPE),
    ],
)
def test_its_exit_code_is_that_of_a_shell(script: str, code: int) -> None:
    assert _run("sh", "-c", script) == code


def test_what_still_runs_can_be_ended() -> None:
    child = Command(["sleep", "1000"]).start()
    assert not child.poll()
    child.end()

    assert child.poll()
    assert child.exit_code == 128 + signal.SIGKILL


def test_what_has_ended_keeps_its_exit_code() -> None:
    child = Command(["sh", "-c", "exit 3"]).start()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    child.end()
    child.end()

    assert child.exit_code == 3
