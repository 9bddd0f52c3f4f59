"""The examples of the README, run."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import PATIENCE_S

_README = Path(__file__).parents[2] / "README.md"
_EXAMPLE = re.compile(r"^\$ (.*?)(?: {2,}#.*)?$", re.MULTILINE)
# what ends by itself is waited for; the rest gets Ctrl-C, and has to print its report then
_ENDLESS = re.compile(r"^sudo inotrace( -p \S+( \S+)?| --cgroup \S+| events .*)?$")
_TWO_LISTS = "for when in before after; do inotrace ls -f json > $when.json; done;"
# the programs the examples speak of, and one that is here
_STAND_INS = (
    ("$(pidof kubelet)", "$PPID"),
    ("pytest tests", "true"),
    ("-d 60", "-d 1"),
    ("-d 10", "-d 1"),
    ("/kubepods.slice", "/"),
    ("./create-and-delete-a-pod.sh", "true"),
    ("inotrace diff", f"{_TWO_LISTS} inotrace diff"),
)


def examples() -> list[str]:
    return _EXAMPLE.findall(_README.read_text())


def test_readme_has_examples_of_every_command() -> None:
    text = "\n".join(examples())
    assert len(examples()) >= 7
    commands = ("run", "events", "ls", "limits", "diff")
    assert all(f"inotrace {command}" in text for command in commands)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder for PATH: `inotrace` as it is here, and a `sudo` that changes nothing."""
    folder = tmp_path / "bin"
    folder.mkdir()
    checkout = _README.parent
    for name, line in (
        ("sudo", 'exec "$@"'),
        ("inotrace", f'PYTHONPATH="{checkout}" exec "{sys.executable}" -m tracer "$@"'),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("example", examples())
def test_example_runs(example: str, tools: Path, tmp_path: Path) -> None:
    line = example
    for shown, here in _STAND_INS:
        line = line.replace(shown, here)
    with subprocess.Popen(
        ["bash", "-c", line],
        cwd=tmp_path,
        env={"PATH": f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as example_process:
        assert example_process.stdout is not None
        first = ""
        if _ENDLESS.match(line):
            # the first line says that tracing has begun
            first = example_process.stdout.readline()
            example_process.send_signal(signal.SIGINT)
        out, err = example_process.communicate(timeout=2 * PATIENCE_S)
    assert example_process.returncode == 0, err
    assert "Traceback" not in err
    assert first or out or err or (tmp_path / "report.json").exists()
