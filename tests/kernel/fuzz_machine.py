"""A state machine that has puppets do anything that changes inotify watches."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import mkdtemp

from agreement import NAME, assert_agrees
from harness import PATIENCE_S, puppet_of
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from tracer.session import Session

# A user of their own, who may mount and enter what is root's: what other programs of root have on
# its way through sockets would leave it open what became of theirs.
_UID = 0x1A07
AS_A_USER_OF_ITS_OWN = (
    *("setpriv", f"--reuid={_UID}", "--clear-groups"),
    *("--inh-caps=+sys_admin,+dac_override", "--ambient-caps=+sys_admin,+dac_override"),
)

_IN_CREATE, _IN_ALL_EVENTS = 0x100, 0xFFF
_MASKS = (
    *(0, _IN_CREATE, _IN_ALL_EVENTS),
    # oneshot, MASK_ADD, MASK_CREATE, ONLYDIR, EXCL_UNLINK
    *(_IN_CREATE | bit for bit in (0x80000000, 0x20000000, 0x10000000, 0x1000000, 0x4000000)),
)
_PUPPETS, _PATHS, _DEEPEST = 3, 11, 3

_actors = st.integers(0, _PUPPETS - 1)
_paths = st.integers(0, _PATHS - 1)
_numbers = st.integers(0, 12)


class _Actor:
    """
    A puppet and the descriptors that each of its speakers knows.

    Who speaks is the last of `speakers`: the puppet itself, a child, or a thread with a table of
    its own; with its end, the one before goes on.
    """

    def __init__(self, program: Path) -> None:
        self.process = subprocess.Popen(
            [*AS_A_USER_OF_ITS_OWN, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.puppet = puppet_of(self.process)
        self.sending, self.receiving = divmod(self.puppet.ok("socketpair"), 1000)
        self.in_flight = 0
        self.speakers: list[tuple[str, list[int]]] = [("puppet", [])]

    @property
    def kind(self) -> str:
        return self.speakers[-1][0]

    @property
    def fds(self) -> list[int]:
        return self.speakers[-1][1]

    def knows(self, fd: int) -> None:
        if fd >= 0 and fd not in self.fds:
            self.fds.append(fd)

    def some_fd(self, which: int) -> int:
        """An instance, or at times what was one; -1 before there is any."""
        return self.fds[which % len(self.fds)] if self.fds else -1

    def end(self) -> None:
        self.process.communicate(timeout=PATIENCE_S)


class _FuzzMachine(RuleBasedStateMachine):
    session: Session
    program: Path
    parent: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp(dir=self.parent))
        self.actors = [_Actor(self.program) for _ in range(_PUPPETS)]

    def path(self, which: int) -> Path:
        return self.folder / str(which)

    # calls

    @rule(actor=_actors, flags=st.sampled_from([0, 0o2000000]))
    def init(self, actor: int, flags: int) -> None:
        speaker = self.actors[actor]
        if len(speaker.fds) < 7:
            speaker.knows(speaker.puppet("init", flags))

    @rule(actor=_actors, which=_numbers, path=_paths, mask=st.sampled_from(_MASKS))
    def add(self, actor: int, which: int, path: int, mask: int) -> None:
        speaker = self.actors[actor]
        speaker.puppet("add", speaker.some_fd(which), self.path(path), mask)

    @rule(actor=_actors, which=_numbers, path=_paths)
    def add_in_thread(self, actor: int, which: int, path: int) -> None:
        speaker = self.actors[actor]
        speaker.puppet("thread", "add", speaker.some_fd(which), self.path(path))

    @rule(actor=_actors, which=_numbers, path=_paths)
    def add_in_32_bit(self, actor: int, which: int, path: int) -> None:
        speaker = self.actors[actor]
        speaker.puppet("add32", speaker.some_fd(which), self.path(path))

    @rule(actor=_actors, which=_numbers, wd=_numbers, call=st.sampled_from(["rm", "rm", "rm32"]))
    def remove(self, actor: int, which: int, wd: int, call: str) -> None:
        speaker = self.actors[actor]
        speaker.puppet(call, speaker.some_fd(which), wd)

    # descriptors

    @rule(actor=_actors, which=_numbers)
    def close(self, actor: int, which: int) -> None:
        speaker = self.actors[actor]
        fd = speaker.some_fd(which)
        if fd >= 0:
            speaker.puppet("close", fd)
            speaker.fds.remove(fd)

    @rule(actor=_actors, which=_numbers)
    def duplicate(self, actor: int, which: int) -> None:
        speaker = self.actors[actor]
        speaker.knows(speaker.puppet("dup", speaker.some_fd(which)))

    @rule(actor=_actors, which=_numbers)
    def send(self, actor: int, which: int) -> None:
        speaker = self.actors[actor]
        if speaker.in_flight < 3:
            sent = speaker.puppet("send", speaker.sending, speaker.some_fd(which))
            speaker.in_flight += sent >= 0

    @rule(actor=_actors)
    def receive(self, actor: int) -> None:
        speaker = self.actors[actor]
        if speaker.in_flight:
            speaker.knows(speaker.puppet.ok("receive", speaker.receiving))
            speaker.in_flight -= 1

    # processes and threads

    @rule(actor=_actors, kind=st.sampled_from(["fork", "table"]))
    def another_speaks(self, actor: int, kind: str) -> None:
        speaker = self.actors[actor]
        if len(speaker.speakers) < _DEEPEST:
            speaker.puppet.ok(kind)
            speaker.speakers.append((kind, list(speaker.fds)))

    @rule(actor=_actors)
    def the_one_before_speaks(self, actor: int) -> None:
        speaker = self.actors[actor]
        if speaker.kind != "puppet":
            speaker.puppet.tell("exit" if speaker.kind == "fork" else "end", 0)
            assert speaker.puppet.answer() == 0
            speaker.speakers.pop()

    @rule(actor=_actors)
    def leave_it_to_a_child(self, actor: int) -> None:
        speaker = self.actors[actor]
        if len(speaker.speakers) == 1:
            speaker.puppet.ok("orphan")

    @rule(actor=_actors)
    def execute(self, actor: int) -> None:
        speaker = self.actors[actor]
        speaker.puppet.ok("exec")
        # the new image has one thread, with the table of the one that called
        kind, fds = speaker.speakers.pop()
        while kind == "table":
            kind, _ = speaker.speakers.pop()
        speaker.speakers.append((kind, fds))

    # what is watched

    @rule(path=_paths, other=_paths, what=st.sampled_from(["make", "write", "delete", "move"]))
    def change(self, path: int, other: int, what: str) -> None:
        here, there = self.path(path), self.path(other)
        try:
            if what == "make":
                here.mkdir()
            elif what == "write":
                (here / "file" if here.is_dir() else here).write_bytes(b"x")
            elif what == "move":
                here.rename(there)
            elif here.is_dir():
                shutil.rmtree(here)
            else:
                here.unlink()
        except OSError:
            pass

    @rule(path=_paths, other=_paths)
    def link(self, path: int, other: int) -> None:
        if self.path(path).is_file() and not self.path(other).exists():
            os.link(self.path(path), self.path(other))

    # the session

    @rule()
    def step(self) -> None:
        self.session.step()

    @rule()
    def look(self) -> None:
        self.session.finish()

    def teardown(self) -> None:
        try:
            for speaker in self.actors:
                while speaker.in_flight:
                    speaker.knows(speaker.puppet.ok("receive", speaker.receiving))
                    speaker.in_flight -= 1
            assert_agrees(self.session, NAME)
        finally:
            for speaker in self.actors:
                speaker.end()
            shutil.rmtree(self.folder)


def machine_of(session: Session, program: Path, parent: Path) -> type[_FuzzMachine]:
    """The machine for this session and puppet; its folders are made in `parent`."""
    return type(
        "FuzzMachine", (_FuzzMachine,), {"session": session, "program": program, "parent": parent}
    )
