"""What keeps a leak from failing a build, and what tells of it: suppressions, codes, formats."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest
from harness import PATIENCE_S, Inotrace, environment, site_of

pytestmark = pytest.mark.usefixtures("root")

Run = Callable[..., Inotrace]
_PACE_US = 20_000


@pytest.fixture
def leaking(
    inotrace: Callable[..., Inotrace], puppet_program: Path, tmp_path: Path
) -> Callable[..., tuple[int, bytes, Any]]:
    """`inotrace run` on a puppet that leaks 23: exit code, standard error, report as JSON."""
    where = tmp_path / "work"
    where.mkdir()
    churn = f"init\nchurn-exit 3 {str(where).encode().hex()} {_PACE_US} 7\n"

    def run(*options: object, **variables: str) -> tuple[int, bytes, Any]:
        report = tmp_path / f"report-{len(list(tmp_path.iterdir()))}"
        tool = inotrace(
            *("run", "-f", "json", "-o", report, *options, "--", puppet_program),
            stdin=subprocess.PIPE,
            env=environment(**variables),
        )
        _, err = tool.process.communicate(churn.encode(), timeout=2 * PATIENCE_S)
        return tool.process.returncode, err, json.loads(report.read_text())

    return run


def test_a_known_leak_does_not_fail_and_is_listed(
    leaking: Callable[..., tuple[int, bytes, Any]], tmp_path: Path
) -> None:
    """GIVEN its function in a file THEN the command's own code, and what was used, with counts."""
    known = tmp_path / "known.supp"
    known.write_text("# for ever\nleak:never_called\nleak:^leak_secret$\n")
    code, err, report = leaking("--suppressions", known)

    assert code == 7
    assert report["suppressed"] == [
        {
            "pattern": "^leak_secret$",
            "written_at": f"{known}:3",
            "places": 1,
            "watches": 23,
            "instances": 0,
        }
    ]
    assert site_of(report, "leak_secret")["suppressed_by"] == "^leak_secret$"
    assert b"no leak found" in err


def test_what_is_generated_suppresses_just_that(
    leaking: Callable[..., tuple[int, bytes, Any]], tmp_path: Path
) -> None:
    """GIVEN the lines of --gen-suppressions WHEN used by the environment THEN the leak is known."""
    code, err, _ = leaking("--gen-suppressions")
    lines = [line for line in err.decode().splitlines() if line.startswith("leak:")]
    assert (code, lines) == (23, ["leak:^leak_secret$"])

    known = tmp_path / "known.supp"
    known.write_text("\n".join(lines))
    code, _, report = leaking(INOTRACE_OPTIONS=f"suppressions='{known}':error_exitcode=41")
    assert (code, len(report["suppressed"])) == (7, 1)


def test_the_environment_gives_defaults_and_the_command_line_wins(
    leaking: Callable[..., tuple[int, bytes, Any]],
) -> None:
    assert leaking(INOTRACE_OPTIONS="error_exitcode=41")[0] == 41
    assert leaking("--error-exitcode", 42, INOTRACE_OPTIONS="error_exitcode=41")[0] == 42


def test_annotations_name_the_place(
    inotrace: Callable[..., Inotrace], puppet_program: Path, tmp_path: Path
) -> None:
    churn = f"init\nchurn-exit 3 {str(tmp_path).encode().hex()} {_PACE_US} 7\n"
    tool = inotrace("run", "-f", "github", "--", puppet_program, stdin=subprocess.PIPE)
    _, err = tool.process.communicate(churn.encode(), timeout=PATIENCE_S)
    lines = err.decode().splitlines()

    assert tool.process.returncode == 23
    (leak,) = [line for line in lines if line.startswith("::error ")]
    assert "23 watches leaked" in leak and "leak_secret" in leak
    assert lines[-1] == "inotrace: 23 watches leaked at 1 place"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("race:x\n", "known.supp:1: 'race:x' is not of the form leak:PATTERN"),
        ("leak:\n", "known.supp:1: the pattern after 'leak:' is empty"),
    ],
)
def test_a_wrong_file_is_one_line_before_anything_runs(
    inotrace: Callable[..., Inotrace], tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "known.supp").write_text(text)
    ran = tmp_path / "ran"
    options = ("run", "--suppressions", "known.supp", "--", "touch", ran)
    tool = inotrace(*options, cwd=tmp_path)

    assert tool.error() == f"suppressions: {told}"
    assert tool.wait() == 2
    assert not ran.exists()
