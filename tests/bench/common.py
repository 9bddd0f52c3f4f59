"""What the benches share: C programs, tools and their readiness, readings of /proc, tables."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).parents[2]
# what is measured is this checkout, whatever is installed
sys.path.insert(0, str(CHECKOUT))

MIB = 1024  # in KiB, which /proc counts in

# frame pointers, and no tail call: every tool is to find main above the call
_FLAGS = ("-O2", "-pthread", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls")
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_SAMPLE_EVERY_S = 0.1


def build(name: str, folder: Path) -> Path:
    """The C program beside this file, compiled."""
    program = folder / name
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run(["cc", *_FLAGS, "-o", str(program), str(source)], check=True)
    return program


@contextmanager
def folder() -> Iterator[Path]:
    """One that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="inotrace-bench-") as name:
        yield Path(name)


@contextmanager
def tmpfs(on: Path) -> Iterator[Path]:
    """A file system with room for a million files, unmounted afterwards."""
    on.mkdir()
    options = "size=64m,nr_inodes=0"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "bench", str(on)], check=True)
    try:
        yield on
    finally:
        subprocess.run(["umount", "-l", str(on)], check=True)


@contextmanager
def more(sysctl: str, by: int) -> Iterator[None]:
    """Raise a limit, of which others may have used a part, and put it back."""
    file = Path("/proc/sys") / sysctl
    before = file.read_text()
    file.write_text(f"{int(before) + by}\n")
    try:
        yield
    finally:
        file.write_text(before)


class Worker:
    """
    One of the C programs, or a tool that starts it: ready once made, then it answers lines.

    What it says on standard error goes to `errors`, if that is given.
    """

    def __init__(self, *command: str | Path, errors: Path | None = None) -> None:
        with ExitStack() as opened:
            file = opened.enter_context(errors.open("wb")) if errors is not None else None
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
            )
        line = self._line()
        if line != b"ready\n":
            raise RuntimeError(f"{self.process.args!r}: {line!r} instead of ready")

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(OSError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def ask(self, question: str = "") -> int:
        """Send a line; the number that comes back."""
        assert self.process.stdin is not None
        self.process.stdin.write(question.encode() + b"\n")
        self.process.stdin.flush()
        answer = self._line()
        if not answer:
            raise RuntimeError(f"{self.process.args!r} ended with {self.process.wait()}")
        return int(answer)

    def _line(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


class Caught(NamedTuple):
    """Calls that a tool captured, and those it says it lost; None if it does not count them."""

    calls: int
    lost: int | None


class Trace:
    """``inotrace trace`` in a process of its own; it traces once made, until `end`."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._report = folder / "report.json"
        command = ("trace", "-f", "json", "-o", str(self._report), "--force", *options)
        self.process = _inotrace(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        _await_line(self.process, self.process.stderr.fileno(), b"tracing")

    def end(self) -> None:
        """Ctrl-C; it ends in its own time."""
        self.process.send_signal(signal.SIGINT)

    def caught(self) -> Caught:
        """Once it has ended."""
        trace = json.loads(self._report.read_text())["trace"]
        return Caught(trace["added"] + trace["removed"], trace["lost"])


class Events:
    """``inotrace events`` likewise, into a pipe whose reader keeps the last line only."""

    def __init__(self, *options: str) -> None:
        command = ("events", "-f", "json", *options)
        self.process = _inotrace(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdout is not None
        _await_line(self.process, self.process.stdout.fileno(), b"schema")
        self._tail = subprocess.Popen(
            ["tail", "-n", "1"], stdin=self.process.stdout, stdout=subprocess.PIPE
        )
        self.process.stdout.close()

    def end(self) -> None:
        """Ctrl-C; it ends in its own time."""
        self.process.send_signal(signal.SIGINT)

    def caught(self) -> Caught:
        """Once it has ended."""
        summary = json.loads(self._tail.communicate()[0])["summary"]
        return Caught(summary["calls"], summary["lost"])


def _inotrace(command: Sequence[str], stdout: int, stderr: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tracer", *command],
        stdout=stdout,
        stderr=stderr,
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )


def _await_line(process: subprocess.Popen[bytes], fd: int, wanted: bytes) -> None:
    # without a buffer that would keep what follows from another reader
    seen = b""
    while wanted not in seen:
        part = os.read(fd, 4096)
        if not part:
            raise RuntimeError(f"inotrace ended with {process.wait()}: {seen.decode()}")
        seen += part


def finished(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process to end; the CPU seconds of itself, without its children."""
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    seconds = cpu_seconds(process.pid)
    process.wait()
    return seconds


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, its children not included; also of one that nobody waited for yet."""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    fields = stat[stat.rindex(b")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


class Memory(NamedTuple):
    """Of one process, in KiB: now, and the most so far."""

    rss: int
    peak: int


def memory(pid: int) -> Memory | None:
    """None once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = dict(re.findall(r"^(VmRSS|VmHWM):\s+(\d+) kB$", status, re.MULTILINE))
    return Memory(int(found["VmRSS"]), int(found["VmHWM"])) if len(found) == 2 else None


class Sampler:
    """Reads the memory of a process ten times a second, until it ends."""

    def __init__(self, pid: int) -> None:
        self.samples: list[Memory] = []
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def peak(self) -> int:
        """In KiB."""
        return max((sample.peak for sample in self.samples), default=0)

    def _run(self) -> None:
        while (sample := memory(self._pid)) is not None:
            self.samples.append(sample)
            if self._stop.wait(_SAMPLE_EVERY_S):
                return


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1
) -> None:
    """Columns as wide as needed: the first `left` of them to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    print(f"\n{title}\n")
    for row in (header, *rows):
        cells = [
            cell.ljust(width) if at < left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths))
        ]
        print("  ".join(cells).rstrip())


def require_root() -> None:
    if os.geteuid():
        raise SystemExit("the benches need root")
