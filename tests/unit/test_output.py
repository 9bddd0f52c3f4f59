"""A report appears whole, or not at all, and never in the place of something else."""

from __future__ import annotations

import io
import os
import stat
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tracer.cli.output import Output, chosen_format, output_options
from tracer.errors import EXIT_ERROR, InotraceError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class FullDisk(io.TextIOWrapper):
    """Standard output on a disk without space; flushing fails as the kernel has it."""

    def __init__(self) -> None:
        super().__init__(open("/dev/full", "wb", buffering=0), encoding="utf-8")  # noqa: SIM115


@click.command()
@output_options("table", "plain", "json")
@click.pass_context
def shown_format(context: click.Context, /, **_: Any) -> None:
    click.echo(chosen_format(context), err=True)


def _left_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


# --- the format ---


@pytest.mark.parametrize(
    ("stdout", "arguments", "expected"),
    [
        (Terminal, [], "table"),
        (Terminal, ["-o", "report"], "plain"),
        (Terminal, ["-f", "json"], "json"),
        (Terminal, ["-o", "report", "--format", "table"], "table"),
        (io.StringIO, [], "plain"),
        (io.StringIO, ["-f", "table"], "table"),
    ],
)
def test_plain_unless_a_terminal_shows_it(
    stdout: type[io.StringIO],
    arguments: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "stdout", stdout())

    shown_format.main(arguments, standalone_mode=False)

    assert capsys.readouterr().err == f"{expected}\n"


def test_an_unknown_format_is_a_usage_error() -> None:
    result = CliRunner().invoke(shown_format, ["-f", "xml"])

    assert result.exit_code == 2
    assert "'table', 'plain', 'json'" in result.output


# --- a file ---


def test_a_file_appears_at_the_end_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "report"

    with Output(str(path)) as output:
        assert not path.exists()
        output.write("caf\u00e9 \udcff\n")

    assert path.read_bytes() == b"caf\xc3\xa9 \xff\n"
    assert _left_in(tmp_path) == ["report"]


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with Output(str(tmp_path / "report")) as output:
            output.write("x")
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "report").stat().st_mode) == 0o640


def test_nothing_is_left_without_a_write(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Output(str(tmp_path / "report")):
        raise KeyboardInterrupt

    assert _left_in(tmp_path) == []


def test_an_existing_file_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("mine")

    with pytest.raises(InotraceError, match="exists: .* --force") as caught:
        Output(str(path))

    assert caught.value.exit_code == EXIT_ERROR
    assert path.read_text() == "mine"
    assert _left_in(tmp_path) == ["report"]


def test_force_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("old and longer")

    with Output(str(path), force=True) as output:
        output.write("new")

    assert path.read_text() == "new"
    assert _left_in(tmp_path) == ["report"]


def test_a_file_made_meanwhile_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """GIVEN a name that is taken during the trace WHEN written THEN the text is on stdout."""
    path = tmp_path / "report"

    with Output(str(path)) as output:
        path.write_text("theirs")
        with pytest.raises(InotraceError, match="standard output instead"):
            output.write("ours")

    assert path.read_text() == "theirs"
    assert capsys.readouterr().out == "ours"
    assert _left_in(tmp_path) == ["report"]


@pytest.mark.parametrize("name", ["missing/report", "x" * 256])
def test_an_impossible_name_costs_no_trace(tmp_path: Path, name: str) -> None:
    with pytest.raises(InotraceError, match=r"cannot write .*(No such file|too long)"):
        Output(str(tmp_path / name))

    assert _left_in(tmp_path) == []


def test_the_longest_possible_name_will_do(tmp_path: Path) -> None:
    with Output(str(tmp_path / ("x" * 255))) as output:
        output.write("x")

    assert _left_in(tmp_path) == ["x" * 255]


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(InotraceError, match="is not a file"):
        Output(str(tmp_path), force=True)


def test_a_link_is_written_through(tmp_path: Path) -> None:
    """GIVEN a link to a file elsewhere WHEN overwritten THEN the link is still a link."""
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to("target")

    with pytest.raises(InotraceError, match="link exists"):
        Output(str(link))
    with Output(str(link), force=True) as output:
        output.write("new")

    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.parametrize("force", [False, True])
def test_a_named_pipe_is_written_to_not_replaced(tmp_path: Path, force: bool) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with Output(str(path), force=force) as output:
            output.write("through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)

    assert stat.S_ISFIFO(path.stat().st_mode)
    assert _left_in(tmp_path) == ["pipe"]


def test_a_full_device_leaves_the_text_on_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = Output("/dev/full")

    with pytest.raises(InotraceError, match="cannot write /dev/full: No space left on device; it"):
        output.write("kept")

    assert capsys.readouterr().out == "kept"
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


# --- standard output ---


def test_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(None) as output:
        output.write("one\n")
        output.write("two\n")

    assert capsys.readouterr().out == "one\ntwo\n"


def test_a_terminal_that_is_not_utf8_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))

    Output(None).write("/a…b")

    assert raw.getvalue() == rb"/a\u2026b"


def test_full_standard_output_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    full = FullDisk()
    monkeypatch.setattr(sys, "stdout", full)

    with pytest.raises(InotraceError, match="cannot write to standard output: No space left"):
        Output(None).write("x")

    # WHEN Python flushes again at shutdown THEN there is nothing more to complain about
    full.close()


def test_closed_standard_output_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)

    with pytest.raises(InotraceError, match="standard output is closed"):
        Output(None)


def test_a_file_that_fails_beside_closed_standard_output_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", None)

    with pytest.raises(InotraceError, match="cannot write /dev/full: No space left on device$"):
        Output("/dev/full").write("x")
