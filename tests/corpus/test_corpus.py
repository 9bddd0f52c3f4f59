"""Every place of every program of the corpus gets its class, and no other."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from labels import CORPUS, Label, run_as
from reports import ROUNDS, Reports

pytestmark = pytest.mark.usefixtures("root")

# What the report calls a place that it does not have.
_MISSING = "missing"


def _named(label: Label) -> str:
    return label.name


def _sites(reports: Reports, label: Label) -> dict[str, Any]:
    """The sites of a program, by the functions that its label names."""
    report = reports.of(label)
    found = {function: _with(function, report, reports, label) for function in label.sites}
    assert all(len(sites) < 2 for sites in found.values()), found
    return {function: sites[0] for function, sites in found.items() if sites}


def _with(function: str, report: Any, reports: Reports, label: Label) -> list[Any]:
    sites = [
        site
        for site in report["sites"]
        if function in [frame["function"] for frame in site["frames"]]
    ]
    if not label.command:
        return sites
    # a function of libc is in others as well
    return [site for site in sites if site["pids"] == [reports.pid(label)]]


def _verdicts(reports: Reports, label: Label) -> dict[str, str]:
    sites = _sites(reports, label)
    return {
        function: sites[function]["verdict"] if function in sites else _MISSING
        for function in label.sites
    }


@pytest.mark.parametrize("label", CORPUS, ids=_named)
def test_each_place_gets_its_class(reports: Reports, label: Label) -> None:
    verdicts = _verdicts(reports, label)
    wrong = {
        function: verdict
        for function, verdict in verdicts.items()
        if verdict not in label.sites[function]
    }

    assert wrong == {}, _sites(reports, label)


@pytest.mark.parametrize("label", CORPUS, ids=_named)
def test_what_is_live_is_counted(reports: Reports, label: Label) -> None:
    """GIVEN what a program left behind at its end THEN each place has all of it and no more."""
    sites = _sites(reports, label)
    live = {function: sites[function]["live"] for function in label.live if function in sites}

    assert live == label.live


@pytest.mark.parametrize("label", [each for each in CORPUS if each.evidence], ids=_named)
def test_the_evidence_is_named(reports: Reports, label: Label) -> None:
    sites = _sites(reports, label)
    for function, kinds in label.evidence.items():
        evidence = sites[function]["evidence"]

        assert kinds <= {each["kind"] for each in evidence}, evidence


@pytest.mark.parametrize("label", run_as("before"), ids=_named)
def test_what_was_there_before_is_told_apart(reports: Reports, label: Label) -> None:
    """GIVEN a program with watches from before the trace THEN it has them, and no leak."""
    report = reports.of(label)
    (process,) = (each for each in report["processes"] if each["pid"] == reports.pid(label))

    assert label.holds is not None
    assert process["live"] == label.holds.watches
    assert process["leaked"] == 0
    # those that it closed do not count
    assert process["live"] - process["added"] == label.baseline


@pytest.mark.parametrize(
    "label", [each for each in run_as("trace", "before") if each.holds], ids=_named
)
def test_the_kernel_agrees_with_the_label(reports: Reports, label: Label) -> None:
    """GIVEN a program that is done THEN the kernel lists what the label says it holds."""
    assert reports.holding(label) == label.holds


@pytest.mark.parametrize("label", run_as("rounds"), ids=_named)
def test_growth_is_told_by_round(reports: Reports, label: Label) -> None:
    """GIVEN one watch more at each poke, and another at the first THEN each round has its own."""
    sites = _sites(reports, label)

    assert sites["poked_watch_session"]["per_round"] == [1] * ROUNDS
    assert sites["poked_warm_cache"]["per_round"] == [1] + [0] * (ROUNDS - 1)
    assert not any(sites["poked_watch_request"]["per_round"])


def test_the_confusion_table_has_its_diagonal_only(reports: Reports) -> None:
    """GIVEN all programs that can run here THEN nothing was taken for anything that it is not."""
    table: Counter[tuple[str, str]] = Counter()
    for label in CORPUS:
        try:
            verdicts = _verdicts(reports, label)
        except pytest.skip.Exception:
            continue
        table.update(
            (" or ".join(sorted(label.sites[function])), verdict)
            for function, verdict in verdicts.items()
        )
    lines = [f"{is_:20} told {told:12} {number:3}" for (is_, told), number in sorted(table.items())]
    print(*lines, sep="\n")

    assert [
        line for (is_, told), line in zip(sorted(table), lines) if told not in is_.split()
    ] == []
