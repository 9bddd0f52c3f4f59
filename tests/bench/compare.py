"""
What tracing costs a program that does nothing but add and remove watches, tool by tool.

Each traced flood has an untraced one before it, so that the ratio survives a noisy machine. Run as
root:

    .venv/bin/python tests/bench/compare.py [--pairs N] [--rounds N] [TOOL...]

TOOL is a part of a tool's name; without any, all of them.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Callable, NamedTuple

from common import (
    MIB,
    Caught,
    Events,
    Sampler,
    Trace,
    Worker,
    build,
    cpu_seconds,
    finished,
    folder,
    print_table,
    require_root,
)

_PROCESSES = 2

_COUNT = """
tracepoint:syscalls:sys_enter_inotify_add_watch,
tracepoint:syscalls:sys_enter_inotify_rm_watch
/comm == "flood"/ { @[ustack] = count(); }
"""
_PRINT = """
tracepoint:syscalls:sys_enter_inotify_add_watch
/comm == "flood"/ { printf("call %s %s\\n", str(args->pathname), ustack); }
tracepoint:syscalls:sys_enter_inotify_rm_watch
/comm == "flood"/ { printf("call %d\\n", args->wd); }
"""
_CALLS = "inotify_add_watch,inotify_rm_watch"
_CALL = re.compile(rb"inotify_(?:add|rm)_watch\(")
_COUNTED = re.compile(rb"^\]: (\d+)")
_LOST = re.compile(rb"\blost (\d+) events", re.IGNORECASE)


class Run(NamedTuple):
    """One traced flood."""

    ns: float
    pairs: int
    caught: Caught
    ready_s: float
    cpu_s: float
    done_s: float
    peak_kib: int


class Tool(NamedTuple):
    """`share` of the pairs is what a slow tool gets; `needs` is its program."""

    name: str
    shows: str
    share: float
    run: Callable[[Path, Path, int], Run]
    needs: str | None = None


def main() -> None:
    arguments = _arguments()
    require_root()
    tools = [tool for tool in _TOOLS if _is_wanted(tool, arguments.tools)]
    results: dict[str, list[tuple[float, Run]]] = {tool.name: [] for tool in tools}
    with folder() as scratch:
        flood = build("flood", scratch)
        for _ in range(arguments.rounds):
            for tool in tools:
                plain = _untraced(flood, arguments.pairs)
                run = tool.run(flood, scratch, int(arguments.pairs * tool.share))
                results[tool.name].append((plain, run))
    _print(tools, results, arguments.rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("tools", metavar="TOOL", nargs="*")
    return parser.parse_args()


def _is_wanted(tool: Tool, names: Sequence[str]) -> bool:
    if names and not any(name in tool.name for name in names):
        return False
    if tool.needs is not None and shutil.which(tool.needs) is None:
        print(f"{tool.name}: left out, there is no {tool.needs} here")
        return False
    return True


def _untraced(flood: Path, pairs: int) -> float:
    with Worker(flood, str(pairs), str(_PROCESSES)) as worker:
        return worker.ask()


def _under_inotrace(
    start: Callable[[Path], Trace | Events], flood: Path, scratch: Path, pairs: int
) -> Run:
    began = time.monotonic()
    tool = start(scratch)
    ready_s = time.monotonic() - began
    with Sampler(tool.process.pid) as sampler:
        cpu = cpu_seconds(tool.process.pid)
        ns = _untraced(flood, pairs)
        ended = time.monotonic()
        tool.end()
        cpu = finished(tool.process) - cpu
        done_s = time.monotonic() - ended
    return Run(ns, pairs, tool.caught(), ready_s, cpu, done_s, sampler.peak)


def _trace(flood: Path, scratch: Path, pairs: int) -> Run:
    return _under_inotrace(lambda place: Trace(place, "-n", "flood"), flood, scratch, pairs)


def _events(flood: Path, scratch: Path, pairs: int) -> Run:
    return _under_inotrace(lambda _: Events("-n", "flood", "--stack"), flood, scratch, pairs)


def _started_by(
    command: Callable[[Path, Sequence[str]], list[str]],
    count: Callable[[Iterable[bytes]], Caught],
) -> Callable[[Path, Path, int], Run]:
    """For tools that start the flood themselves: once it runs, they are attached."""

    def run(flood: Path, scratch: Path, pairs: int) -> Run:
        output, errors = scratch / "output", scratch / "errors"
        traced = command(output, [str(flood), str(pairs), str(_PROCESSES)])
        with ExitStack() as stack:
            began = time.monotonic()
            worker = stack.enter_context(Worker(*traced, errors=errors))
            ready_s = time.monotonic() - began
            sampler = stack.enter_context(Sampler(worker.process.pid))
            cpu = cpu_seconds(worker.process.pid)
            ns = worker.ask()
            ended = time.monotonic()
            cpu = finished(worker.process) - cpu
            done_s = time.monotonic() - ended
        with output.open("rb") as lines, errors.open("rb") as said:
            caught = count((*lines, *said))
        return Run(ns, pairs, caught, ready_s, cpu, done_s, sampler.peak)

    return run


def _bpftrace(program: str) -> Callable[[Path, Sequence[str]], list[str]]:
    return lambda output, flood: [
        *("bpftrace", "-o", str(output), "-e", program, "-c", " ".join(flood))
    ]


def _perf_trace(output: Path, flood: Sequence[str]) -> list[str]:
    return ["perf", "trace", "-o", str(output), "-e", _CALLS, "--call-graph", "fp", *flood]


def _strace(*options: str) -> Callable[[Path, Sequence[str]], list[str]]:
    return lambda output, flood: [
        *("strace", "-f", *options, "-o", str(output), "-e", f"trace={_CALLS}", *flood)
    ]


def _counted(lines: Iterable[bytes]) -> Caught:
    found = map(_COUNTED.search, lines)
    return Caught(sum(int(match[1]) for match in found if match), None)


def _printed(lines: Iterable[bytes]) -> Caught:
    calls = lost = 0
    for line in lines:
        calls += line.startswith(b"call ") or bool(_CALL.search(line))
        said = _LOST.search(line)
        lost += int(said[1]) if said else 0
    return Caught(calls, lost)


def _stopped(lines: Iterable[bytes]) -> Caught:
    # strace holds the program at each call, and has no word for loss
    return Caught(_printed(lines).calls, None)


_TOOLS = (
    Tool("inotrace trace", "path, stack, ledger", 1, _trace),
    Tool("inotrace events --stack", "path, stack, each printed", 1, _events),
    Tool("bpftrace, count", "stack", 1, _started_by(_bpftrace(_COUNT), _counted), "bpftrace"),
    Tool(
        "bpftrace, print",
        "path, stack, each printed",
        1,
        _started_by(_bpftrace(_PRINT), _printed),
        "bpftrace",
    ),
    Tool("perf trace", "stack, each printed", 0.1, _started_by(_perf_trace, _printed), "perf"),
    Tool("strace", "path, each printed", 0.05, _started_by(_strace(), _stopped), "strace"),
    Tool(
        "strace -k",
        "path, stack, each printed",
        0.005,
        _started_by(_strace("-k"), _stopped),
        "strace",
    ),
)


def _print(tools: Iterable[Tool], results: dict[str, list[tuple[float, Run]]], rounds: int) -> None:
    plain = [before for runs in results.values() for before, _ in runs]
    rows: list[tuple[str, ...]] = [("untraced", "", f"{statistics.median(plain):,.0f}")]
    rows += [_row(tool, results[tool.name]) for tool in tools]
    header: tuple[str, ...] = (
        "",
        "shows",
        "ns a pair",
        "ratio",
        "least to most",
        "calls",
        "captured",
        "lost",
    )
    header += ("CPU us a call", "peak MiB", "ready s", "done s")
    table = [row + ("",) * (len(header) - len(row)) for row in rows]
    print_table(
        f"Adding and removing a watch, {_PROCESSES} processes at once; medians of {rounds} rounds",
        header,
        table,
        left=2,
    )
    print(
        "\nCPU is the tool's own, from being ready to its end, for each call it captured."
        "\ncaptured and lost are of the worst round, lost as the tool tells it."
        "\ndone is how long after the flood the tool ended.",
        flush=True,
    )


def _row(tool: Tool, runs: Sequence[tuple[float, Run]]) -> tuple[str, ...]:
    ratios = [run.ns / before for before, run in runs]
    # the worst run counts: a tool that loses once cannot be relied on
    worst = min((run for _, run in runs), key=lambda run: run.caught.calls)
    calls, lost = worst.caught
    return (
        tool.name,
        tool.shows,
        f"{statistics.median(run.ns for _, run in runs):,.0f}",
        f"{statistics.median(ratios):.2f}",
        f"{min(ratios):.2f} to {max(ratios):.2f}",
        f"{2 * worst.pairs:,}",
        f"{calls / (2 * worst.pairs):.1%}",
        "-" if lost is None else f"{lost:,}",
        f"{statistics.median(run.cpu_s / run.caught.calls * 1e6 for _, run in runs):.1f}"
        if calls
        else "-",
        f"{max(run.peak_kib for _, run in runs) / MIB:.0f}",
        f"{statistics.median(run.ready_s for _, run in runs):.1f}",
        f"{statistics.median(run.done_s for _, run in runs):.1f}",
    )


if __name__ == "__main__":
    main()
