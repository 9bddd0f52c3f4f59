"""A program whose stacks are checked, and how it is run."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Callable, NamedTuple

from harness import PATIENCE_S, Reader
from workshop import Workshop

COMPLETE = frozenset({"complete"})
# where a table to unwind by is missing
GUESSED = frozenset({"complete", "guessed"})

# For programs that make their call when they start.
_WAITING = ("sh", "-c", 'echo ready; read -r _; exec "$@"', "sh")


class Program(NamedTuple):
    """
    A program that writes a line when it is ready, and makes its calls for each line it is sent.

    `command` builds it. `chain` is what each call must show, and one of `states` with it.
    """

    name: str
    command: Callable[[Workshop], list[str]]
    chain: str
    states: frozenset[str] = COMPLETE
    # how many lines it may be sent, and how many calls one line brings
    rounds: int = 3
    calls: int = 1
    # whether a later call has the very frames of the first; compilers at run time move them
    repeats: bool = True
    # whether it calls on another stack than it began on: a copy has only that, so that the first
    # stack may end there, and later ones go on
    on_two_stacks: bool = False
    # whether inotrace knows its inlined functions, as gdb does
    inlined: bool = False
    # whether gdb skips what it cannot unwind, so that its frames are only some of all
    gdb_guesses: bool = False
    # why gdb has nothing to say
    no_gdb: str | None = None


class Performance:
    """One run of a program that waits to be told."""

    def __init__(self, command: list[str], **options: Any) -> None:
        options.setdefault("cwd", "/")
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options
        )
        assert self.process.stdout is not None
        self.pid = self.process.pid
        self.answers = Reader(self.process.stdout.fileno())

    def await_ready(self) -> None:
        assert self.answers.line() == b"ready"

    def go(self) -> None:
        """Let it make its calls."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.communicate(timeout=PATIENCE_S)
        # node and CPython leave it
        Path(f"/tmp/perf-{self.pid}.map").unlink(missing_ok=True)


def waiting(*command: object) -> list[str]:
    """A program that starts when it is told, under the pid that the wait had."""
    return [*_WAITING, *map(str, command)]
