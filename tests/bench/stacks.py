"""
What a stack costs: the traced program, and inotrace in Python.

The program adds and removes a watch from so many frames deep, under inotrace and under BPF programs
that send events of the same size with the kernel's own stacks. CPU is the program's, without what
others took of the processor meanwhile; BPF is what the kernel says its programs ran
(kernel.bpf_stats_enabled), which is far more steady. Run as root:

    .venv/bin/python tests/bench/stacks.py [--pairs N] [--rounds N] [--python-only]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple

from common import Worker, folder, print_table, require_root
from stack_tools import Inotrace, Kind, Rival, Tool, adds_of, warmed_up

from tracer.core.events import CallEvent, StackCopy
from tracer.core.wire import Arrival, decode
from tracer.kernel.preflight import prepare
from tracer.kernel.ring import records
from tracer.kernel.stack_walk import StackWalk
from tracer.stacks.collector import Stacks
from tracer.stacks.resolver import StackResolver

_DEPTHS = (8, 25, 28, 48)
# what fits a buffer that is not read meanwhile
_PORTION = 1000
_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
_HERE = Path(__file__).parent


class Variant(NamedTuple):
    """`base` is the one to which it adds stacks; the program may have frame pointers."""

    name: str
    start: Callable[[frozenset[int]], Tool]
    has_pointers: bool = True
    base: str = ""


_OURS, _THEIRS = "inotrace, no stack", "rival, no stack"
_VARIANTS = (
    Variant(_OURS, partial(Inotrace, stacks=False)),
    Variant("inotrace", partial(Inotrace, stacks=True), base=_OURS),
    Variant(
        "inotrace, no frame pointers",
        partial(Inotrace, stacks=True),
        has_pointers=False,
        base=_OURS,
    ),
    Variant(_THEIRS, partial(Rival, kind=Kind.NONE)),
    Variant("bpf_get_stack", partial(Rival, kind=Kind.GET_STACK), base=_THEIRS),
    Variant("bpf_get_stackid", partial(Rival, kind=Kind.GET_STACKID), base=_THEIRS),
)


class Sample(NamedTuple):
    """ns a pair of one round: CPU before and while traced, and BPF, 0 if that is not known."""

    plain: float
    cpu: float
    bpf: float
    frames: int
    copies: int
    caught: float


Samples = dict[tuple[int, str], list[Sample]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--pairs", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--python-only", action="store_true")
    arguments = parser.parse_args()
    pairs = max(arguments.pairs // _PORTION, 1) * _PORTION
    require_root()
    prepare(print)
    with folder() as scratch:
        programs = {which: _built(scratch, which) for which in (True, False)}
        if not arguments.python_only:
            _print_kernel(_kernel_samples(programs, pairs, arguments.rounds), arguments.rounds)
        costs = [_Costs(programs[False], frames, arguments.rounds) for frames in _DEPTHS]
    _print_python(costs, arguments.rounds)


def _built(scratch: Path, has_pointers: bool) -> Path:
    kept = "-fno-omit-frame-pointer" if has_pointers else "-fomit-frame-pointer"
    program = scratch / f"deep{kept}"
    options = ["-O2", kept, "-fno-optimize-sibling-calls"]
    subprocess.run(["cc", *options, "-o", str(program), str(_HERE / "deep.c")], check=True)
    return program


# what it costs the program


def _kernel_samples(programs: dict[bool, Path], pairs: int, rounds: int) -> Samples:
    samples: Samples = defaultdict(list)
    for _ in range(rounds):
        # anew: how far from its end a stack begins is random, and not without effect
        with ExitStack() as opened:
            workers = {
                (frames, has_pointers): opened.enter_context(Worker(program, str(frames)))
                for frames in _DEPTHS
                for has_pointers, program in programs.items()
            }
            for variant in _VARIANTS:
                chosen = {frames: workers[frames, variant.has_pointers] for frames in _DEPTHS}
                for frames, sample in _compare(variant, chosen, pairs):
                    samples[frames, variant.name].append(sample)
    return samples


def _compare(
    variant: Variant, workers: dict[int, Worker], pairs: int
) -> Iterator[tuple[int, Sample]]:
    plain = {frames: _cpu(worker, pairs) for frames, worker in workers.items()}
    pids = frozenset(worker.process.pid for worker in workers.values())
    with closing(variant.start(pids)) as tool:
        for frames, worker in workers.items():
            yield frames, _sample(tool, worker, plain[frames], pairs)


def _cpu(worker: Worker, pairs: int, take: Callable[[], object] = lambda: None) -> float:
    took = []
    for _ in range(pairs // _PORTION):
        took.append(worker.ask(f"pairs {_PORTION}"))
        take()
    return statistics.median(took)


def _sample(tool: Tool, worker: Worker, plain: float, pairs: int) -> Sample:
    events = warmed_up(tool, worker)
    copies = len(tool.copies)
    taken: list[bytes] = []
    cpu = _cpu(worker, pairs, lambda: taken.extend(tool.take()))
    with _statistics():
        before = tool.ran()
        _cpu(worker, pairs, lambda: taken.extend(tool.take()))
        ran = [now - then for now, then in zip(tool.ran(), before)]
    # more runs: of other programs that use inotify, which are not in scope
    is_disturbed = not 1 <= ran[1] / (2 * pairs) < 1.02
    bpf = 0.0 if is_disturbed else ran[0] / pairs
    caught = sum(1 for content in taken for _ in records(content)) / (4 * pairs)
    return Sample(plain, cpu, bpf, tool.frames_of(events[0]), len(tool.copies) - copies, caught)


@contextmanager
def _statistics() -> Iterator[None]:
    """The kernel times BPF programs meanwhile, which itself takes time."""
    before = _STATS.read_text() if _STATS.exists() else ""
    if before:
        _STATS.write_text("1")
    try:
        yield
    finally:
        if before:
            _STATS.write_text(before)


def _print_kernel(samples: Samples, rounds: int) -> None:
    header = ("frames", "", "seen", "CPU", "above untraced", "BPF", "of it the stack")
    print_table(
        f"Adding and removing a watch, with the stack of the add; ns, medians of {rounds} rounds",
        (*header, "least to most", "misses", "captured"),
        [_kernel_row(frames, variant, samples) for frames in _DEPTHS for variant in _VARIANTS],
        left=2,
    )
    print(
        "\nThe stack's part is what BPF takes above the same tool without stacks."
        "\nmisses are stacks that the kernel had to copy, captured the calls; of all rounds."
        "\nRivals go by frame pointers, which leave out who called the C library."
    )


def _kernel_row(frames: int, variant: Variant, samples: Samples) -> tuple[str, ...]:
    runs = samples[frames, variant.name]
    bpf = [run.bpf for run in runs if run.bpf]
    base = [run.bpf for run in samples.get((frames, variant.base), ()) if run.bpf]
    stack = [ran - statistics.median(base) for ran in bpf if base]
    return (
        str(frames),
        variant.name,
        str(max(run.frames for run in runs)),
        _median([run.cpu for run in runs]),
        _median([run.cpu - run.plain for run in runs]),
        _median(bpf),
        _median(stack),
        f"{min(stack):,.0f} to {max(stack):,.0f}" if stack else "",
        str(sum(run.copies for run in runs)),
        f"{min(run.caught for run in runs):.1%}",
    )


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):,.0f}" if values else ""


# what it costs inotrace


class _Costs:
    """Microseconds of CPU in Python, by what for; once for each round."""

    def __init__(self, program: Path, frames: int, rounds: int) -> None:
        self.frames = frames
        self.us: dict[str, list[float]] = defaultdict(list)
        self._rounds = rounds
        with Worker(program, str(frames)) as worker:
            self._calls("call without a stack", worker, stacks=False)
            self._calls("call, stack complete", worker, stacks=True)
            self._misses(worker)
            self._new_stacks(worker)

    def _calls(self, what: str, worker: Worker, stacks: bool) -> None:
        with _inotrace(worker, stacks=stacks) as tool:
            warmed_up(tool, worker)
            worker.ask(f"same {_PORTION}")
            contents = tool.take()
            assert len(adds_of(contents)) == _PORTION
            resolve = tool.resolver.resolve

            def take_in() -> None:
                for content in contents:
                    for record in records(content):
                        event = decode(record)
                        if isinstance(event, CallEvent):
                            resolve(event)

            take_in()
            for _ in range(self._rounds):
                self._time(what, take_in, _PORTION)

    def _misses(self, worker: Worker) -> None:
        with _inotrace(worker, learns=False) as tool:
            worker.ask("same 20")
            worker.ask("same 1 -1")
            tool.take()
            for _ in range(self._rounds):
                stacks = Stacks()
                stacks.begin(StackWalk(tool.bpf))
                self._learn(stacks, tool.arrivals[0], tool.copies)
                stacks.close()

    def _learn(self, stacks: Stacks, arrival: Arrival, copies: Sequence[StackCopy]) -> None:
        *same, other = copies
        self._time("program met", lambda: stacks.meet(arrival))
        self._time("miss, first of a program", lambda: stacks.learn(same[0]))
        self._time("miss, other places of it", lambda: stacks.learn(other))
        self._time("miss, same places again", lambda: [*map(stacks.learn, same)], len(same))

    def _new_stacks(self, worker: Worker) -> None:
        with _inotrace(worker) as tool:
            # all functions, and whom they call
            seen = {event.caller.stack for event in warmed_up(tool, worker, "other 200 0")}
            for at in range(self._rounds):
                events = warmed_up(tool, worker, f"other 200 {1000 + at * 200}")
                new = [event for event in events if event.caller.stack not in seen]
                seen.update(event.caller.stack for event in new)
                if new:
                    self._resolve(tool.resolver, new)

    def _resolve(self, resolver: StackResolver, events: list[CallEvent]) -> None:
        self._time("new stack", lambda: [*map(resolver.resolve, events)], len(events))

    def _time(self, what: str, work: Callable[[], object], times: int = 1) -> None:
        began = time.thread_time()
        work()
        self.us[what].append((time.thread_time() - began) / times * 1e6)


def _inotrace(worker: Worker, stacks: bool = True, learns: bool = True) -> closing[Inotrace]:
    return closing(Inotrace(frozenset({worker.process.pid}), stacks, learns))


def _print_python(costs: Sequence[_Costs], rounds: int) -> None:
    rows = [(what, *(_cell(cost.us[what]) for cost in costs)) for what in costs[-1].us]
    print_table(
        f"inotrace in Python; us of CPU for each, medians (and least) of {rounds} rounds",
        ("", *(f"{cost.frames} frames" for cost in costs)),
        rows,
    )


def _cell(us: Sequence[float]) -> str:
    return f"{statistics.median(us):,.1f} ({min(us):,.1f})" if us else "-"


if __name__ == "__main__":
    main()
