"""What a report means for the exit code, and in one line."""

from __future__ import annotations

import pytest
from build import leak, report, site

from tracer.cli.outcome import exit_code, summary
from tracer.core.report import Report
from tracer.core.verdict import Verdict

_UNSURE = site(Verdict.INCONCLUSIVE, 5, 0)
_HELD = site(Verdict.HELD, 3)


@pytest.mark.parametrize(
    ("of", "code", "text"),
    [
        pytest.param(report([_HELD]), 7, "no leak found", id="no leak"),
        pytest.param(report([leak(), _HELD]), 23, "23 watches leaked at 1 place", id="leak"),
        pytest.param(
            report([leak(), _UNSURE]), 23, "23 watches leaked at 1 place", id="leak and unsure"
        ),
        pytest.param(
            report([_UNSURE, _HELD]),
            3,
            "inconclusive: 5 watches not seen being added",
            id="unsure alone",
        ),
        pytest.param(report([leak()], lost=1), 3, None, id="leak, but records were lost"),
        pytest.param(report([leak()], lost=1, healed=1), 23, None, id="leak, losses healed"),
        pytest.param(report([leak()], complete=False), 3, None, id="leak, but not verified"),
        pytest.param(report(complete=False), 3, None, id="not verified"),
    ],
)
def test_what_cannot_be_said_comes_before_a_leak(of: Report, code: int, text: str | None) -> None:
    assert exit_code(of, leak=23, otherwise=7) == code
    if not of.conclusive:
        text = "inconclusive: records were lost or the ledger was not verified"
    if text is not None:
        assert summary(of) == text
