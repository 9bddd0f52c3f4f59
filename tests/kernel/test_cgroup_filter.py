"""`--cgroup`: processes in a cgroup and below it, in every kind of hierarchy."""

from __future__ import annotations

import ctypes
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple

import pytest
from agreement import refusing_iterator
from harness import Inotrace, Puppet, kernel_watches_of, ledger_watches, own_name

from tracer.kernel.hooks import Mode
from tracer.session import Filter, Session
from tracer.stacks.resolver import NoStacks
from tracer.targets.cgroups import find_cgroup

pytestmark = pytest.mark.usefixtures("root")

Start = Callable[..., Puppet]
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWCGROUP = 0x02000000
# bpf/common.c looks at CGROUP_LEVELS, itself included
_LEVELS_BELOW = 63
_V2, _CONTROLLER, _NAMED = "v2", "v1", "v1-named"
# a controller that no other program is likely to need in version 2
_OPTIONS = {
    _V2: ("cgroup2", "rw"),
    _CONTROLLER: ("cgroup", "freezer"),
    _NAMED: ("cgroup", "none,name=inotrace-test"),
}


class Tree(NamedTuple):
    """Two cgroups, one in the other, and one beside them whose name begins alike."""

    root: Path
    wanted: Path
    below: Path
    beside: Path


@contextmanager
def _mounted(kind: str, at: Path) -> Iterator[Path]:
    """The hierarchy where it is mounted already, or there."""
    filesystem, options = _OPTIONS[kind]
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, rest = line.partition(" - ")
        if rest.split()[0] == filesystem and options in (rest.split()[2] + ",rw").split(","):
            yield Path(mount.split()[4])
            return
    at.mkdir()
    command = ["mount", "-t", filesystem, "-o", options, "inotrace-test", str(at)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this kernel has no {kind} hierarchy to mount: {done.stderr.strip()}")
    yield at
    subprocess.run(["umount", str(at)], check=True)


@pytest.fixture(params=[_V2, _CONTROLLER, _NAMED])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tree]:
    with _mounted(request.param, tmp_path / "hierarchy") as root:
        wanted = root / own_name("cgrp").decode()
        made = Tree(root, wanted, wanted / "pod" / "ctr", wanted.with_name(wanted.name + "x"))
        folders = (made.wanted, made.below.parent, made.below, made.beside)
        for folder in folders:
            folder.mkdir()
        yield made
        _remove(made.wanted, root)
        _remove(made.beside, root)


def _remove(cgroup: Path, root: Path) -> None:
    for below in filter(Path.is_dir, cgroup.iterdir()):
        _remove(below, root)
    for pid in (cgroup / "cgroup.procs").read_text().split():
        _move(int(pid), root)
    cgroup.rmdir()


@pytest.fixture
def puppets(tree: Tree, start_puppet: Start) -> dict[str, Puppet]:
    """One in each cgroup of the tree, by name."""
    started = {name: start_puppet() for name in Tree._fields}
    for name, puppet in started.items():
        _move(puppet.pid, getattr(tree, name))
    return started


