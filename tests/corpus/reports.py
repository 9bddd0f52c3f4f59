"""What inotrace says of the programs of the corpus, each traced as its label tells."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from actors import Actor, Company
from harness import PATIENCE_S, Inotrace
from labels import Holding, Label, run_as

# Of programs that are traced alone.
_BEAT_MS = 25
_SLOW_BEAT_MS = 300
ROUNDS = 5
_EXIT_LEAK = 23


class Reports:
    """The JSON reports; made when first asked for, since some take seconds."""

    def __init__(self, company: Company, programs: Path, folder: Path) -> None:
        self._company = company
        self._programs = programs
        self._folder = folder
        self._kept: dict[str, Any] = {}
        self._failed: dict[str, BaseException] = {}
        self._holdings: dict[str, Holding] = {}

    def of(self, label: Label) -> Any:
        """The report on a program; skips the test or fails if that could not run."""
        key = {"before": "trace", "trace": "trace"}.get(label.how, label.name)
        if key in self._failed:
            raise self._failed[key]
        if key not in self._kept:
            self._kept[key] = self._tried(key, label)
        if key == "trace":
            self._company.actor(label)
        return self._kept[key]

    def pid(self, label: Label) -> int:
        """Of a program that was traced with all others."""
        return self._company.actor(label).pid

    def holding(self, label: Label) -> Holding:
        """What a program that was traced with all others held at the end."""
        self.of(label)
        return self._holdings[label.name]

    def _tried(self, key: str, label: Label) -> Any:
        try:
            return self._made(label)
        except (Exception, pytest.skip.Exception) as reason:
            # not once more for the next test
            self._failed[key] = reason
            raise

    def _made(self, label: Label) -> Any:
        report = self._folder / f"{label.name}.json"
        if label.how == "run":
            self._run(label, report)
        elif label.how == "rounds":
            self._poke(label, report)
        elif label.how == "slowly":
            self._trace_slowly(label, report)
        else:
            self._trace_all(report)
        return json.loads(report.read_text())

    def _trace_all(self, report: Path) -> None:
        """Until all are done, and no longer: what grew up to the end did so in the trace."""
        self._company.start(run_as("before"))
        # -d, should these tests be killed
        options = ("--older", "0", "-d", 4 * PATIENCE_S)
        with _inotrace("trace", *options, "-f", "json", "-o", report) as tool:
            tool.err.until(b"Ctrl-C ends it")
            self._company.start(run_as("trace"))
            self._company.play()
            assert tool.stop() == 0, tool.err.rest()
        self._holdings = self._company.holdings()

    def _trace_slowly(self, label: Label, report: Path) -> None:
        """For so long that it is clear that nobody reads."""
        arguments = ("-n", label.name, "--older", "0", "-f", "json", "-o", report)
        with _inotrace("trace", *arguments) as tool:
            tool.err.until(b"Ctrl-C ends it")
            actor = Actor(label, self._programs, self._folder / label.name, _SLOW_BEAT_MS)
            try:
                actor.await_word("ready")
                actor.go()
                actor.await_word("done")
                assert tool.stop() == 0, tool.err.rest()
            finally:
                actor.end()

    def _run(self, label: Label, report: Path) -> None:
        """From before its first instruction to after its end."""
        folder = self._folder / label.name
        folder.mkdir()
        program = (self._programs / label.name, folder, _BEAT_MS)
        arguments = ("run", "-f", "json", "-o", report, "--", *program)
        with _inotrace(*arguments, stdin=subprocess.PIPE) as tool:
            assert tool.process.stdin is not None
            assert tool.out.line() == b"ready"
            tool.process.stdin.write(b"go\n")
            tool.process.stdin.flush()
            assert tool.out.line() == b"done"
            tool.process.stdin.close()
            assert tool.wait() in (0, _EXIT_LEAK), tool.err.rest()

    def _poke(self, label: Label, report: Path) -> None:
        """A daemon, by a command that does no more than ask it for something, round by round."""
        daemon = Actor(label, self._programs, self._folder / label.name)
        try:
            daemon.await_word("ready")
            daemon.go()
            scope = ("-r", ROUNDS, "--settle", "0.5", "-p", daemon.pid)
            poke = ("kill", "-USR1", daemon.pid)
            with _inotrace("run", *scope, "-f", "json", "-o", report, "--", *poke) as tool:
                assert tool.wait() in (0, _EXIT_LEAK), tool.err.rest()
            for _ in range(ROUNDS):
                daemon.await_word("poked")
        finally:
            daemon.end()


@contextmanager
def _inotrace(*arguments: object, **options: Any) -> Iterator[Inotrace]:
    """One run of the command line; killed if it is still there at the end."""
    tool = Inotrace(*arguments, **options)
    try:
        yield tool
    finally:
        tool.process.kill()
        for stream in (tool.process.stdin, tool.process.stdout, tool.process.stderr):
            if stream is not None:
                stream.close()
        tool.process.wait()
