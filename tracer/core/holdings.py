"""Who holds how much of what which user is charged for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tracer.core.charging import charged
from tracer.core.events import Process
from tracer.core.shortage import Resource, share_of
from tracer.core.walk import Payer, UserUse, Walk


class HeldBy(NamedTuple):
    """What a process holds; an instance that several hold counts for the first of them only."""

    process: Process
    watches: int
    instances: int


class Holdings:
    """
    One whole walk, by who is charged: for an instance its user, and all who made the namespaces
    that the user is in.
    """

    def __init__(self, walk: Walk) -> None:
        self.users = {user.payer: user for user in walk.users}
        self._makers = {user.payer: user.maker for user in walk.users}
        self._payers: defaultdict[Process, set[Payer]] = defaultdict(set)
        self._held: defaultdict[Payer, dict[Process, HeldBy]] = defaultdict(dict)
        for walked in walk.instances.values():
            for holder in walked.holders:
                self._payers[holder.process].update(walked.payers[:1])
            for payer in walked.payers if walked.holders else ():
                self._charge(payer, walked.holders[0].process, len(walked.watches or ()))

    def _charge(self, payer: Payer, process: Process, watches: int) -> None:
        held = self._held[payer].get(process, HeldBy(process, 0, 0))
        self._held[payer][process] = HeldBy(process, held.watches + watches, held.instances + 1)

    def holders(self, payer: Payer, resource: Resource) -> list[HeldBy]:
        """Who holds what this user is charged for, most first."""
        by_instances = resource is Resource.INSTANCES

        def order(held: HeldBy) -> tuple[int, Process]:
            return -(held.instances if by_instances else held.watches), held.process

        return sorted(self._held.get(payer, {}).values(), key=order)

    def maker(self, payer: Payer) -> Payer | None:
        """Who made the user's namespace, and is charged as well."""
        return self._makers.get(payer)

    def payers_of(self, process: Process) -> frozenset[Payer]:
        """Who is charged for the instances that a process holds."""
        return frozenset(self._payers.get(process, ()))

    def charged(self, payer: Payer) -> Iterator[UserUse]:
        """The user, and whoever is charged with it, outward."""
        for one in charged(payer, self._makers):
            if one in self.users:
                yield self.users[one]

    def nearest(self, payers: Iterable[Payer], resource: Resource) -> UserUse | None:
        """Of all who are charged with these, the one who is nearest to its limit."""
        levels = [level for payer in payers for level in self.charged(payer)]
        return max(levels, key=lambda level: share_of(*use_of(level, resource)), default=None)

    def of_uid(self, uid: int) -> list[Payer]:
        """This user in any namespace."""
        return [payer for payer in self.users if payer[1] == uid]


def use_of(user: UserUse, resource: Resource) -> tuple[int, int]:
    """What a user has of a resource, and may have."""
    if resource is Resource.INSTANCES:
        return user.instances, user.instances_limit
    return user.watches, user.watches_limit
