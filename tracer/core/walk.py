"""The kernel's own list of watches, as one walk over it found them."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from tracer.core.events import Instance, Process
from tracer.core.wire import WATCH_ROW, WatchRow

# who is charged: the inode number of a user namespace, and a uid
Payer = tuple[int, int]


class Target(NamedTuple):
    """What is watched: an inode on a device (kernel dev_t: major << 20 | minor)."""

    dev: int
    ino: int


class Inode(NamedTuple):
    """
    An inode for all time: its number on a device is used again, not with the same generation.

    `address` is where the kernel has or had it, 0 if that is not known.
    """

    address: int
    ino: int
    dev: int
    generation: int

    @property
    def target(self) -> Target:
        return Target(self.dev, self.ino)


class KernelWatch(NamedTuple):
    """A watch as the kernel tells it."""

    inode: Inode
    mask: int

    @property
    def target(self) -> Target:
        return self.inode.target


class WatchRows:
    """
    The watches of one instance, kept as the rows they came in: a million take 32 MB so, and ten
    times that as objects.

    `portions` are whole rows of bpf/wire.h, in the order in which they were read.
    """

    __slots__ = ("_portions",)

    def __init__(self, portions: Sequence[memoryview]) -> None:
        self._portions = portions

    def __len__(self) -> int:
        return sum(map(len, self._portions)) // WATCH_ROW.size

    def only(self, wanted: set[int]) -> Iterator[tuple[int, KernelWatch]]:
        """These descriptors, as far as they are there, and what they watch."""
        for portion in self._portions:
            column = _descriptors(portion)
            # the newest come first: most portions have none that is asked for
            if wanted.isdisjoint(column):
                continue
            for at, wd in enumerate(column):
                if wd in wanted:
                    yield _watch(WATCH_ROW.unpack_from(portion, at * WATCH_ROW.size))

    def __iter__(self) -> Iterator[tuple[int, KernelWatch]]:
        """Descriptors and what they watch."""
        for portion in self._portions:
            yield from map(_watch, WATCH_ROW.iter_unpack(portion))

    def compare(self, known: Mapping[int, object]) -> tuple[set[int], set[int]]:
        """The descriptors that only `known` has, and those that only the kernel has."""
        unlisted: set[int] = set()
        confirmed = 0
        for wds in map(set, map(_descriptors, self._portions)):
            # looks each up in `known` if that is a dict, but runs through a view of it
            new = wds.difference(known)
            confirmed += len(wds) - len(new)
            unlisted |= new
        gone: set[int] = set()
        if confirmed != len(known):
            gone.update(known)
            for wds in map(set, map(_descriptors, self._portions)):
                gone -= wds
        return gone, unlisted


def _watch(fields: tuple[int, ...]) -> tuple[int, KernelWatch]:
    row = WatchRow(*fields)
    return row.wd, KernelWatch(Inode(row.inode, row.ino, row.dev, row.generation), row.mask)


def _descriptors(portion: memoryview) -> array[int]:
    ints = array("i")
    ints.frombytes(portion)
    return ints[_WD_AT :: WATCH_ROW.size // ints.itemsize]


# where the descriptor stands in a row, in ints
_WD_AT = 4


class HolderFd(NamedTuple):
    """A process's descriptor on an instance."""

    process: Process
    fd: int


class UserUse(NamedTuple):
    """
    What a user has of the two limits, from the kernel's counters.

    `maker` made the user's namespace and is charged for all of it as well, None in the outermost.
    """

    uid: int
    userns: int
    watches: int
    watches_limit: int
    instances: int
    instances_limit: int
    maker: Payer | None = None

    @property
    def payer(self) -> Payer:
        return self.userns, self.uid


