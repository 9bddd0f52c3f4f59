"""`inotrace demo`: the built-in leak is found."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Callable

import pytest
from harness import Inotrace, environment, site_of, until

pytestmark = pytest.mark.usefixtures("root")

Start = Callable[..., Inotrace]
_PLANTED = {
    "watch_pod_secret": ("leak", 23, 23),
    "watch_node_config": ("held", 5, 5),
    "watch_pod_volume": ("clean", 0, 17),
}


@pytest.fixture
def demo(inotrace: Start, tmp_path: Path) -> Callable[..., Inotrace]:
    """Starts the demo with a folder for temporary files that nobody else uses."""
    return lambda *options: inotrace("demo", *options, env=environment(TMPDIR=str(tmp_path)))


def test_it_names_the_three_functions(demo: Callable[..., Inotrace], tmp_path: Path) -> None:
    tool = demo()
    shown = tool.out.rest().decode()

    assert tool.wait() == 0
    leak = shown.index("LEAK  23 watches")
    assert leak < shown.index("watch_pod_secret") < shown.index("HELD  5 watches")
    assert re.search(r"^ +5  watch_node_config ", shown, re.MULTILINE)
    assert re.search(r"^ +17  watch_pod_volume ", shown, re.MULTILINE)
    assert "Traceback" not in tool.err.rest().decode()
    assert os.listdir(tmp_path) == []


@pytest.mark.kernels
def test_json_agrees(demo: Callable[..., Inotrace], tmp_path: Path) -> None:
    tool = demo("-f", "json")
    report = tool.report()

    assert tool.wait() == 0, tool.err.rest().decode()
    for function, numbers in _PLANTED.items():
        site = site_of(report, function)
        assert (site["verdict"], site["live"], site["added"]) == numbers
    assert (report["trace"]["added"], report["trace"]["complete"]) == (45, True)
    assert os.listdir(tmp_path) == []


def test_an_interrupt_leaves_no_agent_and_no_files(
    demo: Callable[..., Inotrace], tmp_path: Path
) -> None:
    """GIVEN an agent that churns WHEN interrupted THEN nothing is left, and it says so."""
    tool = demo()
    agents: list[int] = []
    until(lambda: bool(agents.extend(_agents_below(tmp_path)) or agents), "the agent")
    tool.process.send_signal(signal.SIGINT)

    assert tool.wait() == 1
    assert "the demo did not find what it planted" in tool.err.rest().decode()
    assert _agents_below(tmp_path) == []
    assert os.listdir(tmp_path) == []


def test_a_killed_demo_leaves_no_agent(demo: Callable[..., Inotrace], tmp_path: Path) -> None:
    tool = demo()
    until(lambda: bool(_agents_below(tmp_path)), "the agent")
    tool.process.kill()
    tool.wait()

    until(lambda: not _agents_below(tmp_path), "the end of the agent")


def _agents_below(folder: Path) -> list[int]:
    """Processes whose program lies there."""
    return [
        int(entry.name)
        for entry in os.scandir("/proc")
        if entry.name.isdecimal() and _executable(entry.name).startswith(f"{folder}/")
    ]


def _executable(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""
