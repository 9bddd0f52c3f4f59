"""What came, what went, and what grew or shrank, from one report or output of ls to another."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tracer.core.json_fields import KeptError
from tracer.core.kept import (
    REPORT_SCHEMA,
    Kept,
    KeptProcess,
    KeptSite,
    KeptTarget,
    ProcessKey,
    SiteKey,
)
from tracer.core.report import Unit
from tracer.core.stack import Stack

_NO_PROCESS = KeptProcess(0, 0, 0, 0)


class Fate(str, enum.Enum):
    """What became of something from A to B; `SAME` if only what is not counted is another."""

    GREW = "grew"
    SHRANK = "shrank"
    NEW = "new"
    GONE = "gone"
    SAME = "same"


class Change(NamedTuple):
    """A count in A and in B."""

    before: int
    after: int

    @property
    def by(self) -> int:
        return self.after - self.before


@dataclass(frozen=True)
class SiteDelta:
    """
    A place in the code: `live` watches or instances, as its kind says.

    A verdict is None where the place is not in the report.
    """

    kind: Unit
    id: str
    comm: str
    stack: Stack
    live: Change
    verdict_before: str | None
    verdict_after: str | None

    @property
    def fate(self) -> Fate:
        return _fate(self.live, self.verdict_before is None, self.verdict_after is None)


@dataclass(frozen=True)
class ProcessDelta:
    """
    A process, or with `pid` None those of one name that have ended, as many as `ended`.

    `added` is 0 in outputs of ls.
    """

    pid: int | None
    comm: str
    fate: Fate
    live: Change
    instances: Change
    added: Change
    ended: Change


@dataclass(frozen=True)
class TargetDelta:
    """How many live watches are on a target, of which the path or the inode is the name."""

    path: str | None
    dev: str | None
    ino: int | None
    watches: Change

    @property
    def fate(self) -> Fate:
        return _fate(self.watches, not self.watches.before, not self.watches.after)


@dataclass(frozen=True)
class Delta:
    """
    The differences alone, the largest first, of equal ones the growth.

    `unlisted` watches have no target in the files. `caveats_before` and `caveats_after` say why
    numbers of A and of B may be short.
    """

    schema: str
    watches: Change
    instances: Change
    sites: tuple[SiteDelta, ...]
    processes: tuple[ProcessDelta, ...]
    targets: tuple[TargetDelta, ...]
    unlisted: Change
    caveats_before: tuple[str, ...]
    caveats_after: tuple[str, ...]

    @property
    def of_reports(self) -> bool:
        return self.schema == REPORT_SCHEMA

    @property
    def is_empty(self) -> bool:
        totals = self.watches.by or self.instances.by
        return not (totals or self.sites or self.processes or self.targets)


def delta(before: Kept, after: Kept) -> Delta:
    """From A to B. Raises KeptError if one is a report and the other an output of ls."""
    if before.schema != after.schema:
        raise KeptError(f"A is {before.schema}, B is {after.schema}: compare two of a kind")
    return Delta(
        schema=before.schema,
        watches=Change(before.watches, after.watches),
        instances=Change(before.instances, after.instances),
        sites=tuple(sorted(_sites(before.sites, after.sites), key=_site_order)),
        processes=tuple(sorted(_processes(before.processes, after.processes), key=_process_order)),
        targets=tuple(sorted(_targets(before.targets, after.targets), key=_target_order)),
        unlisted=Change(before.unlisted, after.unlisted),
        caveats_before=before.caveats,
        caveats_after=after.caveats,
    )


def _fate(change: Change, is_new: bool, is_gone: bool) -> Fate:
    if is_new or is_gone:
        return Fate.NEW if is_new else Fate.GONE
    if change.by:
        return Fate.GREW if change.by > 0 else Fate.SHRANK
    return Fate.SAME


# sites


def _sites(
    before: Mapping[SiteKey, KeptSite], after: Mapping[SiteKey, KeptSite]
) -> Iterator[SiteDelta]:
    """Those with other counts, or another verdict; a place that left nothing is as none."""
    for key in before.keys() | after.keys():
        old, new = before.get(key), after.get(key)
        site = new or old
        assert site is not None
        live = Change(old.live if old else 0, new.live if new else 0)
        if live.by or (old and new and old.verdict != new.verdict):
            yield SiteDelta(
                kind=key.kind,
                id=key.id,
                comm=site.comm,
                stack=site.stack,
                live=live,
                verdict_before=old.verdict if old else None,
                verdict_after=new.verdict if new else None,
            )


def _site_order(site: SiteDelta) -> tuple[int, int, str, str]:
    return -abs(site.live.by), -site.live.by, site.id, site.comm


# processes


def _processes(
    before: Mapping[ProcessKey, KeptProcess], after: Mapping[ProcessKey, KeptProcess]
) -> Iterator[ProcessDelta]:
    """Those that hold more or less; of those that have ended, those that added more or less."""
    for key in before.keys() | after.keys():
        old, new = before.get(key, _NO_PROCESS), after.get(key, _NO_PROCESS)
        live, instances, added, ended = (Change(*pair) for pair in zip(old, new))
        decides = added if key.pid is None else live if live.by else instances
        if decides.by:
            fate = _fate(decides, key not in before, key not in after)
            yield ProcessDelta(key.pid, key.comm, fate, live, instances, added, ended)


def _process_order(process: ProcessDelta) -> tuple[int, int, int, int, int, str]:
    live, instances, added = process.live.by, process.instances.by, process.added.by
    return -abs(live), -live, -abs(instances), -abs(added), process.pid or 0, process.comm


# targets


def _targets(
    before: Mapping[KeptTarget, int], after: Mapping[KeptTarget, int]
) -> Iterator[TargetDelta]:
    names = _names_of_unnamed(before, after)
    old, new = _by_key(before, names), _by_key(after, names)
    for key in old.keys() | new.keys():
        change = Change(old[key], new[key])
        if change.by:
            yield TargetDelta(key.path or names.get(key), key.dev, key.ino, change)


def _names_of_unnamed(*sides: Mapping[KeptTarget, int]) -> dict[KeptTarget, str | None]:
    """
    The inodes that somewhere lack a path, with the path that they have elsewhere.

    They go by the inode everywhere: else a target would come and go as its path is found or not.
    """
    names: dict[KeptTarget, str | None] = {
        target: None for side in sides for target in side if target.path is None
    }
    for side in sides:
        for target in side:
            inode = target._replace(path=None)
            if target.path is not None and inode in names and target.ino is not None:
                names[inode] = target.path
    return names


def _by_key(
    side: Mapping[KeptTarget, int], unnamed: Mapping[KeptTarget, str | None]
) -> Counter[KeptTarget]:
    counts: Counter[KeptTarget] = Counter()
    for target, number in side.items():
        inode = target._replace(path=None)
        goes_by_inode = inode in unnamed and (target.path is None or target.ino is not None)
        key = inode if goes_by_inode else KeptTarget(target.path, None, None)
        counts[key] += number
    return counts


def _target_order(target: TargetDelta) -> tuple[int, int, str, str, int]:
    by = target.watches.by
    return -abs(by), -by, target.path or "", target.dev or "", target.ino or 0
