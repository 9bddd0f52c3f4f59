"""What is watched now: as a table for eyes, as plain records for awk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import chain, islice
from operator import or_
from typing import NamedTuple, Protocol, Union

from rich.cells import cell_len
from rich.text import Text

from tracer.core.events import mask_names
from tracer.views.columns import Column, aligned
from tracer.views.text import counted, printable

GROUPINGS = ("process", "fd", "target")
_GAP = "  "
_NAMES_SHOWN = 3


class Watch(Protocol):
    """A watch as the kernel tells it; `device` is ``major:minor``."""

    @property
    def wd(self) -> int: ...
    @property
    def ino(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def mask(self) -> int: ...


@dataclass(frozen=True)
class Holder:
    """A descriptor of an instance, and the process whose it is."""

    pid: int
    fd: int
    user: str
    comm: bytes
    exe: bytes | None


@dataclass(frozen=True)
class Instance:
    """An instance with everyone who holds it, by pid and fd; `id` is of this snapshot only."""

    id: int
    holders: tuple[Holder, ...]
    watches: tuple[Watch, ...]


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


@dataclass(frozen=True)
class Snapshot:
    """
    The instances asked for, with all their holders, and the use of all users.

    `pids` are the processes asked for among the holders. `complete` says that everything asked
    could be looked at, `sharing_known` that shared instances could be told from equal ones.
    `truth` is where the list comes from.
    """

    kernel: str
    truth: str
    complete: bool
    sharing_known: bool
    pids: frozenset[int]
    instances: tuple[Instance, ...]
    usage: tuple[Usage, ...]


def summary(snapshot: Snapshot) -> tuple[str, ...]:
    """The answer: how much by how many, and which user is nearest to a limit."""
    counts = (
        f"{counted(_all(snapshot), 'watch', 'watches')}"
        f" in {counted(len(snapshot.instances), 'instance')}"
        f" of {counted(len(snapshot.pids), 'process', 'processes')}"
    )
    users = {
        holder.user
        for instance in snapshot.instances
        for holder in instance.holders
        if holder.pid in snapshot.pids
    }
    return (counts, *_nearest_limit(usage for usage in snapshot.usage if usage.user in users))


def table_lines(snapshot: Snapshot, by: str, width: int) -> Iterator[Text]:
    """The answer and the table; text is cut in the middle until lines have `width` cells."""
    parts = summary(snapshot)
    line = "   ".join(parts)
    yield from map(Text, [line] if cell_len(line) <= width else parts)
    if not snapshot.instances:
        return
    grid = _grid(snapshot, by)
    rows = [[_table_cell(cell) for cell in row] for row in (*grid.rows, grid.total)]
    used = [at for at, _ in enumerate(grid.columns) if any(row[at] for row in rows)]
    columns = [grid.columns[at] for at in used]
    yield Text()
    yield from aligned(
        [[row[at] for at in used] for row in rows],
        [Column(right=column.right, shrink=column.elastic) for column in columns],
        width,
        header=[column.name for column in columns],
    )


def as_plain(snapshot: Snapshot, by: str) -> str:
    r"""
    A header, one record a line, and a total, in aligned columns.

    Records begin with a digit. A field never holds a blank: it is written ``\x20``. Where
    many share, the first three are named and the others are a number.
    """
    grid = _grid(snapshot, by)
    names = [column.name.replace(" ", "_") for column in grid.columns]
    rows = [[_plain_cell(cell) for cell in row] for row in grid.rows]
    lines = [names, *rows, [str(cell) or "-" for cell in grid.total]]
    widths = [max(map(cell_len, cells)) for cells in zip(*lines)]
    return "".join(f"{_padded(line, widths, grid.columns)}\n" for line in lines)


# --- the rows ---


class _Several(NamedTuple):
    """
    A cell of several names: the first few, and how many there are.

    With all of them the output would grow with the square of the holders.
    """

    names: tuple[str, ...]
    every: int


_Cell = Union[int, str, _Several]
_Row = tuple[_Cell, ...]


class _Column(NamedTuple):
    name: str
    right: bool = False
    elastic: bool = False


@dataclass(frozen=True)
class _Grid:
    columns: tuple[_Column, ...]
    rows: Sequence[_Row]
    total: _Row


_PID = _Column("PID", right=True)
_FD = _Column("FD", right=True)
_USER = _Column("USER", elastic=True)
_INSTANCES = _Column("INSTANCES", right=True)
_WATCHES = _Column("WATCHES", right=True)
_SHARED = _Column("SHARED WITH", elastic=True)
_COMMAND = _Column("COMMAND", elastic=True)
_EXECUTABLE = _Column("EXECUTABLE", elastic=True)
_INODE = _Column("INODE", right=True)
_DEVICE = _Column("DEVICE", right=True)
_MASK = _Column("MASK", elastic=True)
_HOLDERS = _Column("HOLDERS", elastic=True)


def _grid(snapshot: Snapshot, by: str) -> _Grid:
    return {"process": _by_process, "fd": _by_fd, "target": _by_target}[by](snapshot)


def _by_process(snapshot: Snapshot) -> _Grid:
    held: defaultdict[int, list[Instance]] = defaultdict(list)
    first: dict[int, Holder] = {}
    for instance in snapshot.instances:
        for holder in _one_per_process(instance.holders):
            held[holder.pid].append(instance)
            first[holder.pid] = holder
    sharers = _Sharers(snapshot.instances)
    rows: list[_Row] = [
        (
            str(pid),
            printable(first[pid].user),
            len(held[pid]),
            sum(len(instance.watches) for instance in held[pid]),
            sharers.others(held[pid], pid),
            *_program(first[pid]),
        )
        for pid in held
        if pid in snapshot.pids
    ]
    rows.sort(key=lambda row: (-_number(row[3]), int(str(row[0]))))
    columns = (_PID, _USER, _INSTANCES, _WATCHES, _SHARED, _COMMAND, _EXECUTABLE)
    total = ("total", "", len(snapshot.instances), _all(snapshot), "", "", _sharing(snapshot))
    return _Grid(columns, rows, total)


def _by_fd(snapshot: Snapshot) -> _Grid:
    rows: list[_Row] = [
        (
            str(holder.pid),
            str(holder.fd),
            printable(holder.user),
            len(instance.watches),
            _several(
                (f"{one.pid}:{one.fd}" for one in instance.holders if one is not holder),
                len(instance.holders) - 1,
            ),
            *_program(holder),
        )
        for instance in snapshot.instances
        for holder in instance.holders
        if holder.pid in snapshot.pids
    ]
    rows.sort(key=lambda row: (-_number(row[3]), int(str(row[0])), int(str(row[1]))))
    columns = (_PID, _FD, _USER, _WATCHES, _SHARED, _COMMAND, _EXECUTABLE)
    return _Grid(columns, rows, ("total", "", "", _all(snapshot), "", "", _sharing(snapshot)))


def _by_target(snapshot: Snapshot) -> _Grid:
    watching: defaultdict[tuple[str, int], list[tuple[int, int]]] = defaultdict(list)
    for instance in snapshot.instances:
        for watch in instance.watches:
            watching[watch.device, watch.ino].append((instance.id, watch.mask))
    sharers = _Sharers(snapshot.instances)
    rows: list[_Row] = [
        (
            str(ino),
            device,
            len(found),
            "|".join(_mask_names(reduce(or_, (mask for _, mask in found)))),
            sharers.named(tuple(number for number, _ in found)),
        )
        for (device, ino), found in watching.items()
    ]
    rows.sort(key=lambda row: (-_number(row[2]), str(row[1]), int(str(row[0]))))
    unique = counted(len(watching), "unique target")
    columns = (_INODE, _DEVICE, _WATCHES, _MASK, _HOLDERS)
    return _Grid(columns, rows, ("total", "", _all(snapshot), "", unique))


class _Sharers:
    """The processes behind sets of instances; few sets differ, so each is put together once."""

    def __init__(self, instances: Iterable[Instance]) -> None:
        self._instances = {instance.id: instance for instance in instances}
        self._processes: dict[tuple[int, ...], dict[int, Holder]] = {}
        self._named: dict[tuple[int, ...], _Several] = {}

    def others(self, instances: Iterable[Instance], pid: int) -> _Several:
        """All but `pid`, by number."""
        processes = self._behind(tuple(instance.id for instance in instances))
        return _several((str(one) for one in processes if one != pid), len(processes) - 1)

    def named(self, ids: tuple[int, ...]) -> _Several:
        """All, as ``comm[pid]``."""
        if ids not in self._named:
            processes = self._behind(ids)
            self._named[ids] = _several(map(_process_name, processes.values()), len(processes))
        return self._named[ids]

    def _behind(self, ids: tuple[int, ...]) -> dict[int, Holder]:
        if ids not in self._processes:
            holders = chain.from_iterable(self._instances[one].holders for one in ids)
            found = {holder.pid: holder for holder in holders}
            self._processes[ids] = {pid: found[pid] for pid in sorted(found)}
        return self._processes[ids]


def _program(holder: Holder) -> tuple[str, str]:
    return printable(holder.comm), "-" if holder.exe is None else printable(holder.exe)


def _one_per_process(holders: Iterable[Holder]) -> Iterable[Holder]:
    return {holder.pid: holder for holder in holders}.values()


def _process_name(holder: Holder) -> str:
    # a comma would pass for the one between two holders
    return f"{printable(holder.comm)}[{holder.pid}]".replace(",", "\\x2c")


def _several(names: Iterable[str], every: int) -> _Several:
    return _Several(tuple(islice(names, _NAMES_SHOWN)), every)


def _sharing(snapshot: Snapshot) -> str:
    shared = any(len(instance.holders) > 1 for instance in snapshot.instances)
    return "each instance once" if shared else ""


@lru_cache(maxsize=4096)
def _mask_names(mask: int) -> tuple[str, ...]:
    return mask_names(mask)


def _all(snapshot: Snapshot) -> int:
    return sum(len(instance.watches) for instance in snapshot.instances)


def _number(cell: _Cell) -> int:
    return cell if isinstance(cell, int) else 0


# --- the lines ---


def _padded(line: Sequence[str], widths: Sequence[int], columns: Sequence[_Column]) -> str:
    blanks = [" " * (width - cell_len(cell)) for cell, width in zip(line, widths)]
    cells = [
        blank + cell if column.right else cell + blank
        for cell, blank, column in zip(line, blanks, columns)
    ]
    return _GAP.join(cells).rstrip(" ")


def _table_cell(cell: _Cell) -> str:
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, str):
        return cell
    if not cell.names:
        return ""
    return cell.names[0] if cell.every == 1 else f"{cell.names[0]} +{cell.every - 1}"


def _plain_cell(cell: _Cell) -> str:
    if isinstance(cell, _Several):
        more = cell.every - len(cell.names)
        cell = ",".join((*cell.names, f"+{more}") if more else cell.names)
    return str(cell).replace(" ", "\\x20") or "-"


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
    return (f"{printable(one.user)} {has} {used:,} of {limit:,} {what}{how}",)
