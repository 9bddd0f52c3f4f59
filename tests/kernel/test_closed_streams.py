"""Standard streams that are closed from the start, as a shell's `>&-` has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE_S, environment

pytestmark = pytest.mark.usefixtures("root")

_TOOL = (sys.executable, "-m", "tracer")
_CLOSED = "inotrace: standard output is closed: name a file with -o\n"
_PRINTING = (
    ("ls",),
    ("ls", "-f", "table"),
    ("ls", "--watch"),
    ("limits",),
    ("doctor",),
    ("demo",),
    ("trace", "-d", "0.1"),
    ("trace", "-d", "0.1", "-f", "json"),
    ("events", "-d", "0.1"),
)


def _run(closed: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Through a shell with these redirections."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *_TOOL, *map(str, arguments)],
        env=environment(),
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
    )


@pytest.fixture
def compared(tmp_path: Path) -> tuple[Path, Path]:
    path = tmp_path / "listed.json"
    done = _run("", "ls", "-f", "json", "-p", os.getpid(), "-o", path)
    assert (done.returncode, done.stderr) == (0, "")
    return path, path


# --- standard output ---


@pytest.mark.parametrize("command", _PRINTING, ids=" ".join)
def test_without_standard_output_a_file_is_asked_for(command: tuple[str, ...]) -> None:
    done = _run(">&-", *command)

    assert (done.returncode, done.stderr) == (1, _CLOSED)


def test_nor_does_diff_print_anywhere_else(compared: tuple[Path, Path]) -> None:
    done = _run(">&-", "diff", *compared)

    assert (done.returncode, done.stderr) == (1, _CLOSED)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("ls", "-f", "json"), ""),
        (("limits", "-f", "json"), ""),
        (("doctor", "-f", "json"), ""),
        (("trace", "-d", "0.1", "-f", "json"), "no leak found; the report is in "),
        (("run", "-f", "json", "--", "true"), "no leak found; the report is in "),
    ],
    ids=lambda each: each[0] if isinstance(each, tuple) else None,
)
@pytest.mark.parametrize("closed", [">&-", "<&- >&-"])
def test_without_standard_output_there_is_the_file(
    tmp_path: Path, command: tuple[str, ...], told: str, closed: str
) -> None:
    path = tmp_path / "report"
    name, *arguments = command

    done = _run(closed, name, "-o", path, *arguments)

    assert done.returncode == 0 and told in done.stderr
    assert "error" not in done.stderr
    assert json.loads(path.read_text())["schema"].startswith("inotrace.")


def test_live_lines_are_for_nobody_then(tmp_path: Path) -> None:
    path = tmp_path / "report"
    done = _run(">&-", "trace", "-d", "0.1", "-p", os.getpid(), "-o", path)

    assert done.returncode == 0
    assert done.stderr == f"inotrace: no leak found; the report is in {path}\n"
    assert "CLEAN" in path.read_text()


def test_a_command_finds_closed_what_inotrace_found_closed(tmp_path: Path) -> None:
    there = tmp_path / "there"
    code = f"import sys; open({os.fspath(there)!r}, 'w').write(repr(sys.stdout))"
    done = _run(">&-", "run", "-o", tmp_path / "report", "--", sys.executable, "-c", code)

    assert done.returncode == 0, done.stderr
    assert there.read_text() == "None"


# --- standard error ---


@pytest.mark.parametrize(
    "command",
    [
        ("ls", "-f", "json"),
        ("limits", "-f", "json"),
        # which say something beside it
        ("ls", "-f", "json", "-u", "root"),
        ("trace", "-d", "0.1", "-f", "json"),
        ("demo", "-f", "json"),
    ],
    ids=" ".join,
)
def test_without_standard_error_nothing_lands_in_the_data(command: tuple[str, ...]) -> None:
    done = _run("2>&-", *command)

    assert done.returncode == 0
    assert json.loads(done.stdout)["schema"].startswith("inotrace.")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("ls", "-p", str(1 << 22)), 1),
        (("ls", "-u", "no-such-user"), 2),
        (("ls", "--no-such-option"), 2),
        (("--debug", "ls", "-p", str(1 << 22)), 1),
        (("run", "--", "no-such-program"), 1),
        (("run", "-r", "2", "--settle", "0", "--", "true"), 0),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else str(each),
)
def test_without_standard_error_there_is_the_exit_code(command: tuple[str, ...], code: int) -> None:
    done = _run("2>&-", *command)

    assert (done.returncode, done.stdout) == (code, "")


def test_the_notice_of_what_is_hidden_is_not_in_the_json(nobody: int) -> None:
    drop: dict[str, Any] = {"user": nobody, "group": nobody, "extra_groups": []}
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *_TOOL, "ls", "-f", "json"],
        env=environment(),
        cwd="/",
        stdout=subprocess.PIPE,
        text=True,
        timeout=2 * PATIENCE_S,
        **drop,
    )

    assert done.returncode == 0
    assert json.loads(done.stdout)["complete"] is False


def test_without_any_stream_there_is_the_file(tmp_path: Path) -> None:
    path = tmp_path / "report"
    done = _run("<&- >&- 2>&-", "ls", "-f", "json", "-o", path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads(path.read_text())["schema"].startswith("inotrace.")