class Queue(NamedTuple):
    """
    Events of an instance that nobody has read yet, and where the kernel has the `oldest` of them.

    While that stays, none was read: they are read in their order. Where it was, another may come to
    be later on. `limit` is what fs.inotify.max_queued_events was when the instance was made
    (inotify_new_group() in fs/notify/inotify/inotify_user.c); None where it is not known.
    """

    length: int
    oldest: int = 0
    limit: int | None = None

    @property
    def is_full(self) -> bool | None:
        """Whether it takes no more; None if its limit is not known. An empty one is not full."""
        if not self.length:
            return False
        # fsnotify_insert_event() in fs/notify/notification.c: at max_events it takes no more, but
        # for one IN_Q_OVERFLOW unless that waits already. At max_events + 1 something was lost, at
        # max_events perhaps nothing yet, or, once the overflow is no longer the last, it was, too.
        return None if self.limit is None else self.length >= self.limit


class WalkedInstance(NamedTuple):
    """
    One instance. `read_at` is a time just before its watches were read.

    `watches` is None if they could not be read, because the instance was closed or changed
    meanwhile. `payers` (namespace and uid, as in UserUse) are charged for it: its user, then who
    made that user's namespace, and so on.
    """

    instance: Instance
    holders: tuple[HolderFd, ...]
    queue: Queue
    read_at: int
    watches: WatchRows | None
    payers: tuple[Payer, ...] = ()


class Charge(NamedTuple):
    """What a user is charged for by the kernel's counters, and what the walk found of it."""

    user: UserUse
    watches: int
    instances: int

    @property
    def payer(self) -> Payer:
        return self.user.payer

    @property
    def agrees(self) -> bool:
        return (self.watches, self.instances) == (self.user.watches, self.user.instances)


class Hidden(NamedTuple):
    """How many instances and watches a user is charged for that are in no table of descriptors."""

    instances: int
    watches: int


class Walk(NamedTuple):
    """
    Instances and their users. Times are nanoseconds of CLOCK_MONOTONIC.

    `hidden` is of all instances whatever is left of them by :meth:`only`; the watches of one that
    could not be read count as hidden.
    """

    began: int
    ended: int
    instances: Mapping[Instance, WalkedInstance]
    users: tuple[UserUse, ...]
    hidden: Mapping[Payer, Hidden] = {}

    def only(self, wanted: Callable[[WalkedInstance], bool]) -> Walk:
        """The walk as if there were no other instances."""
        instances = {key: walked for key, walked in self.instances.items() if wanted(walked)}
        charged = {payer for walked in instances.values() for payer in walked.payers}
        users = tuple(user for user in self.users if user.payer in charged)
        return self._replace(instances=instances, users=users)

    def named(self, name: Callable[[Instance], Instance]) -> Walk:
        """The walk with other keys."""
        renamed = {
            name(key): walked._replace(instance=name(key)) for key, walked in self.instances.items()
        }
        return self._replace(instances=renamed)

    @property
    def unread(self) -> int:
        """How many instances could not be read."""
        return sum(walked.watches is None for walked in self.instances.values())

    def charges(self) -> list[Charge]:
        """
        What each user is charged for, beside what was found; without those of whom an instance
        could not be read.

        Counters are read a moment before or after the watches: what happens meanwhile is a
        difference that does not last.
        """
        unread = {
            payer
            for walked in self.instances.values()
            if walked.watches is None
            for payer in walked.payers
        }
        return [charge for charge in self._all_charges() if charge.payer not in unread]

    def _all_charges(self) -> list[Charge]:
        watches: Counter[Payer] = Counter()
        instances: Counter[Payer] = Counter()
        for walked in self.instances.values():
            instances.update(walked.payers)
            for payer in walked.payers:
                watches[payer] += len(walked.watches or ())
        users = {user.payer: user for user in self.users}
        return [Charge(user, watches[payer], instances[payer]) for payer, user in users.items()]

    def stood_still(self, before: Walk, payers: Set[Payer]) -> bool:
        """Whether nothing that these users are charged for came or went since `before`."""
        now, then = (
            {charge for charge in walk._all_charges() if charge.payer in payers}
            for walk in (self, before)
        )
        return now == then

    def with_hidden(self) -> Walk:
        """The same with `hidden` told from it; for a walk that is whole."""
        hidden = {
            charge.payer: Hidden(
                charge.user.instances - charge.instances, charge.user.watches - charge.watches
            )
            for charge in self._all_charges()
        }
        return self._replace(hidden=hidden)
