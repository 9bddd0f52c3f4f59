"""Fixtures of the tests that load BPF programs into the running kernel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable

import pytest
from agreement import NAME, WAYS, Case, tracing
from harness import (
    CHECKOUT,
    PATIENCE_S,
    STAY,
    Inotrace,
    Puppet,
    Terminal,
    compiled,
    environment,
    heed_signals,
    puppet_of,
    require_root,
    working_modes,
)
from listings import PRELUDE, Facts, StartChild
from privileges import NOBODY, limited

from tracer.kernel.btf import compiler_definitions
from tracer.kernel.hooks import Mode
from tracer.session import Session


def pytest_configure() -> None:
    heed_signals()


@pytest.fixture(scope="session")
def root() -> None:
    """For tests that need root; INOTRACE_REQUIRE_ROOT=1 makes its absence a failure."""
    require_root()


@pytest.fixture(scope="session", params=working_modes(), ids=lambda mode: mode.value)
def mode(root: None, request: pytest.FixtureRequest) -> Mode:
    """Each mode that this kernel allows."""
    found: Mode = request.param
    return found


@pytest.fixture(scope="session")
def nobody(root: None) -> int:
    """A user who can run inotrace from here, and has no privileges."""
    command = [sys.executable, "-m", "tracer", "--version"]
    drop = limited(frozenset(), NOBODY)
    done = subprocess.run(command, env=environment(), cwd="/", capture_output=True, preexec_fn=drop)
    if done.returncode:
        pytest.skip(f"user {NOBODY} cannot run {sys.executable} with {CHECKOUT}")
    return NOBODY


@pytest.fixture
def counters_of_all(root: None) -> None:
    if "-DOFF_CRED_UCOUNTS=0" in compiler_definitions():
        pytest.skip(
            "needs credentials that lead to the counters (cred.ucounts, Linux 5.14): "
            "those of who holds no instance are not found"
        )


@pytest.fixture(scope="session")
def puppet_program(root: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled("puppet", tmp_path_factory.mktemp("workloads") / "puppet")


@pytest.fixture
def puppet(start_puppet: Callable[..., Puppet]) -> Puppet:
    """A process that uses inotify as told."""
    return start_puppet()


@pytest.fixture
def start_puppet(puppet_program: Path) -> Iterator[Callable[..., Puppet]]:
    processes: list[subprocess.Popen[bytes]] = []

    def start(program: Path | bytes = puppet_program, **options: Any) -> Puppet:
        process = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options
        )
        processes.append(process)
        return puppet_of(process)

    yield start
    for process in processes:
        # its end of the conversation is the end of the puppet and of all it left behind
        process.communicate(timeout=PATIENCE_S)


@pytest.fixture
def inotrace(root: None) -> Iterator[Callable[..., Inotrace]]:
    """Starts inotrace; what still runs at the end of the test is killed."""
    started: list[Inotrace] = []

    def start(*arguments: object, **options: Any) -> Inotrace:
        started.append(Inotrace(*arguments, **options))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        for stream in (each.process.stdin, each.process.stdout, each.process.stderr):
            if stream is not None:
                stream.close()
        each.process.wait()


@pytest.fixture
def terminal(root: None) -> Iterator[Callable[..., Terminal]]:
    """Starts inotrace in a terminal; what still runs at the end of the test is killed."""
    started: list[Terminal] = []

    def start(*arguments: object, **options: Any) -> Terminal:
        started.append(Terminal(*arguments, **options))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """23 folders to watch."""
    made = [tmp_path / "watched" / str(at) for at in range(23)]
    for each in made:
        each.mkdir(parents=True)
    return made


@pytest.fixture
def watchable(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Seven folders that any user may watch."""
    base = tmp_path_factory.getbasetemp()
    for folder in (base.parent, base):
        folder.chmod(0o711)
    made = [tmp_path_factory.mktemp("watchable") for _ in range(7)]
    for folder in made:
        folder.chmod(0o755)
    return made


@pytest.fixture
def mounted(tmp_path: Path, root: None) -> Iterator[Callable[[str], Path]]:
    """Mounts a tmpfs with the given options; unmounted at the end unless the test did."""
    mounts: list[Path] = []

    def mount(options: str = "size=1m") -> Path:
        where = tmp_path / f"mounted-{len(mounts)}"
        where.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "inotrace-test", str(where)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount a tmpfs: {done.stderr}")
        mounts.append(where)
        return where

    yield mount
    for where in mounts:
        if os.path.ismount(where):
            subprocess.run(["umount", str(where)], check=True)


@pytest.fixture
def bound(folders: list[Path], tmp_path: Path, root: None) -> Iterator[Path]:
    """Another place where folders[0] is; unmounted at the end unless the test did."""
    alias = tmp_path / "bound"
    alias.mkdir()
    subprocess.run(["mount", "--bind", folders[0], alias], check=True)
    yield alias
    # os.path.ismount() does not see a bind mount within one filesystem
    if not subprocess.run(["mountpoint", "--quiet", alias]).returncode:
        subprocess.run(["umount", alias], check=True)


@pytest.fixture
def program_named(puppet_program: Path, tmp_path: Path) -> Callable[[bytes], bytes]:
    """A copy of the puppet under a file name of any bytes."""

    def copy(name: bytes) -> bytes:
        path = os.path.join(os.fsencode(tmp_path), name)
        shutil.copy(os.fsencode(puppet_program), path)
        return path

    return copy


@pytest.fixture(scope="session", params=WAYS, ids=str)
def session(root: None, request: pytest.FixtureRequest) -> Iterator[Session]:
    """One of each way for all tests that need no more of it than that it traces NAME."""
    mode, truth = request.param
    with tracing(name=NAME, stacks=False, mode=mode, truth=truth) as session:
        yield session


@pytest.fixture
def traced_puppet(
    start_puppet: Callable[..., Puppet], program_named: Callable[[bytes], bytes]
) -> Puppet:
    """A puppet that the session of several tests traces."""
    return start_puppet(program_named(NAME))


@pytest.fixture
def case(session: Session, traced_puppet: Puppet) -> Case:
    return Case(session)


@pytest.fixture
def stay() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a command that ends with Python waiting for the end of the test."""
    with ExitStack() as ends:

        def start(*command: object) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [*map(str, command), sys.executable, "-c", STAY],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            ends.callback(process.communicate)
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
            return process

        yield start


@pytest.fixture
def start_child() -> Iterator[StartChild]:
    """Run Python code in a child that then waits, until the test ends, for its stdin to close."""
    children: list[subprocess.Popen[bytes]] = []

    def run(code: str, *paths: Path, **options: Any) -> tuple[int, Facts]:
        child = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **options,
        )
        children.append(child)
        assert child.stdout is not None
        return child.pid, json.loads(child.stdout.readline())

    yield run
    for child in children:
        child.communicate()
