"""What a guest brought back: its tests, its kernel's messages, what doctor found."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, NamedTuple

from releases import DOORBELL

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
# A general protection fault of a program goes on with "ip:", without a comma or colon.
_TROUBLE = re.compile(
    r"^.*(?:\b(?:BUG|WARNING|Oops|refcount_t):|kernel BUG at|general protection fault[,:]"
    r"|Kernel panic|self-detected stall).*$",
    re.MULTILINE,
)
_DOCTORS_KEYS = {"name", "works", "found"}
_MODULES = re.compile(r"^(?:tests\.)?(?:kernel|unit)\.")


class JunitCase(NamedTuple):
    """`reason` is why it failed or was skipped, in its first line."""

    name: str
    outcome: str
    seconds: float
    reason: str = ""


class Results(NamedTuple):
    """`exit_code` is pytest's, None if the guest gave none; `doctor` is its JSON."""

    exit_code: int | None
    tests: list[JunitCase]
    trouble: list[str]
    doctor: dict[str, Any]

    @property
    def passed(self) -> bool:
        return not (self.flaws or self.trouble or self.count(FAILED))

    @property
    def flaws(self) -> list[str]:
        """Why it did not pass, apart from failed tests and the kernel's trouble."""
        if self.exit_code is None:
            return ["the guest ended without a result"]
        found = []
        if self.exit_code and not self.count(FAILED):
            found.append(f"pytest ended with {self.exit_code}")
        if not self.count(PASSED):
            found.append("no test passed")
        if not self.doctor:
            found.append("doctor said nothing that can be read")
        return found

    def lacking(self, expected: tuple[str, ...]) -> list[str]:
        """What of the `expected` does not work, each with what is known of it."""
        if not self.doctor:
            return []
        checks = {check["name"]: check for check in self.doctor["checks"]}
        found = [
            f"{name}: {checks[name]['found']}" if name in checks else f"{name}: unknown to doctor"
            for name in expected
            if name != DOORBELL and not (name in checks and checks[name]["works"])
        ]
        # only the skips of its tests tell
        reasons = (test.reason for test in self.tests if test.outcome == SKIPPED)
        missed = next((each for each in reasons if each.startswith(f"no {DOORBELL}")), None)
        if DOORBELL in expected and missed:
            found.append(f"{DOORBELL}: {missed}")
        return found

    def count(self, outcome: str) -> int:
        return sum(test.outcome == outcome for test in self.tests)


def read(folder: Path, exit_code: int | None) -> Results:
    junit, doctor = folder / "junit.xml", folder / "doctor.json"
    return Results(
        exit_code,
        cases_of(_text(junit)) if junit.exists() else [],
        # dmesg has forgotten what is long ago, the console has only what is grave; a kernel that
        # died has no dmesg
        troubles(f"{_text(folder / 'console')}\n{_text(folder / 'dmesg')}"),
        doctor_of(_text(doctor)),
    )


def _text(file: Path) -> str:
    return file.read_text(errors="replace") if file.exists() else ""


def cases_of(junit: str) -> list[JunitCase]:
    return [_test(case) for case in ElementTree.fromstring(junit).iter("testcase")]


def _test(case: ElementTree.Element) -> JunitCase:
    module = _MODULES.sub("", case.get("classname", "")) or "collection"
    name = f"{module}::{case.get('name', '')}"
    seconds = float(case.get("time", "0"))
    for tag, outcome in (("failure", FAILED), ("error", FAILED), ("skipped", SKIPPED)):
        found = case.find(tag)
        if found is not None:
            reason = found.get("message") or found.text or ""
            return JunitCase(name, outcome, seconds, reason.strip().partition("\n")[0])
    return JunitCase(name, PASSED, seconds)


def troubles(messages: str) -> list[str]:
    """What the kernel calls a bug, a warning or its own end; each line once."""
    return list(dict.fromkeys(line.strip() for line in _TROUBLE.findall(messages)))


def doctor_of(text: str) -> dict[str, Any]:
    """What doctor says; {} where it said nothing, or nothing of the kind."""
    try:
        found = json.loads(text)
        is_known = all(check.keys() >= _DOCTORS_KEYS for check in found["checks"])
    except (ValueError, TypeError, LookupError, AttributeError):
        return {}
    return dict(found) if is_known else {}
