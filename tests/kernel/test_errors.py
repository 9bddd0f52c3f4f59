"""What cannot be done is one line that says why, without a traceback, and an exit code."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Callable

import pytest
from harness import (
    CHECKOUT,
    PATIENCE_S,
    WITHOUT_TRACEFS,
    Inotrace,
    Puppet,
    environment,
    in_namespace,
    until,
)

from tracer.cli import app, events, trace
from tracer.kernel import preflight, probe, ring
from tracer.kernel.hooks import Mode
from tracer.kernel.modes import find

pytestmark = pytest.mark.usefixtures("root")

Start = Callable[..., Inotrace]
_NOBODY = 65534


def fails(tool: Inotrace, code: int = 1) -> str:
    """The one line it ends with."""
    line = tool.error()
    assert tool.out.rest() == b""
    assert tool.wait() == code
    return line


# --- what is asked for ---


def test_not_root(inotrace: Start) -> None:
    def start(*arguments: object) -> Inotrace:
        return inotrace(*arguments, user=_NOBODY, group=_NOBODY, extra_groups=[])

    try:
        can_run = start("--version").wait() == 0
    except OSError:
        can_run = False
    if not can_run:
        pytest.skip(f"user {_NOBODY} cannot run {sys.executable} with {CHECKOUT}")
    for command in (["trace"], ["events"], ["demo"], ["run", "--", "true"]):
        line = fails(start(*command))
        assert line == "tracing needs CAP_BPF and CAP_PERFMON: start it with sudo"


def test_no_such_process(inotrace: Start) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()

    line = fails(inotrace("trace", "-p", ended.pid))

    assert line.startswith(f"no process {ended.pid}: ")


def test_a_thread_is_not_a_process(inotrace: Start) -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        for command in ("trace", "events"):
            line = fails(inotrace(command, "-p", thread.native_id))
            assert line == f"{thread.native_id} is a thread of process {os.getpid()}: " + (
                "give that number"
            )
    finally:
        end.set()
        thread.join()


@pytest.mark.parametrize("seconds", ["inf", "nan", "1e300", "-1"])
@pytest.mark.parametrize(
    "command",
    [("trace", "-d"), ("trace", "--older"), ("events", "-d"), ("run", "--older")],
)
def test_a_time_is_a_finite_number(inotrace: Start, command: tuple[str, ...], seconds: str) -> None:
    more = ["--", "true"] if command[0] == "run" else []
    tool = inotrace(*command, seconds, *more)

    assert tool.wait() == 2
    assert seconds in tool.err.rest().decode().splitlines()[-1]


def test_unknown_user(inotrace: Start) -> None:
    line = fails(inotrace("trace", "-u", "no-such-user"), code=2)

    assert line.startswith("no user called no-such-user: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--debug", "trace", "-u", "no-such-user"),
        ("trace", "--debug", "-u", "no-such-user"),
        ("-u", "no-such-user", "--debug"),
        ("--debug", "-u", "no-such-user"),
        ("events", "-u", "no-such-user", "--debug"),
        ("ls", "-u", "no-such-user", "--debug"),
    ],
)
def test_debug_shows_the_traceback(inotrace: Start, arguments: tuple[str, ...]) -> None:
    tool = inotrace(*arguments)

    first, second, *_, last = tool.err.rest().decode().splitlines()
    assert tool.wait() == 2
    assert first.startswith("inotrace: no user called no-such-user")
    assert second.startswith("Traceback")
    assert "InotraceError" in last


# --- where it should go ---


def test_an_existing_file_is_kept_without_force(
    inotrace: Start, puppet: Puppet, tmp_path: Path
) -> None:
    path = tmp_path / "report"
    path.write_text("mine")

    line = fails(inotrace("trace", "-o", path))
    assert line == f"{path} exists: choose another name or overwrite it with --force"
    assert path.read_text() == "mine"

    forced = inotrace("trace", "-p", puppet.pid, "-d", "0.1", "-f", "json", "-o", path, "--force")
    assert forced.wait() == 0
    assert json.loads(path.read_text())["schema"] == "inotrace.report/1"


def test_a_missing_folder(inotrace: Start, tmp_path: Path) -> None:
    path = tmp_path / "missing" / "report"

    assert fails(inotrace("trace", "-o", path)).startswith(f"cannot write {path}: ")


def test_a_full_disk_does_not_cost_the_report(
    inotrace: Start, puppet: Puppet, folders: list[Path], mounted: Callable[..., Path]
) -> None:
    path = mounted("size=4k") / "report"
    tool = inotrace("trace", "-p", puppet.pid, "-f", "json", "-o", path)
    assert tool.err.line() == b"inotrace: tracing; Ctrl-C ends it"
    fd = puppet.ok("init")
    for folder in folders:
        puppet.ok("leak", fd, folder)

    assert tool.stop() == 1
    assert tool.report()["trace"]["added"] == 23
    assert tool.err.rest().decode().splitlines()[1:] == [
        f"inotrace: cannot write {path}: No space left on device; "
        "it was printed on standard output instead"
    ]
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("command", ["trace", "events", "demo"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_preparing_leaves_no_draft(
    inotrace: Start, tmp_path: Path, command: str, number: int
) -> None:
    report, temporary = tmp_path / "report", tmp_path / "temporary"
    temporary.mkdir()
    tool = inotrace(command, "-o", report, env=environment(TMPDIR=str(temporary)))
    until(lambda: len(os.listdir(tmp_path)) == 2, "the draft of the report")
    tool.stop(number)

    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []
    assert os.listdir(temporary) == []
    assert report.exists() or command == "demo"


@pytest.mark.parametrize("command", [trace, events])
def test_the_first_interrupt_only_asks_from_the_beginning_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: ModuleType
) -> None:
    """GIVEN a report that is begun WHEN interrupted before the probes THEN it is written."""
    monkeypatch.setattr(command, "prepare", lambda *_: os.kill(os.getpid(), signal.SIGINT))
    report = tmp_path / "report"
    name = command.__name__.rpartition(".")[2]
    monkeypatch.setattr(sys, "argv", ["inotrace", name, "-o", str(report)])

    assert app.main() == 0
    assert os.listdir(tmp_path) == ["report"]


# --- what the machine lacks ---


def test_bcc_is_missing(inotrace: Start, tmp_path: Path) -> None:
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc/__init__.py").write_text("raise ImportError('No module named bcc')\n")
    env = environment(PYTHONPATH=f"{tmp_path}:{CHECKOUT}")

    line = fails(inotrace("trace", env=env))

    assert line.startswith("BCC's Python module is missing: install python3-bpfcc")


def fails_there(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("inotrace: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr[len("inotrace: ") : -1]


def test_tracefs_is_mounted_when_it_is_not() -> None:
    arguments = ("trace", "--mode", "tracepoint", "-d", "0.1", "-f", "json")
    done = in_namespace(WITHOUT_TRACEFS, *arguments)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trace"]["complete"] is True
    first, *_ = done.stderr.splitlines()
    assert first == "inotrace: mounted tracefs on /sys/kernel/tracing, where it stays"


def test_kprobes_do_without_tracefs() -> None:
    if not find(Mode.KPROBE).works:
        pytest.skip(f"kprobes do not work here: {find(Mode.KPROBE).reason}")
    done = in_namespace(WITHOUT_TRACEFS, "trace", "--mode", "kprobe", "-d", "0.1", "-f", "json")

    assert done.returncode == 0, done.stderr
    assert done.stderr == "inotrace: tracing; Ctrl-C ends it\n"


def test_tracefs_cannot_be_mounted(inotrace: Start) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is missing (util-linux)")
    script = (
        f"{WITHOUT_TRACEFS} || exit 77; "
        'exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin -- "$@"'
    )
    inner = [sys.executable, "-m", "tracer", "trace", "--mode", "tracepoint"]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *inner],
        env=environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
    )
    if done.returncode == 77:
        pytest.skip(f"cannot prepare the mounts: {done.stderr}")

    line = fails_there(done)
    assert line.startswith("cannot mount tracefs (Operation not permitted): try ")


def test_btf_is_missing() -> None:
    done = in_namespace("mount -t tmpfs none /sys/kernel/btf", "trace")

    assert "/sys/kernel/btf/vmlinux" in fails_there(done)
    assert "CONFIG_DEBUG_INFO_BTF" in done.stderr


def test_the_kernel_is_locked_down() -> None:
    prepare = (
        "mount -t tmpfs none /sys/kernel/security && "
        "echo 'none integrity [confidentiality]' >/sys/kernel/security/lockdown"
    )
    done = in_namespace(prepare, "trace")

    assert fails_there(done).startswith("the kernel is locked down (confidentiality)")


@pytest.mark.parametrize(
    ("user", "hint"), [(False, "lockdown=confidentiality"), (True, "Linux 5.5")]
)
def test_memory_may_not_be_read(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], user: bool, hint: str
) -> None:
    """GIVEN a kernel that is locked down and does not say so, or an old one."""
    monkeypatch.setattr(preflight, "try_reading", lambda **of: "refused" * (of["user"] == user))
    monkeypatch.setattr(sys, "argv", ["inotrace", "trace", "-d", "1"])

    assert app.main() == 1
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert hint in err


def test_a_kernel_that_trusts_only_its_administrator_with_buffers(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """GIVEN a level of kernel.perf_event_paranoid that only distributions have."""

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(ring, "system_call", refuse)
    monkeypatch.setattr(ring, "_paranoia", lambda: 3)
    monkeypatch.setattr(sys, "argv", ["inotrace", "trace", "-d", "1"])

    assert app.main() == 1
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "CAP_SYS_ADMIN" in err and "'sysctl kernel.perf_event_paranoid=2'" in err


def test_integrity_lockdown_allows_tracing() -> None:
    prepare = (
        "mount -t tmpfs none /sys/kernel/security && "
        "echo 'none [integrity] confidentiality' >/sys/kernel/security/lockdown"
    )
    done = in_namespace(prepare, "trace", "-d", "0.1", "-f", "json")

    assert done.returncode == 0, done.stderr


# --- what BCC says ---


@pytest.fixture
def broken_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Definitions with which the program cannot compile."""
    definitions = [*probe.compiler_definitions(), "-DFILTER_UID=no_such_name"]
    monkeypatch.setattr(probe, "compiler_definitions", lambda: definitions)


