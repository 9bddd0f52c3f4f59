"""Who has how much of which limit: the frozen rows, and the answer in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from tracer.core.charging import charged
from tracer.core.raising import Raise, Settings, raises, raises_in_namespace
from tracer.core.shortage import (
    INITIAL_USERNS,
    NEAR,
    UNLIMITED,
    HolderShare,
    Resource,
    Shortage,
    share_of,
)
from tracer.views.ls import Payer, Usage
from tracer.views.namespaces import in_namespace
from tracer.views.text import counted, printable

RESOURCES = (Resource.WATCHES, Resource.INSTANCES)
_SINGULAR = {Resource.WATCHES: "watch", Resource.INSTANCES: "instance"}
_REMARKS_SHOWN = 4
_ANSWERS_SHOWN = 3


@dataclass(frozen=True)
class User:
    """
    What a user is charged for, and the processes that hold it, by watches.

    `maker` made the user's namespace and is charged as well. `member` is a process in it that has a
    root there.
    """

    usage: Usage
    holders: tuple[HolderShare, ...]
    maker: Payer | None = None
    member: int | None = None

    @property
    def uid(self) -> int:
        return self.usage.uid

    @property
    def key(self) -> Payer:
        return self.usage.userns, self.usage.uid

    @property
    def name(self) -> str:
        return printable(self.usage.user)

    @property
    def is_in_namespace(self) -> bool:
        """In another than the initial one."""
        return self.usage.userns not in (None, INITIAL_USERNS)

    def used(self, resource: Resource) -> int:
        return self.usage.watches if resource is Resource.WATCHES else self.usage.instances

    def limit(self, resource: Resource) -> int | None:
        """None if there is none, or it is not known."""
        by_watches = resource is Resource.WATCHES
        limit = self.usage.watches_limit if by_watches else self.usage.instances_limit
        return limit if limit is not None and limit < UNLIMITED else None

    @property
    def has_own_limit(self) -> bool:
        return any(self.limit(resource) is not None for resource in RESOURCES)

    def share(self, resource: Resource) -> float:
        """Of its limit, 0 without one."""
        limit = self.limit(resource)
        return 0.0 if limit is None else share_of(self.used(resource), limit)


@dataclass(frozen=True)
class Limits:
    """
    One look. `watches` and `instances` are in use altogether, each counted once. Of `users` only
    those in `asked` are shown, unless it is None; `descriptors` are processes near RLIMIT_NOFILE.
    `complete`: everything could be looked at.
    """

    kernel: str
    truth: str
    complete: bool
    users: tuple[User, ...]
    watches: int
    instances: int
    settings: Settings
    asked: frozenset[Payer] | None = None
    descriptors: tuple[Shortage, ...] = ()

    @property
    def shown(self) -> tuple[User, ...]:
        return tuple(user for user in self.users if self.asked is None or user.key in self.asked)

    @cached_property
    def _by_key(self) -> Mapping[Payer, User]:
        return {user.key: user for user in self.users}

    @cached_property
    def _makers(self) -> Mapping[Payer, Payer | None]:
        return {user.key: user.maker for user in self.users}

    def charged(self, user: User) -> Iterator[User]:
        """The user, and whoever is charged with it, outward."""
        keys = charged(user.key, self._makers)
        return (self._by_key[key] for key in keys if key in self._by_key)

    def nearest(self, user: User, resource: Resource) -> User:
        """Of all who are charged with it, who is nearest to a limit."""

        def order(level: User) -> tuple[float, bool]:
            return level.share(resource), level.limit(resource) is not None

        return max(self.charged(user), key=order)

    def free(self, user: User, resource: Resource) -> int | None:
        """How many more the user may have before anyone charged has too many; None: no limit."""
        left = [
            max(limit - level.used(resource), 0)
            for level in self.charged(user)
            if (limit := level.limit(resource)) is not None
        ]
        return min(left, default=None)

    @cached_property
    def raises(self) -> tuple[Raise, ...]:
        """How to raise what there is, the namespaces' own limits last."""
        ours = self.settings.userns
        used = {one: self._most_used(ours or INITIAL_USERNS, one) for one in RESOURCES}
        others = {user.usage.userns: None for user in self.shown if user.is_in_namespace}
        own = (self._own_raises(userns) for userns in others if userns not in (None, ours))
        return (*raises(self.settings, used), *chain.from_iterable(own))

    def _own_raises(self, userns: int | None) -> Iterator[Raise]:
        """All users of a namespace have the same limits."""
        assert userns is not None
        users = [user for user in self.users if user.usage.userns == userns]
        member = next((user.member for user in users if user.member is not None), None)
        for resource in RESOURCES:
            limit = users[0].limit(resource)
            if limit is not None:
                used, memory = self._most_used(userns, resource), self.settings.memory
                yield from raises_in_namespace(resource, limit, used, memory, userns, member)

    def _most_used(self, userns: int, resource: Resource) -> int:
        users = (user for user in self.users if (user.usage.userns or INITIAL_USERNS) == userns)
        return max((user.used(resource) for user in users), default=0)


class Line(NamedTuple):
    """A user's use of a resource; of all who are charged, `level` is nearest to its limit."""

    user: User
    resource: Resource
    level: User

    @property
    def share(self) -> float:
        """How much of the nearest limit is used."""
        return self.level.share(self.resource)


def summary(limits: Limits) -> tuple[str, ...]:
    """The answer: who is nearest to a limit, and everyone else who is near to one."""
    return tuple(map(_answer, answered(limits))) or (_nothing(limits),)


