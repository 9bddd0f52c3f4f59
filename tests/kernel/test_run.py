"""`inotrace run`: one command and its descendants, from before its first instruction."""

from __future__ import annotations

import errno
import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable

import pytest
from harness import (
    PATIENCE_S,
    Inotrace,
    Puppet,
    Reader,
    environment,
    process_of,
    puppet_of,
    removed,
    site_of,
    until,
    watch_sites,
)

from tracer.cli import app
from tracer.cli import run as run_module
from tracer.kernel.hooks import Mode
from tracer.session import Session

pytestmark = pytest.mark.usefixtures("root")

Start = Callable[..., Inotrace]
_PACE_US = 40_000


class Run:
    """`inotrace run` with a puppet as the command."""

    def __init__(self, inotrace: Start, program: Path, report: Path, *options: object) -> None:
        self._path = report
        self._program = program
        self.tool = inotrace(
            *("run", "-f", "json", "-o", report, *options, "--", program), stdin=subprocess.PIPE
        )
        self.puppet = puppet_of(self.tool.process)

    def finish(self, code: int = 0) -> Any:
        """Let the puppet exit; the report."""
        self.puppet.tell("exit", code)
        return self.report(code, 23)

    def has_met_puppet(self) -> bool:
        """Whether inotrace met the puppet: it holds its program open, for the names in it."""
        for fd in os.listdir(f"/proc/{self.tool.pid}/fd"):
            with suppress(FileNotFoundError):
                if os.readlink(f"/proc/{self.tool.pid}/fd/{fd}") == os.fspath(self._program):
                    return True
        return False

    def report(self, *codes: int) -> Any:
        """
        After one of these exit codes.

        Whether a short burst of adds is a leak is a matter of pace, and not of these tests.
        """
        assert self.tool.wait() in codes, self.tool.err.rest()
        return json.loads(self._path.read_text())


@pytest.fixture
def run(inotrace: Start, puppet_program: Path, tmp_path: Path) -> Callable[..., Run]:
    return lambda *options: Run(inotrace, puppet_program, tmp_path / "report", *options)


# --- the command itself ---


def test_streams_pass_through_byte_by_byte(inotrace: Start, tmp_path: Path) -> None:
    """GIVEN all byte values, many times WHEN cat repeats them THEN nothing changed."""
    data = bytes(range(256)) * 997
    report = tmp_path / "report"
    script = "cat; printf 'err\\377or\\n' >&2"
    tool = inotrace("run", "-o", report, "--", "sh", "-c", script, stdin=subprocess.PIPE)
    out, err = tool.process.communicate(data, timeout=PATIENCE_S)

    assert tool.process.returncode == 0
    assert out == data
    assert err == (
        b"err\xffor\n" + f"inotrace: no leak found; the report is in {report}\n".encode()
    )
    assert "no watch was added" in report.read_text()


def test_the_report_goes_to_standard_error(inotrace: Start) -> None:
    tool = inotrace("run", "--", "echo", "hello")

    assert tool.wait() == 0
    assert tool.out.rest() == b"hello\n"
    assert tool.err.rest().startswith(b"inotrace  ")


def test_the_commands_exit_code_is_ours(inotrace: Start) -> None:
    scripts = {"exit 0": 0, "exit 7": 7, "kill -TERM $$": 128 + signal.SIGTERM}
    tools = {inotrace("run", "--", "sh", "-c", script): code for script, code in scripts.items()}

    for tool, code in tools.items():
        assert tool.wait() == code


def test_options_of_the_command_are_its_own(inotrace: Start) -> None:
    tool = inotrace("run", "echo", "-n", "--help", "-o", "x")

    assert tool.wait() == 0
    assert tool.out.rest() == b"--help -o x"


def test_its_descriptors_environment_and_limits_are_those_without(inotrace: Start) -> None:
    """GIVEN BCC, which sets a variable and may raise a limit THEN the command finds neither."""
    show = "env | sort; ulimit -a; cd /proc/self/fd; for fd in *; do test -e $fd && echo $fd; done"
    tool = inotrace("run", "--", "sh", "-c", f"{show}; true")
    alone = subprocess.run(
        ["sh", "-c", f"{show}; true"],
        env=environment(),
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )

    assert tool.wait() == 0
    assert tool.out.rest() == alone.stdout
    assert alone.stdout.endswith(b"\n0\n1\n2\n")


def test_what_does_not_exist_is_one_line(inotrace: Start) -> None:
    tool = inotrace("run", "--", "no-such-command")

    assert tool.error() == "cannot run 'no-such-command': no such program"
    assert tool.wait() == 1


