"""Processes that have something in common, and what they hold together."""

from __future__ import annotations

from typing import Callable, Generic, TypeVar

from tracer.views.ls import Holder, Instance, Snapshot

Key = TypeVar("Key")


class Group(Generic[Key]):
    """The processes asked for that have something in common, and the instances that they hold."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.holders: dict[int, Holder] = {}
        self.instances: list[Instance] = []

    @property
    def watches(self) -> int:
        return sum(len(instance.watches) for instance in self.instances)


def groups(snapshot: Snapshot, key: Callable[[Holder], Key]) -> list[Group[Key]]:
    """Most watches first."""
    found: dict[Key, Group[Key]] = {}
    for instance in snapshot.instances:
        met: dict[Key, Group[Key]] = {}
        for holder in instance.holders:
            if holder.pid in snapshot.pids:
                own = key(holder)
                met[own] = group = found.setdefault(own, Group(own))
                group.holders[holder.pid] = holder
        for group in met.values():
            group.instances.append(instance)
    return sorted(found.values(), key=lambda group: (-group.watches, min(group.holders)))
