"""What the kernel tests drive: puppets that use inotify as told, and inotrace itself."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, NamedTuple

import pytest

from tracer.errors import InotraceError
from tracer.kernel.hooks import Mode
from tracer.kernel.modes import find
from tracer.session import Session

CHECKOUT = Path(__file__).parents[2]
_WORKLOADS = Path(__file__).with_name("workloads")
_FLAGS = ("-O1", "-fno-optimize-sibling-calls", "-pthread")
# Far above what anything here takes: to be reached is a failure, not a delay. An emulated machine
# needs more.
PATIENCE_S = float(os.environ.get("INOTRACE_PATIENCE_S", "30"))
# for in_namespace(): tracefs is under debugfs as well
WITHOUT_TRACEFS = "mount -t tmpfs none /sys/kernel/tracing && mount -t tmpfs none /sys/kernel/debug"
_SUMMARY = re.compile(r"inotify wd:([0-9a-f]+) ino:([0-9a-f]+) sdev:([0-9a-f]+) ")


class KernelWatch(NamedTuple):
    wd: int
    ino: int
    dev: int


def heed_signals() -> None:
    """
    What was ignored when the tests were started, as in a shell's background, they undo.

    inotrace leaves it ignored, so that no test could end it.
    """
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def require_root() -> None:
    """Skip the test without root; with INOTRACE_REQUIRE_ROOT=1, fail it."""
    if os.geteuid() == 0:
        return
    reason = "needs root to load BPF programs: start it with sudo"
    if os.environ.get("INOTRACE_REQUIRE_ROOT") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def environment(**changes: str) -> dict[str, str]:
    """What inotrace runs with: the checkout, and nothing that depends on who tests."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {
        **kept,
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONDONTWRITEBYTECODE": "1",
        **changes,
    }


def working_modes() -> list[Mode]:
    """Those that this kernel allows; without root, where none is, one to name the tests by."""
    try:
        return [mode for mode in Mode if find(mode).works] or [Mode.TRACEPOINT]
    except InotraceError:
        return [Mode.TRACEPOINT]


def compiled(workload: str, program: Path, *flags: str) -> Path:
    """Make a program of workloads/`workload`.c."""
    source = _WORKLOADS / f"{workload}.c"
    subprocess.run(["gcc", *(flags or _FLAGS), "-o", program, source], check=True)
    return program


# Python says that it is there, and waits for the end of its standard input.
STAY = "import sys; print(flush=True); sys.stdin.read()"


def until(condition: Callable[[], bool], what: str) -> None:
    """For what the kernel does in its own time and tells nobody about."""
    ends = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends, f"never came: {what}"
        time.sleep(0.005)


def own_name(kind: str) -> bytes:
    """The name of a program that only this run of the tests has; `kind` is 6 bytes at most."""
    return f"{kind}{os.getpid()}.".encode()


class Reader:
    """Lines of a pipe or terminal as they come, with patience but not for ever."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._ended = False
        self.seen = b""
        self._at = 0

    def line(self) -> bytes:
        """The next line without its end."""
        self._read_until(lambda: b"\n" in self.seen[self._at :])
        assert self._at < len(self.seen), f"it ended after {self.seen[-2000:]!r}"
        line, _, _ = self.seen[self._at :].partition(b"\n")
        self._at += len(line) + 1
        return line.rstrip(b"\r")

    def ready(self, timeout: float) -> bool:
        """Whether there is something to read."""
        return self._at < len(self.seen) or bool(select.select([self._fd], [], [], timeout)[0])

    def until(self, wanted: bytes) -> bytes:
        """Read on until `wanted` was read; all that came so far."""
        self._read_until(lambda: wanted in self.seen)
        assert wanted in self.seen, f"{wanted!r} never came, but {self.seen!r}"
        return self.seen

    def until_seen(self, wanted: bytes, times: int) -> None:
        """Read on until `wanted` was read so often, from the beginning on."""
        self._read_until(lambda: self.seen.count(wanted) >= times)

    def rest(self) -> bytes:
        """Everything up to the end of the file, what was read before included."""
        self._read_until(lambda: False)
        return self.seen

    def _read_until(self, condition: Callable[[], bool]) -> None:
        ends = time.monotonic() + PATIENCE_S
        while not condition() and not self._ended:
            readable = select.select([self._fd], [], [], max(ends - time.monotonic(), 0))[0]
            assert readable, f"nothing more came in {PATIENCE_S:g} s after {self.seen[-2000:]!r}"
            try:
                chunk = os.read(self._fd, 65536)
            except OSError:
                # EIO: the last program on a terminal ended
                chunk = b""
            self._ended = not chunk
            self.seen += chunk


class Puppet:
    """
    A conversation with workloads/puppet.c over a pair of pipes.

    Calling it sends a command and returns the answer. A path or name is Path or bytes.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._reader = Reader(answers)
        self.pid = self.answer()

    def __call__(self, *words: object) -> int:
        self.tell(*words)
        return self.answer()

    def tell(self, *words: object) -> None:
        """Send a command and do not wait for its end."""
        name, *arguments = words
        line = " ".join([str(name), *map(_word, arguments)])
        os.write(self._commands, line.encode() + b"\n")

    def answer(self) -> int:
        return int(self._reader.line())

    def has_answered(self) -> bool:
        """Whether an answer waits to be read; looks for 20 ms."""
        return self._reader.ready(0.02)

    def ok(self, *words: object) -> int:
        """Send a command that must succeed."""
        result = self(*words)
        assert result >= 0, f"{words}: {os.strerror(-result)}"
        return result


