"""
Whether memory follows what is live and not what has happened.

Floods of pairs of add and rm under `trace` and `events`, then a trace of many live watches. Run
as root:

    .venv/bin/python tests/bench/memory.py [--pairs N] [--live N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from common import (
    MIB,
    Caught,
    Events,
    Memory,
    Sampler,
    Trace,
    Worker,
    build,
    cpu_seconds,
    finished,
    folder,
    memory,
    more,
    print_table,
    require_root,
    tmpfs,
)

_PROCESSES = 2
_PARTS = 5
_INSTANCES = 10
# What a tracer with nothing to do takes of a CPU at most.
_IDLE_SHARE = 0.1
_IDLE_S = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5_000_000)
    parser.add_argument("--live", type=int, default=1_000_000)
    arguments = parser.parse_args()
    require_root()
    with folder() as scratch:
        if arguments.pairs:
            _floods(scratch, arguments.pairs)
        if arguments.live:
            _live(scratch, arguments.live)


def _floods(scratch: Path, pairs: int) -> None:
    flood = build("flood", scratch)
    tools: tuple[tuple[str, Callable[[], Trace | Events]], ...] = (
        ("trace", lambda: Trace(scratch, "-n", "flood")),
        ("events", lambda: Events("-n", "flood")),
        ("events --stack", lambda: Events("-n", "flood", "--stack")),
    )
    rows = [_flooded(name, start(), flood, pairs) for name, start in tools]
    print_table(
        f"RSS in MiB through {pairs:,} pairs",
        ("", "start", *(f"{at}/{_PARTS}" for at in range(1, _PARTS + 1)), "end", "calls", "lost"),
        rows,
    )
    print(f"\nEach of the {_PARTS} is the most in that part of the flood.", flush=True)


def _flooded(name: str, tool: Trace | Events, flood: Path, pairs: int) -> tuple[str, ...]:
    start = _now(tool)
    with Sampler(tool.process.pid) as sampler:
        with Worker(flood, str(pairs), str(_PROCESSES)) as worker:
            begin = len(sampler.samples)
            worker.ask()
            end = len(sampler.samples)
        tool.end()
        finished(tool.process)
    caught: Caught = tool.caught()
    during, after = sampler.samples[begin:end], sampler.samples[end:]
    return (
        name,
        f"{start / MIB:.0f}",
        *(f"{part / MIB:.0f}" for part in _highest(during)),
        f"{max((sample.rss for sample in after), default=0) / MIB:.0f}",
        f"{caught.calls:,}",
        f"{caught.lost:,}",
    )


def _highest(samples: Sequence[Memory]) -> list[int]:
    """The most in each part of the time."""
    cuts = [len(samples) * at // _PARTS for at in range(_PARTS + 1)]
    return [
        max((sample.rss for sample in samples[begin:end]), default=0)
        for begin, end in zip(cuts, cuts[1:])
    ]


def _live(scratch: Path, watches: int) -> None:
    limit = more("fs/inotify/max_user_watches", by=watches)
    with tmpfs(scratch / "files") as files, limit:
        hold = build("hold", scratch)
        with Worker(hold, files, str(watches), str(_INSTANCES)) as holder:
            rows, caught = _traced_live(holder, scratch)
    print_table(
        f"A trace of {watches:,} live watches in {_INSTANCES} instances, "
        f"{caught.calls:,} calls captured, {caught.lost:,} lost",
        ("", "RSS MiB", "beyond the start", "seconds"),
        rows,
    )


def _traced_live(holder: Worker, scratch: Path) -> tuple[list[tuple[str, ...]], Caught]:
    tool = Trace(scratch, "-n", "hold")
    pid = tool.process.pid
    start = _now(tool)
    began = time.monotonic()
    with Sampler(pid) as sampler:
        holder.ask("watch")
        added = time.monotonic()
        _until_idle(pid)
        idle = time.monotonic()
        peak_before, before = sampler.peak, _now(tool)
        marks = len(sampler.samples)
        tool.end()
        finished(tool.process)
        ended = time.monotonic()
    report = sampler.samples[marks:]
    last = report[-1].rss if report else 0
    figures = (
        ("ready", start, 0.0),
        ("the most while watches were added", peak_before, added - began),
        ("all in the ledger", before, idle - began),
        ("the most during the report", max((each.rss for each in report), default=0), ended - idle),
        ("at the end", last, 0.0),
    )
    rows: list[tuple[str, ...]] = [
        (name, f"{rss / MIB:.0f}", f"{(rss - start) / MIB:+.0f}", f"{took:.1f}" if took else "")
        for name, rss, took in figures
    ]
    return rows, tool.caught()


def _until_idle(pid: int) -> None:
    """Until it has caught up: its CPU time tells."""
    while True:
        before = cpu_seconds(pid)
        time.sleep(_IDLE_S)
        if cpu_seconds(pid) - before < _IDLE_SHARE * _IDLE_S:
            return


def _now(tool: Trace | Events) -> int:
    found = memory(tool.process.pid)
    if found is None:
        raise RuntimeError("inotrace has ended")
    return found.rss


if __name__ == "__main__":
    main()
