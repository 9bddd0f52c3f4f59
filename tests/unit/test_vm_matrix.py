"""What the run on several kernels says in the end: its table, its lines, its exit code."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any, Callable, Optional

import guest
import image
import matrix
import pytest
from matrix import EXIT_FAILED, EXIT_SKIPPED, Outcome, exit_code, report
from releases import DOORBELL, RELEASES, Release
from results import FAILED, PASSED, SKIPPED, JunitCase, Results
from table import FEATURES, Feature, cell, heading, table

_BOOKWORM, _TRIXIE, _SID = (RELEASES[name] for name in ("bookworm", "trixie", "sid"))
_FENTRY, _ITERATOR, _HEALING = (
    next(feature for feature in FEATURES if feature.title == title)
    for title in ("calls by fentry", "the kernel's list by iterator", "healing of lost calls")
)


def _doctor(mode: str = "fentry", **works: bool | None) -> dict[str, Any]:
    found = {"kernel": "Linux 6.1.0-9-cloud-amd64, x86_64", "BCC": "version 0.26.0"}
    names = {**dict.fromkeys(found, True), **{k.replace("_", " "): v for k, v in works.items()}}
    checks = [
        {"name": name, "works": works, "found": found.get(name, "")}
        for name, works in names.items()
    ]
    return {"mode": mode, "checks": checks}


def _results(*tests: JunitCase, **works: bool | None) -> Results:
    code = int(any(test.outcome == FAILED for test in tests))
    return Results(code, list(tests), [], _doctor(**works))


def _whole(*tests: JunitCase, **works: bool | None) -> Results:
    """With all that a release has to have, but for `works`."""
    names = (name for name in _BOOKWORM.works if name != DOORBELL)
    return _results(*tests, **{**dict.fromkeys(names, True), **works})


_PASSED = JunitCase("test_modes::test_it[fentry-iterator]", PASSED, 1.0)
_FAILED = JunitCase("test_modes::test_that[fentry-iterator]", FAILED, 1.0, "assert 1 == 2")
_SKIPPED = JunitCase("test_modes::test_other[fentry-iterator]", SKIPPED, 0.0, "needs two CPUs")


# --- the table ---


def test_works_is_what_doctor_found_and_tests_proved() -> None:
    assert cell(_FENTRY, _results(_PASSED, _PASSED, _SKIPPED, fentry=True)) == "works (2 tests)"


def test_what_only_doctor_says_is_not_claimed() -> None:
    assert cell(_FENTRY, _results(fentry=True)) == "not tested"
    assert cell(_FENTRY, _results(_PASSED, fentry=None)) == "not known"
    assert cell(_FENTRY, _results(_PASSED)._replace(doctor={})) == "not known"


def test_failed_tests_are_told_whatever_doctor_says() -> None:
    for works in (True, False, None):
        found = _results(_PASSED, _FAILED, fentry=works)
        assert cell(_FENTRY, found) == "FAILS (1 of 2 tests)"


def test_what_is_missing_falls_back_to_what_doctor_names() -> None:
    found = _results()._replace(doctor=_doctor("kprobe", fentry=False, **{"kernel's_list": False}))

    assert cell(_FENTRY, found) == "falls back to kprobe"
    assert cell(_ITERATOR, found) == "falls back to fdinfo"


def test_without_a_fallback_it_is_absent() -> None:
    bare = Feature("bare", "bare", "bare")

    assert cell(bare, _results(bare=False)) == "absent"


def test_what_doctor_does_not_know_is_as_its_tests_were() -> None:
    assert cell(_HEALING, _results(JunitCase("test_healing::a", PASSED, 1.0))) == "works (1 test)"
    assert cell(_HEALING, _results(JunitCase("test_healing::a", SKIPPED, 1.0))) == "absent"
    assert cell(_HEALING, _results()) == "not tested"


def test_a_heading_has_the_versions_that_were_found() -> None:
    assert heading("Debian 12", _results()) == "Debian 12, Linux 6.1, BCC 0.26"
    assert heading("Debian 12", _results()._replace(doctor={})) == "Debian 12"


def test_the_table_is_markdown() -> None:
    first, second, *rows = table({"Debian 12": _results(_PASSED, fentry=True)}).splitlines()

    assert first == "|  | Debian 12, Linux 6.1, BCC 0.26 |"
    assert second == "| --- | --- |"
    assert rows[0] == "| calls by fentry | works (1 test) |"
    assert len(rows) == len(FEATURES)


# --- the end ---


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([Outcome(_BOOKWORM, _whole(_PASSED))], 0),
        ([Outcome(_BOOKWORM, _whole(_PASSED)), Outcome(_TRIXIE, _results(_FAILED))], EXIT_FAILED),
        ([Outcome(_BOOKWORM, None, "no network", is_skip=True)], EXIT_SKIPPED),
        (
            [
                Outcome(_BOOKWORM, None, "no network", is_skip=True),
                Outcome(_TRIXIE, None, "the guest gave no result"),
            ],
            EXIT_FAILED,
        ),
        ([Outcome(_BOOKWORM, _whole(_PASSED)), Outcome(_SID, _results(_FAILED))], 0),
        ([Outcome(_BOOKWORM, _whole(_PASSED)), Outcome(_SID, None, "no image")], 0),
        ([Outcome(_BOOKWORM, _whole(_PASSED)._replace(trouble=["BUG: bad"]))], EXIT_FAILED),
    ],
)
def test_the_exit_code_is_that_of_what_counts(outcomes: list[Outcome], code: int) -> None:
    assert exit_code(outcomes) == code


def test_a_skip_is_loud() -> None:
    said = report([Outcome(_BOOKWORM, None, "no network", is_skip=True)])

    assert said == "bookworm: SKIPPED, NOT TESTED: no network"


def test_what_failed_is_told_with_its_reason() -> None:
    found = _results(_PASSED, _FAILED, _SKIPPED)._replace(trouble=["BUG: bad"])
    said = report([Outcome(_SID, found)])

    assert "sid: FAILED (does not count: it is not released)" in said
    assert f"    {_FAILED.name}: assert 1 == 2" in said
    assert "    the kernel: BUG: bad" in said
    assert "    skipped: needs two CPUs (1 test)" in said


def test_what_was_not_proved_is_told() -> None:
    said = report([Outcome(_BOOKWORM, _results(_SKIPPED)._replace(doctor={}))])

    assert "bookworm: FAILED\n" in said
    assert "    no test passed" in said
    assert "    doctor said nothing that can be read" in said


@pytest.mark.parametrize("release", RELEASES.values(), ids=list(RELEASES))
@pytest.mark.parametrize("name", ["fentry", "kprobe", "tracepoint", "kernel's list", "removals"])
@pytest.mark.parametrize("works", [False, None])
def test_what_has_vanished_is_a_failure(release: Release, name: str, works: bool | None) -> None:
    outcome = Outcome(release, _whole(_PASSED, **{name: works}))

    assert not outcome.passed
    assert f"    has to work and does not: {name}: " in report([outcome])
    assert exit_code([outcome]) == (EXIT_FAILED if release.blocks else 0)


def test_what_doctor_no_longer_knows_has_vanished() -> None:
    found = _whole(_PASSED)
    checks = [check for check in found.doctor["checks"] if check["name"] != "kprobe"]
    outcome = Outcome(_BOOKWORM, found._replace(doctor={"checks": checks}))

    assert outcome.lacking == ["kprobe: unknown to doctor"]


def test_a_doorbell_that_vanished_is_known_by_the_skips_of_its_tests() -> None:
    skipped = _SKIPPED._replace(reason="no doorbell: its worker is not in /proc/kallsyms")
    outcome = Outcome(_BOOKWORM, _whole(_PASSED, skipped))

    assert outcome.lacking == [f"doorbell: {skipped.reason}"]
    assert not outcome.passed
    assert Outcome(_BOOKWORM, _whole(_PASSED, _SKIPPED)).passed


def test_a_release_has_to_have_only_what_it_had() -> None:
    without = _BOOKWORM._replace(works=("kprobe", "tracepoint"))

    assert Outcome(without, _whole(_PASSED, fentry=False)).passed


# --- a guest that goes wrong ---

# Of an archive for the results and the folder for what the guest says.
_Boot = Callable[[Path, Path], Optional[int]]
_GOOD_JUNIT = '<testsuites><testcase classname="a" name="b" time="1" /></testsuites>'


@pytest.fixture
def outcome_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """The outcome of bookworm if its guest does as each of `boots` in turn."""
    made = image.Image(tmp_path / "cache" / "disk", tmp_path / "cache" / "kernel")
    made.disk.parent.mkdir()
    monkeypatch.setattr(image, "prepared", lambda *_: made)
    monkeypatch.setattr(guest, "pack", lambda *_: None)

    def outcome(*boots: _Boot) -> Outcome:
        left = iter(boots)

        def boot(made: image.Image, folder: Path, results: Path, timeout_s: float) -> int | None:
            shutil.rmtree(results, ignore_errors=True)
            results.mkdir(parents=True)
            return next(left)(folder / "results", results)

        monkeypatch.setattr(guest, "boot", boot)
        return matrix.Matrix(made.disk.parent, tmp_path / "kept", [], 1.0).outcome(_BOOKWORM)

    return outcome


def _archived(junit: str) -> _Boot:
    """A guest that ends well, with this junit.xml."""

    def boot(archive: Path, results: Path) -> int:
        files = {"junit.xml": junit, "doctor.json": json.dumps(_whole().doctor)}
        with tarfile.open(archive, "w") as tar:
            for name, text in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(text)
                tar.addfile(entry, io.BytesIO(text.encode()))
        return 0

    return boot


def _with_bad_archive(archive: Path, results: Path) -> int:
    archive.write_bytes(b"no archive" * 1000)
    return 0


def test_a_guest_that_ends_well_passes(outcome_of: Callable[..., Outcome]) -> None:
    assert outcome_of(_archived(_GOOD_JUNIT)).passed


@pytest.mark.parametrize(
    "boot",
    [_with_bad_archive, _archived(_GOOD_JUNIT[:40]), _archived("")],
    ids=["archive", "truncated", "empty"],
)
def test_results_that_cannot_be_read_are_a_failure_of_that_release(
    outcome_of: Callable[..., Outcome], boot: _Boot
) -> None:
    bad = outcome_of(boot)
    said = report([bad, Outcome(_TRIXIE, _whole(_PASSED))])

    assert exit_code([bad]) == EXIT_FAILED
    assert "bookworm: FAILED: no results: " in said
    assert "| calls by fentry | works (1 test) |" in said


def _dead(said: str) -> _Boot:
    """A guest that never came to its end, with this on its console."""

    def boot(archive: Path, results: Path) -> None:
        (results / "console").write_text(said)

    return boot


_OOPS = "[9.0] Oops: 0002 [#1] SMP\r\n[9.1] Kernel panic - not syncing: Fatal exception\r\n"


def test_a_kernel_that_died_is_a_failure_and_not_tried_again(
    outcome_of: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = outcome_of(_dead(_OOPS), _archived(_GOOD_JUNIT))

    assert exit_code([outcome]) == EXIT_FAILED
    assert report([outcome]).splitlines() == [
        "bookworm: FAILED",
        "    the kernel: [9.0] Oops: 0002 [#1] SMP",
        "    the kernel: [9.1] Kernel panic - not syncing: Fatal exception",
        "    the guest ended without a result",
    ]
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["bookworm"]


def test_a_second_try_is_told_and_the_first_kept(
    outcome_of: Callable[..., Outcome], tmp_path: Path
) -> None:
    outcome = outcome_of(_dead("SeaBIOS\r\n"), _archived(_GOOD_JUNIT))
    first = tmp_path / "kept" / "bookworm.first-try"

    assert outcome.passed
    assert f"bookworm: passed (second try; the first gave no result, see {first})" in report(
        [outcome]
    )
    assert (first / "console").read_bytes() == b"SeaBIOS\r\n"

    again = outcome_of(_archived(_GOOD_JUNIT))
    assert "second try" not in report([again])
    assert not first.exists()


def test_a_kernel_that_died_in_the_second_try_is_told(outcome_of: Callable[..., Outcome]) -> None:
    outcome = outcome_of(_dead(""), _dead(_OOPS))
    said = report([outcome])

    assert exit_code([outcome]) == EXIT_FAILED
    assert "bookworm: FAILED (second try; " in said and "Oops" in said


@pytest.mark.parametrize("second", [_dead(""), _with_bad_archive], ids=["dead", "archive"])
def test_two_tries_are_all(outcome_of: Callable[..., Outcome], second: _Boot) -> None:
    outcome = outcome_of(_dead(""), second, _archived(_GOOD_JUNIT))

    assert exit_code([outcome]) == EXIT_FAILED
    assert "(second try; the first gave no result, see " in report([outcome])


# --- the command line ---


def test_what_follows_two_dashes_is_pytests() -> None:
    assert matrix._split(["sid", "--", "tests/kernel", "--", "-k", "x"]) == (
        ["sid"],
        True,
        ["tests/kernel", "--", "-k", "x"],
    )
    assert matrix._split(["sid"]) == (["sid"], False, [])


def test_an_unknown_release_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        matrix.main(["buster"])

    assert "unknown release: buster" in capsys.readouterr().err
