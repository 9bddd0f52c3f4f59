"""What a guest brought back: its tests, its kernel's messages, what doctor found."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, NamedTuple

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"
# A general protection fault of a program goes on with "ip:", without a comma or colon.
_TROUBLE = re.compile(
    r"^.*(?:\b(?:BUG|WARNING|Oops|refcount_t):|kernel BUG at|general protection fault[,:]"
    r"|Kernel panic|self-detected stall).*$",
    re.MULTILINE,
)
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
        return self.exit_code == 0 and bool(self.tests) and not self.trouble

    def count(self, outcome: str) -> int:
        return sum(test.outcome == outcome for test in self.tests)


def read(folder: Path, exit_code: int | None) -> Results:
    junit, doctor = folder / "junit.xml", folder / "doctor.json"
    return Results(
        exit_code,
        cases_of(junit.read_text()) if junit.exists() else [],
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
    """What doctor says; {} where it said nothing."""
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        return {}
    return found
