"""What searches have found and what not, for who looks at the same watches again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tracer.core.events import Process
from tracer.core.walk import Inode
from tracer.targets.joined import Joined
from tracer.targets.path import Paths
from tracer.targets.search import Search

# So often one inode is searched for, if it was found each time and has another path by now.
_SEARCHES_MAX = 3
# After two of the longest searches, they take a tenth of the time.
_SHARE = 10
_AHEAD_S = 20.0

# for whoever sees other files, an inode may have another path
_Seen = tuple[Process, Inode]


class _Kept(NamedTuple):
    path: bytes | None
    searches: int


class Searched:
    """
    Kept from one look to the next: a path is verified at each, what was not found is not searched
    for again, and what is new is.

    `begin` each look with it: what was not asked for in one is forgotten with the next.
    """

    def __init__(self) -> None:
        self._before: dict[_Seen, _Kept] = {}
        self._kept: dict[_Seen, _Kept] = {}
        self._paid_until = 0.0

    def begin(self) -> None:
        self._before, self._kept = self._kept, {}

    def find(
        self, wanted: Mapping[int, _Seen], search: Search, paths: Paths, joined: Joined
    ) -> Iterator[tuple[int, bytes]]:
        """The paths found now or in an earlier look, by the keys given."""
        last = {
            seen: kept
            for seen in wanted.values()
            if (kept := self._kept.get(seen) or self._before.get(seen)) is not None
        }
        self._kept.update(last)
        left = dict(wanted)
        for key, path in joined.verified_paths(_places(wanted, last, paths)):
            del left[key]
            yield key, path
        if self._paid_until - time.monotonic() <= _AHEAD_S:
            yield from self._searched(left, last, search)

    def _searched(
        self, left: Mapping[int, _Seen], last: Mapping[_Seen, _Kept], search: Search
    ) -> Iterator[tuple[int, bytes]]:
        began = time.monotonic()
        due = {}
        for key, seen in left.items():
            path, searches = last.get(seen, _Kept(b"", 0))
            if path is not None and searches < _SEARCHES_MAX:
                due[key] = seen
                searches += 1
            self._kept[seen] = _Kept(None, searches)
        for key, path in search.find(due):
            self._kept[due[key]] = self._kept[due[key]]._replace(path=path)
            yield key, path
        now = time.monotonic()
        self._paid_until = max(self._paid_until, began) + _SHARE * (now - began)


def _places(
    wanted: Mapping[int, _Seen], last: Mapping[_Seen, _Kept], paths: Paths
) -> Iterator[tuple[int, Process, Inode, bytes]]:
    """Where in the mount tables those were that were found."""
    for key, (process, inode) in wanted.items():
        kept = last.get((process, inode))
        scene = paths.scene(process) if kept is not None and kept.path is not None else None
        if scene is not None and kept is not None and kept.path is not None:
            yield key, process, inode, scene.above + kept.path
