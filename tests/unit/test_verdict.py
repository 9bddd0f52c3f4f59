"""The rules that turn a site's history into a verdict, at their boundaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from build import SECOND
from hypothesis import given
from hypothesis import strategies as st

from tracer.core.accounts import Cause
from tracer.core.verdict import Judgement, SiteHistory, Verdict, duration, judge, unseen


def _judge(
    added_at: Sequence[float],
    until: float = 100,
    removed: dict[Cause, int] | None = None,
    freed: int = 0,
) -> Judgement:
    """Times in seconds."""
    return judge(
        SiteHistory(
            live_added_at=[int(at * SECOND) for at in added_at],
            freed_by_exit=freed,
            removed=Counter(removed or {}),
            judged_until=int(until * SECOND),
            older_s=5,
        )
    )


def _kinds(judgement: Judgement) -> list[str]:
    return [evidence.kind for evidence in judgement.evidence]


def test_steady_growth_without_a_removal_is_a_leak() -> None:
    judgement = _judge([4 * i for i in range(23)], until=90)

    assert judgement.verdict is Verdict.LEAK
    assert [evidence.text for evidence in judgement.evidence] == [
        "grew in each of 4 parts of 1 min 30 s, up to the end",
        "none was ever removed",
    ]


def test_growth_that_is_now_and_then_removed_is_possible() -> None:
    judgement = _judge(range(0, 100, 4), removed={Cause.RM_WATCH: 2, Cause.DELETED: 5})

    assert judgement.verdict is Verdict.POSSIBLE
    assert _kinds(judgement) == ["grows_to_end", "partly_removed"]
    assert judgement.evidence[1].text == "7 are gone, 25 are not: 2 removed, 5 deleted"


def test_a_burst_at_the_start_is_held() -> None:
    judgement = _judge([i / 23 for i in range(23)])

    assert judgement.verdict is Verdict.HELD
    assert judgement.evidence[0] == ("plateau", "did not grow in the last 1 min 39 s")


def test_a_burst_at_the_start_with_a_late_straggler_is_held() -> None:
    assert _judge([*(i / 23 for i in range(23)), 99]).verdict is Verdict.HELD


def test_growth_that_ended_is_possible_and_says_when() -> None:
    judgement = _judge([3 * i for i in range(23)])

    assert judgement.verdict is Verdict.POSSIBLE
    assert judgement.evidence[0] == (
        "grew",
        "grew in 3 of 4 parts of 1 min 40 s, but not in the last 34 s",
    )


# parts of 25 s: the first, the second, the third and the fourth
_ONE_EACH = (0, 30, 60, 90)


@pytest.mark.parametrize(
    ("added_at", "verdict"),
    [
        (_ONE_EACH, Verdict.LEAK),
        # three of four parts, the last among them
        ((0, 30, 90), Verdict.LEAK),
        ((0, 60, 90), Verdict.LEAK),
        # three of four parts, but not up to the end
        ((0, 30, 60), Verdict.POSSIBLE),
        # two of four parts, however many they are
        ((0, 1, 2, 90), Verdict.HELD),
        # the end itself is in the last part, the begin of the last part is too
        ((0, 30, 100), Verdict.LEAK),
        ((0, 30, 75), Verdict.LEAK),
        ((0, 30, 74.999), Verdict.POSSIBLE),
    ],
)
def test_growth_must_reach_three_of_four_parts_and_the_end(
    added_at: tuple[float, ...], verdict: Verdict
) -> None:
    assert _judge(added_at).verdict is verdict


@pytest.mark.parametrize("added_at", [(0,), (0, 100)])
def test_fewer_than_three_cannot_show_growth(added_at: tuple[float, ...]) -> None:
    judgement = _judge(added_at)

    assert judgement.verdict is Verdict.HELD
    assert _kinds(judgement) == ["few", "last_added", "never_removed"]


def test_too_few_to_judge_is_said_in_few_words_and_when_the_last_came() -> None:
    few, last, _ = _judge((0, 60)).evidence

    assert few.text == "too few to judge"
    assert last == ("last_added", "the last was added 40 s before the end")


def test_what_was_not_seen_being_added_is_inconclusive() -> None:
    judgement = unseen(3, 0)
    assert (judgement.verdict, _kinds(judgement)) == (Verdict.INCONCLUSIVE, ["unseen"])
    (why,) = judgement.evidence
    assert all(reason in why.text for reason in ("lost", "32-bit", "untraced process"))

    freed = unseen(3, 2)
    assert (freed.verdict, _kinds(freed)) == (
        Verdict.INCONCLUSIVE,
        ["unseen", "freed_only_by_exit"],
    )
    assert freed.evidence[1].text == "2 of 3 were freed only by the exit of the process"


def test_parts_count_from_the_first_add_and_not_from_the_begin_of_the_trace() -> None:
    assert _judge([at + 1000 for at in _ONE_EACH], until=1100).verdict is Verdict.LEAK


def test_a_part_without_growth_is_told() -> None:
    assert _judge((0, 30, 90)).evidence[0].text == (
        "grew in 3 of 4 parts of 1 min 40 s, up to the end"
    )


@pytest.mark.parametrize(
    ("removed", "text"),
    [
        ({}, "all were removed"),
        ({Cause.RM_WATCH: 23}, "all were removed"),
        (
            {Cause.RM_WATCH: 23, Cause.DELETED: 1500, Cause.CLOSED: 2},
            "all are gone: 23 removed, 1,500 deleted, 2 closed",
        ),
    ],
)
def test_no_live_watch_is_clean(removed: dict[Cause, int], text: str) -> None:
    judgement = _judge((), removed=removed)

    assert judgement == (Verdict.CLEAN, (("balanced", text),))


@pytest.mark.parametrize(
    ("added_at", "verdict"), [(100.001, Verdict.YOUNG), (100, Verdict.HELD), (99, Verdict.HELD)]
)
def test_what_is_younger_than_asked_for_is_not_judged(added_at: float, verdict: Verdict) -> None:
    assert _judge([added_at]).verdict is verdict


def test_young_says_how_to_judge_it() -> None:
    assert _judge([101]).evidence[0].text == (
        "all live watches are younger than 5 s: trace longer, or lower --older"
    )


def test_young_watches_do_not_make_a_leak_of_old_ones() -> None:
    judgement = _judge([0, 1, 2, *range(101, 124)])

    assert judgement.verdict is Verdict.HELD
    assert judgement.evidence[0] == ("plateau", "did not grow in the last 1 min 38 s")


@pytest.mark.parametrize(
    ("added_at", "freed", "which"),
    [((0,), 1, "it was"), (_ONE_EACH, len(_ONE_EACH), "all were"), (_ONE_EACH, 1, "1 of 4 were")],
)
def test_what_only_the_exit_freed_is_evidence(
    added_at: tuple[float, ...], freed: int, which: str
) -> None:
    text = f"{which} freed only by the exit of the process"
    assert _judge(added_at, freed=freed).evidence[-1] == ("freed_only_by_exit", text)


def test_all_at_one_moment_is_no_growth() -> None:
    assert _judge([100] * 23).verdict is Verdict.HELD


_times = st.lists(st.integers(0, 2**63), max_size=53)
_removed = st.dictionaries(st.sampled_from(Cause), st.integers(0, 1000)).map(Counter)


@given(_times, st.integers(0, 100), _removed, st.integers(-(2**33), 2**63), st.floats(0, 1e6))
def test_every_history_has_a_verdict_with_evidence(
    added_at: list[int], freed: int, removed: Counter[Cause], until: int, older_s: float
) -> None:
    history = SiteHistory(added_at, freed, removed, until, older_s)
    judgement = judge(history)

    assert judgement == judge(history._replace(live_added_at=added_at[::-1]))
    assert judgement.evidence
    assert all(evidence.kind and evidence.text for evidence in judgement.evidence)
    assert (judgement.verdict is Verdict.CLEAN) is (not added_at)
    if added_at:
        assert (judgement.verdict is Verdict.YOUNG) is (min(added_at) > until)
    if judgement.verdict is Verdict.LEAK:
        assert not any(removed.values())


@given(
    begin=st.integers(0, 2**60),
    step=st.integers(1, 2**40),
    number=st.integers(4, 199),
    rest=st.floats(0, 1),
)
def test_steady_growth_is_a_leak_at_any_pace(
    begin: int, step: int, number: int, rest: float
) -> None:
    added_at = [begin + i * step for i in range(number)]
    until = added_at[-1] + int(rest * (step - 1))

    assert judge(SiteHistory(added_at, 0, Counter(), until, 0.0)).verdict is Verdict.LEAK


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0042, "4 ms"),
        (0.999, "999 ms"),
        (0.9996, "1.0 s"),
        (1, "1.0 s"),
        (1.44, "1.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (133, "2 min 13 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (11_100, "3 h 5 min"),
        (359_999, "99 h 59 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
