"""What was traced stays traced, whoever holds it by then and under whatever number."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from harness import Inotrace, Puppet, kernel_watches, ledger_watches, until

from tracer.command import Child, Command
from tracer.errors import InotraceError
from tracer.session import Filter, Session
from tracer.stacks.collector import Stacks

pytestmark = pytest.mark.usefixtures("root")

_NOBODY = 65534
# an instance under a high number, with watches that only the exit frees
_HIGH_DESCRIPTOR = """
import ctypes, os, resource, sys
libc = ctypes.CDLL(None)
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
high = min(limit, 20011) - 1
instance = libc.inotify_init1(0)
os.dup2(instance, high)
os.close(instance)
for folder in sys.argv[1:]:
    assert libc.inotify_add_watch(high, folder.encode(), 0x100) > 0
"""
_ONE_WATCH = """
import ctypes, sys
libc = ctypes.CDLL(None)
assert libc.inotify_add_watch(libc.inotify_init1(0), sys.argv[1].encode(), 0x100) > 0
"""


def test_watches_stay_when_their_holder_no_longer_matches_the_filter(
    puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN -u root WHEN the process becomes another user THEN its watches are still live."""
    with Session(Filter(uid=0, name=b"puppet"), Stacks(), older_s=0.0) as session:
        fd = puppet.ok("init")
        for folder in folders:
            puppet.ok("add", fd, folder)
        puppet.ok("become", _NOBODY, _NOBODY)
        report = session.finish()

        assert report.trace.complete
        assert ledger_watches(session) == kernel_watches(puppet.pid, fd)
        assert sum(ledger_watches(session).values()) == len(folders)


def test_a_descriptor_of_any_number_is_read_at_exit(
    inotrace: Callable[..., Inotrace], folders: list[Path], tmp_path: Path
) -> None:
    report = tmp_path / "report"
    command = [sys.executable, "-c", _HIGH_DESCRIPTOR, *folders]
    tool = inotrace("run", "-f", "json", "-o", report, "--", *command)

    assert tool.wait() in (0, 23), tool.err.rest()
    sites = json.loads(report.read_text())["sites"]
    (site,) = [site for site in sites if site["kind"] == "watches"]
    assert (site["live"], site["added"]) == (len(folders), len(folders))


# --- what is started under spawning() ---


@pytest.fixture
def following(root: None) -> Iterator[Session]:
    with Session(Filter(), Stacks(), older_s=0.0, follow=True) as session:
        yield session


@pytest.fixture
def watching(folders: list[Path]) -> Command:
    """Adds one watch, which its end frees."""
    return Command([sys.executable, "-S", "-c", _ONE_WATCH, str(folders[0])])


def test_commands_started_one_after_the_other_are_all_traced(
    following: Session, watching: Command
) -> None:
    pids = [_started(following, watching).pid for _ in range(5)]
    report = following.finish()

    assert sorted(process.pid for process in report.processes) == sorted(pids)
    assert (report.trace.added, report.trace.complete) == (5, True)
    assert sum(ledger_watches(following).values()) == 5
    assert not following.has_descendants()


def test_commands_that_run_side_by_side_are_all_traced(
    following: Session, watching: Command
) -> None:
    with following.spawning():
        children = [watching.start() for _ in range(5)]
    for child in children:
        _wait(following, child)

    assert following.finish().trace.added == 5


def test_other_children_of_inotrace_are_not_traced(following: Session, watching: Command) -> None:
    """GIVEN a start WHEN others come from this thread before and after, and from one meanwhile."""
    others = [watching.start()]
    with following.spawning():
        others += _from_another_thread(watching, 3)
        child = watching.start()
        others += _from_another_thread(watching, 3)
    others.append(watching.start())
    for each in (child, *others):
        _wait(following, each)
    report = following.finish()

    assert [process.pid for process in report.processes] == [child.pid]
    assert report.trace.added == 1


def test_a_start_that_fails_leaves_nothing_in_scope(
    following: Session, watching: Command, tmp_path: Path
) -> None:
    """GIVEN what cannot be executed WHEN started THEN it is forgotten, and so is who started it."""
    program = tmp_path / "program"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    with pytest.raises(InotraceError, match="No such file"), following.spawning():
        Command([str(program)]).start()
    assert not following.has_descendants()
    _wait(following, watching.start())

    assert following.finish().trace.added == 0


def test_a_command_outside_the_filter_is_not_traced(puppet: Puppet, watching: Command) -> None:
    """GIVEN a filter of its own instead of following WHEN a command starts THEN only the filter."""
    with Session(Filter(pids=frozenset({puppet.pid})), Stacks(), older_s=0.0) as session:
        _started(session, watching)

        assert session.finish().trace.added == 0


def _started(session: Session, command: Command) -> Child:
    with session.spawning():
        child = command.start()
    _wait(session, child)
    return child


def _wait(session: Session, child: Child) -> None:
    def has_ended() -> bool:
        session.step()
        return child.poll()

    until(has_ended, "the end of the command")
    assert child.exit_code == 0


def _from_another_thread(command: Command, times: int) -> list[Child]:
    children: list[Child] = []
    thread = threading.Thread(target=lambda: children.extend(command.start() for _ in range(times)))
    thread.start()
    thread.join()
    return children
