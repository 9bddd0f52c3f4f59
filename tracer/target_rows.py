"""What live watches are on, as rows of a report, with paths that lead there now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from tracer.core.report import TargetRow
from tracer.core.walk import HolderFd, Inode
from tracer.core.watch import Watch
from tracer.kernel.inodes import DentryNames, InodeState
from tracer.targets.fate import Fate
from tracer.targets.locate import How, Locator, Sought
from tracer.targets.path import Paths

# of a holder that is not known: nothing is read of it
_NO_FD = -1


class Shown(NamedTuple):
    """A live watch and who holds its instance, if that is known."""

    watch: Watch
    fate: Fate
    holders: Sequence[HolderFd] = ()


class TargetRows:
    """
    Makes rows at one moment, `ended` (CLOCK_MONOTONIC, ns).

    The path that was passed is kept while it leads to the target, and where none is found that
    does. What is gone is not looked for.
    """

    def __init__(
        self,
        paths: Paths,
        names_of: Callable[[Inode], DentryNames | None] | None,
        state_of: Callable[[Inode], InodeState],
        ended: int,
    ) -> None:
        self._paths = paths
        self._locator = Locator(names_of, paths, state_of=state_of)
        self._ended = ended

    def of(self, shown: Sequence[Shown]) -> tuple[TargetRow, ...]:
        rows = list(map(self._row, shown))
        sought = {at: each for at, row in enumerate(rows) for each in _sought(row, shown[at])}
        for at, location in zip(sought, self._locator.locate_all(list(sought.values()))):
            if location.path is not None:
                rows[at] = replace(
                    rows[at],
                    path=location.path,
                    state="verified",
                    resolved_by=location.how.value,
                    path_pid=location.viewer and location.viewer.pid,
                )
        return tuple(rows)

    def _row(self, shown: Shown) -> TargetRow:
        watch = shown.watch
        process = watch.owner.process
        state = self._paths.state(process, watch.path, watch.target)
        return TargetRow(
            path=watch.path,
            target=watch.target,
            pid=process.pid,
            wd=watch.wd,
            age_s=max(self._ended - watch.added_at, 0) / 1e9,
            state=state,
            fate=shown.fate.value,
            path_pid=process.pid if watch.path is not None else None,
            resolved_by=(How.TRACED if state == "verified" else How.UNRESOLVED).value,
        )


def _sought(row: TargetRow, shown: Shown) -> Iterator[Sought]:
    watch = shown.watch
    if row.state == "verified" or shown.fate.is_gone or watch.inode is None:
        return
    holders = tuple(dict.fromkeys(holder.process for holder in shown.holders))
    fd = shown.holders[0].fd if shown.holders else _NO_FD
    yield Sought(holders or (watch.owner.process,), fd, watch.wd, watch.inode, watch.path)