@pytest.mark.usefixtures("broken_build")
def test_bcc_is_silent_and_debug_shows_what_it_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["inotrace", "trace", "-d", "1"])
    assert app.main() == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "inotrace: the BPF program does not compile or load here: --debug shows why\n"

    monkeypatch.setattr(sys, "argv", ["inotrace", "--debug", "trace", "-d", "1"])
    assert app.main() == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "Traceback" in err and "no_such_name" in err


def test_a_program_that_the_verifier_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """GIVEN offsets with which the program compiles THEN what the verifier says stays inside."""
    joined = probe._joined
    monkeypatch.setattr(
        probe,
        "_joined",
        lambda *given: joined(*given).replace("fd >= table.slots", "*(u64 *)(u64)fd"),
    )
    monkeypatch.setattr(sys, "argv", ["inotrace", "events", "-d", "1"])

    assert app.main() == 1
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("inotrace: the BPF program does not compile or load here")


def test_the_command_does_not_run_if_tracing_cannot(
    monkeypatch: pytest.MonkeyPatch,
    broken_build: None,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    started = tmp_path / "started"
    monkeypatch.setattr(sys, "argv", ["inotrace", "run", "--", "touch", str(started)])

    assert app.main() == 1
    assert capfd.readouterr().err.count("\n") == 1
    assert not started.exists()
