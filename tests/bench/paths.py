"""
What it takes to tell the path of every watch, beside what else does.

All in turn, in one run: `cat` of the same fdinfo, which has no paths; a walk through the tree for
the inodes, as inotify-info does it; and `find / -xdev -inum`, which finds one. Once of files in
folders of a thousand, and once of a tree of folders, as an editor watches it. Run as root:

    .venv/bin/python tests/bench/paths.py [--watches N] [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import time
from collections.abc import Sequence
from typing import Callable, NamedTuple

from common import Worker, build, folder, more, print_table, require_root

from tracer.cli.app import collect_seldom
from tracer.kernel.fdinfo import inotify_fds, read_watches
from tracer.kernel.inodes import Inodes
from tracer.kernel.preflight import prepare
from tracer.kernel.probe import load_walk
from tracer.kernel.walk import KernelList
from tracer.targets.locate import How, Locator, Sought


class Way(NamedTuple):
    """`finds` is how many paths it told when it was last run."""

    name: str
    finds: Callable[[], int]


class Ways:
    """What is measured, on the watches of one instance."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        (self.fd,) = inotify_fds(pid)
        bpf = load_walk(inodes=True)
        self._list = KernelList(bpf)
        self._names_of = Inodes(bpf).names_of

    def cat(self) -> int:
        command = ["cat", f"/proc/{self.pid}/fdinfo/{self.fd}"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        return 0

    def by_names(self) -> int:
        """A walk over the kernel's list included."""
        return _count(Locator(self._names_of), self._sought(), How.DENTRY)

    def by_handles(self) -> int:
        """As without BPF: fdinfo is read, and every handle in it opened."""
        sought = [
            one._replace(inode=one.inode._replace(address=0, generation=0))
            for one in self._sought()
        ]
        return _count(Locator(), sought, How.HANDLE)

    def by_walking(self) -> int:
        """As inotify-info: the inodes of all folders, from the root of the filesystem on."""
        wanted = {(watch.dev, watch.ino) for watch in read_watches(self.pid, self.fd) or ()}
        inodes = {ino for _, ino in wanted}
        device = os.lstat("/").st_dev
        found, folders = 0, ["/"]
        while folders:
            try:
                entries = list(os.scandir(folders.pop()))
            except OSError:
                continue
            for entry in entries:
                found += entry.inode() in inodes
                is_folder = entry.is_dir(follow_symlinks=False)
                if is_folder and os.lstat(entry.path).st_dev == device:
                    folders.append(entry.path)
        return found

    def find_one(self) -> int:
        ino = self._sought()[0].inode.ino
        command = ["find", "/", "-xdev", "-inum", str(ino)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return len(done.stdout.splitlines())

    def _sought(self) -> list[Sought]:
        (walked,) = (
            walked
            for walked in self._list.walk().instances.values()
            if any(holder.process.pid == self.pid for holder in walked.holders)
        )
        holders = tuple(holder.process for holder in walked.holders)
        rows = walked.watches or ()
        return [Sought(holders, self.fd, wd, watch.inode) for wd, watch in rows]


def _count(locator: Locator, sought: Sequence[Sought], how: How) -> int:
    return sum(location.how is how for location in locator.locate_all(sought))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--watches", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    require_root()
    # as the program itself
    collect_seldom()
    prepare(print)
    limit = more("fs/inotify/max_user_watches", by=arguments.watches)
    # where / is, so that find and the walk through the tree come by
    with folder() as scratch, limit:
        hold = build("hold", scratch)
        for of in ("files", "tree"):
            top = scratch / of
            top.mkdir()
            with Worker(hold, top, str(arguments.watches), "1", of) as holder:
                holder.ask("watch")
                _measure(Ways(holder.process.pid), of, arguments.watches, arguments.rounds)
            subprocess.run(["rm", "-rf", str(top)], check=True)


def _measure(ways: Ways, of: str, watches: int, rounds: int) -> None:
    measured = (
        Way("cat of fdinfo", ways.cat),
        Way("inotrace, names in memory", ways.by_names),
        Way("inotrace, handles of fdinfo", ways.by_handles),
        Way("walk through the tree", ways.by_walking),
        Way("find / -xdev -inum, one", ways.find_one),
    )
    took: dict[str, list[float]] = {way.name: [] for way in measured}
    found: dict[str, int] = {}
    for _ in range(rounds):
        for way in measured:
            began = time.perf_counter()
            found[way.name] = way.finds()
            took[way.name].append((time.perf_counter() - began) * 1e3)
    least = statistics.median(took[measured[0].name])
    rows = [
        (
            name,
            f"{found[name]:,}",
            f"{statistics.median(times):.0f}",
            f"{min(times):.0f} to {max(times):.0f}",
            f"{statistics.median(times) / least:.1f}",
        )
        for name, times in took.items()
    ]
    title = f"The paths of {watches:,} live watches ({of}); medians of {rounds} rounds"
    print_table(title, ("", "paths", "ms", "least to most", "times cat"), rows)


if __name__ == "__main__":
    main()
