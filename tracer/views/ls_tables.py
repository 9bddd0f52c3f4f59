"""What is watched now: as a table for eyes, as plain records for awk."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, reduce
from itertools import chain
from operator import or_
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.text import Text

from tracer.core.events import mask_names
from tracer.views.ls import Holder, Home, Instance, Located, Queue, Snapshot, summary
from tracer.views.ls_grid import (
    Cell,
    Grid,
    Heading,
    Row,
    Several,
    Unread,
    grid_lines,
    grid_records,
    several,
)
from tracer.views.ls_groups import Group, groups
from tracer.views.text import counted, printable

# the id of a container is a hash, which tables show as much of as crictl(1) does
_ID = re.compile(r"[0-9a-f]{64}")
_ID_SHOWN = 13

_PID = Heading("PID", right=True)
_FD = Heading("FD", right=True)
_UID = Heading("UID", right=True)
_USER = Heading("USER", elastic=True)
_PROCESSES = Heading("PROCESSES", right=True)
_INSTANCES = Heading("INSTANCES", right=True)
_WATCHES = Heading("WATCHES", right=True)
_TARGETS = Heading("TARGETS", right=True, spare=3)
_REPEATED = Heading("REPEATED", right=True, spare=1)
_UNREAD = Heading("UNREAD", right=True)
_QUEUE = Heading("QUEUE")
_SHARED = Heading("SHARED WITH", elastic=True, spare=2)
_COMMAND = Heading("COMMAND", elastic=True)
_EXECUTABLE = Heading("EXECUTABLE", elastic=True, least=20)
_INODE = Heading("INODE", right=True)
_DEVICE = Heading("DEVICE", right=True)
_MASK = Heading("MASK", elastic=True, spare=1, least=16)
_HOLDERS = Heading("HOLDERS", elastic=True, least=16)
_FOUND_BY = Heading("FOUND BY", spare=2)
_PATH = Heading("PATH", elastic=True, least=30)
_POD = Heading("POD", elastic=True, least=20)
_STATE = Heading("STATE")
_QOS = Heading("QOS", spare=4)
_CONTAINER = Heading("CONTAINER", elastic=True)
_UNIT = Heading("UNIT", elastic=True)


def table_lines(snapshot: Snapshot, by: str, width: int) -> Iterator[Text]:
    """The answer and the table; text is cut in the middle until lines have `width` cells."""
    yield from answer_lines(snapshot, width)
    if snapshot.instances:
        yield Text()
        yield from grid_lines(_grid(snapshot, by), width)


def answer_lines(snapshot: Snapshot, width: int) -> Iterator[Text]:
    """The answer, on one line if it fits."""
    parts = summary(snapshot)
    line = "   ".join(parts)
    yield from map(Text, [line] if cell_len(line) <= width else parts)


def as_plain(snapshot: Snapshot, by: str) -> str:
    r"""
    A header, one record a line, and a total, in aligned columns.

    Records begin with a digit. A field never holds a blank: it is written ``\x20``. Where
    many share, the first three are named and the others are a number.
    """
    return grid_records(_grid(snapshot, by))


def _grid(snapshot: Snapshot, by: str) -> Grid:
    return {
        "process": _by_process,
        "fd": _by_fd,
        "user": _by_user,
        "target": _by_target,
        "pod": _by_pod,
    }[by](snapshot)


# --- groups of processes ---


def _sizes(snapshot: Snapshot, group: Group[Any]) -> tuple[Cell, ...]:
    """Instances, watches, targets, and those of them that are watched more than once."""
    targets = snapshot.targets(group.instances)
    return len(group.instances), group.watches, targets.unique, targets.repeated


def _all_sizes(snapshot: Snapshot) -> tuple[Cell, ...]:
    targets = snapshot.targets(snapshot.instances)
    return len(snapshot.instances), snapshot.watches, targets.unique, targets.repeated


def _by_process(snapshot: Snapshot) -> Grid:
    sharers = _Sharers(snapshot.instances)
    rows: list[Row] = []
    for group in groups(snapshot, lambda holder: holder.pid):
        holder = group.holders[group.key]
        rows.append(
            (
                str(group.key),
                printable(holder.user),
                *_sizes(snapshot, group),
                sharers.others(group.instances, group.key),
                *_program(holder),
            )
        )
    columns = (_PID, _USER, _INSTANCES, _WATCHES, _TARGETS, _REPEATED)
    total = ("total", "", *_all_sizes(snapshot), "", "", _sharing(snapshot))
    return Grid((*columns, _SHARED, _COMMAND, _EXECUTABLE), rows, total)


def _by_user(snapshot: Snapshot) -> Grid:
    found = groups(snapshot, lambda holder: (holder.uid, holder.user))
    rows: list[Row] = [
        (
            str(uid),
            printable(user),
            len(group.holders),
            *_sizes(snapshot, group),
            _other_users(group, uid),
        )
        for group in found
        for uid, user in [group.key]
    ]
    columns = (_UID, _USER, _PROCESSES, _INSTANCES, _WATCHES, _TARGETS, _REPEATED, _SHARED)
    sizes = (len(snapshot.pids), *_all_sizes(snapshot))
    return Grid(columns, rows, ("total", "", *sizes, _overlap(snapshot, found)))


def _other_users(group: Group[Any], uid: int) -> Several:
    """Those who hold some of its instances too, also if they were not asked for."""
    holders = chain.from_iterable(instance.holders for instance in group.instances)
    others = {(one.uid, one.user) for one in holders if one.uid != uid}
    return several((printable(user) for _, user in sorted(others)), len(others))


class _Residence(NamedTuple):
    """What processes of one line have in common."""

    pod: str | None
    container: str | None
    unit: str | bytes | None


def _by_pod(snapshot: Snapshot) -> Grid:
    """A line for each pod, of what is in none for each container, and of the rest for each unit."""

    def residence(holder: Holder) -> _Residence:
        home = snapshot.homes.get(holder.pid, Home())
        if home.pod:
            return _Residence(home.pod, None, None)
        return _Residence(None, home.container, None if home.container else home.unit)

    found = groups(snapshot, residence)
    rows: list[Row] = [
        (
            str(len(group.holders)),
            *_sizes(snapshot, group),
            *_residence_cells([snapshot.homes.get(pid, Home()) for pid in group.holders]),
        )
        for group in found
    ]
    columns = (_PROCESSES, _INSTANCES, _WATCHES, _TARGETS, _REPEATED)
    sizes = _all_sizes(snapshot)
    total = (f"total {len(snapshot.pids):,}", *sizes, "", "", "", "", _overlap(snapshot, found))
    return Grid((*columns, _POD, _STATE, _QOS, _CONTAINER, _UNIT), rows, total)


def _residence_cells(homes: Sequence[Home]) -> tuple[Cell, ...]:
    # whoever was looked up last may know what the others do not
    home = next((one for one in homes if one.pod_name), homes[0])
    name = home.pod or ""
    if home.pod_name:
        name = f"{home.namespace}/{home.pod_name}" if home.namespace else home.pod_name
    state = "gone" if home.pod and home.pod_exists is False else ""
    qos = next((one.qos for one in homes if one.qos), "")
    unit = "" if home.pod or home.container else printable(home.unit or "-")
    return printable(name), state, printable(qos), _containers(homes), unit


def _containers(homes: Iterable[Home]) -> Several:
    """Those of one line, by name."""
    names = sorted({one.container for one in homes if one.container})
    short = printable(names[0][:_ID_SHOWN]) if names and _ID.fullmatch(names[0]) else None
    return several(map(printable, names), len(names))._replace(short=short)


# --- instances and targets ---


def _by_fd(snapshot: Snapshot) -> Grid:
    ordered = sorted(
        (
            (instance, holder)
            for instance in snapshot.instances
            for holder in instance.holders
            if holder.pid in snapshot.pids
        ),
        key=lambda one: (-len(one[0].watches), one[1].pid, one[1].fd),
    )
    rows: list[Row] = [
        (
            str(holder.pid),
            str(holder.fd),
            printable(holder.user),
            len(instance.watches),
            snapshot.targets([instance]).repeated,
            *_queue_cells(instance.queue),
            several(
                (f"{one.pid}:{one.fd}" for one in instance.holders if one is not holder),
                len(instance.holders) - 1,
            ),
            *_program(holder),
        )
        for instance, holder in ordered
    ]
    columns = (_PID, _FD, _USER, _WATCHES, _REPEATED, _UNREAD, _QUEUE)
    repeated = snapshot.targets(snapshot.instances).repeated
    total = ("total", "", "", snapshot.watches, repeated, "", "", "", "", _sharing(snapshot))
    return Grid((*columns, _SHARED, _COMMAND, _EXECUTABLE), rows, total)


def _queue_cells(queue: Queue | None) -> tuple[Cell, Cell]:
    if queue is None:
        return "", ""
    return Unread(queue.events, queue.exact), "full" if queue.full else ""


class _Found(NamedTuple):
    """One watch of a target."""

    instance: int
    mask: int
    located: Located | None


def _by_target(snapshot: Snapshot) -> Grid:
    watching: defaultdict[tuple[int, str, int], list[_Found]] = defaultdict(list)
    for instance in snapshot.instances:
        for at, watch in enumerate(instance.watches):
            located = instance.located[at] if at < len(instance.located) else None
            # on btrfs several inodes have the same number: they differ by where they are
            key = watch.inode.ino, watch.device, watch.inode.address
            watching[key].append(_Found(instance.id, watch.mask, located))
    sharers = _Sharers(snapshot.instances)
    ordered = sorted(watching.items(), key=lambda one: (-len(one[1]), one[0][1], one[0][0]))
    rows: list[Row] = [
        (
            str(ino),
            device,
            len(found),
            "|".join(_mask_names(reduce(or_, (one.mask for one in found)))),
            sharers.named(tuple(one.instance for one in found)),
            *_location_cells(found),
        )
        for (ino, device, _), found in ordered
    ]
    targets = snapshot.targets(snapshot.instances)
    words = f"{counted(targets.unique, 'target')}, {targets.repeated:,} repeated"
    columns = (_INODE, _DEVICE, _WATCHES, _MASK, _HOLDERS, _FOUND_BY, _PATH)
    return Grid(columns, rows, ("total", "", snapshot.watches, "", "", "", words))


def _location_cells(found: Sequence[_Found]) -> tuple[str, Cell]:
    """How the first path was found, and all: those who watch it may see it in different places."""
    known = [one.located for one in found if one.located is not None]
    if not known:
        return "", ""
    by_path: dict[bytes, Located] = {}
    for one in known:
        if one.path is not None:
            by_path.setdefault(one.path, one)
    first = next(iter(by_path.values()), known[0])
    if len(by_path) < 2:
        return first.how, path_text(first)
    return first.how, several(map(path_text, by_path.values()), len(by_path))


def path_text(located: Located) -> str:
    """A path begins with a slash, so no file passes for one that was not found."""
    return "unresolved" if located.path is None else printable(located.path)


class _Sharers:
    """The processes behind sets of instances; few sets differ, so each is put together once."""

    def __init__(self, instances: Iterable[Instance]) -> None:
        self._instances = {instance.id: instance for instance in instances}
        self._processes: dict[tuple[int, ...], dict[int, Holder]] = {}
        self._named: dict[tuple[int, ...], Several] = {}

    def others(self, instances: Iterable[Instance], pid: int) -> Several:
        """All but `pid`, by number."""
        processes = self._behind(tuple(instance.id for instance in instances))
        return several((str(one) for one in processes if one != pid), len(processes) - 1)

    def named(self, ids: tuple[int, ...]) -> Several:
        """All, as ``comm[pid]``."""
        if ids not in self._named:
            processes = self._behind(ids)
            names = map(_process_name, processes.values())
            self._named[ids] = several(names, len(processes))
        return self._named[ids]

    def _behind(self, ids: tuple[int, ...]) -> dict[int, Holder]:
        if ids not in self._processes:
            holders = chain.from_iterable(self._instances[one].holders for one in ids)
            found = {holder.pid: holder for holder in holders}
            self._processes[ids] = {pid: found[pid] for pid in sorted(found)}
        return self._processes[ids]


def _program(holder: Holder) -> tuple[str, str]:
    return printable(holder.comm), "-" if holder.exe is None else printable(holder.exe)


def _process_name(holder: Holder) -> str:
    return f"{printable(holder.comm)}[{holder.pid}]"


def _sharing(snapshot: Snapshot) -> str:
    shared = any(len(instance.holders) > 1 for instance in snapshot.instances)
    return "each instance once" if shared else ""


def _overlap(snapshot: Snapshot, found: Iterable[Group[Any]]) -> str:
    """Whether lines add up to more than there is."""
    of_all = sum(len(group.instances) for group in found)
    return "each instance once" if of_all > len(snapshot.instances) else ""


@lru_cache(maxsize=4096)
def _mask_names(mask: int) -> tuple[str, ...]:
    return mask_names(mask)