def _word(argument: object) -> str:
    if isinstance(argument, (bytes, Path)):
        return os.fsencode(argument).hex()
    return str(argument)


def puppet_of(process: subprocess.Popen[bytes]) -> Puppet:
    """The conversation with a puppet that was started with pipes, also through inotrace."""
    assert process.stdin is not None and process.stdout is not None
    return Puppet(process.stdin.fileno(), process.stdout.fileno())


class Inotrace:
    """One run of the command line. `out` and `err` read what it prints if they are pipes."""

    def __init__(self, *arguments: object, env: dict[str, str] | None = None, **options: Any):
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        options.setdefault("cwd", "/")
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [sys.executable, "-m", "tracer", *map(os.fspath, map(_argument, arguments))],
            env=env or environment(),
            **options,
        )
        if self.process.stdout is not None:
            self.out = Reader(self.process.stdout.fileno())
        if self.process.stderr is not None:
            self.err = Reader(self.process.stderr.fileno())

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self, number: int = signal.SIGINT) -> int:
        """End it with a signal; its exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def report(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out.rest())

    def error(self) -> str:
        """The single line on standard error, without the tool's name."""
        text = self.err.rest().decode()
        assert text.startswith("inotrace: ") and text.count("\n") == 1, text
        return text[len("inotrace: ") : -1]


def in_namespace(prepare: str, *command: object) -> subprocess.CompletedProcess[str]:
    """inotrace among mounts of its own, after the shell commands in `prepare`."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is missing (util-linux)")
    script = f'{{ {prepare}; }} || exit 77; exec "$@"'
    inner = [sys.executable, "-m", "tracer", *map(str, command)]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *inner],
        env=environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
    )
    if done.returncode == 77:
        pytest.skip(f"cannot prepare the mounts: {done.stderr}")
    return done


class Terminal:
    """One run of the command line with a terminal of its own, as a child of `under` if given."""

    def __init__(
        self,
        *arguments: object,
        width: int = 120,
        height: int = 40,
        env: dict[str, str] | None = None,
        under: tuple[str, ...] = (),
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))
        tool = [sys.executable, "-m", "tracer", *map(os.fspath, map(_argument, arguments))]
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [*under, *tool],
            env=env or environment(),
            cwd="/",
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            # Ctrl-C goes to whom the terminal belongs
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self._reader = Reader(self._master)
        self.until, self.until_seen, self.line, self.rest = (
            self._reader.until,
            self._reader.until_seen,
            self._reader.line,
            self._reader.rest,
        )

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def wait(self) -> int:
        # what nobody reads would hold it up
        self.rest()
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)


def _argument(argument: object) -> str | bytes:
    return argument if isinstance(argument, bytes) else str(argument)


# --- ledger against kernel ---


def kernel_watches(pid: int, fd: int) -> Counter[KernelWatch]:
    """What fdinfo says of one descriptor, read independently of inotrace."""
    text = Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
    return Counter(
        KernelWatch(*(int(each, 16) for each in found)) for found in _SUMMARY.findall(text)
    )


def kernel_watches_of(*held: tuple[int, int]) -> Counter[KernelWatch]:
    """What several instances watch, each named by one descriptor (pid, fd) on it."""
    return sum((kernel_watches(pid, fd) for pid, fd in held), Counter())


def ledger_watches(session: Session) -> Counter[KernelWatch]:
    """What the session takes for live."""
    watches = [watch for _, watch in session._ledger.watches()]
    return Counter(
        KernelWatch(watch.wd, watch.target.ino, watch.target.dev)
        for watch in watches
        if watch.target is not None
    ) + Counter(KernelWatch(watch.wd, 0, 0) for watch in watches if watch.target is None)


# --- reports ---


def site_of(report: Any, function: str) -> Any:
    """The one site of a JSON report that has the function among its frames."""
    found = [
        site
        for site in report["sites"]
        if function in [frame["function"] for frame in site["frames"]]
    ]
    assert len(found) == 1, [site["frames"] for site in report["sites"]]
    return found[0]


def watch_sites(report: Any) -> list[Any]:
    """The sites of a JSON report that add watches, and not those that open instances."""
    return [site for site in report["sites"] if site["kind"] == "watches"]


def process_of(report: Any, pid: int) -> Any:
    (found,) = [process for process in report["processes"] if process["pid"] == pid]
    return found


def removed(**causes: int) -> dict[str, int]:
    """Removals by cause as JSON has them, zeros filled in."""
    names = ("rm_watch", "deleted", "unmounted", "oneshot", "closed", "unknown")
    assert set(causes) <= set(names)
    return {name: causes.get(name, 0) for name in names}
