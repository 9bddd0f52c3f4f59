"""Rounds of a scenario: of `inotrace run`, and begun by hand in a trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from harness import Inotrace, Puppet, Reader, Terminal, process_of, puppet_of, site_of, watch_sites

pytestmark = pytest.mark.usefixtures("root")

Start = Callable[..., Inotrace]


class Scenario:
    """A command for `inotrace run` that waits in each round until the test has done its part."""

    def __init__(self, folder: Path) -> None:
        self._asks, self._answers = folder / "asks", folder / "answers"
        for pipe in (self._asks, self._answers):
            os.mkfifo(pipe)
        # for both ends, so that to open it waits for nobody
        self._ends = [os.open(pipe, os.O_RDWR) for pipe in (self._asks, self._answers)]
        self._asked = Reader(self._ends[0])

    def command(self, code: str = "0") -> tuple[str, ...]:
        script = f"echo round > {self._asks}; read answer < {self._answers}; exit {code}"
        return ("sh", "-c", script)

    def await_round(self) -> None:
        assert self._asked.line() == b"round"

    def end_round(self) -> None:
        os.write(self._ends[1], b"done\n")

    def close(self) -> None:
        for end in self._ends:
            os.close(end)


@pytest.fixture
def scenario(tmp_path: Path) -> Iterator[Scenario]:
    scenario = Scenario(tmp_path)
    yield scenario
    scenario.close()


def _report(tool: Inotrace, path: Path, *codes: int) -> Any:
    assert tool.wait() in codes, tool.err.rest()
    return json.loads(path.read_text())


def _kinds(site: Any) -> list[str]:
    return [evidence["kind"] for evidence in site["evidence"]]


# --- run ---


def test_a_daemon_that_grows_by_one_in_each_round_leaks(
    inotrace: Start, scenario: Scenario, puppet: Puppet, folders: list[Path], tmp_path: Path
) -> None:
    """GIVEN what one leaks, one balances, one fills at first THEN three classes, told by round."""
    report = tmp_path / "report"
    scope = ("run", "-r", 4, "-p", puppet.pid, "-f", "json", "-o", report)
    tool = inotrace(*scope, "--", *scenario.command())
    scenario.await_round()
    fd = puppet.ok("init")
    for number in range(4):
        puppet.ok("leak", fd, folders[number])
        puppet.ok("balance", fd, folders[10])
        if not number:
            puppet.ok("hold", fd, folders[20])
        scenario.end_round()
        if number < 3:
            scenario.await_round()
    found = _report(tool, report, 23)

    leak, held, clean = (
        site_of(found, function) for function in ("leak_secret", "hold_config", "balance_volume")
    )
    assert (leak["verdict"], leak["per_round"]) == ("leak", [1, 1, 1, 1])
    assert leak["evidence"][0] == {"kind": "grows_each_round", "text": "+1 in each of 4 rounds"}
    assert (held["verdict"], held["per_round"]) == ("held", [1, 0, 0, 0])
    assert held["evidence"][0]["text"] == "+1 in the first round, then none in any of 3"
    assert (clean["verdict"], clean["per_round"]) == ("clean", [0, 0, 0, 0])
    assert found["trace"]["rounds"] == 4
    assert leak["limit_reached_in_s"] > 0
    assert process_of(found, puppet.pid)["verdict"] == "leak"


def test_each_round_of_a_command_is_a_process_of_its_own(
    inotrace: Start, puppet_program: Path, folders: list[Path], tmp_path: Path
) -> None:
    """GIVEN a command that holds three until it exits WHEN run in rounds THEN nothing grows."""
    report = tmp_path / "report"
    options = ("run", "-r", 3, "-f", "json", "-o", report, "--", puppet_program)
    tool = inotrace(*options, stdin=subprocess.PIPE)
    for _ in range(3):
        puppet = puppet_of(tool.process)
        fd = puppet.ok("init")
        for folder in folders[:3]:
            puppet.ok("leak", fd, folder)
        puppet.tell("exit", 0)
        assert tool.process.poll() is None
    found = _report(tool, report, 0)

    site = site_of(found, "leak_secret")
    assert (site["verdict"], site["live"], site["per_round"]) == ("held", 9, [0, 0, 0])
    assert "freed_only_by_exit" in _kinds(site)
    assert len(site["pids"]) == 3


def test_the_first_round_that_fails_gives_the_exit_code(
    inotrace: Start, scenario: Scenario
) -> None:
    tool = inotrace("run", "-r", 3, "--settle", "0", "--", *scenario.command("$answer"))
    for code in (0, 7, 9):
        scenario.await_round()
        os.write(scenario._ends[1], b"%d\n" % code)

    assert tool.wait() == 7


def test_a_signal_ends_the_rounds_with_a_report(
    inotrace: Start, scenario: Scenario, puppet: Puppet, folders: list[Path], tmp_path: Path
) -> None:
    """GIVEN three rounds WHEN a signal comes in the second THEN the first is told, no more come."""
    report = tmp_path / "report"
    scope = ("run", "-r", 3, "-p", puppet.pid, "-f", "json", "-o", report)
    tool = inotrace(*scope, "--", *scenario.command())
    scenario.await_round()
    puppet.ok("leak", puppet.ok("init"), folders[0])
    scenario.end_round()
    scenario.await_round()
    tool.process.send_signal(signal.SIGTERM)
    found = _report(tool, report, 128 + signal.SIGTERM)

    assert found["trace"]["rounds"] == 1
    assert site_of(found, "leak_secret")["per_round"] == [1]


def test_all_traces_whoever_is_there(
    inotrace: Start, scenario: Scenario, puppet: Puppet, folders: list[Path], tmp_path: Path
) -> None:
    report = tmp_path / "report"
    tool = inotrace("run", "--all", "-f", "json", "-o", report, "--", *scenario.command())
    scenario.await_round()
    puppet.ok("leak", puppet.ok("init"), folders[0])
    scenario.end_round()
    found = _report(tool, report, 0, 3, 23)

    assert site_of(found, "leak_secret")["live"] == 1


def test_all_and_some_is_a_contradiction(inotrace: Start, puppet: Puppet) -> None:
    tool = inotrace("run", "--all", "-p", puppet.pid, "--", "true")

    assert tool.wait() == 2
    assert b"--all goes with none of" in tool.err.rest()


def test_each_round_is_told_on_standard_error(inotrace: Start) -> None:
    tool = inotrace("run", "-r", 2, "--settle", "0", "--", "echo", "scenario")

    assert tool.wait() == 0
    assert tool.out.rest() == b"scenario\n" * 2
    told = tool.err.rest()
    assert told.startswith(b"inotrace: round 1 of 2\ninotrace: round 2 of 2\n")
    assert told.endswith(b"inotrace: no leak found\n")


def test_a_terminal_gets_a_bar(terminal: Callable[..., Terminal]) -> None:
    screen = terminal("run", "-r", 2, "--settle", "0", "--", "true")

    assert screen.wait() == 0
    shown = screen.rest().decode()
    assert "round 2 of 2" in shown and "━" in shown


# --- by hand ---


def test_signals_begin_rounds_of_a_trace(
    inotrace: Start, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN three marks WHEN more is left after each THEN the last round ends with the trace."""
    tool = inotrace("trace", "-f", "json", "-p", puppet.pid, "--older", 0)
    tool.err.until(b"Ctrl-C ends it")
    fd = puppet.ok("init")
    puppet.ok("leak", fd, folders[0])
    for number in range(1, 4):
        tool.process.send_signal(signal.SIGUSR1)
        tool.err.until(b"inotrace: round %d begins\n" % number)
        for folder in folders[3 * number : 3 * number + number]:
            puppet.ok("leak", fd, folder)
    assert tool.stop() == 0
    report = tool.report()

    (site,) = watch_sites(report)
    assert (site["live"], site["per_round"]) == (7, [1, 2, 3])
    assert (site["verdict"], report["trace"]["rounds"]) == ("suspect", 3)
    assert _kinds(site)[0] == "grows_each_round"


def test_a_key_begins_a_round(
    terminal: Callable[..., Terminal], puppet: Puppet, folders: list[Path]
) -> None:
    screen = terminal("trace", "-p", puppet.pid, "--older", 0)
    screen.until(b"m begins a round")
    screen.type(b"m")
    screen.until(b"round 1")
    puppet.ok("leak", puppet.ok("init"), folders[0])
    screen.type(b"m")
    screen.until(b"round 2")
    screen.type(b"\x03")

    assert screen.wait() == 0
    assert b", 2 rounds" in screen.rest()
