"""What is traced does not notice, and nothing stays behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from agreement import agreed, tracing
from bpf_objects import objects_of
from harness import PATIENCE_S, Inotrace, Puppet, kernel_watches, own_name, puppet_of, until

pytestmark = pytest.mark.usefixtures("root")

# Nobody else's, so that what is counted by user is the puppet's alone.
_UID = 61_453
_LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
# of /proc/PID/status: what a tracer could change, and not what changes by itself
_STATUS = re.compile(
    r"^(?:Name|Umask|Tgid|Pid|PPid|TracerPid|Uid|Gid|Groups|NS\w+|Threads|SigQ|SigPnd|ShdPnd|"
    r"SigBlk|SigIgn|SigCgt|Cap\w+|NoNewPrivs|Seccomp\w*|Cpus_allowed|CoreDumping):.*$",
    re.MULTILINE,
)


# --- what is left ---


@pytest.mark.parametrize("command", ["trace", "events"])
def test_an_inotrace_killed_in_a_flood_leaves_nothing(
    inotrace: Callable[..., Inotrace], puppet: Puppet, folders: list[Path], command: str
) -> None:
    tool = inotrace(command, "-p", puppet.pid)
    assert tool.out.line().startswith(b"TIME")
    objects = objects_of(tool.pid, "prog", "map", "link")
    assert {each.kind for each in objects} >= {"prog", "map"}
    assert all(each.is_loaded() for each in objects)
    fd = puppet.ok("init")
    puppet.tell("flood", fd, folders[0], 100_000)

    tool.process.kill()
    assert tool.wait() == -signal.SIGKILL

    # a perf event holds its program, and a map of perf events holds these: they went before
    until(lambda: not any(each.is_loaded() for each in objects), "the end of all BPF objects")
    assert puppet.answer() == 100_000


# --- what is traced ---


def state_of(pid: int) -> dict[str, object]:
    """All of a process that must not change because it is traced."""
    folder = Path(f"/proc/{pid}")
    fds = sorted(os.listdir(folder / "fd"), key=int)
    return {
        "status": _STATUS.findall((folder / "status").read_text()),
        "threads": sorted(os.listdir(folder / "task")),
        "descriptors": {fd: os.readlink(folder / "fd" / fd) for fd in fds},
        "open files": {fd: (folder / "fdinfo" / fd).read_text() for fd in fds},
        "mapped": re.findall(r" \S+p .*? (/.*)$", (folder / "maps").read_text(), re.MULTILINE),
        "namespaces": {
            name: os.readlink(folder / "ns" / name) for name in os.listdir(folder / "ns")
        },
        **{
            name: (folder / name).read_bytes()
            for name in ("cmdline", "environ", "limits", "cgroup", "oom_score_adj", "mountinfo")
        },
        "exe": os.readlink(folder / "exe"),
        "cwd": os.readlink(folder / "cwd"),
    }


def test_a_traced_process_is_unchanged(
    inotrace: Callable[..., Inotrace], puppet: Puppet, folders: list[Path]
) -> None:
    fd = puppet.ok("init")
    for folder in folders:
        puppet.ok("add", fd, folder)
    puppet.ok("become", _UID)
    before = state_of(puppet.pid)

    tool = inotrace("trace", "-p", puppet.pid)
    assert tool.out.line().startswith(b"TIME")
    spare = puppet.ok("init")
    puppet.ok("flood", spare, Path("/"), 997)
    puppet.ok("close", spare)
    during = state_of(puppet.pid)
    tool.stop()

    assert during == before
    assert state_of(puppet.pid) == before


def test_inotrace_keeps_nothing_open_that_others_would_miss(
    inotrace: Callable[..., Inotrace], puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN a traced process that ended WHEN its files are to go THEN no descriptor keeps them."""
    tool = inotrace("trace", "-p", puppet.pid)
    assert tool.out.line().startswith(b"TIME")
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0])
    puppet.ok("flood", fd, folders[1], 97)
    held = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{tool.pid}/fd")]

    assert not [each for each in held if "pidfd" in each or "inotify" in each]
    assert not [each for each in held if each.startswith(str(folders[0].parent))]


