"""The rules that turn a site's history into a verdict, at their boundaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import inf
from typing import Any

import pytest
from build import AGENT, OTHER, SECOND, history
from hypothesis import given
from hypothesis import strategies as st

from tracer.core.cause import Cause
from tracer.core.course import Course
from tracer.core.events import Process
from tracer.core.evidence import duration
from tracer.core.findings import Findings
from tracer.core.growth import LEAST_CERTAIN, START_UP_NS, History
from tracer.core.verdict import Judgement, ShareHistory, SiteHistory, Verdict, judge, unseen

THIRD = Process(pid=4001, birth=13)
_NOTHING = Findings()


def _share(
    added_at: Sequence[float],
    until: float = 100,
    gone: Sequence[tuple[float, float]] = (),
    process: Process = AGENT,
    nets: Sequence[int] = (),
    **changes: Any,
) -> ShareHistory:
    """Times in seconds: of what is left, and from when to when the others were there."""
    lives = [*gone, *((at, inf) for at in added_at if at <= until)]
    made = history(lives, until, nets=nets, rounds_ns=SECOND)
    young = [int(at * SECOND) for at in added_at if at > until]
    made = made._replace(left_since=[*made.left_since, *young])
    return ShareHistory(process, made)._replace(**changes)


def _site(*shares: ShareHistory, until: float = 100, **changes: Any) -> SiteHistory:
    """All that was removed was so by a call, if `changes` do not tell otherwise."""
    left = sorted(at for share in shares for at in share.history.left_since)
    removed = sum(share.history.removed for share in shares)
    total = history([(at / SECOND, inf) for at in left], until)
    made = SiteHistory(
        shares=shares,
        total=total,
        freed_by_exit=0,
        removed=Counter({Cause.RM_WATCH: removed}) if removed else Counter(),
        findings=Findings(),
        older_s=5,
    )
    return made._replace(**changes)


def _judge(
    added_at: Sequence[float], until: float = 100, findings: Findings = _NOTHING, **changes: Any
) -> Judgement:
    """What one process added and did not remove."""
    shares = [_share(added_at, until, findings=findings)] if added_at else []
    return judge(_site(*shares, until=until, findings=findings, **changes))


def _kinds(judgement: Judgement) -> list[str]:
    return [evidence.kind for evidence in judgement.evidence]


def test_steady_growth_without_a_removal_is_a_leak() -> None:
    judgement = _judge([4 * i for i in range(23)], until=90)

    assert judgement.verdict is Verdict.LEAK
    assert [evidence.text for evidence in judgement.evidence] == [
        "grew in each of 4 parts of 1 min 30 s, up to the end",
        "none was ever removed",
    ]


def test_growth_of_what_outlived_all_that_were_removed_is_a_leak() -> None:
    gone = [(at, at + 1) for at in (2, 23, 31, 47, 59, 71, 83)]
    judgement = judge(_site(_share(range(0, 100, 4), gone=gone)))

    assert judgement.verdict is Verdict.LEAK
    assert _kinds(judgement) == ["grows_to_end", "outlived", "partly_removed"]
    assert judgement.evidence[2].text == "7 were removed, 25 were not"


@pytest.mark.parametrize(
    ("added_at", "removed", "text"),
    [
        ((0,), {Cause.RM_WATCH: 1}, "1 was removed, 1 was not"),
        ((0,), {Cause.RM_WATCH: 2}, "2 were removed, 1 was not"),
        ((0, 1), {Cause.RM_WATCH: 1}, "1 was removed, 2 were not"),
        ((0,), {Cause.DELETED: 1}, "1 is gone, 1 is not: 1 deleted"),
        ((0, 1), {Cause.DELETED: 2}, "2 are gone, 2 are not: 2 deleted"),
    ],
)
def test_one_is_not_told_as_several(
    added_at: tuple[float, ...], removed: dict[Cause, int], text: str
) -> None:
    judgement = _judge(added_at, removed=Counter(removed))

    assert judgement.evidence[-1] == ("partly_removed", text)


def test_causes_are_told_where_not_all_were_removed_by_a_call() -> None:
    removed = Counter({Cause.RM_WATCH: 2, Cause.DELETED: 5})
    judgement = _judge(range(0, 100, 4), removed=removed)

    assert judgement.evidence[-1].text == "7 are gone, 25 are not: 2 removed, 5 deleted"


def test_a_burst_at_the_start_is_held() -> None:
    judgement = _judge([i / 23 for i in range(23)])

    assert judgement.verdict is Verdict.HELD
    assert judgement.evidence[0] == ("plateau", "did not grow in the last 1 min 39 s")


def test_a_burst_at_the_start_with_a_late_straggler_is_held() -> None:
    assert _judge([*(i / 23 for i in range(23)), 99]).verdict is Verdict.HELD


def test_growth_that_ended_is_suspect_and_says_when() -> None:
    judgement = _judge([3 * i for i in range(23)])

    assert judgement.verdict is Verdict.SUSPECT
    assert judgement.evidence[0] == (
        "grew",
        "grew in 3 of 4 parts of 1 min 40 s, but not in the last 34 s",
    )


# parts of 25 s: the first, the second, the third and the fourth
_ONE_EACH = (0, 30, 60, 90)
_FIRST = (0, 1, 2)


@pytest.mark.parametrize(
    ("added_at", "verdict"),
    [
        ((*_FIRST, 30, 60, 90), Verdict.LEAK),
        # three of four parts, the last among them
        ((*_FIRST, 30, 90), Verdict.LEAK),
        ((*_FIRST, 60, 90), Verdict.LEAK),
        # three of four parts, but not up to the end
        ((*_FIRST, 30, 60), Verdict.SUSPECT),
        # two of four parts, however many they are
        ((*_FIRST, 88, 89, 90), Verdict.HELD),
        # the end itself is in the last part, the begin of the last part is too
        ((*_FIRST, 30, 100), Verdict.LEAK),
        ((*_FIRST, 30, 75), Verdict.LEAK),
        ((*_FIRST, 30, 74.999), Verdict.SUSPECT),
    ],
)
def test_growth_must_reach_three_of_four_parts_and_the_end(
    added_at: tuple[float, ...], verdict: Verdict
) -> None:
    assert _judge(added_at).verdict is verdict


@pytest.mark.parametrize(
    ("added_at", "verdict"),
    [
        ((0, 30, 90), Verdict.SUSPECT),
        (_ONE_EACH, Verdict.SUSPECT),
        ((*_ONE_EACH, 95), Verdict.LEAK),
        # the fifth is too young to count
        ((*_ONE_EACH, 101), Verdict.SUSPECT),
    ],
)
def test_fewer_than_five_make_a_suspect_at_most(
    added_at: tuple[float, ...], verdict: Verdict
) -> None:
    judgement = _judge(added_at)

    assert judgement.verdict is verdict
    assert _kinds(judgement) == ["grows_to_end", "never_removed"]


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
    assert _judge([at + 1000 for at in (*_ONE_EACH, 95)], until=1100).verdict is Verdict.LEAK


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
    judgement = _judge((), removed=Counter(removed))

    assert judgement == (Verdict.CLEAN, (("balanced", text),), 0, {})


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
    assert _judge(added_at, freed_by_exit=freed).evidence[-1] == ("freed_only_by_exit", text)


def test_all_at_one_moment_is_no_growth() -> None:
    for added_at, kind in ((0, "plateau"), (100, "short")):
        judgement = _judge([added_at] * 23)
        assert judgement.verdict is Verdict.HELD
        assert judgement.evidence[0].kind == kind


# --- rounds ---


def test_rounds_are_told_before_all_else() -> None:
    growing = judge(_site(_share(range(5), nets=(2, 1, 1, 1))))
    assert growing.verdict is Verdict.LEAK
    assert growing.evidence[0].text == "+2 in the first round, then +1 in each of 3"
    assert growing.per_hour == 3 * 3600

    two = judge(_site(_share(range(23), nets=(3, 10, 10))))
    assert two.verdict is Verdict.SUSPECT
    assert two.evidence[0] == ("grows_each_round", "+3 in the first round, then +10 in each of 2")

    most = judge(_site(_share([0, 1, 2, 3], nets=(0, 1, 1, 1, 0))))
    assert (most.verdict, most.evidence[0].kind) == (Verdict.SUSPECT, "grows_most_rounds")

    flat = judge(_site(_share(range(0, 100, 4), nets=(25, 0, 0))))
    assert (flat.verdict, flat.evidence[0].kind) == (Verdict.HELD, "flat_in_rounds")


# --- processes ---

_STEADY = tuple(range(0, 100, 4))


def test_processes_are_judged_each_by_itself() -> None:
    """GIVEN one that grows, one that does not, a young one WHEN judged THEN each has its class."""
    shares = (
        _share(_STEADY),
        _share((0, 1, 2), process=OTHER),
        _share((101,), process=THIRD),
    )
    judgement = judge(_site(*shares))

    assert judgement.verdict is Verdict.LEAK
    assert judgement.of_processes == {
        AGENT: Verdict.LEAK,
        OTHER: Verdict.HELD,
        THIRD: Verdict.YOUNG,
    }
    assert _kinds(judgement) == ["grows_to_end", "never_removed"]


def test_growth_in_several_processes_is_told_and_adds_up() -> None:
    shares = [_share(_STEADY, process=process) for process in (AGENT, OTHER)]
    judgement = judge(_site(*shares))

    assert _kinds(judgement) == ["grows_to_end", "in_several", "never_removed"]
    assert judgement.evidence[1].text == "so it does in 2 processes"
    assert judgement.per_hour == pytest.approx(2 * 25 * 36)


def test_the_certain_one_of_several_speaks() -> None:
    """GIVEN one that grew faster, but no more WHEN judged THEN the evidence is of the other."""
    over = _share([at / 10 for at in range(700)], process=OTHER)
    judgement = judge(_site(over, _share(_STEADY)))

    assert judgement.evidence[0].kind == "grows_to_end"
    assert judgement.of_processes == {OTHER: Verdict.SUSPECT, AGENT: Verdict.LEAK}


def test_the_old_are_judged_while_others_are_young() -> None:
    """GIVEN what is held, and a process that just came WHEN judged THEN it is not all young."""
    judgement = judge(_site(_share((0, 1, 2)), _share((101,), process=OTHER)))

    assert judgement.verdict is Verdict.HELD
    assert judgement.of_processes == {AGENT: Verdict.HELD, OTHER: Verdict.YOUNG}
    assert judgement.evidence[0].kind == "plateau"


def _services(number: int, orphans: int, replacing: int = 0, nets: Sequence[int] = ()) -> Judgement:
    """As many processes, each of which adds one; the first come first."""
    shares = [
        _share((at * 5,), process=Process(1 + at, 1), is_replacement=at < replacing)
        for at in range(number)
    ]
    site = _site(*shares, findings=Findings(processes=number, orphans=orphans))
    return judge(site._replace(total=site.total._replace(nets=nets, rounds_ns=SECOND)))


@pytest.mark.parametrize(
    ("orphans", "verdict"), [(0, Verdict.SUSPECT), (9, Verdict.SUSPECT), (10, Verdict.LEAK)]
)
def test_more_and_more_processes_are_a_leak_if_they_are_orphans(
    orphans: int, verdict: Verdict
) -> None:
    judgement = _services(20, orphans)

    assert judgement.verdict is verdict
    assert set(judgement.of_processes.values()) == {verdict}
    assert _kinds(judgement)[:2] == ["grows_to_end", "more_processes"]
    assert judgement.per_hour > 0


def test_processes_that_were_not_counted_are_no_orphans() -> None:
    """GIVEN rounds so short that all which live are young WHEN judged THEN it may be services."""
    shares = [_share((at * 5,), process=Process(1 + at, 1)) for at in range(20)]

    assert judge(_site(*shares)).verdict is Verdict.SUSPECT


def test_processes_that_stay_as_many_are_held() -> None:
    shares = [_share((at / 10,), process=Process(1 + at, 1)) for at in range(20)]
    judgement = judge(_site(*shares))

    assert judgement.verdict is Verdict.HELD
    assert judgement.evidence[0].kind == "few"


def test_growth_in_who_has_no_more_than_before_the_trace_is_suspect() -> None:
    """GIVEN growth from here, but not in all WHEN judged THEN it may replace what was there."""
    alone, replacing = (
        judge(_site(_share(_STEADY, is_replacement=is_replacement)))
        for is_replacement in (False, True)
    )

    assert (alone.verdict, replacing.verdict) == (Verdict.LEAK, Verdict.SUSPECT)
    assert _kinds(alone) == ["grows_to_end", "never_removed"]
    assert _kinds(replacing) == ["grows_to_end", "as_at_baseline", "never_removed"]
    assert replacing.evidence[1].text == "the process has no more than it had before the trace"
    assert replacing.per_hour == alone.per_hour


def test_rounds_are_not_doubted_by_what_was_there_before() -> None:
    share = _share(_STEADY, nets=(7, 6, 6, 6), is_replacement=True)
    judgement = judge(_site(share))

    assert judgement.verdict is Verdict.LEAK
    assert _kinds(judgement) == ["grows_each_round", "never_removed"]


def test_a_replacement_that_does_not_grow_is_told() -> None:
    judgement = judge(_site(_share((0, 1, 2), is_replacement=True)))

    assert judgement.verdict is Verdict.HELD
    assert _kinds(judgement) == ["plateau", "as_at_baseline", "never_removed"]


def test_one_that_replaces_does_not_excuse_another() -> None:
    shares = (_share(_STEADY, is_replacement=True), _share(_STEADY, process=OTHER))

    judgement = judge(_site(*shares))
    assert judgement.of_processes == {AGENT: Verdict.SUSPECT, OTHER: Verdict.LEAK}
    assert "as_at_baseline" not in _kinds(judgement)


def test_one_that_grows_speaks_before_the_number_of_processes() -> None:
    services = [_share((at * 5,), process=Process(1 + at, 1)) for at in range(20)]
    judgement = judge(_site(*services, _share(_STEADY, is_replacement=True)))

    assert judgement.verdict is Verdict.SUSPECT
    assert judgement.of_processes[AGENT] is Verdict.SUSPECT
    assert {judgement.of_processes[share.process] for share in services} == {Verdict.HELD}
    assert "more_processes" not in _kinds(judgement)


@pytest.mark.parametrize(("replacing", "verdict"), [(9, Verdict.LEAK), (10, Verdict.SUSPECT)])
def test_orphans_that_replace_what_they_had_are_not_more_and_more(
    replacing: int, verdict: Verdict
) -> None:
    """GIVEN 20 orphans, each adds one WHEN half of them had it before THEN it is not certain."""
    judgement = _services(20, 20, replacing)

    assert judgement.verdict is verdict
    text = "10 of 20 processes have no more than before the trace"
    assert (("as_at_baseline", text) in judgement.evidence) is (verdict is Verdict.SUSPECT)


def test_rounds_tell_that_processes_are_more_whatever_they_had() -> None:
    judgement = _services(20, 20, replacing=20, nets=(5, 5, 5, 5))

    assert judgement.verdict is Verdict.LEAK
    assert _kinds(judgement)[:2] == ["grows_each_round", "more_processes"]


# --- findings ---


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        (Findings(checked=6, gone={"deleted": 3}), Verdict.LEAK),
        (Findings(checked=6, gone={"deleted": 2, "unmounted": 1}), Verdict.LEAK),
        # fewer than half
        (Findings(checked=7, gone={"deleted": 3}), Verdict.SUSPECT),
        # one or two by chance
        (Findings(checked=2, gone={"deleted": 2}), Verdict.HELD),
        (Findings(number=2, unread=1), Verdict.LEAK),
        (Findings(number=3, unread=1), Verdict.HELD),
        (Findings(number=7, unread=3), Verdict.SUSPECT),
        # of very many the targets of the oldest are checked
        (Findings(number=3, checked=0, unread=1), Verdict.HELD),
        (Findings(number=2, checked=7, unread=1), Verdict.LEAK),
        # the same target again may be meant so
        (Findings(repeated=1_499, most_on_one=1_500), Verdict.HELD),
        (Findings(without_watch=3), Verdict.SUSPECT),
        (Findings(without_watch=2, failed_adds=2), Verdict.HELD),
        (Findings(orphans=23, processes=23), Verdict.HELD),
    ],
)
def test_what_findings_make_of_what_does_not_grow(findings: Findings, verdict: Verdict) -> None:
    judgement = _judge((0, 1, 2), findings=findings)

    assert judgement.verdict is verdict
    assert judgement.of_processes == {AGENT: verdict}


_GONE = Findings(checked=3, gone={"deleted": 3})


def test_the_guilt_of_one_process_is_not_that_of_another() -> None:
    """GIVEN two that do not grow WHEN the targets of one are gone THEN the other holds its own."""
    shares = (_share(_FIRST, findings=_GONE), _share(_FIRST, process=OTHER))
    both = Findings(checked=6, gone={"deleted": 3}, processes=2)
    judgement = judge(_site(*shares, findings=both))

    assert judgement.verdict is Verdict.LEAK
    assert judgement.of_processes == {AGENT: Verdict.LEAK, OTHER: Verdict.HELD}
    assert ("target_gone", "3 of 6 targets are gone: 3 deleted") in judgement.evidence


def test_findings_of_all_make_nobody_guilty() -> None:
    """GIVEN three that are gone, two of one process and one of another THEN it may be chance."""
    shares = (
        _share(_FIRST, findings=Findings(checked=3, gone={"deleted": 2})),
        _share((0,), process=OTHER, findings=Findings(checked=1, gone={"deleted": 1})),
    )
    judgement = judge(_site(*shares, findings=Findings(checked=4, gone={"deleted": 3})))

    assert judgement.verdict is Verdict.HELD
    assert judgement.of_processes == {AGENT: Verdict.HELD, OTHER: Verdict.HELD}
    assert ("target_gone", "3 of 4 targets are gone: 3 deleted") in judgement.evidence


def test_the_same_target_again_is_told_of_what_grows_and_what_does_not() -> None:
    again = Findings(checked=25, repeated=24, most_on_one=25)
    grows, holds = _judge(_STEADY, findings=again), _judge([0] * 25, findings=again)

    assert (grows.verdict, holds.verdict) == (Verdict.LEAK, Verdict.HELD)
    for judgement in (grows, holds):
        assert judgement.evidence[-1].kind == "watched_again"


def test_findings_do_not_make_a_leak_less_of_one() -> None:
    assert _judge(_STEADY, findings=Findings(without_watch=3)).verdict is Verdict.LEAK


def test_evidence_begins_with_what_made_the_verdict_and_ends_with_exits() -> None:
    judgement = _judge((0, 1, 2), freed_by_exit=3, findings=Findings(number=3, unread=3))

    # what made the verdict
    assert _kinds(judgement) == ["unread", "never_removed", "freed_only_by_exit"]


# --- instances ---


def test_instances_are_opened_and_closed() -> None:
    gone = Counter({Cause.CLOSED: 23})
    assert _judge((0,), opens_instances=True).evidence[-1].text == "none was ever closed"
    some = _judge((0,), opens_instances=True, removed=gone)
    assert some.evidence[-1].text == "23 were closed, 1 was not"
    none = _judge((), opens_instances=True, removed=gone)
    assert none.evidence == (("balanced", "all were closed"),)
    young = _judge((101,), opens_instances=True)
    assert young.evidence[0].text.startswith("all live instances are younger than 5 s")


@pytest.mark.parametrize(("exits_are_told", "kinds"), [(True, 2), (False, 1)])
def test_closed_on_purpose_is_told_where_exits_are(exits_are_told: bool, kinds: int) -> None:
    removed = Counter({Cause.RM_WATCH: 23, Cause.CLOSED: 1_500})
    judgement = _judge((), removed=removed, exits_are_told=exits_are_told)

    assert judgement.evidence[0].text == "all are gone: 23 removed, 1,500 closed"
    assert [one.text for one in judgement.evidence[1:]] == [
        "1,500 went as the program itself closed their instance"
    ][: kinds - 1]


# --- any history ---

_times = st.lists(st.integers(0, 2**62), min_size=1, max_size=23).map(sorted)
_counts = st.integers(0, 1000)
_removed = st.dictionaries(st.sampled_from(Cause), _counts).map(Counter)
_findings = st.builds(
    Findings,
    number=_counts,
    checked=_counts,
    gone=st.dictionaries(st.sampled_from(["deleted", "unmounted"]), st.integers(1, 1000)),
    repeated=_counts,
    unread=_counts,
    without_watch=_counts,
    orphans=_counts,
    processes=_counts,
)


@st.composite
def _histories(draw: st.DrawFn) -> History:
    left = draw(_times)
    course = Course()
    for at in left:
        course.note(at, draw(st.integers(0, 100)))
    return History(
        left_since=left,
        removed=draw(_counts),
        longest_life=draw(st.integers(0, 2**62)),
        course=course,
        until=draw(st.integers(-(2**33), 2**62)),
        nets=draw(st.lists(st.integers(-9, 9), max_size=5)),
        rounds_ns=draw(st.integers(0, 2**62)),
    )


@st.composite
def _shares(draw: st.DrawFn) -> list[ShareHistory]:
    """Nothing is found out about what is young."""
    shares = []
    for at, one in enumerate(draw(st.lists(_histories(), max_size=5))):
        is_old = one.left_since[0] <= one.until
        findings = draw(_findings) if is_old else _NOTHING
        shares.append(ShareHistory(Process(1 + at, 1), one, findings, draw(st.booleans())))
    return shares


@given(_shares(), _histories(), _removed, _counts, _findings, st.booleans(), st.booleans())
def test_every_history_has_a_verdict_with_evidence(
    shares: list[ShareHistory],
    total: History,
    removed: Counter[Cause],
    freed: int,
    findings: Findings,
    opens_instances: bool,
    exits_are_told: bool,
) -> None:
    site = SiteHistory(shares, total, freed, removed, findings, 5, opens_instances, exits_are_told)
    judgement = judge(site)

    assert judgement.evidence
    assert all(evidence.kind and evidence.text for evidence in judgement.evidence)
    assert judgement.per_hour >= 0
    assert (judgement.verdict is Verdict.CLEAN) is (not shares)
    assert set(judgement.of_processes) == {share.process for share in shares}
    if shares:
        assert judgement.verdict in judgement.of_processes.values()
        is_young = all(one.history.left_since[0] > one.history.until for one in shares)
        assert (judgement.verdict is Verdict.YOUNG) is is_young
        worst = min(judgement.of_processes.values(), key=lambda one: one.rank)
        assert judgement.verdict.rank == worst.rank or worst is Verdict.YOUNG
    backwards = judge(site._replace(shares=shares[::-1]))
    assert backwards.of_processes == judgement.of_processes


@given(
    begin=st.integers(0, 2**60),
    step=st.integers(START_UP_NS // (LEAST_CERTAIN - 1), 2**40),
    number=st.integers(LEAST_CERTAIN, 199),
    rest=st.floats(0, 1),
)
def test_steady_growth_is_a_leak_at_any_pace(
    begin: int, step: int, number: int, rest: float
) -> None:
    added_at = [begin + i * step for i in range(number)]
    until = added_at[-1] + int(rest * (step - 1))
    steady = ShareHistory(AGENT, History(added_at, 0, 0, Course(), until))

    assert judge(_site(steady)).verdict is Verdict.LEAK


@pytest.mark.parametrize(
    ("length", "verdict"), [(START_UP_NS, Verdict.LEAK), (START_UP_NS - 1, Verdict.HELD)]
)
def test_what_comes_in_one_go_is_no_growth(length: int, verdict: Verdict) -> None:
    """GIVEN a process that ended as soon as it had added all WHEN judged THEN it may start up."""
    added_at = [SECOND + length * at // 23 for at in range(23)]
    steady = ShareHistory(AGENT, History(added_at, 0, 0, Course(), SECOND + length))

    judgement = judge(_site(steady))
    assert judgement.verdict is verdict
    assert (judgement.evidence[0].kind == "short") is (length < START_UP_NS)


def test_verdicts_are_ranked_by_what_needs_action() -> None:
    ranked = sorted(Verdict, key=lambda one: one.rank)

    assert [one.value for one in ranked] == [
        "leak",
        "suspect",
        "inconclusive",
        "young",
        "held",
        "clean",
    ]


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
