"""Where ledger and kernel disagree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tracer.core.accounts import InstanceAccount, Watch
from tracer.core.events import Instance
from tracer.core.walk import Hidden, KernelWatch, Walk


class Difference(NamedTuple):
    """Where ledger and kernel disagree, after all events up to the walk's end were applied."""

    closed: tuple[InstanceAccount, ...]
    gone: tuple[tuple[InstanceAccount, Watch], ...]
    unlisted: tuple[tuple[Instance, int, KernelWatch], ...]

    def __bool__(self) -> bool:
        return bool(self.closed or self.gone or self.unlisted)


class InFlight:
    """Instances that are in no table of descriptors, because they are on their way in a socket."""

    def __init__(self) -> None:
        self._before: Mapping[int, Hidden] = {}

    def was_there(self, walk: Walk) -> None:
        """What was hidden in this way before the trace is nothing that the ledger knows."""
        self._before = walk.hidden

    def may_hold(self, account: InstanceAccount, walk: Walk) -> bool:
        """Whether the user of an instance is still charged for it, and for its watches."""
        if account.opener is None or account.opener.uid is None:
            return False
        hidden = walk.hidden.get(account.opener.uid, _NOTHING)
        before = self._before.get(account.opener.uid, _NOTHING)
        return hidden.instances > before.instances and hidden.watches - before.watches >= len(
            account.watches
        )


def difference(
    known: Mapping[Instance, InstanceAccount], walk: Walk, in_flight: InFlight
) -> Difference:
    """
    What the kernel says otherwise, after all events up to the walk's end were applied.

    Only what the walk can know counts: a watch or instance that an event spoke of after it was
    read is left alone, and so is an instance that could not be read.
    """
    closed = tuple(
        account
        for key, account in known.items()
        if key not in walk.instances
        and _last_touched(account) < walk.began
        and not in_flight.may_hold(account, walk)
    )
    gone: list[tuple[InstanceAccount, Watch]] = []
    unlisted: list[tuple[Instance, int, KernelWatch]] = []
    for key, walked in walk.instances.items():
        if walked.watches is None:
            continue
        account = known.get(key, _NO_ACCOUNT)
        only_here, only_there = walked.watches.compare(account.watches)
        for wd in only_here:
            watch = account.watches[wd]
            if watch.touched < walked.read_at:
                gone.append((account, watch))
        only_there = {wd for wd in only_there if account.removed_at.get(wd, 0) < walked.read_at}
        if only_there:
            unlisted += [(key, wd, one) for wd, one in walked.watches.only(only_there)]
    return Difference(closed, tuple(gone), tuple(unlisted))


_NOTHING = Hidden(0, 0)
# stands for an instance that the ledger does not know
_NO_ACCOUNT = InstanceAccount(Instance(0, 0), 0)


def _last_touched(account: InstanceAccount) -> int:
    return max(
        account.opened_at,
        max((watch.touched for watch in account.watches.values()), default=0),
        max(account.removed_at.values(), default=0),
    )
