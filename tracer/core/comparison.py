"""Where ledger and kernel disagree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from tracer.core.departures import Departures
from tracer.core.events import Instance
from tracer.core.walk import Hidden, KernelWatch, Payer, Walk, WalkedInstance
from tracer.core.watch import InstanceAccount, Watch, place_of

# How many watches of an instance are looked at to see that it is the one it was, in passing.
_SAMPLE = 64
# where number and device begin in a Watch's place: more is not known of all
_TARGET_AT = 96


class Difference(NamedTuple):
    """
    Where ledger and kernel disagree, after all events up to the walk's end were applied.

    `in_doubt`: instances that are in no table of descriptors, and that may live all the same.
    """

    closed: tuple[InstanceAccount, ...]
    gone: tuple[tuple[InstanceAccount, Watch], ...]
    unlisted: tuple[tuple[Instance, int, KernelWatch], ...]
    in_doubt: bool = False

    def __bool__(self) -> bool:
        return bool(self.closed or self.gone or self.unlisted)


class InFlight:
    """Instances that are in no table of descriptors, because they are on their way in a socket."""

    def __init__(self) -> None:
        self._before: Mapping[Payer, Hidden] = {}

    def was_there(self, walk: Walk) -> None:
        """What was hidden in this way before the trace is nothing that the ledger knows."""
        self._before = walk.hidden

    def among(self, missing: Sequence[InstanceAccount], payer: Payer, walk: Walk) -> _Survivors:
        """Those for which their user is still charged, and for their watches."""
        now, before = (which.get(payer, _NOTHING) for which in (walk.hidden, self._before))
        hidden = Hidden(now.instances - before.instances, now.watches - before.watches)
        if hidden.instances <= 0:
            return _Survivors((), False)
        fitting = [one for one in missing if len(one.watches) <= hidden.watches]
        exact = [one for one in fitting if len(one.watches) == hidden.watches]
        if hidden.instances == 1 and len(exact) == 1:
            return _Survivors(exact, False)
        watches = sum(len(one.watches) for one in fitting)
        return _Survivors(
            fitting, bool(fitting) and (len(fitting), watches) != (hidden.instances, hidden.watches)
        )


class _Survivors(NamedTuple):
    instances: Sequence[InstanceAccount]
    in_doubt: bool


def missing_instances(
    known: Mapping[Instance, InstanceAccount], walk: Walk
) -> Iterator[InstanceAccount]:
    """Those that the walk did not find, and no event spoke of since."""
    for key, account in known.items():
        if key not in walk.instances and _last_touched(account) < walk.began:
            yield account


def difference(
    known: Mapping[Instance, InstanceAccount],
    walk: Walk,
    in_flight: InFlight,
    departures: Departures,
    exact: bool,
) -> Difference:
    """
    What the kernel says otherwise, after all events up to the walk's end were applied.

    Only what the walk can know counts: a watch or instance that an event spoke of after it was
    read is left alone, and so is an instance that could not be read. `exact`: look at what each
    watch is on, and not only at its descriptor.
    """
    closed, in_doubt = _closed(known, walk, in_flight)
    gone: list[tuple[InstanceAccount, Watch]] = []
    unlisted: list[tuple[Instance, int, KernelWatch]] = []
    for key, walked in walk.instances.items():
        if walked.watches is None or _left_since(departures, key, None, walked):
            continue
        account = known.get(key, _NO_ACCOUNT)
        if _is_another(account, walked, None if exact else _SAMPLE):
            # made where the other was, by a call that was not seen
            closed.append(account)
            account = _NO_ACCOUNT
        only_here, only_there = walked.watches.compare(account.watches)
        for wd in only_here:
            watch = account.watches[wd]
            if watch.touched < walked.read_at:
                gone.append((account, watch))
        only_there = {
            wd
            for wd in only_there
            if account.removed_at.get(wd, 0) < walked.read_at
            and not _left_since(departures, key, wd, walked)
        }
        if only_there:
            unlisted += [(key, wd, one) for wd, one in walked.watches.only(only_there)]
    return Difference(tuple(closed), tuple(gone), tuple(unlisted), in_doubt)


def _closed(
    known: Mapping[Instance, InstanceAccount], walk: Walk, in_flight: InFlight
) -> tuple[list[InstanceAccount], bool]:
    by_payer: dict[Payer | None, list[InstanceAccount]] = defaultdict(list)
    for account in missing_instances(known, walk):
        by_payer[account.payer].append(account)
    closed = by_payer.pop(None, [])
    in_doubt = False
    for payer, missing in by_payer.items():
        assert payer is not None
        survivors = in_flight.among(missing, payer, walk)
        in_doubt |= survivors.in_doubt
        alive = {id(one) for one in survivors.instances}
        closed += [one for one in missing if id(one) not in alive]
    return closed, in_doubt


def _left_since(
    departures: Departures, key: Instance, wd: int | None, walked: WalkedInstance
) -> bool:
    """Whether the kernel told of its end after the walk read it."""
    left = departures.of(key, wd) if departures else None
    return left is not None and left.ts >= walked.read_at


def _is_another(account: InstanceAccount, walked: WalkedInstance, sample: int | None) -> bool:
    """Whether a watch is on something else than the one with its number."""
    assert walked.watches is not None
    if not account.watches:
        return False
    for wd, one in islice(walked.watches, sample):
        watch = account.watches.get(wd)
        if (
            watch is not None
            and watch.place is not None
            and watch.place >> _TARGET_AT != place_of(*one.inode) >> _TARGET_AT
        ):
            return True
    return False


_NOTHING = Hidden(0, 0)
# stands for an instance that the ledger does not know
_NO_ACCOUNT = InstanceAccount(Instance(0, 0), 0)


def _last_touched(account: InstanceAccount) -> int:
    return max(
        account.opened_at,
        max((watch.touched for watch in account.watches.values()), default=0),
        max(account.removed_at.values(), default=0),
    )