def test_the_filesystem_of_a_traced_program_can_be_unmounted_once_it_ended(
    inotrace: Callable[..., Inotrace],
    start_puppet: Callable[..., Puppet],
    puppet_program: Path,
    mounted: Callable[..., Path],
    folders: list[Path],
) -> None:
    disk = mounted("size=4m")
    program = disk / os.fsdecode(own_name("disk"))
    program.write_bytes(puppet_program.read_bytes())
    program.chmod(0o755)
    tool = inotrace("trace", "-n", program.name)
    assert tool.out.line().startswith(b"TIME")
    puppet = start_puppet(program)
    fd = puppet.ok("init")
    puppet.ok("leak", fd, folders[0])
    # told of, and so met
    assert str(puppet.pid).encode() in tool.out.line()
    puppet.tell("exit", 0)
    until(lambda: _is_gone(puppet.pid), "the end of the puppet")

    # inotrace learns of the end when it next looks, some hundredths of a second later
    until(lambda: not subprocess.run(["umount", disk], capture_output=True).returncode, "umount")
    assert not os.path.ismount(disk)


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_what_the_last_holder_closes_is_free_at_once(puppet: Puppet, folders: list[Path]) -> None:
    """GIVEN a user who may have one instance WHEN it is closed THEN the next can be opened."""
    if puppet("limit-instances", 1):
        pytest.skip("needs user namespaces")
    with tracing(puppet.pid) as session:
        for folder in folders:
            fd = puppet.ok("init")
            puppet.ok("add", fd, folder)
            agreed(session, (puppet.pid, fd))
            puppet.ok("close", fd)
        agreed(session)
        fd = puppet.ok("init")
        puppet.ok("add", fd, folders[0])
        report = agreed(session, (puppet.pid, fd))

    # who made the namespace pays as well, and has a limit of its own
    (limits,) = (one for one in report["limits"] if one["instances"]["limit"] == 1)
    assert (limits["instances"]["used"], limits["watches"]["used"]) == (1, 1)


# --- the same pid again ---

_TWIN = own_name("twin")


@pytest.fixture
def twin_program(program_named: Callable[[bytes], bytes]) -> bytes:
    return program_named(_TWIN)


@pytest.fixture
def start_as(twin_program: bytes) -> Iterator[Callable[[int], Puppet]]:
    """Starts a puppet with a pid that is free."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(pid: int) -> Puppet:
        for _ in range(997):
            process = _started_after(pid - 1, twin_program)
            if process.pid == pid:
                processes.append(process)
                return puppet_of(process)
            # another process was faster
            process.communicate(timeout=PATIENCE_S)
        pytest.fail(f"others took {pid} each time")

    yield start
    for process in processes:
        process.communicate(timeout=PATIENCE_S)


def _started_after(last_pid: int, program: bytes) -> subprocess.Popen[bytes]:
    before = _LAST_PID.read_text()
    try:
        _LAST_PID.write_text(str(last_pid))
    except OSError as error:
        pytest.skip(f"cannot choose a pid: {error}")
    try:
        return subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    finally:
        # or what others ran a moment ago would lend its number to the next
        _LAST_PID.write_text(before)


def test_two_programs_with_one_pid_are_kept_apart(
    start_as: Callable[[int], Puppet], twin_program: bytes, folders: list[Path]
) -> None:
    """GIVEN a program that ended, its watches left to a child WHEN its pid is used again."""
    process = subprocess.Popen([twin_program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    first = puppet_of(process)
    with tracing(name=_TWIN) as session:
        fd = first.ok("init")
        for folder in folders[:7]:
            first.ok("leak", fd, folder)
        # its names are read by now, and cannot be later
        agreed(session, (first.pid, fd))
        child = first.ok("orphan")
        process.wait(PATIENCE_S)
        second = start_as(first.pid)
        assert second.pid == first.pid
        again = second.ok("init")
        for folder in folders[:5]:
            second.ok("hold", again, folder)
        assert sum(kernel_watches(child, fd).values()) == 7
        report = agreed(session, (child, fd), (second.pid, again))
        first.tell("exit", 0)

        sites = {
            frame["function"]: site["live"]
            for site in report["sites"]
            for frame in site["frames"]
            if frame["function"] in ("leak_secret", "hold_config")
        }
        assert sites == {"leak_secret": 7, "hold_config": 5}
        processes = [each for each in report["processes"] if each["pid"] == first.pid]
        assert sorted(each["live"] for each in processes) == [5, 7]
        assert {
            holder["pid"] for instance in report["instances"] for holder in instance["holders"]
        } == {
            child,
            second.pid,
        }
    process.communicate(timeout=PATIENCE_S)
