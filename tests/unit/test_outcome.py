"""What a report means for the exit code, and in one line; and how it is printed."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from build import busy_report, leak, opening, report, site
from click.testing import CliRunner, Result

from tracer.cli.outcome import Reporting, conclude, print_report, reporting_options, summary
from tracer.cli.output import Output
from tracer.cli.suppressing import suppressing
from tracer.core.report import Report
from tracer.core.verdict import Verdict
from tracer.errors import EXIT_USAGE, InotraceError

_UNSURE = site(Verdict.INCONCLUSIVE, 5, 0)
_HELD = site(Verdict.HELD, 3)
_SUSPECT = site(Verdict.SUSPECT, 7)
_KNOWN = leak(suppressed_by="attach")
_LOST = "inconclusive: records were lost or the ledger was not verified"


@pytest.mark.parametrize(
    ("of", "on_leak", "on_suspect"),
    [
        pytest.param(report(), 7, 7, id="nothing"),
        pytest.param(report([_HELD, site(Verdict.YOUNG, 3)]), 7, 7, id="no leak"),
        pytest.param(report([leak(), _HELD]), 23, 23, id="leak"),
        pytest.param(report([opening(Verdict.LEAK, 1)]), 23, 23, id="leak of an instance"),
        pytest.param(report([_SUSPECT]), 7, 23, id="suspect"),
        pytest.param(report([leak(), _SUSPECT, _UNSURE]), 23, 23, id="leak, suspect and unsure"),
        pytest.param(report([_UNSURE, _HELD]), 3, 3, id="unsure alone"),
        pytest.param(report([_UNSURE, _SUSPECT]), 3, 23, id="unsure and suspect"),
        pytest.param(report([_KNOWN]), 7, 7, id="suppressed leak"),
        pytest.param(report([_KNOWN, _UNSURE]), 3, 3, id="suppressed leak and unsure"),
        pytest.param(report([_KNOWN, leak()]), 23, 23, id="suppressed leak and another"),
        pytest.param(
            report([site(Verdict.SUSPECT, 1, suppressed_by="x")]), 7, 7, id="suppressed suspect"
        ),
        pytest.param(report([leak()], lost=1), 3, 3, id="leak, but records were lost"),
        pytest.param(report([leak()], lost=1, healed=1), 23, 23, id="leak, losses healed"),
        pytest.param(report([leak()], complete=False), 3, 3, id="leak, but not verified"),
        pytest.param(report([leak()], unfollowed=1), 3, 3, id="leak, but not all followed"),
        pytest.param(report(complete=False), 3, 3, id="not verified"),
    ],
)
def test_what_cannot_be_said_comes_before_a_leak(of: Report, on_leak: int, on_suspect: int) -> None:
    assert Reporting(fail_on=Verdict.LEAK).exit_code(of, otherwise=7) == on_leak
    assert Reporting(fail_on=Verdict.SUSPECT).exit_code(of, otherwise=7) == on_suspect
    assert Reporting(fail_on=None).exit_code(of, otherwise=7) == 7
    assert Reporting().exit_code(of) == 0


def test_the_exit_code_of_a_leak_can_be_chosen() -> None:
    chosen = Reporting(fail_on=Verdict.LEAK, error_exitcode=99)

    assert chosen.exit_code(report([leak()]), otherwise=7) == 99
    assert chosen.exit_code(report(), otherwise=7) == 7
    assert chosen.exit_code(report(complete=False)) == 3


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (report([_HELD]), "no leak found"),
        (report([leak(), _HELD]), "23 watches leaked at 1 place"),
        (report([leak(), leak(1)]), "24 watches leaked at 2 places"),
        (report([leak(), _UNSURE]), "23 watches leaked at 1 place"),
        (
            report([leak(), opening(Verdict.LEAK, 1), _SUSPECT]),
            "23 watches and 1 instance leaked at 2 places; 7 watches suspect",
        ),
        (report([_SUSPECT]), "no leak found; 7 watches suspect"),
        (report([_UNSURE, _HELD]), "inconclusive: 5 watches not seen being added"),
        (
            report([_UNSURE, opening(Verdict.SUSPECT, 2)]),
            "inconclusive: 5 watches not seen being added; 2 instances suspect",
        ),
        (report([_KNOWN]), "no leak found"),
        (report([leak()], lost=1), _LOST),
        (report([leak()], complete=False), _LOST),
    ],
)
def test_the_answer_in_one_line(of: Report, text: str) -> None:
    assert summary(of) == text


# --- printing ---


def _printed(of: Report, format_: str, capsys: pytest.CaptureFixture[str]) -> str:
    print_report(of, Output(None), format_, full_stacks=False)
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_each_format_is_the_whole_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert _printed(busy_report(), "json", capsys).startswith('{\n  "schema"')
    assert _printed(busy_report(), "plain", capsys).startswith("inotrace  2 min 13 s   6.1.0")
    lines = _printed(busy_report(), "github", capsys).splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["::error", "::notice"]
    assert lines[0].startswith("::error file=secrets.c,line=88,title=23 watches leaked%3A attach::")


def test_github_gets_no_word_of_what_was_suppressed(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = _printed(report([_KNOWN]), "github", capsys).splitlines()

    assert line.startswith("::notice title=inotrace::no leak found")


def test_a_file_gets_the_report_and_the_terminal_the_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "report"
    with Output(str(path)) as output:
        print_report(busy_report(), output, "table", full_stacks=True)

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (f"inotrace: 23 watches leaked at 1 place; the report is in {path}\n")
    assert "      inotify_add_watch  libc.so.6\n" in path.read_text()


def test_what_is_suppressed_is_set_apart_before_it_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GIVEN a known leak and one that is not WHEN concluded THEN only the second counts."""
    file = tmp_path / "known.supp"
    file.write_text("leak:attach\n")
    reporting = Reporting(suppressing=suppressing(str(file)), fail_on=Verdict.LEAK)
    of = conclude(report([leak()]), Output(None), "plain", reporting)

    assert of.sites[0].suppressed_by == "attach"
    assert reporting.exit_code(of, otherwise=7) == 7
    out = capsys.readouterr().out
    assert "SUPPRESSED known, and not counted" in out
    assert not any(line.startswith("LEAK") for line in out.splitlines())


