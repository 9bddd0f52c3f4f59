"""`inotrace trace`: the ledgers while it runs, the report in the end."""

from __future__ import annotations

import json
import os
import pwd
import signal
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
from harness import Inotrace, Puppet, Terminal, process_of, removed, site_of

from tracer.cli import app
from tracer.cli import trace as trace_module
from tracer.core.report import Report

pytestmark = pytest.mark.usefixtures("root")

Start = Callable[..., Inotrace]
_PACE_US = 60_000
# less than the workload takes, more than its end can be late
_OLDER_S = "0.6"
_NOBODY = 65534


@pytest.fixture
def trace(inotrace: Start) -> Callable[..., Inotrace]:
    """Starts a trace and returns when it is attached and knows what was there before."""

    def start(*options: object) -> Inotrace:
        tool = inotrace("trace", *options)
        if "json" in options:
            assert tool.err.line() == b"inotrace: tracing; Ctrl-C ends it"
        else:
            assert tool.out.line().split()[:3] == [b"TIME", b"PID", b"COMMAND"]
        return tool

    return start


@pytest.fixture
def stranger(start_puppet: Callable[..., Puppet]) -> Puppet:
    """A puppet of another user and another name."""
    other = start_puppet()
    other.ok("become", _NOBODY)
    other.ok("comm", b"stranger")
    return other


def test_a_known_workload_gives_its_numbers(
    trace: Callable[..., Inotrace], puppet: Puppet, tmp_path: Path
) -> None:
    """GIVEN 23 leaked, 17 balanced and 5 held WHEN interrupted THEN JSON has just these."""
    tool = trace("-f", "json", "-p", puppet.pid, "--older", _OLDER_S, "--fail-on", "leak")
    fd = puppet.ok("init")
    puppet.ok("churn", fd, tmp_path, _PACE_US)
    code = tool.stop()
    report = tool.report()

    assert code == 23
    assert report["schema"] == "inotrace.report/1"
    assert report["host"]["kernel"] == os.uname().release
    trace_ = report["trace"]
    assert (trace_["added"], trace_["removed"], trace_["updated"]) == (45, 17, 0)
    assert (trace_["lost"], trace_["failed"], trace_["complete"]) == (0, 0, True)
    leak, volume, config = (
        site_of(report, function) for function in ("leak_secret", "watch_volume", "hold_config")
    )
    assert (leak["verdict"], leak["live"], leak["added"]) == ("leak", 23, 23)
    assert (volume["verdict"], volume["live"], volume["added"]) == ("clean", 0, 17)
    assert volume["removed"] == removed(rm_watch=17)
    assert (config["verdict"], config["live"], config["added"]) == ("held", 5, 5)
    process = process_of(report, puppet.pid)
    assert (process["live"], process["added"], process["leaked"]) == (28, 45, 23)
    assert process["exe"].endswith("/puppet")
    _knows_its_targets(leak, tmp_path)
    (instance,) = report["instances"]
    # nobody reads the events that tell of removed watches
    assert (instance["watches"], instance["queued"]) == (28, 17)
    (limits,) = report["limits"]
    assert limits["uid"] == os.getuid() and limits["watches"]["used"] >= 28


def _knows_its_targets(site: Any, folder: Path) -> None:
    for number, target in enumerate(site["targets"]):
        watched = folder / f"secret-{number}"
        assert (target["path"], target["ino"]) == (str(watched), watched.stat().st_ino)
        assert target["state"] in ("verified", "unverified")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_with_the_report(
    trace: Callable[..., Inotrace], puppet: Puppet, folders: list[Path], number: int
) -> None:
    tool = trace("-p", puppet.pid)
    puppet.ok("add", puppet.ok("init"), folders[0])

    assert tool.stop(number) == 0
    shown = tool.out.rest().decode()
    assert "ledger = kernel" in shown
    assert "YOUNG 1 watch, one place in puppet" in shown
    assert "add_watch" in shown
    assert tool.err.rest() == b""


def test_a_hangup_is_ignored_under_nohup(
    inotrace: Start, puppet: Puppet, folders: list[Path]
) -> None:
    tool = inotrace(
        *("trace", "-p", puppet.pid),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert tool.out.line().startswith(b"TIME")
    tool.process.send_signal(signal.SIGHUP)
    puppet.ok("add", puppet.ok("init"), folders[0])
    while b"puppet" not in tool.out.line():
        pass

    assert tool.stop() == 0
    assert b"ledger = kernel" in tool.out.rest()


def test_an_interrupt_while_printing_does_not_cost_the_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*arguments: Any) -> Report:
        os.kill(os.getpid(), signal.SIGINT)
        return conclude(*arguments)

    conclude = trace_module.conclude
    monkeypatch.setattr(trace_module, "conclude", interrupted)
    report = tmp_path / "report"
    arguments = ["trace", "-d", "0.1", "-p", str(os.getpid()), "-o", str(report)]
    monkeypatch.setattr(sys, "argv", ["inotrace", *arguments])

    assert app.main() == 0
    assert "ledger = kernel" in report.read_text()


def test_a_duration_ends_by_itself(inotrace: Start) -> None:
    tool = inotrace("trace", "-d", "0.25", "-p", os.getpid())

    assert tool.wait() == 0
    assert b"no watch was added" in tool.out.rest()


def test_options_alone_mean_trace(inotrace: Start) -> None:
    tool = inotrace("-d", "0.1", "-f", "json")

    assert tool.report()["schema"] == "inotrace.report/1"
    assert tool.wait() == 0


