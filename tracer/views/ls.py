"""What is watched now: the frozen rows that all shapes of ``ls`` show, and the answer in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import chain
from typing import NamedTuple, Optional

from tracer.core.walk import Inode
from tracer.views.namespaces import in_namespace
from tracer.views.text import counted, printable

GROUPINGS = ("process", "fd", "user", "target", "pod")
# who is charged: a user namespace, None if that is not known, and a uid in it
Payer = tuple[Optional[int], int]


class Watch(NamedTuple):
    """A watch as the kernel tells it."""

    wd: int
    inode: Inode
    mask: int

    @property
    def device(self) -> str:
        """``major:minor``, as in mountinfo."""
        return _device_name(self.inode.dev)


class Located(NamedTuple):
    """
    The path of a watch, None if there is none, by what it was found, and the process that sees it
    so: holders may see other files.
    """

    path: bytes | None
    how: str
    pid: int | None = None


class Queue(NamedTuple):
    """
    Events that nobody has read yet; at least so many unless `exact`.

    `full`: it has reached the limit of its instance, and what happens is lost; None if that limit
    is not known.
    """

    events: int
    exact: bool
    full: bool | None


class Home(NamedTuple):
    """
    Where a process belongs; None and empty where that is not known.

    `pod_exists` None: it could not be told.
    """

    cgroup: str | bytes | None = None
    container: str | None = None
    runtime: str | None = None
    pod: str | None = None
    pod_name: str | None = None
    namespace: str | None = None
    pod_exists: bool | None = None
    qos: str | None = None
    unit: str | bytes | None = None


@dataclass(frozen=True)
class Holder:
    """A descriptor of an instance, and the process whose it is."""

    pid: int
    fd: int
    uid: int
    user: str
    comm: bytes
    exe: bytes | None


@dataclass(frozen=True)
class Instance:
    """
    An instance with everyone who holds it, by pid and fd; `id` is of this snapshot only.

    `located` is for the first of `watches`, as many as were looked up. `queue` is None if it
    could not be told. `payers` are charged for it: its user, and who made that one's namespace.
    """

    id: int
    holders: tuple[Holder, ...]
    watches: tuple[Watch, ...]
    queue: Queue | None = None
    located: tuple[Located, ...] = ()
    payers: tuple[Payer, ...] = ()


@dataclass(frozen=True)
class Usage:
    """
    What a user has.

    By `source` "kernel" from the counters that the limits are about, by "counted" through the
    effective user of each instance's first holder: then a limit is None where it is not ours to
    read, and unless `complete` there may be more.
    """

    uid: int
    user: str
    userns: int | None
    watches: int
    watches_limit: int | None
    instances: int
    instances_limit: int | None
    source: str
    complete: bool


class Targets(NamedTuple):
    """
    How many different inodes are watched, and how many of them more than once.

    `by_itself`: more than once by just this process or instance.
    """

    unique: int
    repeated: int
    by_itself: int


@dataclass(frozen=True)
class Snapshot:
    """
    The instances asked for, with all their holders, and the use of all users.

    `pids` are the processes asked for among the holders. `complete` says that everything asked
    could be looked at, `sharing_known` that shared instances could be told from equal ones.
    `truth` is where the list comes from. `is_filtered`: there may be more watches, which were not
    asked for. `duplicates`: watches of targets that are watched only once were left out. `homes`
    are of the processes that were looked up.
    """

    kernel: str
    truth: str
    complete: bool
    sharing_known: bool
    pids: frozenset[int]
    instances: tuple[Instance, ...]
    usage: tuple[Usage, ...]
    is_filtered: bool = False
    duplicates: bool = False
    homes: Mapping[int, Home] = field(default_factory=dict)

    @cached_property
    def times(self) -> Mapping[Inode, int]:
        """How many watches each target has."""
        return Counter(watch.inode for one in self.instances for watch in one.watches)

    @cached_property
    def watches(self) -> int:
        return sum(len(instance.watches) for instance in self.instances)

    def targets(self, instances: Iterable[Instance]) -> Targets:
        """Of some of the instances."""
        own = tuple(instances)
        key = tuple(instance.id for instance in own)
        if key not in self._targets:
            self._targets[key] = self._count_targets(own)
        return self._targets[key]

    @cached_property
    def _targets(self) -> dict[tuple[int, ...], Targets]:
        # many processes may share large instances
        return {}

    @cached_property
    def _repeated(self) -> Mapping[int, list[Inode]]:
        return {
            instance.id: [one.inode for one in instance.watches if self.times[one.inode] > 1]
            for instance in self.instances
        }

    def _count_targets(self, instances: Sequence[Instance]) -> Targets:
        repeated = Counter(chain.from_iterable(self._repeated[one.id] for one in instances))
        watched_once = sum(len(one.watches) - len(self._repeated[one.id]) for one in instances)
        return Targets(
            unique=watched_once + len(repeated),
            repeated=len(repeated),
            by_itself=sum(count > 1 for count in repeated.values()),
        )


def only_duplicates(snapshot: Snapshot) -> Snapshot:
    """Only watches of targets that are watched more than once, and who has them."""
    kept = []
    for instance in snapshot.instances:
        watches = tuple(watch for watch in instance.watches if snapshot.times[watch.inode] > 1)
        if watches:
            kept.append(replace(instance, watches=watches, located=()))
    holding = {holder.pid for instance in kept for holder in instance.holders}
    return replace(snapshot, instances=tuple(kept), pids=snapshot.pids & holding, duplicates=True)


def summary(snapshot: Snapshot) -> tuple[str, ...]:
    """The answer: how much of what by how many, what is lost, and who is nearest to a limit."""
    payers = {payer for instance in snapshot.instances for payer in instance.payers}
    return (
        *_how_much(snapshot),
        *_full_queues(snapshot.instances),
        *_nearest_limit(one for one in snapshot.usage if (one.userns, one.uid) in payers),
    )


def _how_much(snapshot: Snapshot) -> tuple[str, ...]:
    watches = counted(snapshot.watches, "watch", "watches")
    instances = (
        f"in {counted(len(snapshot.instances), 'instance')}"
        f" of {counted(len(snapshot.pids), 'process', 'processes')}"
    )
    if not snapshot.watches:
        return (f"{watches} {instances}",)
    targets = snapshot.targets(snapshot.instances)
    repeated = f"{targets.repeated:,}" if targets.repeated else "none"
    on = f"{counted(targets.unique, 'target')}, {repeated} of them watched more than once"
    by = " by these" if snapshot.is_filtered else ""
    return f"{watches} on {on}{by}", instances


def _full_queues(instances: Iterable[Instance]) -> tuple[str, ...]:
    queues = [instance.queue for instance in instances if instance.queue is not None]
    full = sum(queue.full is True for queue in queues)
    if not full:
        return ()
    return (f"{counted(full, 'queue')} full, new events are lost",)


def _nearest_limit(usage: Iterable[Usage]) -> tuple[str, ...]:
    shares = [
        (used / limit if limit else 1.0, one, used, limit, what)
        for one in usage
        for used, limit, what in (
            (one.watches, one.watches_limit, "watches"),
            (one.instances, one.instances_limit, "instances"),
        )
        if limit is not None
    ]
    if not shares:
        return ()
    _, one, used, limit, what = max(shares, key=lambda share: share[0])
    has = "has" if one.complete else "has at least"
    how = " (counted)" if one.source == "counted" else ""
    who = f"{printable(one.user)}{in_namespace(one.userns)}"
    return (f"{who} {has} {used:,} of {limit:,} {what}{how}",)


@lru_cache(maxsize=4096)
def _device_name(dev: int) -> str:
    return f"{dev >> 20}:{dev & 0xFFFFF}"
