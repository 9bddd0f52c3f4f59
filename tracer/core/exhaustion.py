"""When there is no more, at the pace of what places in the code make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Callable

from tracer.core.charging import charged
from tracer.core.report import SiteRow, Unit, UserLimits
from tracer.core.walk import Payer


def with_pace(user: UserLimits, pace: Callable[[Payer, Unit], float]) -> UserLimits:
    """The user as it grows by so much an hour."""
    return replace(
        user,
        watches=replace(user.watches, per_hour=pace(user.payer, Unit.WATCHES)),
        instances=replace(user.instances, per_hour=pace(user.payer, Unit.INSTANCES)),
    )


def growing(limits: Iterable[UserLimits], sites: Iterable[SiteRow]) -> tuple[UserLimits, ...]:
    """The users at the pace of all places together that make what they are charged for."""
    limits = tuple(limits)
    makers = {user.payer: user.maker for user in limits}
    pace: defaultdict[tuple[Payer, Unit], float] = defaultdict(float)
    for site in sites:
        for payer in charged(site.payer, makers) if site.payer is not None else ():
            pace[payer, site.unit] += site.per_hour
    return tuple(with_pace(user, lambda payer, unit: pace[payer, unit]) for user in limits)


def with_time_left(sites: Sequence[SiteRow], limits: Iterable[UserLimits]) -> Iterator[SiteRow]:
    """The places with who has no more first of all that are charged for them, and when."""
    users = {user.payer: user for user in growing(limits, sites)}
    for site in sites:
        met = min(_met(site, users), key=lambda one: one[0], default=None)
        yield site if met is None else replace(site, full_in_s=met[0], full_payer=met[1])


def _met(site: SiteRow, users: Mapping[Payer, UserLimits]) -> Iterator[tuple[float, Payer]]:
    """The limits that are met at this pace, in so many seconds."""
    if not site.per_hour or site.payer is None:
        return
    makers = {payer: user.maker for payer, user in users.items()}
    for payer in charged(site.payer, makers):
        full_in_s = users[payer].use(site.unit).full_in_s if payer in users else None
        if full_in_s is not None:
            yield full_in_s, payer
