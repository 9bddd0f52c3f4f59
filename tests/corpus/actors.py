"""The programs of the corpus: made, started, let begin together, and brought to an end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE_S, Reader
from labels import CORPUS, Holding, Label

_SOURCES = Path(__file__).parent
_FLAGS = ("-O1", "-fno-optimize-sibling-calls", "-pthread")
# corpus.h: NOT_ALLOWED
_NOT_ALLOWED = 77
# The limits are per user, and 128 instances are not enough for all: each program has a user of its
# own, with a number that is nobody's.
_FIRST_UID = 62000


def compiled(folder: Path) -> Path:
    """Make all programs, in a folder where any user can run them."""
    with ThreadPoolExecutor(os.cpu_count()) as compilers:
        names = [label.name for label in CORPUS if not label.command]
        list(compilers.map(lambda name: _compile(name, folder), names))
    return folder


def _compile(name: str, folder: Path) -> None:
    command: list[Path | str] = ["gcc", *_FLAGS, _SOURCES / f"{name}.c", "-o", folder / name]
    subprocess.run(command, check=True)


def let_pass(folder: Path) -> None:
    """Let any user pass through a folder, to files in it whose names are known."""
    folder.chmod(0o711)


class Actor:
    """One run of a program, in a session of its own. See corpus.h for what it says, and when."""

    def __init__(self, label: Label, programs: Path, folder: Path, *beat_ms: int) -> None:
        self.label = label
        self._beat_ms = beat_ms
        folder.mkdir()
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            self._command(programs, folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            start_new_session=True,
            **self._user(folder),
        )
        assert self.process.stdout is not None
        self.answers = Reader(self.process.stdout.fileno())

    @property
    def pid(self) -> int:
        return self.process.pid

    def _command(self, programs: Path, folder: Path) -> list[Path | str]:
        return [programs / self.label.name, folder, *map(str, self._beat_ms)]

    def _user(self, folder: Path) -> dict[str, Any]:
        if self.label.needs_root:
            return {}
        uid = _FIRST_UID + CORPUS.index(self.label)
        os.chown(folder, uid, uid)
        return {"user": uid, "group": uid, "extra_groups": ()}

    def await_word(self, word: str) -> None:
        """Until it says so; a test is skipped where the program may not do what it has to."""
        try:
            assert self.answers.line() == word.encode()
        except AssertionError:
            if self.process.poll() == _NOT_ALLOWED:
                pytest.skip(f"{self.label.name} is not allowed what it needs")
            raise

    def go(self) -> None:
        """Let it begin."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def holding(self) -> Holding:
        """What it and all that it started hold at the moment, as the kernel lists it."""
        texts = [text for pid in _session_of(self.pid) for text in _instances_of(pid)]
        return Holding(len(texts), sum(text.count("inotify wd:") for text in texts))

    def end(self) -> None:
        """Let it end, with all that it started, and see that nothing went wrong until here."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.close()
            # the last of them closes it
            self.answers.rest()
            assert self.process.wait(PATIENCE_S) in (0, _NOT_ALLOWED), self.label.name
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            raise
        finally:
            self.process.stdout.close()
            self.process.wait(PATIENCE_S)


class Follower(Actor):
    """A program that prints what is appended to a file: what corpus.h asks for is written there."""

    def _command(self, programs: Path, folder: Path) -> list[Path | str]:
        self._file = folder / "file"
        self._file.write_text("ready\n")
        return [str(self._file) if word == "FILE" else word for word in self.label.command]

    def go(self) -> None:
        with self._file.open("a") as file:
            file.write("done\n")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=PATIENCE_S)


class Company:
    """Programs that run at the same time. One that fails does so in its own tests only."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._actors: dict[str, Actor] = {}
        self._absent: dict[str, BaseException] = {}
        self._ends = ExitStack()

    def __enter__(self) -> Company:
        let_pass(self._folder)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._ends.close()
        finally:
            shutil.rmtree(self._folder)

    def start(self, labels: Iterable[Label]) -> None:
        """Start some more, and wait until they are ready."""
        started = [self._started(label) for label in labels]
        for actor in started:
            self._await(actor, "ready")

    def _started(self, label: Label) -> Actor:
        actor = (Follower if label.command else Actor)(
            label, self._programs, self._folder / label.name
        )
        self._actors[label.name] = actor
        self._ends.callback(actor.end)
        return actor

    def play(self) -> None:
        """Let all begin, and wait until they are done."""
        for actor in self._present():
            actor.go()
        for actor in self._present():
            self._await(actor, "done")

    def holdings(self) -> dict[str, Holding]:
        """What each holds at the moment, by name."""
        return {actor.label.name: actor.holding() for actor in self._present()}

    def actor(self, label: Label) -> Actor:
        """That of a label; skips the test or fails if there is none."""
        if label.name in self._absent:
            raise self._absent[label.name]
        return self._actors[label.name]

    def _present(self) -> list[Actor]:
        return [actor for name, actor in self._actors.items() if name not in self._absent]

    def _await(self, actor: Actor, word: str) -> None:
        try:
            actor.await_word(word)
        except (AssertionError, pytest.skip.Exception) as reason:
            self._absent[actor.label.name] = reason


def _session_of(leader: int) -> Iterator[int]:
    """The processes of a session."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # proc(5): the name may contain anything; the session is the fourth field after it
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                yield int(entry.name)


def _instances_of(pid: int) -> Iterator[str]:
    """What fdinfo says of each descriptor on an instance."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        if os.readlink(f"/proc/{pid}/fd/{fd}") == "anon_inode:inotify":
            yield Path(f"/proc/{pid}/fdinfo/{fd}").read_text()