def answered(limits: Limits) -> list[Line]:
    """What the answer is about: each limit once, by whoever has most of it to itself."""
    found: dict[tuple[Payer, Resource], Line] = {}
    for line in lines(limits):
        found.setdefault((line.level.key, line.resource), line)
    near = [line for at, line in enumerate(found.values()) if not at or line.share >= NEAR]
    return near[:_ANSWERS_SHOWN]


def _nothing(limits: Limits) -> str:
    seen = "" if limits.complete else ", as far as can be seen"
    if limits.asked is not None:
        return f"no inotify instance is of who was asked for{seen}"
    return f"nobody has an inotify instance{seen}"


# --- the answer ---


def lines(limits: Limits) -> list[Line]:
    """Those nearest to being met first, of several with one limit whose limit it is."""
    found = [
        Line(user, resource, limits.nearest(user, resource))
        for user in limits.shown
        for resource in RESOURCES
    ]
    return sorted(found, key=_order)


def _order(line: Line) -> tuple[float, bool, int]:
    return -line.share, line.level is not line.user, -line.user.used(line.resource)


def _answer(line: Line) -> str:
    user, resource, level = line
    used = user.used(resource)
    limit = user.limit(resource) if level is user else None
    has = "has" if user.usage.complete else "has at least"
    amount = (
        counted(used, _SINGULAR[resource], resource.value)
        if limit is None
        else f"{used:,} of {limit:,} {resource.value} ({percent(line.share)})"
    )
    how = ", counted" if user.usage.source == "counted" else ""
    text = f"{user.name} {has} {amount}{how}{in_namespace(user.usage.userns)}"
    return text + _most(user, resource) + _also_charged(line)


def _most(user: User, resource: Resource) -> str:
    holders = top(user, resource)
    if not holders:
        return ""
    first, used = holders[0], user.used(resource)
    number = first.amount(resource)
    if number != used:
        return f": {process(first)} holds {number:,} of them"
    return f": {process(first)} holds {'it' if used == 1 else 'all of them'}"


def _also_charged(line: Line) -> str:
    """Whose limit it is that is met first."""
    user, resource, level = line
    limit = level.limit(resource)
    if level is user or limit is None:
        return ""
    is_charged = "is charged" if user.used(resource) else "would be charged"
    return (
        f"; {level.name}{in_namespace(level.usage.userns)} {is_charged}, too, "
        f"and has {level.used(resource):,} of {limit:,} ({percent(line.share)})"
    )


def top(user: User, resource: Resource) -> list[HolderShare]:
    """Who holds most of it first."""
    having = [holder for holder in user.holders if holder.amount(resource)]
    return sorted(having, key=lambda one: (-one.amount(resource), one.pid))


def process(holder: HolderShare) -> str:
    """``agent[1173]``."""
    return f"{printable(holder.comm)}[{holder.pid}]"


def percent(share: float) -> str:
    """``91 %``."""
    # what is not met is not 100 %
    return f"{int(share * 100)} %"


# --- what is to know ---


def remarks(limits: Limits) -> Iterator[str]:
    """Why the numbers are as they are, and which limit is met first."""
    if limits.settings.userns is not None:
        yield (
            f"This is user namespace {limits.settings.userns}: whoever made it is charged for what "
            "is used in it, too, and may have less left, which cannot be seen from here."
        )
    for resource in RESOURCES if limits.asked is None else ():
        yield from _more_than_allowed(limits, resource)
    yield from list(_lowered(limits))[:_REMARKS_SHOWN]
    yield from list(_levels(limits))[:_REMARKS_SHOWN]
    for shortage in limits.descriptors[:_REMARKS_SHOWN]:
        yield (
            f"{process(shortage.holders[0])} has {shortage.used:,} of {shortage.limit:,} file "
            "descriptors (RLIMIT_NOFILE), and each instance takes one."
        )


def _more_than_allowed(limits: Limits, resource: Resource) -> Iterator[str]:
    total = limits.watches if resource is Resource.WATCHES else limits.instances
    allowed = limits.settings.allowed(resource)
    outermost = [user for user in limits.users if user.maker is None and user.used(resource)]
    if allowed is not None and total > allowed and len(outermost) > 1:
        yield (
            f"{total:,} {resource.value} are in use, more than the {allowed:,} allowed: that is "
            f"for each user by itself, and {counted(len(outermost), 'user')} have some."
        )


def _lowered(limits: Limits) -> Iterator[str]:
    for user, resource, _ in lines(limits):
        limit = user.limit(resource)
        if limit is not None and user.used(resource) > limit:
            yield (
                f"{user.name}{in_namespace(user.usage.userns)} has more {resource.value} than "
                "allowed: the limit was lowered when they were there, and no more can be added."
            )


def _levels(limits: Limits) -> Iterator[str]:
    """Of users in namespaces: which of the limits that they are charged to is nearest."""
    told = [line.user for line in answered(limits) if line.level is not line.user]
    for user in limits.shown:
        if user.maker is None or user in told or not any(map(user.used, RESOURCES)):
            continue
        resource = max(RESOURCES, key=lambda one: limits.nearest(user, one).share(one))
        level = limits.nearest(user, resource)
        limit = level.limit(resource)
        whose = "its own" if level is user else f"that of {level.name}"
        where = "" if level is user else in_namespace(level.usage.userns)
        if limit is not None:
            yield (
                f"What {user.name}{in_namespace(user.usage.userns)} has is charged to whoever made "
                f"the namespace, too. Nearest is {whose}{where}: {level.used(resource):,} of "
                f"{limit:,} {resource.value}."
            )
