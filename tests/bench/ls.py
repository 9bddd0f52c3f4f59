"""
What it takes to list who watches what on a machine with many processes.

`inotrace ls` in several shapes, from its start to its end, beside the shell script that people pass
on for that: readlink of every descriptor, and a count of lines in the fdinfo of each instance. Run
as root:

    .venv/bin/python tests/bench/ls.py [--processes N] [--holders N] [--watches N] [--rounds N]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

from common import CHECKOUT, Worker, build, folder, more, print_table, require_root

_SCRIPT = r"""
find /proc/[0-9]*/fd -lname 'anon_inode:*inotify' 2>/dev/null |
while IFS=/ read -r _ _ pid _ fd; do
    exe=$(readlink "/proc/$pid/exe")
    watches=$(grep -c ^inotify "/proc/$pid/fdinfo/$fd")
    echo "$exe $pid $fd $watches"
done
"""
# what Python does not find there is not loaded: /proc is then all there is
_WITHOUT_BPF = "import sys; sys.modules['bcc'] = None; sys.argv[0] = 'inotrace'\n"
_RUN = "from tracer.cli.app import main; sys.exit(main())"


class Reading(NamedTuple):
    name: str
    command: tuple[str, ...]


class Took(NamedTuple):
    """Seconds, and lines printed."""

    wall: float
    cpu: float
    lines: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--processes", type=int, default=5_500)
    parser.add_argument("--holders", type=int, default=500)
    parser.add_argument("--watches", type=int, default=23)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    require_root()
    counts = (arguments.processes, arguments.holders, arguments.watches)
    instances = more("fs/inotify/max_user_instances", by=arguments.holders)
    watches = more("fs/inotify/max_user_watches", by=arguments.holders * arguments.watches)
    with folder() as scratch, instances, watches:
        crowd = build("crowd", scratch)
        (files := scratch / "files").mkdir()
        with Worker(crowd, files, *map(str, counts)):
            took = _measure(arguments.rounds)
    _print(took, counts, arguments.rounds)


def _readings() -> tuple[Reading, ...]:
    ls = (sys.executable, "-m", "tracer", "ls", "-f", "plain")
    by_proc = (sys.executable, "-c", _WITHOUT_BPF + _RUN, "ls", "-f", "plain")
    return (
        Reading("script with find and grep", ("sh", "-c", _SCRIPT)),
        Reading("inotrace ls", ls),
        Reading("inotrace ls --by fd", (*ls, "--by", "fd")),
        Reading("inotrace ls --by target, with paths", (*ls, "--by", "target")),
        Reading("inotrace ls --by pod", (*ls, "--by", "pod")),
        Reading("inotrace ls -f json, with all", (*ls, "-f", "json")),
        Reading("inotrace ls, without BPF", by_proc),
        Reading("python -m tracer --version", (sys.executable, "-m", "tracer", "--version")),
    )


def _measure(rounds: int) -> Mapping[str, list[Took]]:
    took: dict[str, list[Took]] = {reading.name: [] for reading in _readings()}
    for round_ in range(rounds + 1):
        for reading in _readings():
            one = _run(reading)
            # the first fills the caches
            if round_:
                took[reading.name].append(one)
    return took


def _run(reading: Reading) -> Took:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(
        reading.command,
        stdout=subprocess.PIPE,
        check=True,
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(wall, cpu, done.stdout.count(b"\n"))


def _print(took: Mapping[str, list[Took]], counts: tuple[int, ...], rounds: int) -> None:
    script = statistics.median(one.wall for one in next(iter(took.values())))
    rows = []
    for name, runs in took.items():
        walls = [one.wall for one in runs]
        wall = statistics.median(walls)
        rows.append(
            (
                name,
                f"{wall * 1e3:,.0f}",
                f"{min(walls) * 1e3:,.0f} to {max(walls) * 1e3:,.0f}",
                f"{statistics.median(one.cpu for one in runs) * 1e3:,.0f}",
                f"{wall / script:.2f}",
                f"{runs[-1].lines:,}",
            )
        )
    processes, holders, watches = counts
    print_table(
        f"Listing {processes:,} processes, {holders:,} of which have an instance of {watches:,} "
        f"watches; medians of {rounds} rounds",
        ("", "ms", "least to most", "CPU ms", "of the script", "lines"),
        rows,
    )


if __name__ == "__main__":
    main()
