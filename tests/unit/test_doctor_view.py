"""What `doctor` shows."""

from __future__ import annotations

import json

from rich.cells import cell_len

from tracer import __version__
from tracer.core.diagnosis import Check, Diagnosis
from tracer.views.doctor import as_json, doctor_lines

_GOOD = Check("BTF", True, "has all fields", needed=True)
_REFUSED = Check("fentry", False, "refused (Operation not permitted)", "ask the administrator")
_UNTRIED = Check("32-bit callers", None, "not tried: needs root")
_WORKS = Diagnosis((_GOOD, _REFUSED, _UNTRIED), "kprobe")


def _shown(diagnosis: Diagnosis, width: int = 80) -> list[str]:
    return [line.plain for line in doctor_lines(diagnosis, width)]


def test_each_check_is_a_line_with_its_advice() -> None:
    assert _shown(_WORKS) == [
        "BTF             yes  has all fields",
        "fentry          no   refused (Operation not permitted); ask the administrator",
        "32-bit callers  ?    not tried: needs root",
        "",
        "Tracing works. --mode auto takes kprobe.",
    ]


def test_long_lines_are_broken_below_their_beginning() -> None:
    lines = _shown(_WORKS, width=50)

    assert lines[1:3] == [
        "fentry          no   refused (Operation not",
        "                     permitted); ask the",
    ]
    assert max(map(cell_len, lines)) <= 50


def test_no_line_is_wider_than_80_cells() -> None:
    check = Check("kernel's list", False, "word " * 100)

    assert max(map(cell_len, _shown(Diagnosis((check,), None), width=200))) <= 80


def test_what_is_not_ours_is_escaped() -> None:
    check = Check("kernel", True, "Linux 6.1\x1b[31m\nroot")

    assert "\\x1b[31m\\nroot" in _shown(Diagnosis((check,), None))[0]


def test_what_is_missing_is_named_last() -> None:
    broken = _GOOD._replace(works=False)
    unknown = _GOOD._replace(name="root", works=None)

    *_, last = _shown(Diagnosis((broken, unknown), "fentry"))

    assert last == "Tracing does not work here, for want of: BTF."


def test_without_a_mode_nothing_can_be_traced() -> None:
    assert _shown(Diagnosis((_GOOD,), None))[-1].endswith("for want of: a mode.")
    assert not Diagnosis((_GOOD,), None).can_trace
    assert Diagnosis((_GOOD, _REFUSED), "kprobe").can_trace
    assert not Diagnosis((_GOOD._replace(works=None),), "kprobe").can_trace


def test_json_has_every_check() -> None:
    document = json.loads(as_json(_WORKS))

    assert document["schema"] == "inotrace.doctor/1"
    assert document["version"] == __version__
    assert (document["can_trace"], document["mode"]) == (True, "kprobe")
    assert document["checks"][1] == {
        "name": "fentry",
        "works": False,
        "found": "refused (Operation not permitted)",
        "advice": "ask the administrator",
        "needed": False,
    }
    assert [check["works"] for check in document["checks"]] == [True, False, None]
