"""The stacks of programs wherever they run and whatever became of their files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any, Callable

import pytest
from chains import START
from harness import own_name
from observing import Stream, complaint
from performance import Performance
from privileges import NOBODY
from workshop import Workshop, tool

pytestmark = pytest.mark.usefixtures("root")
pytest_plugins = ("program_fixtures",)

Perform = Callable[..., Performance]
Traced = Callable[..., Stream]
TwoCalls = Callable[..., list[Any]]

_CHAIN = f"inotify_add_watch watch_here middle outer main {START}"
_ONCE = f"inotify_add_watch watch_here middle outer last main {START}"
_FROM_MEMORY = """
import os, sys
fd = os.memfd_create("program", 0)
with open(sys.argv[1], "rb") as file:
    os.write(fd, file.read())
os.execve(fd, ["program"], os.environ)
"""


@pytest.fixture(params=["dynamic", "static"])
def program(request: pytest.FixtureRequest, workshop: Workshop, tmp_path: Path) -> Path:
    """A program that the test may do with as it likes."""
    flags = ["-static"] if request.param == "static" else []
    built = workshop.c("plain.c", *flags, name=request.param)
    return Path(shutil.copy(built, tmp_path / "program"))


@pytest.fixture
def two_calls(traced: Traced) -> TwoCalls:
    """Lets a program make two calls; what inotrace tells."""

    def make(performance: Performance, pid: int = 0) -> list[Any]:
        stream = traced("-p", pid or performance.pid)
        performance.go()
        performance.go()
        return stream.watch_calls(pid or performance.pid, 2)

    return make


def _complaints(calls: list[Any], chain: str = _CHAIN) -> str:
    return "\n".join(filter(None, (complaint(call, chain) for call in calls)))


def test_a_deleted_program(perform: Perform, program: Path, two_calls: TwoCalls) -> None:
    performance = perform([str(program)])
    program.unlink()

    assert _complaints(two_calls(performance)) == ""


def test_a_program_that_was_replaced(
    perform: Perform, program: Path, workshop: Workshop, two_calls: TwoCalls
) -> None:
    """GIVEN another program under the path by now THEN its names are not taken."""
    performance = perform([str(program)])
    program.unlink()
    shutil.copy(workshop.c("deep.c"), program)

    assert _complaints(two_calls(performance)) == ""


def test_a_program_over_which_another_is_mounted(
    perform: Perform, program: Path, workshop: Workshop, two_calls: TwoCalls
) -> None:
    performance = perform([str(program)])
    subprocess.run(["mount", "--bind", workshop.c("deep.c"), program], check=True)
    try:
        calls = two_calls(performance)
    finally:
        subprocess.run(["umount", program], check=True)

    assert _complaints(calls) == ""


def test_a_program_that_is_only_in_memory(
    perform: Perform, program: Path, two_calls: TwoCalls
) -> None:
    performance = perform([sys.executable, "-c", _FROM_MEMORY, str(program)])

    assert _complaints(two_calls(performance)) == ""


def test_a_program_in_a_root_and_among_mounts_of_its_own(
    perform: Perform, workshop: Workshop, tmp_path: Path, two_calls: TwoCalls
) -> None:
    program = workshop.c("plain.c", "-static", name="static")
    root = tmp_path / "root"
    root.mkdir()
    script = 'mount -t tmpfs none "$1" && cp "$2" "$1/program" && exec chroot "$1" /program'
    inner = ["sh", "-c", script, "sh", str(root), str(program)]
    performance = perform([tool("unshare"), "--mount", *inner])

    assert _complaints(two_calls(performance)) == ""


@pytest.mark.parametrize("kinds", [("--pid",), ("--pid", "--mount-proc"), ("--user", "--pid")])
def test_a_program_in_namespaces(
    perform: Perform, program: Path, two_calls: TwoCalls, kinds: tuple[str, ...]
) -> None:
    performance = perform([tool("unshare"), *kinds, "--fork", "--kill-child", str(program)])
    children = Path(f"/proc/{performance.pid}/task/{performance.pid}/children")
    (pid,) = map(int, children.read_text().split())

    assert _complaints(two_calls(performance, pid)) == ""


def test_a_program_with_other_rights_than_who_runs_it(
    perform: Perform, program: Path, watchable: list[Path], two_calls: TwoCalls
) -> None:
    if os.statvfs(watchable[0]).f_flag & os.ST_NOSUID:
        pytest.skip(f"{watchable[0]} is on a filesystem without setuid")
    setuid = Path(shutil.copy(program, watchable[0]))
    setuid.chmod(0o4755)
    performance = perform([str(setuid)], user=NOBODY, group=NOBODY)
    status = Path(f"/proc/{performance.pid}/status").read_text()

    assert f"Uid:\t{NOBODY}\t0\t0\t0\n" in status
    assert _complaints(two_calls(performance)) == ""


def test_a_program_of_another_user(
    perform: Perform, program: Path, watchable: list[Path], two_calls: TwoCalls
) -> None:
    """GIVEN a program that nobody may read, its user included."""
    unreadable = Path(shutil.copy(program, watchable[0]))
    unreadable.chmod(0o711)
    performance = perform([str(unreadable)], user=NOBODY, group=NOBODY)

    assert _complaints(two_calls(performance)) == ""


def test_a_program_that_ends_with_its_call(
    perform: Perform, workshop: Workshop, traced: Traced, tmp_path: Path
) -> None:
    """GIVEN a program that inotrace saw when it made its instance THEN its end does not matter."""
    program, stream = _named_once(workshop, traced, tmp_path)
    performance = perform([program])
    stream.wait_for_instance(performance.pid)
    performance.go()
    assert performance.process.wait() == 0
    calls = stream.watch_calls(performance.pid, 1)

    assert _complaints(calls, _ONCE) == ""


def test_programs_that_nobody_knew_before_they_ended(
    workshop: Workshop, traced: Traced, tmp_path: Path
) -> None:
    """
    GIVEN programs of which everything inotrace sees takes them less than a millisecond
    THEN a stack is the chain, or is not whole and says why: never another.
    """
    program, stream = _named_once(workshop, traced, tmp_path)
    calls = []
    for _ in range(23):
        with subprocess.Popen([program], stdin=PIPE, stdout=DEVNULL) as process:
            process.communicate(b"go\n")
        calls += stream.watch_calls(process.pid, 1)
    whole = [call for call in calls if call["stack"] == "complete"]
    others = [call for call in calls if call["stack"] in ("truncated", "missing")]
    named = {frame["function"] for call in others for frame in call["frames"]}

    assert len(whole) + len(others) == 23
    assert _complaints(whole, _ONCE) == ""
    assert all(call["stack_reason"] for call in others)
    assert named <= {*_ONCE.split(), "__libc_start_main", "__libc_start_call_main", None}


def _named_once(workshop: Workshop, traced: Traced, folder: Path) -> tuple[str, Stream]:
    """A program under a name of its own, and the stream of what is called so."""
    name = os.fsdecode(own_name("once"))
    program = shutil.copy(workshop.c("once.c"), folder / name)
    return str(program), traced("-n", name)


@pytest.mark.parametrize("is_seen", [True, False], ids=["seen", "at-once"])
def test_a_program_in_place_of_another(
    perform: Perform, workshop: Workshop, traced: Traced, is_seen: bool
) -> None:
    """
    GIVEN a program that becomes another, with all code where its own was
    THEN each has its own names; if that was before anybody looked, the first may have none.
    """
    renamed = ("-Dmiddle=other_middle", "-Douter=other_outer")
    first = workshop.c("becomes.c", "-static", "-no-pie", name="becomes")
    second = workshop.c("becomes.c", "-static", "-no-pie", *renamed, name="other")
    performance = perform([str(first), str(second)])
    stream = traced("-p", performance.pid)
    performance.go()
    calls = stream.watch_calls(performance.pid, 1) if is_seen else []
    performance.go()
    performance.await_ready()
    performance.go()
    calls += stream.watch_calls(performance.pid, 2 - len(calls))

    assert _complaints(calls[1:], _CHAIN.replace("middle outer", "other_middle other_outer")) == ""
    if is_seen or calls[0]["stack"] == "complete":
        assert _complaints(calls[:1]) == ""
    assert not {frame["function"] for frame in calls[0]["frames"]} & {"other_middle", "other_outer"}
