"""What ``inotrace ls`` looks at, and how that is printed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.text import Text

from tracer.cli.notices import limitations, remedy
from tracer.errors import InotraceError
from tracer.filter import Filter
from tracer.kernel.procfs import ProcessFacts, thread_group
from tracer.listing import Lister, Scan, take_snapshot
from tracer.targets.users import user_name
from tracer.views import ls as view
from tracer.views.json_ls import as_json
from tracer.views.ls_tables import as_plain, table_lines
from tracer.views.ls_tree import WATCHES_SHOWN, shown_instances, tree_lines
from tracer.views.text import counted, printable, text_console

if TYPE_CHECKING:
    # which take their time
    from tracer.targets.locate import Locator
    from tracer.targets.pods import Pods
    from tracer.targets.searched import Searched

TREE = "tree"
# a file has no width of its own
_FILE_WIDTH = 160


@dataclass(frozen=True)
class Shape:
    """What is shown of a snapshot, and how."""

    by: str
    duplicates: bool
    format_: str

    @property
    def shows_paths(self) -> bool:
        return self.format_ == "json" or self.by in ("target", TREE)

    @property
    def shows_homes(self) -> bool:
        return self.format_ == "json" or self.by == "pod"


class Unseen(NamedTuple):
    """What a look could not see. Of one `kind` it is the same, however many they are now."""

    kind: str
    text: str


class Looking:
    """What is looked at, and in which way; `missing` says what the last look could not see."""

    def __init__(self, lister: Lister, filter_: Filter, shape: Shape) -> None:
        self._lister = lister
        self._filter = filter_
        self.shape = shape
        self.missing: list[Unseen] = []
        self._pods: Pods | None = None
        self._searched: Searched | None = None

    def look(self) -> view.Snapshot:
        """Raises InotraceError if none of the processes asked for may be looked into."""
        scanned = self._lister.scan()
        hidden = scanned.hidden(self._filter)
        _require_readable(self._filter.pids, hidden)
        ended = sorted(pid for pid in self._filter.pids if thread_group(pid) is None)
        self.missing = [
            *(Unseen(f"process {pid}", f"process {pid} has ended") for pid in ended),
            *_missing(scanned, self._filter, hidden),
        ]
        snapshot = take_snapshot(scanned, self._filter)
        if self.shape.duplicates:
            snapshot = view.only_duplicates(snapshot)
        return self._looked_up(snapshot, scanned)

    def _looked_up(self, snapshot: view.Snapshot, scanned: Scan) -> view.Snapshot:
        if self.shape.shows_paths:
            snapshot = self._with_paths(snapshot, scanned)
        if self.shape.shows_homes:
            from tracer.lookups import with_homes
            from tracer.targets.containers import Containers
            from tracer.targets.pods import Pods

            # which has asked the runtime for names, if that was needed
            self._pods = Pods(self._pods)
            snapshot = with_homes(snapshot, Containers(), self._pods)
        return snapshot

    def _with_paths(self, snapshot: view.Snapshot, scanned: Scan) -> view.Snapshot:
        from tracer.lookups import with_paths

        locate = self._locator().locate_all
        if self.shape.format_ != "json" and self.shape.by == TREE:
            return with_paths(snapshot, scanned, locate, shown_instances(snapshot), WATCHES_SHOWN)
        return with_paths(snapshot, scanned, locate)

    def _locator(self) -> Locator:
        from tracer.targets.locate import Locator
        from tracer.targets.searched import Searched

        self._searched = self._searched or Searched()
        inodes = self._lister.inodes
        if inodes is None:
            return Locator(searched=self._searched)
        return Locator(inodes.names_of, state_of=inodes.state, searched=self._searched)


def _require_readable(pids: frozenset[int], hidden: list[ProcessFacts]) -> None:
    if pids and len(hidden) == len(pids):
        first = hidden[0]
        raise InotraceError(
            f"cannot look into process {first.pid} of {printable(user_name(first.uid))}: {remedy()}"
        )


def _missing(scan: Scan, filter_: Filter, hidden: list[ProcessFacts]) -> Iterator[Unseen]:
    changing, in_flight = scan.changing(filter_), scan.in_flight(filter_)
    if changing:
        changed = f"{counted(changing, 'instance')} changed while being read: run ls again"
        yield Unseen("changing", changed)
    if hidden:
        whose = "" if any(one.uid == os.geteuid() for one in hidden) else " of other users"
        processes = counted(len(hidden), "process", "processes")
        yield Unseen("hidden", f"cannot look into {processes}{whose}: {remedy()}")
    if in_flight.instances:
        more = counted(in_flight.instances, "instance")
        watches = counted(in_flight.watches, "watch", "watches")
        yield Unseen(
            "in flight", f"{more} with {watches} more: on the way in a socket, of no process"
        )
    for line in limitations(scan):
        yield Unseen(line, line)


def rendered(snapshot: view.Snapshot, shape: Shape, to_file: bool = False) -> str:
    """The text that is printed, coloured if standard output is."""
    if shape.format_ == "json":
        return as_json(snapshot)
    if shape.format_ == "plain":
        return plain(snapshot, shape.by)
    console = text_console(_FILE_WIDTH) if to_file else Console(file=sys.stdout, highlight=False)
    with console.capture() as capture:
        console.print(Text("\n").join(lines(snapshot, shape.by, console.width)), soft_wrap=True)
    return capture.get()


def lines(snapshot: view.Snapshot, by: str, width: int) -> Iterator[Text]:
    """For a terminal."""
    if by == TREE:
        return tree_lines(snapshot, width)
    return table_lines(snapshot, by, width)


def plain(snapshot: view.Snapshot, by: str) -> str:
    """For other programs; the tree, which is for eyes, is only without colours and not cut."""
    if by == TREE:
        return "".join(f"{line.plain}\n" for line in tree_lines(snapshot, None))
    return as_plain(snapshot, by)
