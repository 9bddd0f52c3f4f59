"""What users have of their limits: as the kernel counts it, or counted from what /proc shows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tracer.core.walk import UserUse
from tracer.kernel.fdinfo import HeldFd
from tracer.kernel.procfs import ProcessFacts, user_namespace
from tracer.targets.users import own_limits, own_namespace, user_name
from tracer.views import ls as view


class Held(NamedTuple):
    """An instance: who holds it, its watches, what is unread, and who is charged for it."""

    holders: tuple[HeldFd, ...]
    watches: tuple[view.Watch, ...]
    queue: view.Queue | None
    payers: tuple[view.Payer, ...] = ()


def counted_payer(held: Held, processes: Mapping[int, ProcessFacts]) -> view.Payer:
    """Whom we take for who is charged: the kernel charges whoever made the instance."""
    first = held.holders[0].pid
    return user_namespace(first), processes[first].uid


def kernel_usage(users: Iterable[UserUse]) -> tuple[view.Usage, ...]:
    """By the counters that the limits are about."""
    return _sorted_usage(map(_kernel_usage, users))


def counted_usage(instances: Iterable[Held], hidden: set[int]) -> tuple[view.Usage, ...]:
    """Watches and instances of all who are charged; of `hidden` users there may be more."""
    counts: defaultdict[view.Payer, list[int]] = defaultdict(list)
    for held in instances:
        for payer in held.payers:
            counts[payer].append(len(held.watches))
    return _sorted_usage(
        _counted_usage(userns, uid, sizes, uid not in hidden)
        for (userns, uid), sizes in counts.items()
    )


def _kernel_usage(user: UserUse) -> view.Usage:
    return view.Usage(
        uid=user.uid,
        user=user_name(user.uid),
        userns=user.userns,
        watches=user.watches,
        watches_limit=user.watches_limit,
        instances=user.instances,
        instances_limit=user.instances_limit,
        source="kernel",
        complete=True,
    )


def _sorted_usage(usage: Iterable[view.Usage]) -> tuple[view.Usage, ...]:
    return tuple(sorted(usage, key=lambda one: (-one.watches, one.uid, one.userns or 0)))


def _counted_usage(userns: int | None, uid: int, sizes: list[int], complete: bool) -> view.Usage:
    # /proc/sys shows none of other namespaces
    limits = own_limits() if userns == own_namespace() else None
    return view.Usage(
        uid=uid,
        user=user_name(uid),
        userns=userns,
        watches=sum(sizes),
        watches_limit=limits and limits.watches,
        instances=len(sizes),
        instances_limit=limits and limits.instances,
        source="counted",
        complete=complete,
    )
