"""What else was found out, in words with its numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.core.cause import Cause
from tracer.core.evidence import causes
from tracer.core.findings import Findings, findings_evidence


def _told(findings: Findings) -> dict[str, str]:
    return dict(findings_evidence(findings))


def test_nothing_found_is_nothing_told() -> None:
    assert _told(Findings()) == {}
    nothing_is_wrong = Findings(number=23, checked=23, most_on_one=1, processes=5)
    assert _told(nothing_is_wrong) == {}


@pytest.mark.parametrize(
    ("findings", "kind", "text"),
    [
        (
            Findings(checked=23, gone={"deleted": 3}),
            "target_gone",
            "3 of 23 targets are gone: 3 deleted",
        ),
        (
            Findings(checked=2_311, gone={"in pods that were removed": 1_500, "deleted": 3}),
            "target_gone",
            "1,503 of 2,311 targets are gone: 1,500 in pods that were removed, 3 deleted",
        ),
        (
            Findings(repeated=1_022, most_on_one=1_001),
            "watched_again",
            "1,022 are on a target that was watched already; one is watched 1,001 times",
        ),
        (
            Findings(unread=3, unread_events=16_384),
            "unread",
            "nobody reads what 3 report: 16,384 events wait, and more come",
        ),
        (Findings(without_watch=1_500), "without_watch", "1,500 have no watch"),
        (
            Findings(without_watch=1_500, failed_adds=1_499),
            "without_watch",
            "1,500 have no watch, on 1,499 of them inotify_add_watch failed",
        ),
        (
            Findings(orphans=1, processes=1),
            "orphaned",
            "the process is an orphan: its parent has ended",
        ),
        (
            Findings(orphans=17, processes=1_500),
            "orphaned",
            "17 of 1,500 processes are orphans: their parents have ended",
        ),
    ],
)
def test_each_is_told_with_its_numbers(findings: Findings, kind: str, text: str) -> None:
    assert _told(findings) == {kind: text}


def test_all_of_them_are_told_in_one_order() -> None:
    everything = Findings(
        number=9,
        checked=9,
        gone={"deleted": 1},
        repeated=2,
        most_on_one=3,
        unread=4,
        unread_events=5,
        without_watch=6,
        failed_adds=1,
        orphans=1,
        processes=2,
    )

    assert list(_told(everything)) == [
        "target_gone",
        "watched_again",
        "unread",
        "without_watch",
        "orphaned",
    ]


@given(st.dictionaries(st.text(max_size=9), st.integers(1, 10**9)))
def test_gone_targets_are_the_sum_of_their_reasons(gone: dict[str, int]) -> None:
    findings = Findings(checked=10**9, gone=gone)

    assert findings.gone_targets == sum(gone.values())
    assert bool(_told(findings)) is bool(gone)


def test_causes_are_in_one_order_and_without_those_that_were_none() -> None:
    removed = {Cause.UNKNOWN: 1, Cause.DELETED: 2_311, Cause.RM_WATCH: 17, Cause.CLOSED: 0}

    assert causes(removed) == "17 removed, 2,311 deleted, 1 for unknown reasons"
    assert causes({}) == ""