def test_lines_for_a_file_of_suppressions_go_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    conclude(report([leak()]), Output(None), "json", Reporting(gen_suppressions=True))

    captured = capsys.readouterr()
    assert captured.err == "leak:^attach$\n"
    assert captured.out.endswith("}\n")


def test_without_asking_there_are_no_such_lines(capsys: pytest.CaptureFixture[str]) -> None:
    given = report([leak()])

    assert conclude(given, Output(None), "json", Reporting()) is given
    assert capsys.readouterr().err == ""


# --- options ---


@click.command()
@reporting_options(older=0.0, fail_on="leak")
def shown_reporting(older: float, reporting: Reporting) -> None:
    click.echo(f"{older:g} {reporting.fail_on} {reporting.error_exitcode} {reporting[:3]}")


@click.command()
@reporting_options(older=5.0, fail_on=None)
def shown_by_default(older: float, reporting: Reporting) -> None:
    click.echo(f"{older:g} {reporting}")


def _invoked(*arguments: str) -> Result:
    return CliRunner().invoke(shown_reporting, arguments)


def test_the_options_are_one_reporting() -> None:
    assert _invoked().output == "0 Verdict.LEAK 23 (False, None, False)\n"
    arguments = "--older 3 --fail-on suspect --error-exitcode 99 --full-stacks --gen-suppressions"
    assert _invoked(*arguments.split()).output == "3 Verdict.SUSPECT 99 (True, None, True)\n"
    assert CliRunner().invoke(shown_by_default).output == f"5 {Reporting()}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fail-on", "held"],
        ["--error-exitcode", "256"],
        ["--error-exitcode", "-1"],
        ["--older", "-1"],
        ["--suppressions"],
    ],
)
def test_what_makes_no_sense_is_a_usage_error(arguments: list[str]) -> None:
    assert _invoked(*arguments).exit_code == EXIT_USAGE


def test_a_file_of_suppressions_that_cannot_be_read_ends_it_before_anything_starts() -> None:
    result = _invoked("--suppressions", "/no/such/file")

    assert isinstance(result.exception, InotraceError)
    assert result.exception.exit_code == EXIT_USAGE
    assert result.output == ""
