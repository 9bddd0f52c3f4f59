"""
What tracing costs a program that does nothing but add and remove watches.

Untraced and traced runs alternate, so that the ratio survives a noisy machine. Run as root:

    .venv/bin/python tests/bench/flood.py [PAIRS [ROUNDS]]
"""

from __future__ import annotations

import gc
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tracer.kernel.preflight import prepare
from tracer.kernel.symbols import BccStacks
from tracer.session import Filter, Session

_SOURCE = Path(__file__).with_name("flood.c")
_PROCESSES = 2
_FLAGS = ("-O2", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls")


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    prepare(print)
    # as the command line does
    gc.set_threshold(200_000, 50, 1_000)
    with tempfile.TemporaryDirectory() as folder:
        flood = Path(folder) / "flood"
        subprocess.run(["cc", *_FLAGS, "-o", str(flood), str(_SOURCE)], check=True)
        plain, traced, lines = [], [], []
        for _ in range(rounds):
            plain.append(_flood(flood, pairs))
            cost, line = _traced(flood, pairs)
            traced.append(cost)
            lines.append(line)
        print("\n".join(lines))
        print(_ratio("ns a pair", plain, traced))
        print(f"start to first captured event: {_first_event(flood):.2f} s")


def _flood(program: Path, pairs: int) -> float:
    """Nanoseconds a pair of add and rm."""
    command = [str(program), str(pairs), str(_PROCESSES)]
    return float(subprocess.run(command, check=True, capture_output=True).stdout)


def _traced(program: Path, pairs: int) -> tuple[float, str]:
    with Session(Filter(name=b"flood"), BccStacks(), older_s=0.0) as session:
        cpu = time.process_time()
        command = [str(program), str(pairs), str(_PROCESSES)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        while child.poll() is None:
            time.sleep(0.05)
            session.step()
        ended = time.monotonic()
        report = session.finish()
        caught_up = time.monotonic() - ended
        cpu = time.process_time() - cpu
        assert child.stdout is not None
        cost = float(child.stdout.read())
    trace = report.trace
    received = trace.added + sum(trace.removed.values())
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return cost, (
        f"{received:,} of {2 * pairs:,} calls received, {trace.lost:,} lost, "
        f"{cpu / received * 1e6:.2f} us of CPU each, caught up in {caught_up:.2f} s, "
        f"peak RSS {rss:.0f} MiB, ledger {'=' if trace.complete else '≠'} kernel"
    )


def _ratio(what: str, plain: list[float], traced: list[float]) -> str:
    each = [b / a for a, b in zip(plain, traced)]
    return (
        f"{what}: {statistics.median(plain):,.0f} untraced, {statistics.median(traced):,.0f} "
        f"traced, ratio {statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"
    )


def _first_event(program: Path) -> float:
    """Seconds from starting the command to the first call it prints."""
    calls = subprocess.Popen([str(program), "1000000000", "1"], stdout=subprocess.DEVNULL)
    began = time.monotonic()
    try:
        command = [sys.executable, "-m", "tracer", "events", "-f", "json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as events:
            assert events.stdout is not None
            for line in events.stdout:
                if b'"call"' in line:
                    events.terminate()
                    return time.monotonic() - began
    finally:
        calls.kill()
        calls.wait()
    raise RuntimeError("no call was captured")


if __name__ == "__main__":
    main()
