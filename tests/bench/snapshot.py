"""
What it takes to read many live watches, and how long that holds up the program that has them.

A thread of that program adds and removes one more watch all the time, and times itself. Run as
root:

    .venv/bin/python tests/bench/snapshot.py [--watches N] [--rounds N]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from typing import Callable, NamedTuple

from common import Worker, build, folder, more, print_table, require_root, tmpfs

from tracer.kernel.fdinfo import inotify_fds, read_watches
from tracer.kernel.preflight import prepare
from tracer.kernel.probe import Probe, Scope
from tracer.kernel.walk import KernelList, Rows

_QUIET_S = 0.1


class _KernelPart(KernelList):
    """A walk whose rows are thrown away: what the kernel takes of it."""

    def _take(self, rows: Rows) -> None:
        self._maps.steer(self._maps.control._replace(watches=0, holders=0, users=0))


class Reading(NamedTuple):
    name: str
    read: Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--watches", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    require_root()
    prepare(print)
    limit = more("fs/inotify/max_user_watches", by=arguments.watches)
    with folder() as scratch, tmpfs(scratch / "files") as files, limit:
        hold = build("hold", scratch)
        with Worker(hold, files, str(arguments.watches), "1") as holder:
            holder.ask("watch")
            _measure(holder, arguments.watches, arguments.rounds)


def _measure(holder: Worker, watches: int, rounds: int) -> None:
    pid = holder.process.pid
    (fd,) = inotify_fds(pid)
    # two probes: walks of one are told apart by a number that each list counts for itself
    with Probe(Scope()) as probe, Probe(Scope()) as other:
        kernel_part, kernel = _KernelPart(other.bpf), KernelList(probe.bpf)
        cat = ["cat", f"/proc/{pid}/fdinfo/{fd}"]
        readings = (
            Reading("nothing", lambda: time.sleep(_QUIET_S)),
            Reading("iterator, the kernel's part", kernel_part.rows),
            Reading("iterator, rows decoded", kernel.rows),
            Reading("iterator, whole walk", kernel.walk),
            Reading("fdinfo, parsed", lambda: read_watches(pid, fd)),
            Reading("cat of fdinfo", lambda: subprocess.run(cat, stdout=subprocess.DEVNULL)),
        )
        found = sum(len(each.watches or ()) for each in kernel.walk().instances.values())
        took: dict[str, list[float]] = {reading.name: [] for reading in readings}
        stalls: dict[str, list[float]] = {reading.name: [] for reading in readings}
        holder.ask("worst")
        for _ in range(rounds):
            for reading in readings:
                holder.ask("worst")
                began = time.perf_counter()
                reading.read()
                took[reading.name].append((time.perf_counter() - began) * 1e3)
                stalls[reading.name].append(holder.ask("worst") / 1e6)
        kernel_part.close()
        kernel.close()
    rows = [
        (
            name,
            f"{statistics.median(took[name]):.1f}",
            f"{min(took[name]):.1f} to {max(took[name]):.1f}",
            f"{statistics.median(stalls[name]):.2f}",
            f"{max(stalls[name]):.2f}",
        )
        for name in took
    ]
    print_table(
        f"Reading {watches:,} live watches ({found:,} on the machine); medians of {rounds} rounds",
        ("", "ms", "least to most", "worst stall ms", "of all rounds"),
        rows,
    )
    print("\nA stall is how long one add and rm took of the program that has the watches.")


if __name__ == "__main__":
    main()
