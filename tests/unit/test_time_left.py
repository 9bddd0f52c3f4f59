"""When there is no more: at the pace of all, by the first limit of all who are charged."""

from __future__ import annotations

from typing import Any

import pytest
from build import leak, limits, opening

from tracer.core.exhaustion import growing, with_time_left
from tracer.core.report import SiteRow, Use, UserLimits
from tracer.core.verdict import Verdict
from tracer.core.walk import Payer

_HOST: Payer = (4026531837, 0)
_CONTAINER: Payer = (4026532201, 100_000)
_OTHER: Payer = (4026532301, 200_000)
_NO_LIMIT = 2**31 - 1


def _user(payer: Payer, watches: Use, maker: Payer | None = _HOST, **changes: Any) -> UserLimits:
    return limits(userns=payer[0], uid=payer[1], watches=watches, maker=maker, **changes)


_OF_HOST = _user(_HOST, Use(1_000, 2_800), None)


def _left(site: SiteRow, *users: UserLimits) -> tuple[Payer | None, float | None]:
    (found,) = with_time_left([site], users)
    return found.full_payer, found.full_in_s


def test_in_a_namespace_without_limits_who_made_it_has_no_more() -> None:
    site = leak(per_hour=900.0, payer=_CONTAINER)

    found = _left(site, _user(_CONTAINER, Use(18, _NO_LIMIT)), _OF_HOST)

    assert found == (_HOST, pytest.approx(7_200))


def test_the_namespaces_own_limit_may_be_met_before() -> None:
    site = leak(per_hour=900.0, payer=_CONTAINER)

    found = _left(site, _user(_CONTAINER, Use(23, 923)), _OF_HOST)

    assert found == (_CONTAINER, pytest.approx(3_600))


def test_two_levels_out_counts_as_well() -> None:
    users = (_user(_OTHER, Use(1, _NO_LIMIT), _CONTAINER), _user(_CONTAINER, Use(1, _NO_LIMIT)))
    site = leak(per_hour=1_800.0, payer=_OTHER)

    assert _left(site, *users, _OF_HOST) == (_HOST, pytest.approx(3_600))


def test_where_nobody_has_a_limit_there_is_no_time() -> None:
    site = leak(per_hour=900.0, payer=_HOST)

    assert _left(site, _user(_HOST, Use(1_000, _NO_LIMIT), None)) == (None, None)
    assert _left(site) == (None, None)


def test_of_who_made_them_all_grow_together() -> None:
    """GIVEN leaks in two namespaces WHEN the host's limit is near THEN both together meet it."""
    sites = [
        leak(per_hour=600.0, payer=_CONTAINER),
        leak(per_hour=300.0, payer=_OTHER),
        opening(Verdict.LEAK, 3, per_hour=5.0, payer=_OTHER),
        leak(per_hour=7.0, payer=None),
    ]
    users = (_user(_CONTAINER, Use(1, _NO_LIMIT)), _user(_OTHER, Use(1, 31)), _OF_HOST)

    first, second, *_ = with_time_left(sites, users)
    assert (first.full_payer, first.full_in_s) == (_HOST, pytest.approx(7_200))
    assert (second.full_payer, second.full_in_s) == (_OTHER, pytest.approx(360))
    assert [(one.watches.per_hour, one.instances.per_hour) for one in growing(users, sites)] == [
        (600, 0),
        (300, 5),
        (900, 5),
    ]
