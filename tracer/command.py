"""Starting a command as if inotrace were not in between, as often as asked and beside threads."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tracer.errors import InotraceError

# Python ignores these from its start on, whatever they were before.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class Command:
    """
    A program with its arguments, and what it is to find when it starts.

    Make it before anything is prepared: its environment, blocked signals and memory lock limit are
    those of this moment, which BCC and HeldSignals change. It keeps inotrace's standard streams,
    working directory and ignored signals; `stdout` is a descriptor to use instead of standard
    output. Raises InotraceError if there is no such program.
    """

    def __init__(self, argv: Sequence[str], stdout: int | None = None) -> None:
        self.argv = tuple(argv)
        self._program = _find(argv[0])
        self._redirections = [] if stdout is None else [(os.POSIX_SPAWN_DUP2, stdout, 1)]
        self._environment = os.environ.copy()
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._locked_bytes = resource.getrlimit(resource.RLIMIT_MEMLOCK)

    def start(self) -> Child:
        """Raises InotraceError if the program cannot be executed."""
        try:
            with _memory_lock_limit(self._locked_bytes):
                # no Python runs in the child, so that threads may hold any lock meanwhile
                pid = os.posix_spawn(
                    self._program,
                    self.argv,
                    self._environment,
                    file_actions=self._redirections,
                    setsigmask=self._mask,
                    setsigdef=_IGNORED_BY_PYTHON,
                )
        except OSError as error:
            raise InotraceError(f"cannot run {self.argv[0]!r}: {error.strerror}") from error
        return Child(pid)


class Child:
    """A started command. What still runs when inotrace ends is left alone."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def poll(self) -> bool:
        """Whether it has ended."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
        return self._status is not None

    def end(self) -> None:
        """Kill it, unless it has ended."""
        if not self.poll():
            os.kill(self.pid, signal.SIGKILL)
            self._status = os.waitpid(self.pid, 0)[1]

    @property
    def exit_code(self) -> int:
        """As a shell gives it: 128 + N after signal N."""
        assert self._status is not None, "still running"
        if os.WIFSIGNALED(self._status):
            return 128 + os.WTERMSIG(self._status)
        return os.WEXITSTATUS(self._status)


def _find(name: str) -> str:
    program = shutil.which(name)
    if program is None:
        raise InotraceError(f"cannot run {name!r}: no such program")
    return program


@contextmanager
def _memory_lock_limit(wanted: tuple[int, int]) -> Iterator[None]:
    """Have it meanwhile: BCC raises it before Linux 5.11, and children inherit what it is."""
    own = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if own == wanted:
        yield
        return
    resource.setrlimit(resource.RLIMIT_MEMLOCK, wanted)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, own)
