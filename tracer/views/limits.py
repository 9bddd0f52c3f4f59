"""Who has how much of which limit: the frozen rows, and the answer in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from tracer.core.raising import Raise, Settings, raise_in_namespace, raises
from tracer.core.shortage import (
    INITIAL_USERNS,
    NEAR,
    UNLIMITED,
    HolderShare,
    Resource,
    Shortage,
    share_of,
)
from tracer.core.walk import Payer
from tracer.views.failures import in_namespace
from tracer.views.ls import Usage
from tracer.views.text import counted, printable

RESOURCES = (Resource.WATCHES, Resource.INSTANCES)
_Key = tuple[object, int]
# what the kernel lets namespaces nest
_LEVELS_MAX = 33
_REMARKS_SHOWN = 4
_ANSWERS_SHOWN = 3


@dataclass(frozen=True)
class User:
    """
    What a user is charged for, and the processes that hold it, by watches.

    `maker` made the user's namespace and is charged as well. `member` is a process in it.
    """

    usage: Usage
    holders: tuple[HolderShare, ...]
    maker: Payer | None = None
    member: int | None = None

    @property
    def uid(self) -> int:
        return self.usage.uid

    @property
    def key(self) -> _Key:
        return self.usage.userns, self.usage.uid

    def used(self, resource: Resource) -> int:
        return self.usage.watches if resource is Resource.WATCHES else self.usage.instances

    def limit(self, resource: Resource) -> int | None:
        """None if there is none, or it is not known."""
        by_watches = resource is Resource.WATCHES
        limit = self.usage.watches_limit if by_watches else self.usage.instances_limit
        return limit if limit is not None and limit < UNLIMITED else None

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
    asked: frozenset[_Key] | None = None
    descriptors: tuple[Shortage, ...] = ()

    @property
    def shown(self) -> tuple[User, ...]:
        return tuple(user for user in self.users if self.asked is None or user.key in self.asked)

    @cached_property
    def _by_key(self) -> Mapping[_Key, User]:
        return {user.key: user for user in self.users}

    def charged(self, user: User) -> Iterator[User]:
        """The user, and whoever is charged with it, outward."""
        at: User | None = user
        for _ in range(_LEVELS_MAX):
            if at is None:
                return
            yield at
            at = self._by_key.get(at.maker) if at.maker is not None else None

    def nearest(self, user: User, resource: Resource) -> User:
        """Of all who are charged with it, who is nearest to a limit."""
        return max(self.charged(user), key=lambda level: level.share(resource))

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
        own = chain.from_iterable(map(self._own_raises, self.shown))
        # all users of a namespace have the same
        return (*raises(self.settings), *dict.fromkeys(own))

    def _own_raises(self, user: User) -> Iterator[Raise]:
        userns, memory = user.usage.userns, self.settings.memory
        if userns is None or userns == INITIAL_USERNS:
            return
        for resource in RESOURCES:
            limit = user.limit(resource)
            if limit is not None:
                yield raise_in_namespace(resource, limit, memory, userns, user.member)


class Line(NamedTuple):
    """A limit of a user."""

    user: User
    resource: Resource

    @property
    def share(self) -> float:
        return self.user.share(self.resource)


def summary(limits: Limits) -> tuple[str, ...]:
    """The answer: who is nearest to a limit, and everyone else who is near to one."""
    found = lines(limits)
    if not found:
        return (_nothing(limits),)
    first, *rest = found
    near = [line for line in rest if line.share >= NEAR]
    return tuple(map(_answer, [first, *near][:_ANSWERS_SHOWN]))


def _nothing(limits: Limits) -> str:
    seen = "" if limits.complete else ", as far as can be seen"
    if limits.asked is not None:
        return f"no inotify instance is of who was asked for{seen}"
    return f"nobody has an inotify instance{seen}"


# --- the answer ---


def lines(limits: Limits) -> list[Line]:
    """Those nearest to being met first."""
    found = [Line(user, resource) for user in limits.shown for resource in RESOURCES]
    return sorted(found, key=lambda line: (-line.share, -line.user.used(line.resource)))


def _answer(line: Line) -> str:
    user, resource = line
    used, limit = user.used(resource), user.limit(resource)
    has = "has" if user.usage.complete else "has at least"
    amount = f"{used:,} {resource.value}" if limit is None else f"{used:,} of {limit:,} "
    amount = amount if limit is None else f"{amount}{resource.value} ({percent(line)})"
    how = ", counted" if user.usage.source == "counted" else ""
    text = f"{printable(user.usage.user)} {has} {amount}{how}{in_namespace(user.usage.userns)}"
    return text + _most(user, resource)


def _most(user: User, resource: Resource) -> str:
    holders = top(user, resource)
    if not holders:
        return ""
    first = holders[0]
    number = first.amount(resource)
    what = "all" if number == user.used(resource) else f"{number:,}"
    return f": {process(first)} holds {what} of them"


def top(user: User, resource: Resource) -> list[HolderShare]:
    """Who holds most of it first."""
    having = [holder for holder in user.holders if holder.amount(resource)]
    return sorted(having, key=lambda one: (-one.amount(resource), one.pid))


def process(holder: HolderShare) -> str:
    """``agent[1173]``."""
    return f"{printable(holder.comm)}[{holder.pid}]"


def percent(line: Line) -> str:
    """``91 %``."""
    # what is not met is not 100 %
    return f"{int(line.share * 100)} %"


# --- what is to know ---


def remarks(limits: Limits) -> Iterator[str]:
    """Why the numbers are as they are, and which limit is met first."""
    if limits.asked is None:
        for resource in RESOURCES:
            yield from _more_than_allowed(limits, resource)
    yield from list(_levels(limits))[:_REMARKS_SHOWN]
    for shortage in limits.descriptors[:_REMARKS_SHOWN]:
        yield (
            f"{process(shortage.holders[0])} has {shortage.used:,} of {shortage.limit:,} file "
            "descriptors (RLIMIT_NOFILE), and each instance takes one."
        )


def _more_than_allowed(limits: Limits, resource: Resource) -> Iterator[str]:
    by_watches = resource is Resource.WATCHES
    total = limits.watches if by_watches else limits.instances
    allowed = limits.settings.watches if by_watches else limits.settings.instances
    if allowed is None:
        return
    outermost = [user for user in limits.users if user.maker is None and user.used(resource)]
    if total > allowed and len(outermost) > 1:
        yield (
            f"{total:,} {resource.value} are in use, more than the {allowed:,} allowed: that is "
            f"for each user by itself, and {counted(len(outermost), 'user')} have some."
        )
    for user in outermost:
        limit = user.limit(resource)
        if limit is not None and user.used(resource) > limit:
            yield (
                f"{printable(user.usage.user)} has more {resource.value} than allowed: the limit "
                "was lowered when they were there, and no more can be added."
            )


def _levels(limits: Limits) -> Iterator[str]:
    """Of users in namespaces: which of the limits that they are charged to is nearest."""
    for user in limits.shown:
        if user.maker is None:
            continue
        resource = max(RESOURCES, key=lambda one: limits.nearest(user, one).share(one))
        level = limits.nearest(user, resource)
        who = f"{printable(user.usage.user)}{in_namespace(user.usage.userns)}"
        whose = "its own" if level is user else f"that of {printable(level.usage.user)}"
        where = "" if level is user else in_namespace(level.usage.userns)
        limit = level.limit(resource)
        if limit is not None:
            yield (
                f"What {who} has is charged to whoever made the namespace, too. Nearest is {whose}"
                f"{where}: {level.used(resource):,} of {limit:,} {resource.value}."
            )
