"""What is watched now, as a tree: users, their processes, the instances of those, the watches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from rich.cells import cell_len
from rich.text import Text

from tracer.core.events import mask_names
from tracer.views.ls import Holder, Instance, Queue, Snapshot
from tracer.views.ls_groups import Group, groups
from tracer.views.ls_tables import answer_lines, path_text
from tracer.views.text import counted, printable, shortened

# JSON has everything
_USERS, _PROCESSES, _INSTANCES = 20, 10, 5
WATCHES_SHOWN = 10
_INDENT = "  "
_GAP = "  "
# a name is not cut shorter to make room for what stands behind it
_LEAST_NAME = 20

_Each = TypeVar("_Each")


def tree_lines(snapshot: Snapshot, width: int | None) -> Iterator[Text]:
    """The answer and the tree, bounded; paths are cut in the middle to `width`, if it is given."""
    if width is None:
        yield Text("   ".join(text.plain for text in answer_lines(snapshot, 0)))
    else:
        yield from answer_lines(snapshot, width)
    if not snapshot.instances:
        return
    yield Text()
    for line in _Tree(snapshot).lines():
        yield line.fitted(width)


def shown_instances(snapshot: Snapshot) -> frozenset[int]:
    """Those of which the tree shows the first watches, WATCHES_SHOWN each."""
    tree = _Tree(snapshot)
    for _ in tree.lines():
        pass
    return frozenset(tree.shown)


class _Line:
    """
    Where there is no room, `name` and `tail` are cut in their middle, and `facts` are left out from
    the last on.
    """

    def __init__(self, depth: int, name: str, *facts: str, tail: str = "", style: str = "") -> None:
        self._indent = _INDENT * depth
        self._name = name
        self._facts = [fact for fact in facts if fact]
        self._tail = tail
        self._style = style

    def fitted(self, width: int | None) -> Text:
        if width is None:
            return self._line(self._name, self._facts, self._tail)
        room = width - len(self._indent)
        facts = list(self._facts)
        while facts and _LEAST_NAME + _cells(facts) > room:
            facts.pop()
        name = shortened(self._name, max(room - _cells(facts), 1))
        left = room - cell_len(name) - _cells(facts) - len(_GAP)
        tail = self._tail if cell_len(self._tail) <= left or left >= _LEAST_NAME else ""
        return self._line(name, facts, shortened(tail, left))

    def _line(self, name: str, facts: Sequence[str], tail: str) -> Text:
        rest = "".join(f"{_GAP}{fact}" for fact in (*facts, tail) if fact)
        return Text(self._indent).append(name, self._style).append(rest)


def _cells(facts: Iterable[str]) -> int:
    return sum(len(_GAP) + cell_len(fact) for fact in facts)


class _Tree:
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._processes = groups(snapshot, lambda holder: holder.pid)
        # instance -> where its watches are shown
        self.shown: dict[int, str] = {}

    def lines(self) -> Iterator[_Line]:
        users = groups(self._snapshot, lambda holder: (holder.uid, holder.user))
        for user in users[:_USERS]:
            yield _Line(0, printable(user.key[1]), self._size(user), style="bold")
            own = [one for one in self._processes if one.key in user.holders]
            for process in own[:_PROCESSES]:
                yield from self._process(process)
            yield from _more(1, own[_PROCESSES:], "process", "processes")
        yield from _more(0, users[_USERS:], "user")

    def _process(self, process: Group[int]) -> Iterator[_Line]:
        holder = process.holders[process.key]
        exe = "" if holder.exe is None else printable(holder.exe)
        yield _Line(1, _name(holder), self._size(process), tail=exe)
        instances = sorted(process.instances, key=lambda one: -len(one.watches))
        for instance in instances[:_INSTANCES]:
            yield from self._instance(instance, process.key)
        yield from _more(2, instances[_INSTANCES:], "instance")

    def _instance(self, instance: Instance, pid: int) -> Iterator[_Line]:
        fds = [holder.fd for holder in instance.holders if holder.pid == pid]
        name = f"fd {fds[0]}" + (f" and {len(fds) - 1} more" if fds[1:] else "")
        size = counted(len(instance.watches), "watch", "watches")
        facts = (size, _queue_words(instance.queue), self._repeated([instance]))
        before = self.shown.get(instance.id)
        if before is not None:
            yield _Line(2, name, *facts, f"as {before}")
            return
        self.shown[instance.id] = f"fd {fds[0]} of process {pid}"
        yield _Line(2, name, *facts)
        yield from self._watches(instance)

    def _watches(self, instance: Instance) -> Iterator[_Line]:
        for at, watch in enumerate(islice(instance.watches, WATCHES_SHOWN)):
            known = at < len(instance.located)
            name = path_text(instance.located[at]) if known else "unresolved"
            if name == "unresolved":
                name = f"{name} (inode {watch.inode.ino} on {watch.device})"
            times = self._snapshot.times[watch.inode]
            yield _Line(
                3,
                name,
                "|".join(mask_names(watch.mask)),
                f"{times:,} watches" * (times > 1),
                _viewer(instance, at),
            )
        yield from _more(3, instance.watches[WATCHES_SHOWN:], "watch", "watches")

    def _size(self, group: Group[_Each]) -> str:
        watches = counted(group.watches, "watch", "watches")
        instances = counted(len(group.instances), "instance")
        repeated = self._repeated(group.instances)
        return f"{watches} in {instances}" + (f", {repeated}" if repeated else "")

    def _repeated(self, instances: Iterable[Instance]) -> str:
        repeated = self._snapshot.targets(instances).repeated
        return f"{counted(repeated, 'target')} more than once" if repeated else ""


def _queue_words(queue: Queue | None) -> str:
    if queue is None or not queue.events:
        return ""
    if queue.full:
        return f"queue full: {queue.events:,} unread"
    return f"{'' if queue.exact else 'at least '}{counted(queue.events, 'event')} unread"


def _name(holder: Holder) -> str:
    return f"{printable(holder.comm)}[{holder.pid}]"


def _more(
    depth: int, left: Sequence[object], singular: str, plural: str | None = None
) -> Iterator[_Line]:
    if left:
        yield _Line(depth, f"and {counted(len(left), singular, plural).replace(' ', ' more ')}")


def _viewer(instance: Instance, at: int) -> str:
    """Who sees the path, where the first holder does not."""
    pid = instance.located[at].pid if at < len(instance.located) else None
    return "" if pid in (None, instance.holders[0].pid) else f"as process {pid} sees it"