def test_a_process_is_told_as_it_changes(
    trace: Callable[..., Inotrace], puppet: Puppet, folders: list[Path]
) -> None:
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0])
    tool = trace("-p", puppet.pid)
    # LIVE, BEFORE, ADDED, REMOVED, FAILED
    assert tool.out.line().split()[1:] == [
        *(str(puppet.pid).encode(), b"puppet", b"1", b"1", b"0", b"0", b"0")
    ]
    puppet.ok("add", fd, folders[1])
    puppet.ok("balance", fd, folders[2])
    puppet("add", fd, folders[2] / "missing")
    while (line := tool.out.line().split())[3:] != [b"2", b"1", b"2", b"1", b"1"]:
        assert line[1:3] == [str(puppet.pid).encode(), b"puppet"]
    assert tool.stop() == 0


# --- who is traced ---


def _traced(tool: Inotrace) -> set[int]:
    assert tool.stop() == 0
    return {process["pid"] for process in tool.report()["processes"]}


def test_a_pid_leaves_out_all_others(
    trace: Callable[..., Inotrace], start_puppet: Callable[..., Puppet], folders: list[Path]
) -> None:
    one, two, other = start_puppet(), start_puppet(), start_puppet()
    other.ok("add", other.ok("init"), folders[0])
    tool = trace("-f", "json", "-p", one.pid, "-p", two.pid)
    for puppet in (one, two, other):
        puppet.ok("add", puppet.ok("init"), folders[1])

    assert _traced(tool) == {one.pid, two.pid}


def test_a_user_leaves_out_all_others(
    trace: Callable[..., Inotrace], puppet: Puppet, stranger: Puppet
) -> None:
    stranger.ok("hold", stranger.ok("init"), Path("/"))
    by_number = trace("-f", "json", "-u", _NOBODY)
    by_name = trace("-f", "json", "-u", pwd.getpwuid(_NOBODY).pw_name)
    for each in (puppet, stranger):
        each.ok("leak", each.ok("init"), Path("/"))

    for tool in (by_number, by_name):
        assert tool.stop() == 0
        report = tool.report()
        assert puppet.pid not in {process["pid"] for process in report["processes"]}
        process = process_of(report, stranger.pid)
        assert (process["live"], process["baseline"], process["uid"]) == (2, 1, _NOBODY)


def test_a_part_of_the_name_leaves_out_all_others(
    trace: Callable[..., Inotrace], puppet: Puppet, stranger: Puppet
) -> None:
    stranger.ok("hold", stranger.ok("init"), Path("/"))
    tool = trace("-f", "json", "-n", "trange")
    for each in (puppet, stranger):
        each.ok("leak", each.ok("init"), Path("/"))

    assert _traced(tool) == {stranger.pid}


# --- what is judged ---


def test_without_fail_on_a_leak_is_no_failure_and_young_ones_are_not_judged(
    trace: Callable[..., Inotrace], puppet: Puppet, tmp_path: Path
) -> None:
    tool = trace("-f", "json", "-p", puppet.pid, "--fail-on", "leak", "--older", "300")
    puppet.ok("churn", puppet.ok("init"), tmp_path, 1000)
    code = tool.stop()
    report = tool.report()

    assert code == 0
    assert {site["verdict"] for site in report["sites"]} == {"young", "clean"}
    assert site_of(report, "leak_secret")["live"] == 23


def test_a_file_gets_the_report_and_a_line_says_so(
    trace: Callable[..., Inotrace], puppet: Puppet, folders: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "report"
    tool = trace("-p", puppet.pid, "-o", path)
    puppet.ok("add", puppet.ok("init"), folders[0])
    assert tool.stop() == 0

    assert tool.err.rest().decode() == f"inotrace: no leak found; the report is in {path}\n"
    assert "ledger = kernel" in path.read_text()
    assert b"ledger" not in tool.out.rest()


# --- where it is shown ---


def test_a_closed_pipe_ends_quietly(inotrace: Start, puppet: Puppet, folders: list[Path]) -> None:
    """GIVEN a reader of one line WHEN it leaves THEN not a word of complaint."""
    tool = inotrace("trace", "-p", puppet.pid)
    assert tool.out.line().startswith(b"TIME")
    assert tool.process.stdout is not None
    tool.process.stdout.close()
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0])

    assert tool.wait() == 128 + signal.SIGPIPE
    assert tool.err.rest() == b""


def test_a_terminal_gets_the_live_screen_and_then_the_report(
    terminal: Callable[..., Terminal], puppet: Puppet, folders: list[Path]
) -> None:
    screen = terminal("trace", "-p", puppet.pid)
    screen.until(b"\x1b[?1049h")
    screen.until(b"no place in the code has added a watch")
    fd = puppet.ok("init")
    for folder in folders:
        puppet.ok("leak", fd, folder)
    screen.until(b"leak_secret")
    screen.until(b"23")
    screen.type(b"\x03")
    shown = screen.rest()
    live, left, report = shown.partition(b"\x1b[?1049l")

    assert screen.wait() == 0
    assert shown.count(b"\x1b[?1049h") == 1 and left and shown.count(left) == 1
    assert live.index(b"\x1b[?1049h") < live.index(b"leak_secret")
    assert b"YOUNG" in report and b"leak_secret" in report and b"ledger = kernel" in report
    # the cursor is shown again
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")


def test_a_report_in_a_file_leaves_the_live_screen(
    terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    path = tmp_path / "report"
    screen = terminal("trace", "-p", os.getpid(), "-f", "json", "-o", path)
    screen.until(b"tracing; Ctrl-C ends it")
    screen.type(b"\x03")

    assert screen.wait() == 0
    assert json.loads(path.read_text())["trace"]["complete"] is True
    assert f"the report is in {path}".encode() in screen.rest()
