"""Places in the code, for people: those that need action whole, the others in a line each."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from build import (
    ANOTHER_STACK,
    ATTACH,
    history,
    leak,
    limits,
    opening,
    plain,
    process,
    report,
    site,
    target,
    widest,
)

from tracer.core.cause import Cause
from tracer.core.evidence import Evidence
from tracer.core.growth import History, no_growth
from tracer.core.report import HolderRow, Report, SiteRow, SuppressedRow, Unit, Use
from tracer.core.stack import Stack, StackState
from tracer.core.verdict import Verdict
from tracer.views.report import report_lines
from tracer.views.sites import amounts
from tracer.views.text import rendered


def _lines(of: Report, width: int = 80, **options: Any) -> list[str]:
    return plain(report_lines(of, width, **options))


def _text(of: Report, width: int = 80, **options: Any) -> str:
    return rendered(lambda fit: report_lines(of, fit, **options), None, width)


# --- whole ---


def test_the_verdicts_come_in_order_of_need() -> None:
    sites = [site(verdict, 3) for verdict in reversed(Verdict) if verdict is not Verdict.CLEAN]
    lines = _lines(report(sites))

    labels = [line[:6].strip() for line in lines if line[:1].isupper()]
    assert labels == ["LEAK", "SUSPEC", "UNSURE", "YOUNG", "HELD"]


@pytest.mark.parametrize(
    ("of", "fate"),
    [
        (leak(removed={}), "none ever removed"),
        (site(Verdict.SUSPECT, 5, 28, removed={Cause.RM_WATCH: 23}), "23 of 28 were removed"),
        (
            site(Verdict.SUSPECT, 5, 1500, removed={Cause.RM_WATCH: 1, Cause.CLOSED: 1494}),
            "1,495 of 1,500 are gone",
        ),
        (site(Verdict.SUSPECT, 5, 1500, removed={Cause.CLOSED: 1495}), "1,495 of 1,500 are gone"),
        (opening(Verdict.LEAK, 5), "none ever closed"),
        (opening(Verdict.LEAK, 5, 28, removed={Cause.CLOSED: 23}), "23 of 28 were closed"),
        (site(Verdict.INCONCLUSIVE, 5, 0), "not seen being added"),
    ],
)
def test_what_is_gone_is_set_against_all_there_was(of: SiteRow, fate: str) -> None:
    headline = _lines(report([of]))[3]

    live = f"{of.live} {of.unit.value}"
    assert headline.endswith(f" {live}, one place in agent[1173], {fate}")


@pytest.mark.parametrize(
    ("pids", "where"), [((), "agent"), ((7,), "agent[7]"), ((7, 11), "agent (2 processes)")]
)
def test_a_place_names_its_process_or_how_many(pids: tuple[int, ...], where: str) -> None:
    text = _text(report([leak(pids=pids)]))

    assert f"23 watches, one place in {where}, none ever removed" in text


def test_gone_targets_are_counted() -> None:
    targets = [target(i, state="gone" if i % 5 else "verified") for i in range(23)]
    lines = _lines(report([leak(targets=tuple(targets))]))

    assert "        18 of 23 paths no longer exist" in lines


def test_unknown_paths_are_passed_over_for_one_that_is_known() -> None:
    targets = (target(1, path=None), target(2), target(3))

    assert "  where /run/secrets/2   and 2 more" in _lines(report([leak(targets=targets, live=3)]))
    assert "where" not in _text(report([leak(targets=(target(1, path=None),))]))


def test_more_sites_than_shown_are_counted() -> None:
    lines = _lines(report([leak(i + 1) for i in range(23)]))

    assert sum(line.startswith("LEAK") for line in lines) == 11
    assert "LEAK  221 watches in 13 more places: -f json lists all" in lines


def test_what_was_there_before_and_is_removed_is_no_longer_held() -> None:
    """
    GIVEN 23 watches from before the trace
    WHEN 6 of them are removed, and 3 are added
    THEN 17 of those before are held, and so are the 3
    """
    sites = [site(Verdict.HELD, 3)]
    processes = [process(live=20, baseline=23, added=3, removed={Cause.RM_WATCH: 6})]

    assert "HELD  20 watches, 1 place, 17 from before the trace" in _lines(report(sites, processes))


def test_nothing_is_held_when_all_from_before_is_gone() -> None:
    gone = process(baseline=23, removed={Cause.CLOSED: 23})

    assert not any(line.startswith("HELD") for line in _lines(report((), [gone])))


# --- where and then ---


def _opening_at(*fds: int, **changes: Any) -> Report:
    holders = tuple(HolderRow(7, fd, b"agent") for fd in fds)
    return report([opening(Verdict.LEAK, len(fds), holders=holders, **changes)])


def test_instances_are_where_ls_finds_their_descriptors() -> None:
    assert "  where /proc/7/fd/3" in _lines(_opening_at(3))
    assert "  where /proc/7/fd/3, /proc/7/fd/11" in _lines(_opening_at(3, 11))
    lines = _lines(_opening_at(*range(3, 26)), 160)
    at = ", ".join(f"/proc/7/fd/{fd}" for fd in range(3, 8))
    assert f"  where {at} and 18 more" in lines


def test_instances_that_nobody_holds_any_more_are_nowhere() -> None:
    """GIVEN one that only an exit freed, and no walk saw THEN there is no descriptor to show."""
    assert "where" not in _text(report([opening(Verdict.LEAK, 1, holders=())]))


_PAYER = (4026531837, 0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"per_hour": 180.0}, "+180 an hour at this pace"),
        ({"per_hour": 12_345.6}, "+12,346 an hour at this pace"),
        ({"per_hour": 1.0}, "+1 an hour at this pace"),
        ({"per_hour": 0.1}, "+2.4 a day at this pace"),
        # whose limit it is, is not among the users that were read
        (
            {"per_hour": 5.0, "payer": _PAYER, "full_payer": (1, 0), "full_in_s": 23.0},
            "+5 an hour at this pace",
        ),
        ({"per_hour": 5.0, "payer": _PAYER}, "+5 an hour at this pace"),
    ],
)
def test_what_it_costs_without_a_limit_is_only_the_pace(
    changes: dict[str, Any], expected: str
) -> None:
    assert f"  then  {expected}" in _lines(report([leak(**changes)], limits=[limits()]))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.4, "0 s"),
        (59.0, "59 s"),
        (61.0, "1 min"),
        (3_599.0, "60 min"),
        (3_601.0, "1 h"),
        (47 * 3600.0, "47 h"),
        (49 * 3600.0, "2 days"),
        (365 * 86_400.0, "365 days"),
    ],
)
def test_the_time_to_the_limit_is_in_one_unit(seconds: float, shown: str) -> None:
    of = leak(per_hour=5.0, full_payer=_PAYER, full_in_s=seconds)

    assert (
        f"  then  +5 an hour; root reaches the limit of 8,192 watches in about {shown}"
        in _lines(report([of], limits=[limits()]), 160)
    )


def test_who_has_no_more_is_told_with_the_namespace_and_not_who_pays() -> None:
    """GIVEN a leak in a container WHEN the limit of who made it is met first THEN that is named."""
    container = limits(uid=100_000, user="cont", userns=4026532201, watches=Use(7, 2**31 - 1))
    payer = container.payer
    of_host = leak(per_hour=5.0, payer=payer, full_payer=_PAYER, full_in_s=7_200.0)
    of_itself = leak(per_hour=5.0, payer=payer, full_payer=payer, full_in_s=7_200.0)
    full = leak(per_hour=5.0, payer=payer, full_payer=_PAYER, full_in_s=0.0)

    def then(of: SiteRow) -> str:
        (line,) = [
            line
            for line in _lines(report([of], limits=[container, limits()]), 200)
            if line.startswith("  then")
        ]
        return line

    assert then(of_host).endswith("; root reaches the limit of 8,192 watches in about 2 h")
    assert "; cont in user namespace 4026532201 reaches the limit of " in then(of_itself)
    assert then(full).endswith("; root has reached the limit of 8,192 watches")


def test_instances_have_a_limit_of_their_own() -> None:
    of = opening(Verdict.SUSPECT, 3, per_hour=5.0, full_payer=_PAYER, full_in_s=7_200.0)
    user = limits(uid=0, user="ann", instances=Use(28, 128))
    text = " ".join(_lines(report([of], limits=[limits(uid=7), user])))

    assert "ann reaches the limit of 128 instances in about 2 h" in text


@pytest.mark.parametrize("verdict", [Verdict.INCONCLUSIVE, Verdict.YOUNG, Verdict.HELD])
def test_only_what_grows_has_a_cost(verdict: Verdict) -> None:
    paid = site(verdict, 3, per_hour=5.0, full_payer=_PAYER, full_in_s=23.0)
    flat = leak(per_hour=0.0, payer=_PAYER)

    assert "then" not in _text(report([paid, flat], limits=[limits()]))


# --- in a line each ---


def test_what_was_there_before_is_held_beside_both_units() -> None:
    sites = [site(Verdict.HELD, 3), opening(Verdict.HELD, 2), opening(Verdict.HELD, 1)]
    of = report(sites, [process(live=23, baseline=20)])

    assert "HELD  23 watches and 3 instances, 3 places, 20 from before the trace" in _lines(of)
    alone = report([opening(Verdict.HELD, 1)])
    assert "HELD  1 instance, 1 place" in _lines(alone)


@pytest.mark.parametrize(
    ("sites", "line"),
    [
        ([site(Verdict.CLEAN, 0, 20)], "CLEAN 20 added and removed, 1 place"),
        ([opening(Verdict.CLEAN, 0, 4)], "CLEAN 4 opened and closed, 1 place"),
        (
            [opening(Verdict.CLEAN, 0, 4), site(Verdict.CLEAN, 0, 20), site(Verdict.CLEAN, 0, 3)],
            "CLEAN 23 added and removed, 4 opened and closed, 3 places",
        ),
    ],
)
def test_what_is_clean_came_and_went(sites: list[SiteRow], line: str) -> None:
    assert line in _lines(report(sites))


def test_of_many_places_those_of_watches_are_shown_first() -> None:
    sites = [
        *(opening(Verdict.CLEAN, 0, 100 + i) for i in range(5)),
        *(site(Verdict.CLEAN, 0, 3, stack=ANOTHER_STACK) for _ in range(3)),
    ]
    lines = _lines(report(sites))

    at = lines.index("CLEAN 9 added and removed, 510 opened and closed, 8 places")
    assert [line.split()[:3] for line in lines[at + 1 : at + 6]] == [
        *[["3", "mount_volume", "agent"]] * 3,
        ["100", "attach", "(instances)"],
        ["101", "attach", "(instances)"],
    ]
    assert lines[at + 6] == "      and 3 more places"


@pytest.mark.parametrize(
    ("sites", "more", "text"),
    [
        ([leak(23)], 0, "23 watches"),
        ([leak(23)], 1, "24 watches"),
        ([opening(Verdict.LEAK, 4), leak(1)], 0, "1 watch and 4 instances"),
        ([opening(Verdict.LEAK, 1)], 0, "1 instance"),
        ([], 0, ""),
    ],
)
def test_amounts_are_of_both_units(sites: list[SiteRow], more: int, text: str) -> None:
    assert amounts(sites, more) == text


def _flat(**changes: Any) -> list[tuple[int, History]]:
    """What is left, and how it came to be: one for each reason why it does not grow."""
    forever = 1e9
    at_start = [(i / 1000, forever) for i in range(748)]
    passed = [(1.0 + i, 2.0 + i) for i in range(30)]
    return [
        (1, history([(0, forever)], changes["until"])),
        (748, history(at_start, changes["until"])),
        (748, history([*at_start, *passed], changes["until"])),
        (1, history([(0, forever), *passed], changes["until"])),
        (748, history(at_start, changes["until"], nets=(748, 0, 0, 0, 0))),
        (748, history(at_start, changes["until"], nets=(748, *[12, -12] * 6))),
    ]


@pytest.mark.parametrize("unit", Unit)
@pytest.mark.parametrize("until", [61, 3_599, 359_000])
def test_no_reason_makes_a_line_too_wide(unit: Unit, until: int) -> None:
    """GIVEN the longest names WHEN a place is held THEN they are cut before the reason is."""
    for number, of in _flat(until=until):
        reason = no_growth(of)[0].text
        frame = ATTACH._replace(function="a_function_with_a_rather_long_name_" * 3)
        row = dataclasses.replace(
            site(Verdict.HELD, number),
            unit=unit,
            stack=Stack((frame,), StackState.COMPLETE),
            comm=b"fifteen-letters",
            evidence=(Evidence("any", reason),),
        )
        of_row = report([row])
        (line,) = [line for line in _lines(of_row) if "a_f" in line]

        assert len(line) <= 80
        assert widest(report_lines(of_row, 60)) <= 60
        if len(reason) <= 36:
            assert line.endswith(f"  {reason}")
        (whole,) = [line for line in _lines(of_row, 160) if "a_f" in line]
        assert whole.endswith(f"  {reason}")
        assert len(whole) <= 160


# --- suppressed ---


def _suppressed(*rows: SuppressedRow, **changes: Any) -> Report:
    return report(changes.pop("sites", ()), suppressed=rows, **changes)


def test_what_was_suppressed_is_listed_by_pattern_and_no_leak() -> None:
    lines = _lines(
        _suppressed(
            SuppressedRow("attach", "known.supp:3", 2, 1234, 5),
            SuppressedRow("*.js", "known.supp:9", 1, 0, 1),
            sites=[leak(suppressed_by="attach"), opening(Verdict.SUSPECT, 1, suppressed_by="*.js")],
        )
    )

    at = lines.index("SUPPRESSED known, and not counted")
    assert lines[at + 1 : at + 3] == [
        "      1,234 watches and 5 instances  2 places  leak:attach",
        "                         1 instance  1 place   leak:*.js",
    ]
    assert not any(line.startswith(("LEAK", "SUSPECT")) for line in lines)


def test_without_suppressions_there_is_no_word_of_them() -> None:
    assert "SUPPRESSED" not in _text(report([leak()]))


@pytest.mark.parametrize("width", [80, 160])
def test_a_long_pattern_is_cut(width: int) -> None:
    of = _suppressed(SuppressedRow("x" * 1024, "known.supp:3", 1, 1_234_567, 1_234_567))

    assert widest(report_lines(of, width)) == width