def test_what_cannot_be_executed_is_one_line(inotrace: Start, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    tool = inotrace("run", "--", program)
    assert tool.error() == f"cannot run '{program}': No such file or directory"
    assert tool.wait() == 1

    program.chmod(0o644)
    tool = inotrace("run", "--", program)
    assert tool.error() == f"cannot run '{program}': no such program"
    assert tool.wait() == 1


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A folder whose path no terminal here shows whole."""
    folder = tmp_path.joinpath(*(f"{at}-{'x' * 40}" for at in range(6)))
    folder.mkdir(parents=True)
    return folder


def _leaking(folder: Path) -> bytes:
    return b"init\nleak 3 %b\nexit 0\n" % os.fsencode(folder).hex().encode()


def test_a_pipe_gets_whole_paths(inotrace: Start, puppet_program: Path, deep: Path) -> None:
    tool = inotrace("run", "--older", "300", "--", puppet_program, stdin=subprocess.PIPE)
    _, err = tool.process.communicate(_leaking(deep), timeout=PATIENCE_S)

    assert os.fsencode(deep) in err


def test_a_terminal_on_standard_error_gets_a_table(
    inotrace: Start, puppet_program: Path, deep: Path
) -> None:
    """GIVEN standard output elsewhere THEN the stream of the report decides."""
    master, slave = pty.openpty()
    try:
        tool = inotrace(
            *("run", "--older", "300", "--", puppet_program), stdin=subprocess.PIPE, stderr=slave
        )
        os.close(slave)
        tool.process.communicate(_leaking(deep), timeout=PATIENCE_S)
        shown = Reader(master).rest()
    finally:
        os.close(master)

    assert b"ledger = kernel" in shown
    assert os.fsencode(deep) not in shown


# --- the verdict ---


def test_a_leak_is_told_with_its_site_and_exit_code(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    """GIVEN 23 leaked, 17 balanced and 5 held WHEN the command ends THEN just these, and 23."""
    traced = run()
    fd = traced.puppet.ok("init")
    traced.puppet.tell("churn-exit", fd, tmp_path, _PACE_US, 0)
    report = traced.report(23)

    leak, volume, config = (
        site_of(report, function) for function in ("leak_secret", "watch_volume", "hold_config")
    )
    assert (leak["verdict"], leak["live"], leak["added"]) == ("leak", 23, 23)
    assert (volume["verdict"], volume["live"], volume["added"]) == ("clean", 0, 17)
    assert volume["removed"] == removed(rm_watch=17)
    assert (config["verdict"], config["live"], config["added"]) == ("held", 5, 5)
    assert [frame["function"] for frame in leak["frames"]][1:4] == ["leak_secret", "churn", "run"]
    assert "freed_only_by_exit" in [evidence["kind"] for evidence in leak["evidence"]]
    assert {target["path"] for target in leak["targets"]} == {
        f"{tmp_path}/secret-{number}" for number in range(23)
    }
    process = process_of(report, traced.puppet.pid)
    assert (process["added"], process["live"], process["leaked"]) == (45, 28, 23)
    assert (report["schema"], report["trace"]["complete"]) == ("inotrace.report/1", True)


def test_the_leaks_exit_code_can_be_chosen(run: Callable[..., Run], tmp_path: Path) -> None:
    traced = run("--error-exitcode", "41")
    traced.puppet.tell("churn-exit", traced.puppet.ok("init"), tmp_path, _PACE_US, 7)
    traced.report(41)


@pytest.mark.kernels
def test_what_only_exit_freed_is_live_and_what_was_deleted_before_is_not(
    run: Callable[..., Run], folders: list[Path], mode: Mode
) -> None:
    traced = run("--mode", mode.value)
    fd = traced.puppet.ok("init")
    until(traced.has_met_puppet, "inotrace met the puppet")
    for folder in folders:
        traced.puppet.ok("leak", fd, folder)
    for folder in folders[:17]:
        folder.rmdir()
    report = traced.finish()

    site = site_of(report, "leak_secret")
    assert (site["live"], site["added"]) == (6, 23)
    assert site["removed"] == removed(deleted=17)
    assert report["trace"]["complete"] is True
    assert report["host"]["mode"] == mode.value


def test_a_closed_instance_is_clean(run: Callable[..., Run], folders: list[Path]) -> None:
    traced = run()
    fd = traced.puppet.ok("init")
    for folder in folders[:7]:
        traced.puppet.ok("leak", fd, folder)
    traced.puppet.ok("close", fd)
    report = traced.finish(7)

    site = site_of(report, "leak_secret")
    assert (site["verdict"], site["live"], site["removed"]) == ("clean", 0, removed(closed=7))
    assert traced.tool.wait() == 7


def test_a_killed_command_had_its_watches(run: Callable[..., Run], folders: list[Path]) -> None:
    traced = run()
    fd = traced.puppet.ok("init")
    until(traced.has_met_puppet, "a look at the puppet while it lives")
    for folder in folders[:7]:
        traced.puppet.ok("leak", fd, folder)
    os.kill(traced.puppet.pid, signal.SIGKILL)
    report = traced.report(128 + signal.SIGKILL, 23)

    assert site_of(report, "leak_secret")["live"] == 7


def test_thousands_of_watches_at_exit_are_all_counted(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    """GIVEN more than one record of 512 holds WHEN the command ends THEN every one is live."""
    traced = run()
    held, dropped = traced.puppet.ok("init"), traced.puppet.ok("init")
    (tmp_path / "other").mkdir()
    traced.puppet.ok("many", held, tmp_path, 5003)
    traced.puppet.ok("many", dropped, tmp_path / "other", 601)
    traced.puppet.ok("close", dropped)
    report = traced.finish()

    site = site_of(report, "leak_secret")
    assert (site["live"], site["added"]) == (5003, 5604)
    assert site["removed"] == removed(closed=601)
    assert (report["trace"]["complete"], report["trace"]["lost"]) == (True, 0)
    assert process_of(report, traced.puppet.pid)["live"] == 5003


def test_more_than_can_be_walked_at_exit_is_inconclusive(
    run: Callable[..., Run], tmp_path: Path
) -> None:
    traced = run()
    traced.puppet.ok("many", traced.puppet.ok("init"), tmp_path, 20_011)
    traced.puppet.tell("exit", 0)
    report = traced.report(3, 23)

    assert report["trace"]["complete"] is False


# --- who is traced ---


def test_descendants_threads_and_new_images_are_traced(
    run: Callable[..., Run], folders: list[Path]
) -> None:
    traced = run()
    puppet = traced.puppet
    unused = iter(folders)
    fd = puppet.ok("init", 0)
    puppet.ok("leak", fd, next(unused))
    puppet.ok("thread", "leak", fd, next(unused))
    child = puppet.ok("fork")
    puppet.ok("leak", fd, next(unused))
    grandchild = puppet.ok("fork")
    for _ in range(2):
        puppet.ok("leak", fd, next(unused))
    puppet.ok("exec")
    puppet.ok("leak", fd, next(unused))
    puppet.tell("exit", 0)
    assert puppet.answer() == 0
    puppet.tell("exit", 0)
    assert puppet.answer() == 0
    puppet.ok("exec")
    puppet.ok("leak", fd, next(unused))
    report = traced.finish()

    added = {process["pid"]: process["added"] for process in report["processes"]}
    assert added == {puppet.pid: 3, child: 1, grandchild: 3}
    # the instance was the first process's to the end, with all that others added
    assert sum(process["live"] for process in report["processes"]) == 7
    assert report["trace"]["removed"] == 0


def test_the_first_instruction_is_traced(
    inotrace: Start, puppet_program: Path, folders: list[Path], tmp_path: Path
) -> None:
    """GIVEN commands that wait in stdin before it starts WHEN it ends at once THEN all is seen."""
    script = f"init\nleak 3 {os.fsencode(folders[0]).hex()}\nexit 0\n".encode()
    report = tmp_path / "report"
    tool = inotrace(
        *("run", "-f", "json", "-o", report, "--", puppet_program), stdin=subprocess.PIPE
    )
    out, _ = tool.process.communicate(script, timeout=PATIENCE_S)

    assert out.split()[1:] == [b"3", b"1"]
    sites = json.loads(report.read_text())["sites"]
    (site,) = [site for site in sites if site["kind"] == "watches"]
    assert (site["live"], site["added"]) == (1, 1)
    # so short a life may be over before its symbols were read, which must be said
    assert bool(site["frames"]) != (site["stack"] == "missing")


def test_processes_outside_are_not_traced(
    run: Callable[..., Run], puppet: Puppet, folders: list[Path]
) -> None:
    traced = run()
    for each in (puppet, traced.puppet):
        each.ok("leak", each.ok("init"), folders[0])
    report = traced.finish()

    assert [process["pid"] for process in report["processes"]] == [traced.puppet.pid]
    assert report["trace"]["added"] == 1


def test_a_failed_call_is_no_leak(run: Callable[..., Run], folders: list[Path]) -> None:
    traced = run()
    assert traced.puppet("leak", traced.puppet.ok("init"), folders[0] / "no") == -errno.ENOENT
    report = traced.finish()

    assert report["trace"]["failed"] == 1
    assert report["failures"][0]["errno"] == "ENOENT"


# --- signals, and those left behind ---


def test_a_signal_is_passed_on_and_the_report_still_comes(
    run: Callable[..., Run], folders: list[Path]
) -> None:
    traced = run()
    traced.puppet.ok("leak", traced.puppet.ok("init"), folders[0])
    traced.puppet.ok("count-interrupts")
    for number in (1, 2, 3):
        traced.tool.process.send_signal(signal.SIGINT)
        assert traced.puppet.ok("await-interrupts", number) == number
    report = traced.finish()

    assert report["trace"]["added"] == 1


def test_termination_is_passed_on(run: Callable[..., Run]) -> None:
    traced = run()
    traced.tool.process.send_signal(signal.SIGTERM)
    traced.report(128 + signal.SIGTERM)


def test_an_ignored_signal_stays_ignored(inotrace: Start, tmp_path: Path) -> None:
    """GIVEN nohup WHEN inotrace is sent a hangup THEN neither it nor the command notices."""
    tool = inotrace(
        *("run", "-o", tmp_path / "report", "--"),
        *("sh", "-c", "grep ^SigIgn: /proc/self/status; read line"),
        stdin=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    ignored = int(tool.out.line().split()[1], 16)
    tool.process.send_signal(signal.SIGHUP)
    tool.process.communicate(b"\n", timeout=PATIENCE_S)

    assert ignored & 1 << (signal.SIGHUP - 1)
    assert not ignored & 1 << (signal.SIGPIPE - 1)
    assert tool.process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_preparing_leaves_nothing(
    inotrace: Start, tmp_path: Path, number: int
) -> None:
    """GIVEN a report that is begun WHEN a signal comes THEN no draft, and no command."""
    tool = inotrace("run", "-o", tmp_path / "report", "--", "touch", tmp_path / "started")
    until(lambda: bool(os.listdir(tmp_path)), "the draft of the report")

    assert tool.stop(number) == 128 + number
    assert os.listdir(tmp_path) == []
    assert tool.err.rest() == b""


@pytest.mark.parametrize("moment", ["finish", "print"])
def test_an_interrupt_at_the_end_does_not_cost_the_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, moment: str
) -> None:
    def interrupted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            return function(*arguments)

        return call

    if moment == "finish":
        monkeypatch.setattr(Session, "finish", interrupted(Session.finish))
    else:
        monkeypatch.setattr(run_module, "conclude", interrupted(run_module.conclude))
    report = tmp_path / "report"
    monkeypatch.setattr(sys, "argv", ["inotrace", "run", "-o", str(report), "--", "true"])

    assert app.main() == 0
    assert "ledger = kernel" in report.read_text()


def test_those_left_behind_are_waited_for(run: Callable[..., Run], folders: list[Path]) -> None:
    traced = run()
    puppet = traced.puppet
    fd = puppet.ok("init")
    daemon = puppet.ok("orphan")
    traced.tool.err.until(b"the command has ended, some of its children have not")
    puppet.ok("leak", fd, folders[0])
    report = traced.finish()

    assert process_of(report, daemon)["live"] == 1


def test_an_interrupt_ends_the_waiting(run: Callable[..., Run], folders: list[Path]) -> None:
    """GIVEN a child that ended with a watch, and a daemon THEN what the daemon has is judged."""
    traced = run()
    puppet = traced.puppet
    fd = puppet.ok("init")
    puppet.ok("hold", fd, folders[0])
    puppet.ok("fork")
    puppet.tell("exit", 0)
    assert puppet.answer() == 0
    daemon = puppet.ok("orphan")
    traced.tool.err.until(b"Ctrl-C stops waiting")
    for folder in folders[1:4]:
        puppet.ok("leak", fd, folder)
    traced.tool.process.send_signal(signal.SIGINT)
    report = traced.report(0, 23)

    assert process_of(report, daemon)["live"] == 3
    assert site_of(report, "leak_secret")["live"] == 3
    assert {site["verdict"] for site in watch_sites(report)} <= {"leak", "held"}
    assert report["trace"]["complete"] is True
    # it was not ended with the tracing
    assert puppet.ok("pid") == daemon


def test_a_killed_inotrace_does_not_start_the_command(inotrace: Start, tmp_path: Path) -> None:
    """GIVEN inotrace, still preparing WHEN it is killed THEN the command never runs."""
    folder = tmp_path / "report"
    folder.mkdir()
    tool = inotrace("run", "-o", folder / "report", "--", "touch", tmp_path / "started")
    until(lambda: bool(os.listdir(folder)), "the draft of the report")
    tool.process.kill()
    tool.wait()
    # what it had started would hold them open
    for stream in (tool.out, tool.err):
        stream.rest()

    assert not (tmp_path / "started").exists()
