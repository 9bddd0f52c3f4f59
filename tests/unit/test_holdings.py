"""Who holds how much of what which user is charged for, and whether that grows."""

from __future__ import annotations

import pytest
from build import AGENT, FIRST, OTHER, SECOND, walk, walked

from tracer.core.events import Instance, Process
from tracer.core.holdings import Holdings
from tracer.core.shortage import UNLIMITED, Resource
from tracer.core.trend import Trend
from tracer.core.walk import HolderFd, Payer, UserUse

_OUTER, _INNER = (11, 0), (13, 0)
_OTHERS = Instance(0xFFFF888000002000, 101)
_THIRD = Instance(0xFFFF888000003000, 103)


def _use(payer: Payer, watches: int, limit: int, instances: int = 3) -> UserUse:
    maker = _OUTER if payer == _INNER else None
    return UserUse(payer[1], payer[0], watches, limit, instances, 128, maker)


def _holdings() -> Holdings:
    """AGENT has 5 and 2 watches in a namespace, the 2 with OTHER, who has 3 outside."""
    inner = walked(range(1, 6), 1)._replace(payers=(_INNER, _OUTER))
    shared = walked(range(1, 3), 1, _OTHERS)._replace(
        payers=(_INNER, _OUTER), holders=(HolderFd(AGENT, 4), HolderFd(OTHER, 4))
    )
    outer = walked(range(1, 4), 1, _THIRD, process=OTHER)._replace(payers=(_OUTER,))
    users = (_use(_INNER, 7, 7), _use(_OUTER, 10, 8192))
    return Holdings(walk(inner, shared, outer, began=1, users=users))


def _held(holdings: Holdings, payer: Payer, by: Resource) -> list[tuple[Process, int, int]]:
    return [tuple(one) for one in holdings.holders(payer, by)]  # type: ignore[misc]


def test_a_shared_instance_is_its_first_holders_and_all_charged_have_it() -> None:
    holdings = _holdings()

    assert _held(holdings, _INNER, Resource.WATCHES) == [(AGENT, 7, 2)]
    assert _held(holdings, _OUTER, Resource.WATCHES) == [(AGENT, 7, 2), (OTHER, 3, 1)]
    assert _held(holdings, (17, 0), Resource.WATCHES) == []


def test_a_process_is_of_the_users_that_are_charged_for_what_it_holds() -> None:
    holdings = _holdings()

    assert holdings.payers_of(AGENT) == {_INNER}
    assert holdings.payers_of(OTHER) == {_INNER, _OUTER}
    assert holdings.of_uid(0) == [_INNER, _OUTER]


def test_the_nearest_limit_may_be_of_who_made_the_namespace() -> None:
    holdings = _holdings()

    for resource, nearest in ((Resource.WATCHES, _INNER), (Resource.INSTANCES, _INNER)):
        found = holdings.nearest([_INNER], resource)
        assert found is not None
        assert (found.userns, found.uid) == nearest
    full = Holdings(
        walk(
            walked([1], 1)._replace(payers=(_INNER, _OUTER)),
            began=1,
            users=(_use(_INNER, 7, UNLIMITED), _use(_OUTER, 8192, 8192)),
        )
    )
    found = full.nearest([_INNER], Resource.WATCHES)
    assert found is not None and (found.userns, found.uid) == _OUTER


def test_who_made_a_namespace_is_known_of_who_holds_nothing() -> None:
    """GIVEN an instance on its way through a socket WHEN asked THEN its maker is charged, too."""
    holdings = Holdings(walk(began=1, users=(_use(_INNER, 50, UNLIMITED), _use(_OUTER, 50, 8192))))

    assert (holdings.maker(_INNER), holdings.maker(_OUTER)) == (_OUTER, None)
    assert [(one.userns, one.uid) for one in holdings.charged(_INNER)] == [_INNER, _OUTER]


def test_what_could_not_be_read_or_is_held_by_nobody_is_no_error() -> None:
    torn = walked(None, 1, FIRST)._replace(payers=(_OUTER,))
    alone = walked([1], 1, _OTHERS)._replace(payers=(_OUTER,), holders=())

    assert _held(Holdings(walk(torn, alone, began=1)), _OUTER, Resource.WATCHES) == [(AGENT, 0, 1)]


# --- trends ---


def _trend(numbers: list[int], apart_s: int = 10) -> Trend:
    trend = Trend()
    for at, number in enumerate(numbers):
        trend.note(at * apart_s * SECOND, number)
    return trend


@pytest.mark.parametrize(
    ("numbers", "per_hour"),
    [
        ([], 0),
        ([7], 0),
        ([0, 10, 20, 30], 0),
        ([0, 10, 20, 30, 40, 50], 3600),
        ([0, 10, 20, 30, 40, 50, 60, 70], 3600),
        ([5, 5, 5, 5, 5, 5], 0),
        ([30, 20, 10, 0], 0),
        # a burst that stays as it is, and bursts that go
        ([0, 23, 23, 23, 23, 23, 23, 23], 0),
        ([0, 100, 0, 100, 0, 100, 0, 100], 0),
    ],
)
def test_growth_is_of_the_lowest_numbers(numbers: list[int], per_hour: float) -> None:
    assert _trend(numbers).per_hour == per_hour


def test_soon_after_the_beginning_nothing_is_said() -> None:
    assert _trend([0, 10, 20, 30, 40], apart_s=2).per_hour == 0


def test_a_long_trace_is_kept_in_few_looks_and_has_the_same_pace() -> None:
    trend = _trend(list(range(10_000)))

    assert trend.per_hour == pytest.approx(360, rel=0.05)
    assert len(trend._seen) <= 64
