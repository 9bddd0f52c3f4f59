"""
Anything, in any order: the ledger must come out as the kernel's own list.

INOTRACE_FUZZ_ROUNDS (200) is how many rounds are played, INOTRACE_FUZZ_SEED (1) where they begin.
INOTRACE_SOAK_SECONDS plays other rounds each time, for so long:

    INOTRACE_SOAK_SECONDS=600 tests/run tests/kernel/test_fuzz.py -k soak
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from agreement import NAME, assert_agrees, by_iterator
from fuzz_machine import AS_A_USER_OF_ITS_OWN, machine_of
from harness import PATIENCE_S, Reader, compiled
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tracer.core.cause import Cause
from tracer.core.watch import Origin
from tracer.session import Session

pytestmark = [pytest.mark.usefixtures("root"), by_iterator]

_ROUNDS = int(os.environ.get("INOTRACE_FUZZ_ROUNDS", "200"))
_SEED = int(os.environ.get("INOTRACE_FUZZ_SEED", "1"))
_SOAK_S = float(os.environ.get("INOTRACE_SOAK_SECONDS", "0"))
# Of the rounds, so many by the state machine, which says best what went wrong.
_MACHINE_SHARE = 5
_OPERATIONS = 97
# Rounds that one fuzz program plays before another begins.
_PROGRAM_ROUNDS = 25


@pytest.fixture(scope="module")
def fuzz_program(root: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("fuzz", tmp_path_factory.mktemp("fuzz") / os.fsdecode(NAME))


@pytest.fixture(scope="module")
def named_puppet(puppet_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("puppet") / os.fsdecode(NAME)
    shutil.copy(puppet_program, program)
    return program


class Fuzz:
    """A conversation with workloads/fuzz.c."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._stdin = process.stdin
        self._reader = Reader(process.stdout.fileno())
        self.adds = 0
        self.removals = 0

    def begin(self, seed: int) -> None:
        self._stdin.write(b"%d %d\n" % (seed, _OPERATIONS))
        self._stdin.flush()

    def has_stopped(self) -> bool:
        return self._reader.ready(0)

    def finish(self) -> None:
        self.adds, self.removals = map(int, self._reader.line().split())


@contextmanager
def fuzzing(program: Path, folder: Path, *, processes: int, threads: bool) -> Iterator[Fuzz]:
    folder.mkdir()
    command = [*AS_A_USER_OF_ITS_OWN, program, folder, str(processes), str(int(threads))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Fuzz(process)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
    finally:
        # when the first process is no more, all others end, too
        process.kill()
        process.wait()
        process.communicate()
        shutil.rmtree(folder)


class Way(NamedTuple):
    """
    How a fuzz program is played: its threads, and whether the session looks meanwhile.

    Only without either, all that happens follows from the calls and must be told exactly.
    """

    threads: bool
    looks: bool

    @property
    def is_exact(self) -> bool:
        return not self.threads and not self.looks


def _name(way: Way) -> str:
    return f"{'threads' if way.threads else 'processes'}-{'looked-at' if way.looks else 'alone'}"


_WAYS = tuple(Way(threads, looks) for threads in (False, True) for looks in (False, True))


def play(session: Session, program: Path, folder: Path, seeds: range, way: Way) -> None:
    """Rounds of one fuzz program; the ledger agrees after each."""
    before = _counts(session)
    # whatever they are, they are the same when it is repeated
    processes = 3 + seeds.start // _PROGRAM_ROUNDS % 3
    with fuzzing(program, folder, processes=processes, threads=way.threads) as fuzz:
        for number in seeds:
            fuzz.begin(number)
            while way.looks and not fuzz.has_stopped():
                session.finish()
            fuzz.finish()
            try:
                assert_agrees(session, NAME)
                if way.is_exact:
                    _assert_exact(session, fuzz, before)
            except AssertionError as error:
                raise AssertionError(_repeat(seeds.start, number, way) + str(error)) from error


def _counts(session: Session) -> tuple[int, int]:
    totals = session._ledger.totals
    return totals.added + totals.updated, totals.removed[Cause.RM_WATCH]


def _assert_exact(session: Session, fuzz: Fuzz, before: tuple[int, int]) -> None:
    adds, removals = (now - then for now, then in zip(_counts(session), before))
    assert (adds, removals) == (fuzz.adds, fuzz.removals)
    assert {watch.origin for _, watch in session._ledger.watches()} <= {Origin.TRACED}


def _repeat(first: int, last: int, way: Way) -> str:
    return (
        f"in round {last}, {_name(way)}; to repeat:\n"
        f"INOTRACE_FUZZ_SEED={first} tests/run tests/kernel/test_fuzz.py\n"
    )


def play_machine(session: Session, program: Path, folder: Path, seed_: int, examples: int) -> None:
    machine = seed(seed_)(machine_of(session, program, folder))
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=31,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.kernels
def test_any_sequence_of_operations_agrees(
    session: Session, named_puppet: Path, tmp_path: Path
) -> None:
    play_machine(session, named_puppet, tmp_path, _SEED, _ROUNDS // _MACHINE_SHARE)


@pytest.mark.kernels
@pytest.mark.parametrize("way", _WAYS, ids=_name)
def test_processes_that_do_anything_at_once_agree(
    session: Session, fuzz_program: Path, tmp_path: Path, way: Way
) -> None:
    rounds = (_ROUNDS - _ROUNDS // _MACHINE_SHARE) // len(_WAYS)
    ends = _SEED + rounds
    for first in range(_SEED, ends, _PROGRAM_ROUNDS):
        seeds = range(first, min(first + _PROGRAM_ROUNDS, ends))
        play(session, fuzz_program, tmp_path / str(first), seeds, way)


@pytest.mark.skipif(not _SOAK_S, reason="takes INOTRACE_SOAK_SECONDS=600 or so, if that is set")
def test_soak(session: Session, fuzz_program: Path, named_puppet: Path, tmp_path: Path) -> None:
    ends = time.monotonic() + _SOAK_S
    first = _SEED if "INOTRACE_FUZZ_SEED" in os.environ else random.randrange(1 << 30)
    while time.monotonic() < ends:
        print(f"INOTRACE_FUZZ_SEED={first}")
        seeds = range(first, first + _PROGRAM_ROUNDS)
        for way in _WAYS:
            play(session, fuzz_program, tmp_path / "fuzz", seeds, way)
        play_machine(session, named_puppet, tmp_path, first, _PROGRAM_ROUNDS)
        first += _PROGRAM_ROUNDS
