"""``inotrace diff``: from two files to differences, and one line for what is no such file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.cli import diff
from tracer.cli.app import cli
from tracer.errors import EXIT_ERROR, InotraceError

_ROOT = Path(__file__).resolve().parents[2]


def _ls(*inodes: int) -> str:
    holder = {"pid": 7, "fd": 3, "comm": "vi"}
    watches = [{"instance": 1, "ino": ino, "dev": "8:1"} for ino in inodes]
    instances = [{"id": 1, "holders": [holder], "watches": len(inodes)}]
    document = {"schema": "inotrace.ls/1", "complete": True, "sharing_known": True}
    return json.dumps({**document, "instances": instances, "watches": watches})


_REPORT = json.dumps(
    {
        "schema": "inotrace.report/1",
        "trace": {"lost": 0, "healed": 0, "complete": True},
        "processes": [],
        "instances": [],
        "sites": [],
    }
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `a`, `b` (two more) and `report` are."""
    monkeypatch.chdir(tmp_path)
    for name, content in (("a", _ls(11)), ("b", _ls(11, 13, 17)), ("report", _REPORT)):
        (tmp_path / name).write_text(content)
    return tmp_path


def _diff(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["diff", *arguments], input=stdin)


def _refused(*arguments: str, stdin: str | None = None) -> str:
    error = _diff(*arguments, stdin=stdin).exception
    assert isinstance(error, InotraceError)
    assert error.exit_code == EXIT_ERROR
    assert "\n" not in str(error)
    return str(error)


# --- what it prints ---


@pytest.mark.usefixtures("folder")
def test_differences_end_with_0() -> None:
    result = _diff("a", "b")

    assert (result.exit_code, result.exception) == (0, None)
    assert result.output.startswith("+2 watches (1 → 3)   1 process grew\n")
    assert "inode 13 on device 8:1" in result.output


@pytest.mark.usefixtures("folder")
def test_two_reports() -> None:
    assert _diff("report", "report").output == "No difference: 0 watches in 0 instances in both.\n"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("a", "b", "by"), [("-", "b", 1), ("b", "-", -1)])
def test_standard_input_is_one_of_them(a: str, b: str, by: int) -> None:
    result = _diff(a, b, "-f", "json", stdin=_ls(11, 13))

    watches = json.loads(result.output)["watches"]
    assert watches["b"] - watches["a"] == by


def test_a_report_goes_to_a_file(folder: Path) -> None:
    assert _diff("a", "b", "-f", "json", "-o", "c").output == ""
    assert json.loads((folder / "c").read_text())["schema"] == "inotrace.diff/1"
    assert "--force" in _refused("a", "b", "-o", "c")


def test_the_file_may_be_one_of_those_that_are_compared(folder: Path) -> None:
    assert _diff("a", "b", "-o", "a", "--force").exit_code == 0
    assert (folder / "a").read_text().startswith("+2 watches")


def test_a_pipe_is_read(folder: Path) -> None:
    """As a shell's <(ssh node inotrace ls -f json) is."""
    os.mkfifo("pipe")
    writer = threading.Thread(target=(folder / "pipe").write_text, args=(_ls(),))
    writer.start()
    result = _diff("pipe", "a")
    writer.join()

    assert result.output.startswith("+1 watch (0 → 1)")


def test_neither_bpf_nor_the_kernel_side_is_needed(folder: Path) -> None:
    code = (
        "import sys; sys.modules['bcc'] = None\n"
        "from tracer.cli.app import main; code = main()\n"
        "assert 'tracer.kernel.probe' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "diff", "a", "b"],
        env={**os.environ, "PYTHONPATH": str(_ROOT), "PYTHONIOENCODING": "utf-8"},
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("+2 watches")


# --- what it refuses ---


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-", "-"), "standard input can be read once: name a file for A or B"),
        (("none", "b"), "cannot read none: No such file or directory"),
        (("a", "."), "cannot read .: Is a directory"),
        (("a\0", "b"), "cannot read a\0: embedded null byte"),
        (("a", "report"), "cannot compare a with report: A is inotrace.ls/1, B is inotrace.report"),
    ],
)
def test_what_cannot_be_compared(arguments: tuple[str, ...], message: str) -> None:
    assert message in _refused(*arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value: line 1 column 1"),
        (b"inotrace  2 min 13 s", "Expecting value: line 1 column 1"),
        (b'{"schema": "\xff"}', "not UTF-8"),
        (b"[" * 1_000_000, "nested too deeply"),
        (b"1" * 1_000_000, "a number of 1,000,000 digits"),
        (b"NaN", "NaN is no number"),
        (b'{"schema": "inotrace.ls/1"}\n{}', "Extra data: line 2"),
    ],
)
def test_what_is_no_json(folder: Path, content: bytes, message: str) -> None:
    (folder / "c").write_bytes(content)

    said = _refused("a", "c")

    assert said.startswith(f"c is not JSON ({message}")
    assert said.endswith("give what trace, run or ls wrote with -f json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "it is a list, not an object"),
        (b'{"schema": "inotrace.doctor/1"}', "schema is 'inotrace.doctor/1', neither inotrace"),
        (b'{"schema": "inotrace.ls/1"}', "watches is null or missing, not a list"),
    ],
)
def test_what_is_no_report(folder: Path, content: bytes, message: str) -> None:
    (folder / "c").write_bytes(content)

    assert _refused("c", "a").startswith(f"c: {message}")


def test_a_file_that_is_too_large_is_not_read(folder: Path) -> None:
    with (folder / "c").open("wb") as file:
        file.truncate((1 << 30) + 1)

    assert _refused("a", "c").startswith("c has more than 1,024 MiB: ")


@pytest.mark.usefixtures("folder")
def test_what_never_ends_is_left_when_it_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff, "_BYTES_MAX", 3 << 20)

    assert _refused("a", "/dev/zero").startswith("/dev/zero has more than 3 MiB: ")


@pytest.mark.usefixtures("folder")
def test_closed_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)

    with pytest.raises(InotraceError, match="standard input is closed"):
        diff._content("-", "standard input")


@pytest.mark.usefixtures("folder")
def test_a_lack_of_memory_is_an_error_like_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object, **__: object) -> Any:
        raise MemoryError

    monkeypatch.setattr(json, "loads", none_left)

    assert "do not fit into memory" in _refused("a", "b")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=99), at=st.integers(0, 300), cut=st.integers(0, 9))
def test_any_bytes_give_differences_or_one_line(
    folder: Path, content: bytes, at: int, cut: int
) -> None:
    """GIVEN a good file WHEN bytes in it are others THEN it is read, or refused in one line."""
    good = _ls(11, 13).encode()
    (folder / "c").write_bytes(good[:at] + content + good[at + cut :])

    result = _diff("a", "c")

    if result.exception is None:
        assert "watch" in result.output
    else:
        assert isinstance(result.exception, InotraceError)
        assert "\n" not in str(result.exception)
