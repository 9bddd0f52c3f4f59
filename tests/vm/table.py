"""Kernel against feature, from what doctor found there and how the tests of it ended."""

from __future__ import annotations

import re
from typing import Any, Callable, NamedTuple

from results import FAILED, PASSED, SKIPPED, JunitCase, Results


class Feature(NamedTuple):
    """
    `proof` finds the names of its tests; `check` is doctor's word for it, None if it has none.

    `fallback` tells from doctor's JSON what is done without it; "" if nothing is.
    """

    title: str
    proof: str
    check: str | None = None
    fallback: Callable[[dict[str, Any]], str] = lambda _: ""


def _other_mode(doctor: dict[str, Any]) -> str:
    return str(doctor.get("mode") or "")


FEATURES = (
    Feature("calls by fentry", r"\bfentry\b", "fentry", _other_mode),
    Feature("calls by kprobes", r"\bkprobe\b", "kprobe", _other_mode),
    Feature("calls by tracepoints", r"\btracepoint\b", "tracepoint", _other_mode),
    Feature(
        "the kernel's list by iterator",
        r"test_walk::|\biterator\b",
        "kernel's list",
        lambda _: "fdinfo",
    ),
    Feature("its list by fdinfo", r"\bfdinfo\b", "fdinfo"),
    Feature(
        "removals without a call, with the cause",
        r"before_the_timer|test_cases_of_targets::",
        "removals",
        lambda _: "comparison every 2 s",
    ),
    Feature("32-bit callers", r"32_bit", "32-bit callers", lambda _: "comparison, without a stack"),
    Feature("stacks", r"test_symbols::|test_run::|test_demo::"),
    Feature("run, ls, demo", r"test_(run|ls|demo)::"),
    Feature("random work, equal to fdinfo", r"test_fuzz::"),
    Feature("healing of lost calls", r"test_healing::"),
    Feature("counters of each user", r"test_audit::|who_pays|maker_pays"),
)


def cell(feature: Feature, results: Results) -> str:
    """works, falls back to X, or absent; that tests failed takes precedence."""
    proof = re.compile(feature.proof)
    tests = [test for test in results.tests if proof.search(test.name)]
    failed, passed = _count(tests, FAILED), _count(tests, PASSED)
    if failed:
        return f"FAILS ({failed} of {numbered(failed + passed)})"
    if feature.check is not None:
        works = _found(results.doctor, feature.check)
        if works is None:
            return "not known"
        if not works:
            fallback = feature.fallback(results.doctor)
            return f"falls back to {fallback}" if fallback else "absent"
    if passed:
        return f"works ({numbered(passed)})"
    return "absent" if _count(tests, SKIPPED) else "not tested"


def numbered(tests: int) -> str:
    return f"{tests} test{'s' * (tests != 1)}"


def _count(tests: list[JunitCase], outcome: str) -> int:
    return sum(test.outcome == outcome for test in tests)


def _found(doctor: dict[str, Any], name: str) -> bool | None:
    for check in doctor.get("checks", ()):
        if check["name"] == name:
            works: bool | None = check["works"]
            return works
    return None


def heading(title: str, results: Results) -> str:
    """The release, and the versions that doctor found there."""
    found = {check["name"]: check["found"] for check in results.doctor.get("checks", ())}
    kernel = re.match(r"Linux \d+\.\d+", found.get("kernel", ""))
    bcc = re.search(r"\d+\.\d+", found.get("BCC", ""))
    parts = [title, kernel[0] if kernel else "", f"BCC {bcc[0]}" if bcc else ""]
    return ", ".join(filter(None, parts))


def table(by_title: dict[str, Results]) -> str:
    """As Markdown has it."""
    rows = [
        ["", *(heading(title, results) for title, results in by_title.items())],
        ["---"] * (1 + len(by_title)),
        *(
            [feature.title, *(cell(feature, results) for results in by_title.values())]
            for feature in FEATURES
        ),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
