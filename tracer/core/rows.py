"""From the rows that one pass over all open files left to the walk that they tell."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence

from tracer.core.charging import charged
from tracer.core.events import Instance
from tracer.core.walk import HolderFd, Payer, Queue, UserUse, WalkedInstance, WatchRows
from tracer.core.wire import WATCH_ROW, Holder, Reading, UserRow


class Rows:
    """What one pass over all open files found; rows of watches as they came, in portions."""

    def __init__(self) -> None:
        self.holders: list[Holder] = []
        self.users: list[UserRow] = []
        self.watches: list[memoryview] = []


def instances(rows: Rows) -> dict[Instance, WalkedInstance]:
    """Every instance with all its holders."""
    holders: dict[Instance, list[Holder]] = defaultdict(list)
    watches: dict[Instance, WatchRows] = {}
    portions = _Portions(rows.watches)
    for row in rows.holders:
        holders[row.instance].append(row)
        own = portions.take(row.rows * WATCH_ROW.size)
        if row.reading == Reading.WHOLE:
            watches[row.instance] = WatchRows(own)
    payers = _payers(rows.users)
    return {
        key: _walked(key, held, watches.get(key), payers.get(held[0].ucounts, ()))
        for key, held in holders.items()
    }


def users(rows: Rows) -> tuple[UserUse, ...]:
    """Who is charged for them."""
    makers = _makers(rows.users)
    use = [
        UserUse(
            uid=row.uid,
            userns=row.userns,
            watches=row.watches_used,
            watches_limit=row.watches_limit,
            instances=row.instances_used,
            instances_limit=row.instances_limit,
            maker=makers[row.userns, row.uid],
        )
        for row in rows.users
    ]
    return tuple(sorted(use, key=lambda user: user.payer))


class _Portions:
    """Rows that came in portions, to be taken in other portions."""

    def __init__(self, portions: Iterable[memoryview]) -> None:
        self._left = deque(portions)

    def take(self, size: int) -> Sequence[memoryview]:
        """The next `size` bytes."""
        taken = []
        while size:
            portion = self._left.popleft()
            taken.append(portion[:size])
            if len(portion) > size:
                self._left.appendleft(portion[size:])
            size -= len(taken[-1])
        return taken


def _walked(
    key: Instance,
    rows: Sequence[Holder],
    watches: WatchRows | None,
    payers: tuple[Payer, ...],
) -> WalkedInstance:
    return WalkedInstance(
        instance=key,
        # threads with tables of their own may hold it by the same number
        holders=tuple(dict.fromkeys(HolderFd(row.process, row.fd) for row in rows)),
        queue=Queue(rows[0].queued, rows[0].oldest, rows[0].queue_limit),
        read_at=next((row.read_at for row in rows if row.reading == Reading.WHOLE), 0),
        watches=watches,
        payers=payers,
    )


def _payers(rows: Sequence[UserRow]) -> Mapping[int, tuple[Payer, ...]]:
    """For each ucounts the users that are charged: itself, and all above it."""
    makers = _makers(rows)
    return {row.ucounts: tuple(charged((row.userns, row.uid), makers)) for row in rows}


def _makers(rows: Sequence[UserRow]) -> Mapping[Payer, Payer | None]:
    """For each user who made its namespace."""
    by_ucounts = {row.ucounts: (row.userns, row.uid) for row in rows}
    return {(row.userns, row.uid): by_ucounts.get(row.parent) for row in rows}
