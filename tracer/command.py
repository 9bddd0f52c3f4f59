"""Starting a command that waits until tracing is ready."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import NoReturn

from tracer.errors import InotraceError

# Python ignores these from its start on, whatever they were before.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


class Command:
    """
    A child process that has been forked but not yet become its program.

    Create it before any thread exists. It keeps inotrace's standard streams, environment, working
    directory and ignored signals; `stdout` is a descriptor to use instead of standard output. As a
    context manager it ends what was not let start; if inotrace dies first, the program never
    starts either. Raises InotraceError if there is no such program.
    """

    def __init__(self, argv: Sequence[str], stdout: int | None = None) -> None:
        self.argv = tuple(argv)
        program = shutil.which(argv[0])
        if program is None:
            raise InotraceError(f"cannot run {argv[0]!r}: no such program")
        gate_out, self._gate = os.pipe()
        self._failure, failure_in = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        # what comes for the child meanwhile stays pending until it is the program
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.pid = os.fork()
            if self.pid == 0:
                os.close(self._gate)
                os.close(self._failure)
                if stdout is not None:
                    os.dup2(stdout, 1)
                _become(program, self.argv, gate_out, failure_in, mask)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(gate_out)
        os.close(failure_in)
        self._status: int | None = None
        self._released = False

    def __enter__(self) -> Command:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._released:
            self.end()

    def release(self) -> None:
        """Let the program start. Raises InotraceError if it cannot be executed."""
        self._released = True
        # if the child was killed while it waited, its status says so
        with suppress(BrokenPipeError):
            os.write(self._gate, b"x")
        os.close(self._gate)
        with os.fdopen(self._failure, "rb") as failure:
            code = failure.read()
        if code:
            self._wait()
            reason = os.strerror(int(code))
            raise InotraceError(f"cannot run {self.argv[0]!r}: {reason}")

    def end(self) -> None:
        """Kill the program, or do not let it start."""
        if self._status is not None:
            return
        if self._released:
            os.kill(self.pid, signal.SIGKILL)
        else:
            os.close(self._gate)
            os.close(self._failure)
        self._wait()

    def _wait(self) -> None:
        self._status = os.waitpid(self.pid, 0)[1]

    def poll(self) -> bool:
        """Whether the program has ended."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
        return self._status is not None

    @property
    def exit_code(self) -> int:
        """As a shell gives it: 128 + N after signal N."""
        assert self._status is not None, "still running"
        if os.WIFSIGNALED(self._status):
            return 128 + os.WTERMSIG(self._status)
        return os.WEXITSTATUS(self._status)


def _become(
    program: str, argv: tuple[str, ...], gate: int, failure: int, mask: Iterable[int]
) -> NoReturn:
    code = 127
    try:
        if os.read(gate, 1):
            _leave_signals_alone(mask)
            os.execv(program, argv)
    except OSError as error:
        os.write(failure, str(error.errno).encode())
    except BaseException:
        code = 126
    os._exit(code)


def _leave_signals_alone(mask: Iterable[int]) -> None:
    """As they were when inotrace began: what was ignored then, as by nohup, still is."""
    for number in signal.valid_signals():
        if number in _IGNORED_BY_PYTHON or callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