def _move(pid: int, cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text(str(pid))


def _watch(puppet: Puppet, folders: list[Path]) -> tuple[int, int]:
    fd = puppet.ok("init")
    for folder in folders:
        puppet.ok("add", fd, folder)
    return puppet.pid, fd


def _tracing(tree: Tree, mode: Mode | None = None) -> Session:
    filter_ = Filter(cgroup=find_cgroup(str(tree.wanted)))
    return Session(filter_, NoStacks(), older_s=0.0, mode=mode)


@pytest.mark.kernels
def test_who_is_in_it_or_below_it_is_traced(
    mode: Mode, tree: Tree, puppets: dict[str, Puppet], folders: list[Path]
) -> None:
    """GIVEN watches before a trace WHEN all add more THEN those of two of four are in it."""
    inside = ("wanted", "below")
    before = {name: _watch(puppet, folders[:3]) for name, puppet in puppets.items()}
    with _tracing(tree, mode) as session:
        after = {name: _watch(puppet, folders[:7]) for name, puppet in puppets.items()}
        report = session.finish()

        assert report.trace.complete
        assert ledger_watches(session) == kernel_watches_of(
            *(each[name] for name in inside for each in (before, after))
        )
        # the calls were seen, not only what they left
        assert report.trace.added == 7 * len(inside)


@pytest.mark.parametrize("truth", ["iterator", "fdinfo"])
def test_the_calls_of_a_process_count_from_when_it_moves_in(
    truth: str, tree: Tree, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN watches made outside WHEN the process moves in THEN they are listed, without a call."""
    with refusing_iterator() if truth == "fdinfo" else nullcontext():
        session = _tracing(tree)
    with session:
        held = _watch(puppet, folders[:3])
        assert not ledger_watches(session)
        _move(puppet.pid, tree.below)
        for folder in folders[3:]:
            puppet.ok("add", held[1], folder)
        report = session.finish()

        assert report.trace.complete
        assert report.trace.added == len(folders[3:])
        assert ledger_watches(session) == kernel_watches_of(held)


def test_what_was_traced_stays_so_when_the_process_moves_out(
    tree: Tree, puppets: dict[str, Puppet], folders: list[Path]
) -> None:
    mover = puppets["below"]
    with _tracing(tree) as session:
        held = _watch(mover, folders[:7])
        session.finish()
        _move(mover.pid, tree.beside)
        _watch(mover, folders)

        assert session.finish().trace.added == 7
        assert ledger_watches(session) == kernel_watches_of(held)


@pytest.mark.parametrize("tree", [_CONTROLLER], indirect=True)
@pytest.mark.parametrize(
    ("process", "thread", "added"), [("below", "root", 3), ("root", "below", 0)]
)
def test_a_thread_counts_where_its_process_is(
    process: str, thread: str, added: int, tree: Tree, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN a thread in another cgroup than its process WHEN it adds THEN the process counts."""
    _move(puppet.pid, getattr(tree, process))
    tid = puppet.ok("table")
    (getattr(tree, thread) / "tasks").write_text(str(tid))
    with _tracing(tree) as session:
        _watch(puppet, folders[:3])
        report = session.finish()
    puppet("end")

    assert report.trace.added == added


def test_deep_below_it_is_below_it(tree: Tree, puppet: Puppet, folders: list[Path]) -> None:
    deep = tree.below
    for _ in range(_LEVELS_BELOW - 2):
        deep /= "d"
        deep.mkdir()
    _move(puppet.pid, deep)
    with _tracing(tree) as session:
        _watch(puppet, folders)

        assert session.finish().trace.added == len(folders)


@pytest.mark.kernels
def test_one_that_was_made_anew_is_traced(
    mode: Mode, tree: Tree, puppets: dict[str, Puppet], folders: list[Path]
) -> None:
    """GIVEN a service that restarts, in a cgroup of the same path THEN its calls are seen."""
    with _tracing(tree, mode) as session:
        _remove(tree.wanted, tree.root)
        tree.below.mkdir(parents=True)
        for name in ("wanted", "below"):
            _move(puppets[name].pid, getattr(tree, name))
        held = {name: _watch(puppet, folders[:7]) for name, puppet in puppets.items()}
        report = session.finish()

        assert report.trace.complete
        assert report.trace.added == 7 * 2
        assert ledger_watches(session) == kernel_watches_of(held["wanted"], held["below"])


@pytest.mark.parametrize("length", [1, 255])
def test_names_of_any_length_are_told_apart(
    length: int, tree: Tree, puppet: Puppet, start_puppet: Start, folders: list[Path]
) -> None:
    """GIVEN names of which one begins with the other WHEN made anew THEN the right one counts."""
    wanted, other = tree.wanted / ("n" * length), tree.wanted / ("n" * max(length - 1, 2))
    wanted.mkdir()
    with Session(Filter(cgroup=find_cgroup(str(wanted))), NoStacks(), older_s=0.0) as session:
        wanted.rmdir()
        wanted.mkdir()
        other.mkdir()
        outside = start_puppet()
        _move(puppet.pid, wanted)
        _move(outside.pid, other)
        held = _watch(puppet, folders[:7])
        _watch(outside, folders[:7])

        assert session.finish().trace.added == 7
        assert ledger_watches(session) == kernel_watches_of(held)


@pytest.mark.kernels
def test_ls_lists_who_is_in_it_or_below_it(
    inotrace: Callable[..., Inotrace],
    tree: Tree,
    puppets: dict[str, Puppet],
    folders: list[Path],
) -> None:
    for puppet in puppets.values():
        _watch(puppet, folders[:3])
    tool = inotrace("ls", "-f", "json", "--cgroup", f"{tree.below}/../../..//{tree.wanted.name}/")
    listed = tool.report()

    assert tool.wait() == 0
    assert {watch["pid"] for watch in listed["watches"]} == {
        puppets["wanted"].pid,
        puppets["below"].pid,
    }


def test_a_cgroup_above_the_own_namespace_is_found(
    inotrace: Callable[..., Inotrace],
    tree: Tree,
    puppets: dict[str, Puppet],
    folders: list[Path],
) -> None:
    """GIVEN inotrace in a cgroup namespace, to which paths lead up WHEN it lists THEN the same."""
    for puppet in puppets.values():
        _watch(puppet, folders[:3])
    tool = inotrace(
        "ls", "-f", "json", "--cgroup", tree.wanted, preexec_fn=partial(_into_namespace, tree.below)
    )

    assert {watch["pid"] for watch in tool.report()["watches"]} == {
        puppets["wanted"].pid,
        puppets["below"].pid,
    }


def _into_namespace(cgroup: Path) -> None:
    (cgroup / "cgroup.procs").write_text("0")
    if _LIBC.unshare(_CLONE_NEWCGROUP):
        raise OSError(ctypes.get_errno(), "unshare")


def test_events_takes_the_path_that_proc_shows(
    inotrace: Callable[..., Inotrace],
    tree: Tree,
    puppets: dict[str, Puppet],
    folders: list[Path],
) -> None:
    tool = inotrace("events", "-f", "json", "--cgroup", f"/{tree.wanted.name}")
    tool.out.line()
    for name in Tree._fields:
        _watch(puppets[name], folders[:3])
    tool.out.until_seen(b'"inotify_add_watch"', 6)
    tool.stop()
    calls = [json.loads(line) for line in tool.out.rest().splitlines()[1:-1]]

    assert [call["pid"] for call in calls] == [
        puppets[name].pid for name in ("wanted", "below") for _ in range(4)
    ]


@pytest.mark.parametrize("command", ["trace", "events", "ls"])
def test_a_wrong_path_is_told_in_one_line(
    command: str, inotrace: Callable[..., Inotrace], tmp_path: Path
) -> None:
    tool = inotrace(command, "--cgroup", tmp_path)

    assert tool.wait() == 2
    assert tool.error().startswith(f"{str(tmp_path)!r} is no cgroup: give a folder below /")
