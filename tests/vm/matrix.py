"""
Runs the kernel tests on the kernels of several Debian releases, each in a guest of QEMU.

Exit codes: 0 all passed, 1 something failed, 77 nothing failed but a release could not be tried.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import guest
import host
import image
import results
from releases import RELEASES, Release
from results import FAILED, PASSED, SKIPPED, Results
from table import numbered, table

EXIT_FAILED, EXIT_SKIPPED = 1, 77
# More would only be slower, on two processors.
_GUESTS_AT_A_TIME = 2
# What the kernel may decide; all tests would take hours under emulation.
_DEFAULT_TESTS = ("tests/kernel", "-m", "kernels")


class Outcome(NamedTuple):
    """
    What became of one release: `results`, or else why it has none.

    `first_try` has what a first guest said that gave no result, if these are of a second one.
    """

    release: Release
    results: Results | None
    problem: str = ""
    is_skip: bool = False
    first_try: Path | None = None

    @property
    def passed(self) -> bool:
        return self.results is not None and self.results.passed and not self.lacking

    @property
    def lacking(self) -> list[str]:
        return self.results.lacking(self.release.works) if self.results is not None else []


class Matrix:
    """What is the same for all releases of one run."""

    def __init__(self, cache: Path, kept: Path, arguments: list[str], timeout_s: float) -> None:
        self._cache = cache
        self._kept = kept
        self._arguments = arguments
        self._timeout_s = timeout_s

    def outcome(self, release: Release) -> Outcome:
        log = self._cache / f"{release.suite}.log"
        log.unlink(missing_ok=True)
        try:
            made = image.prepared(release, self._cache, log)
        except host.Unreachable as error:
            return Outcome(release, None, str(error), is_skip=True)
        except Exception as error:
            return Outcome(release, None, f"no image: {error}")
        try:
            return self._tried(release, made)
        # of one guest, by which the others' table must not be lost
        except Exception as error:
            folder = self._kept / release.suite
            first = self._first_try(release)
            problem = f"no results: {error}; see {folder}"
            return Outcome(release, None, problem, first_try=first if first.exists() else None)

    def _tried(self, release: Release, made: image.Image) -> Outcome:
        folder = self._kept / release.suite
        first = self._first_try(release)
        shutil.rmtree(first, ignore_errors=True)
        found = self._guest(release, made, folder)
        if not _is_worth_another(found):
            return Outcome(release, found)
        folder.replace(first)
        found = self._guest(release, made, folder)
        if not _is_worth_another(found):
            return Outcome(release, found, first_try=first)
        return Outcome(release, None, f"the guest gave no result; see {folder}", first_try=first)

    def _first_try(self, release: Release) -> Path:
        return self._kept / f"{release.suite}.first-try"

    def _guest(self, release: Release, made: image.Image, folder: Path) -> Results:
        began = time.monotonic()
        print(f"{release.suite}: guest started, its output is in {folder}/output", flush=True)
        found = results.read(folder, guest.run(made, self._arguments, folder, self._timeout_s))
        took = time.monotonic() - began
        print(f"{release.suite}: {_summary(found)}: {took:.0f} s", flush=True)
        return found


def _is_worth_another(found: Results) -> bool:
    """Whether QEMU may be to blame: a kernel that says what befell it is what is looked for."""
    return found.exit_code is None and not found.trouble


def _summary(found: Results) -> str:
    if found.exit_code is None:
        return "guest ended without a result"
    counts = ", ".join(f"{found.count(each)} {each}" for each in (PASSED, FAILED, SKIPPED))
    return f"guest: {counts}"


def report(outcomes: list[Outcome]) -> str:
    """All that has to be said at the end, the table first."""
    tried = {
        each.release.title: each.results
        for each in outcomes
        if each.results is not None and each.results.exit_code is not None
    }
    lines = [table(tried), ""] if tried else []
    for outcome in outcomes:
        lines += _said_of(outcome)
    return "\n".join(lines)


def _said_of(outcome: Outcome) -> list[str]:
    name = outcome.release.suite
    found = outcome.results
    if found is None:
        verb = "SKIPPED, NOT TESTED" if outcome.is_skip else "FAILED"
        lines = [f"{name}: {verb}: {outcome.problem}"]
    else:
        lines = [f"{name}: {'passed' if outcome.passed else 'FAILED'}"]
        lines += [
            f"    {test.name}: {test.reason}" for test in found.tests if test.outcome == FAILED
        ]
        lines += [f"    the kernel: {line}" for line in found.trouble]
        lines += [f"    {line}" for line in found.flaws]
        lines += [f"    has to work and does not: {line}" for line in outcome.lacking]
        lines += [f"    skipped: {reason}" for reason in _skips(found)]
    if outcome.first_try is not None:
        lines[0] += f" (second try; the first gave no result, see {outcome.first_try})"
    if not outcome.passed and not outcome.release.blocks:
        lines[0] += " (does not count: it is not released)"
    return lines


def _skips(found: Results) -> list[str]:
    counts: dict[str, int] = {}
    for test in found.tests:
        if test.outcome == SKIPPED:
            counts[test.reason] = counts.get(test.reason, 0) + 1
    return [f"{reason} ({numbered(count)})" for reason, count in counts.items()]


def exit_code(outcomes: list[Outcome]) -> int:
    counted = [outcome for outcome in outcomes if outcome.release.blocks and not outcome.passed]
    if any(not outcome.is_skip for outcome in counted):
        return EXIT_FAILED
    return EXIT_SKIPPED if counted else 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tests/vm/run",
        usage="%(prog)s [OPTIONS] [RELEASE...] [-- PYTEST ARGUMENTS]",
        description="Runs the kernel tests on the kernels of Debian releases, in QEMU.",
        epilog="Without arguments for pytest: " + " ".join(_DEFAULT_TESTS),
    )
    parser.add_argument(
        "releases", nargs="*", metavar="RELEASE", help=f"of {', '.join(RELEASES)}; all by default"
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=host.cache() / "results",
        help="folder for junit.xml, dmesg and output of each guest (%(default)s)",
    )
    parser.add_argument(
        "--timeout", type=float, default=30, metavar="MINUTES", help="for a guest (%(default)s)"
    )
    options = parser.parse_args(arguments)
    unknown = set(options.releases) - set(RELEASES)
    if unknown:
        parser.error(f"unknown release: {' '.join(sorted(unknown))}")
    return options


def main(arguments: list[str]) -> int:
    own, separator, tests = _split(arguments)
    options = _options(own)
    releases = [RELEASES[name] for name in options.releases or RELEASES]
    cache = host.cache()
    given = tests if separator else list(_DEFAULT_TESTS)
    matrix = Matrix(cache, options.results.resolve(), given, 60 * options.timeout)
    # at once: the threads would go on to the next guest
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with host.exclusively(cache):
        try:
            host.install_tools(cache / "tools.log")
        except host.Unreachable as error:
            print(f"{', '.join(each.suite for each in releases)}: SKIPPED, NOT TESTED: {error}")
            return EXIT_SKIPPED
        except host.Failed as error:
            print(f"tests/vm/run: {error}", file=sys.stderr)
            return EXIT_FAILED
        with ThreadPoolExecutor(_GUESTS_AT_A_TIME) as pool:
            outcomes = list(pool.map(matrix.outcome, releases))
    print(f"\n{report(outcomes)}")
    return exit_code(outcomes)


def _split(arguments: list[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in arguments:
        return arguments, False, []
    at = arguments.index("--")
    return arguments[:at], True, arguments[at + 1 :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
