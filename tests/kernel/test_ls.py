"""`inotrace ls` against instances that the test's own child processes made."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import pwd
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable

import pytest
from harness import PATIENCE_S, until

from tracer.kernel.fdinfo import can_compare_files
from tracer.views.ls import GROUPINGS

_CHECKOUT = Path(__file__).parents[2]
_LS = [sys.executable, "-m", "tracer", "ls"]
_NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: start it with sudo")
needs_kcmp = pytest.mark.skipif(not can_compare_files(), reason="the kernel refuses kcmp")

_PRELUDE = """
import ctypes, json, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)

def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def instance(*paths, mask=0x100):
    fd = checked(libc.inotify_init1(os.O_CLOEXEC))
    for path in paths:
        checked(libc.inotify_add_watch(fd, os.fsencode(path), mask))
    return fd

def wait():
    os.read(0, 1)
    os._exit(0)

def ready(**facts):
    print(json.dumps(facts), flush=True)
    wait()

paths = sys.argv[1:]
"""

Facts = dict[str, Any]
Start = Callable[..., tuple[int, Facts]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Run Python code in a child that then waits, until the test ends, for its stdin to close."""
    children: list[subprocess.Popen[bytes]] = []

    def run(code: str, *paths: Path, **options: Any) -> tuple[int, Facts]:
        child = subprocess.Popen(
            [sys.executable, "-c", _PRELUDE + code, *paths],
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


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "watched" / str(at) for at in range(23)]
    for folder in made:
        folder.mkdir(parents=True)
    return made


def ls(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """The finished command; what it prints is captured as UTF-8."""
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("env", _environment())
    return subprocess.run(
        [*_LS, *map(str, arguments)],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd="/",
        timeout=2 * PATIENCE_S,
        **options,
    )


def document(*arguments: object, **options: Any) -> Any:
    done = ls("-f", "json", *arguments, **options)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def records(*arguments: object) -> list[list[str]]:
    """The fields of each line of plain output, without the header."""
    done = ls(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split() for line in done.stdout.splitlines()[1:]]


def _environment(**changes: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "PYTHONPATH": str(_CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1", **changes}


# --- what is counted ---


def test_counts_equal_what_was_made(start: Start, folders: list[Path]) -> None:
    """GIVEN instances of 23, 7 and 0 watches WHEN listed THEN just these, most first."""
    pid, fds = start(
        "ready(all=instance(*paths), some=instance(*paths[:7]), none=instance())", *folders
    )
    executable = os.path.realpath(sys.executable)

    (row, total) = records(pid)
    assert [*row[:7], row[8]] == [str(pid), _me(), "3", "30", "23", "7", "-", executable]
    assert total[:6] == ["total", "-", "3", "30", "23", "7"]
    assert [row[:4] for row in records("--by", "fd", "-p", pid)] == [
        [str(pid), str(fds["all"]), _me(), "23"],
        [str(pid), str(fds["some"]), _me(), "7"],
        [str(pid), str(fds["none"]), _me(), "0"],
        ["total", "-", "-", "30"],
    ]


def test_targets_watched_more_than_once_come_first(start: Start, folders: list[Path]) -> None:
    pid, _ = start("ready(a=instance(*paths), b=instance(*paths[:7], mask=2))", *folders)

    *rows, total = records("--by", "target", pid)

    inodes = [str(folder.stat().st_ino) for folder in folders]
    assert {row[0] for row in rows[:7]} == set(inodes[:7])
    assert {row[0] for row in rows[7:]} == set(inodes[7:])
    assert [row[2] for row in rows] == ["2"] * 7 + ["1"] * 16
    assert {row[3] for row in rows[:7]} == {"IN_MODIFY|IN_CREATE"}
    assert rows[0][4].endswith(f"[{pid}]")
    assert {row[0]: row[6] for row in rows} == dict(zip(inodes, map(str, folders)))
    assert {row[5] for row in rows} <= {"dentry", "handle", "search"}
    assert total[2:] == ["30", "-", "-", "-", "23", "targets,", "7", "repeated"]


def test_only_duplicates(start: Start, folders: list[Path]) -> None:
    """GIVEN 7 of 23 targets watched twice WHEN only those are asked for THEN there are 7."""
    pid, _ = start("ready(a=instance(*paths), b=instance(*paths[:7], mask=2))", *folders)

    *rows, total = records("--duplicates", pid)
    assert sorted(row[6] for row in rows) == sorted(map(str, folders[:7]))
    assert total[2] == "14"
    assert records("--duplicates", "--by", "process", pid)[0][3:6] == ["14", "7", "7"]

    shown = document("--duplicates", pid)
    assert (shown["duplicates_only"], len(shown["watches"])) == (True, 14)
    assert shown["targets"] == {"unique": 7, "repeated": 7, "repeated_by_itself": 7}


def test_users_processes_instances_watches_as_a_tree(start: Start, folders: list[Path]) -> None:
    pid, fds = start("ready(all=instance(*paths))", *folders)

    done = ls("--tree", pid)

    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0].startswith("23 watches on 23 targets, none of them watched more than once")
    assert lines[2].startswith(f"{_me()}  23 watches in 1 instance")
    assert f"[{pid}]  23 watches in 1 instance" in lines[3]
    assert lines[4].startswith(f"    fd {fds['all']}  23 watches")
    # newest first, as the kernel has them
    assert lines[5:15] == [f"      {folder}  IN_CREATE" for folder in reversed(folders[13:])]
    assert lines[15:] == ["      and 13 more watches"]


def test_processes_that_are_of_no_pod(start: Start, folders: list[Path]) -> None:
    pid, _ = start("ready(all=instance(*paths))", *folders)

    (row, total) = records("--by", "pod", pid)

    assert row[:6] == ["1", "1", "23", "23", "0", "-"]
    assert total[0] == "total"
    assert document(pid)["processes"][0]["pod"] is None


def test_by_user(start: Start, folders: list[Path]) -> None:
    one, _ = start("ready(all=instance(*paths))", *folders)
    two, _ = start("ready(all=instance(*paths[:7]))", *folders)

    (row, total) = records("--by", "user", one, two)

    assert row == [str(os.geteuid()), _me(), "2", "2", "30", "23", "7"]
    assert total == ["total", "-", *row[2:]]


# --- what is unread ---


_OVERFLOW = """
fd = instance(paths[0])
name = paths[0] + "/file"
limit = int(open("/proc/sys/fs/inotify/max_queued_events").read())
# equal events that follow each other are told once
for at in range(limit // 2 + 7):
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    os.unlink(name)
ready(fd=fd, limit=limit)
"""


def test_events_that_nobody_reads_are_counted(start: Start, folders: list[Path]) -> None:
    """GIVEN 23 new files in a watched folder WHEN listed THEN 23 events are unread, or some are."""
    code = """
fd = instance(paths[0])
for at in range(23):
    os.close(os.open(f"{paths[0]}/{at}", os.O_CREAT | os.O_WRONLY))
ready(fd=fd, idle=instance(*paths[1:3]))
"""
    pid, fds = start(code, *folders)

    shown = {one["holders"][0]["fd"]: one for one in document(pid)["instances"]}

    unread, idle = shown[fds["fd"]], shown[fds["idle"]]
    if os.geteuid() == 0:
        assert (unread["queued"], unread["queued_at_least"]) == (23, False)
        assert idle["queued"] == 0
        assert {row[1]: row[5] for row in records("--by", "fd", pid)[:-1]} == {
            str(fds["fd"]): "23",
            str(fds["idle"]): "0",
        }
    else:
        # Yama may refuse it
        assert unread["queued"] in (None, 3)
    assert not unread["full"]


@needs_root
def test_a_full_queue_loses_events(start: Start, folders: list[Path]) -> None:
    """GIVEN more events than a queue holds, which nobody reads WHEN listed THEN it is full."""
    code = _OVERFLOW.replace("instance(paths[0])", "instance(paths[0], mask=0x300)")
    pid, facts = start(code, *folders[:1])

    (one,) = document(pid)["instances"]
    assert one["full"] and one["queued"] >= facts["limit"]
    assert "queue full, events are lost" in ls("--tree", pid).stdout
    assert records("--by", "fd", pid)[0][6] == "full"


@needs_root
def test_without_bpf_unread_events_are_at_least_so_many(
    start: Start, folders: list[Path], changed: Changed
) -> None:
    code = """
fd = instance(paths[0])
for at in range(23):
    os.close(os.open(f"{paths[0]}/{at}", os.O_CREAT | os.O_WRONLY))
ready(fd=fd)
"""
    pid, _ = start(code, *folders[:1])

    (one,) = document(pid, env=changed(_HIDE_BCC))["instances"]

    # 23 events of 32 bytes could be 3 of the largest
    assert (one["queued"], one["queued_at_least"], one["full"]) == (3, True, False)


def test_json_has_every_watch(start: Start, folders: list[Path]) -> None:
    pid, fds = start("ready(all=instance(*paths))", *folders)

    shown = document(pid)

    assert (shown["schema"], shown["complete"]) == ("inotrace.ls/1", True)
    assert shown["host"]["kernel"] == os.uname().release
    assert {(watch["pid"], watch["fd"], watch["instance"]) for watch in shown["watches"]} == {
        (pid, fds["all"], shown["instances"][0]["id"])
    }
    assert sorted(watch["ino"] for watch in shown["watches"]) == sorted(
        folder.stat().st_ino for folder in folders
    )
    assert {tuple(watch["mask"]) for watch in shown["watches"]} == {("IN_CREATE",)}
    assert len({watch["wd"] for watch in shown["watches"]}) == 23


def test_use_is_told_against_the_limit(start: Start, folders: list[Path]) -> None:
    start("ready(all=instance(*paths))", *folders)

    (usage,) = [
        one
        for one in document("-p", os.getpid())["limits"]
        if one["uid"] == os.geteuid() and one["userns"] == os.stat("/proc/self/ns/user").st_ino
    ]

    limits = Path("/proc/sys/fs/inotify")
    assert usage["source"] == ("counted" if os.geteuid() else "kernel")
    assert usage["watches"]["used"] >= 23
    assert usage["watches"]["limit"] == int((limits / "max_user_watches").read_text())
    assert usage["instances"]["limit"] == int((limits / "max_user_instances").read_text())


# --- the kernel's list or /proc ---

_HIDE_BCC = "import sys\nsys.modules['bcc'] = None\n"
_TELL_OPENED = """
import sys
log = open({log!r}, "a")
sys.addaudithook(lambda event, found: event == "open" and print(found[0], file=log))
"""


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """The environment in which Python runs this code before anything else."""

    def environment(code: str) -> dict[str, str]:
        folder = tmp_path / f"site-{len(os.listdir(tmp_path))}"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(code)
        return _environment(PYTHONPATH=f"{folder}:{_CHECKOUT}")

    return environment


Changed = Callable[[str], dict[str, str]]


@pytest.mark.kernels
@needs_root
@needs_kcmp
def test_both_list_the_same(start: Start, folders: list[Path], changed: Changed) -> None:
    code = "fd = instance(*paths)\nready(fd=fd, twin=os.dup(fd), other=instance('/proc', '/sys'))"
    pid, _ = start(code, *folders)

    by_iterator = document(pid)
    by_proc = document(pid, env=changed(_HIDE_BCC))

    assert by_iterator.pop("host")["truth"] == "iterator"
    assert by_proc.pop("host")["truth"] == "fdinfo"
    assert {one["source"] for one in by_iterator.pop("limits")} == {"kernel"}
    assert {one["source"] for one in by_proc.pop("limits")} == {"counted"}
    assert _without_ids(by_iterator) == _without_ids(by_proc)
    assert [one["watches"] for one in by_proc["instances"]] == [23, 2]


def _without_ids(shown: Any) -> Any:
    # which number an instance has depends on those of all other processes
    for one in shown["instances"]:
        del one["id"]
        # /proc tells the least that it may be
        del one["queued_at_least"]
    for watch in shown["watches"]:
        del watch["instance"]
        # the kernel tells names of inodes only to BPF
        del watch["resolved_by"]
    return shown


@needs_root
def test_root_opens_no_fdinfo(
    start: Start, folders: list[Path], changed: Changed, tmp_path: Path
) -> None:
    """GIVEN that fdinfo is what holds up the program WHEN root lists it THEN it is not opened."""
    pid, fds = start("ready(fd=instance(*paths))", *folders)
    log = tmp_path / "opened"
    telling = _TELL_OPENED.format(log=str(log))

    document(pid, env=changed(telling))
    opened = log.read_text().splitlines()
    assert f"/proc/{pid}" in opened
    assert not [path for path in opened if path.startswith("/proc/") and "/fdinfo/" in path]

    # which would have been told
    document(pid, env=changed(telling + _HIDE_BCC))
    assert f"/proc/{pid}/fdinfo/{fds['fd']}" in log.read_text().splitlines()


@needs_root
def test_a_user_namespace_has_its_own_use(start: Start, folders: list[Path]) -> None:
    """GIVEN 7 watches made in a user namespace WHEN listed THEN just those are its use there."""
    code = """
checked(libc.unshare(0x10000000))
limit = int(open("/proc/sys/user/max_inotify_watches").read())
ready(fd=instance(*paths), inner=os.stat("/proc/self/ns/user").st_ino, limit=limit)
"""
    pid, facts = start(code, *folders[:7])

    (usage,) = [one for one in document(pid)["limits"] if one["userns"] == facts["inner"]]

    assert (usage["uid"], usage["source"]) == (0, "kernel")
    assert usage["watches"] == {"used": 7, "limit": facts["limit"]}
    assert usage["instances"]["used"] == 1


# --- sharing ---


@needs_kcmp
def test_duplicates_forks_and_passed_ones_count_once(start: Start, folders: list[Path]) -> None:
    """GIVEN one instance held by dup, by a child and sent to it WHEN listed THEN it is one."""
    code = """
fd = instance(*paths)
twin = os.dup(fd)
here, there = socket.socketpair()
child = os.fork()
if child == 0:
    socket.recv_fds(there, 1, 1)
    there.send(b"x")
    wait()
socket.send_fds(here, [b"x"], [fd])
here.recv(1)
ready(fd=fd, twin=twin, child=child)
"""
    pid, facts = start(code, *folders)
    child = facts["child"]

    shown = document(pid)
    assert [one["watches"] for one in shown["instances"]] == [23]
    assert len(shown["watches"]) == 23
    holders = [(one["pid"], one["fd"]) for one in shown["instances"][0]["holders"]]
    assert len(holders) == 5
    assert {(pid, facts["fd"]), (pid, facts["twin"]), (child, facts["twin"])} < set(holders)

    rows = records(pid, child)
    assert sorted([*row[:4], row[6]] for row in rows[:2]) == sorted(
        [[str(pid), _me(), "1", "23", str(child)], [str(child), _me(), "1", "23", str(pid)]]
    )
    assert rows[2][2:4] == ["1", "23"]
    assert len(records("--by", "fd", pid)) == 2 + 1


@needs_kcmp
def test_equal_instances_stay_two(start: Start, folders: list[Path]) -> None:
    """GIVEN two instances with the same wds, inodes and masks WHEN listed THEN both count."""
    pid, _ = start("ready(a=instance(*paths), b=instance(*paths))", *folders)

    assert [one["watches"] for one in document(pid)["instances"]] == [23, 23]
    assert records(pid)[-1][2:4] == ["2", "46"]


# --- names ---


@pytest.mark.parametrize("name", [b"\x1b[2J[bold]\n) x", b"\xff\xfe,[/]"])
def test_a_hostile_name_is_only_text(start: Start, folders: list[Path], name: bytes) -> None:
    pid, _ = start(f"libc.prctl(15, {name!r}); ready(fd=instance(*paths))", *folders[:2])

    (holder,) = document(pid)["instances"][0]["holders"]
    assert holder["comm"].encode("utf-8", "surrogateescape") == name
    for by in GROUPINGS:
        for format_ in ("table", "plain"):
            shown = ls(pid, "--by", by, "-f", format_, env=_environment(COLUMNS="160")).stdout
            assert not re.search(r"[^\n -~…]", shown)
            assert by in ("user", "pod") or "[bold]" in shown or "[/]" in shown


def test_a_deleted_executable(start: Start, folders: list[Path], tmp_path: Path) -> None:
    """GIVEN a program deleted while it runs, its name with a blank WHEN listed THEN so it says."""
    copy = tmp_path / "my cat"
    shutil.copy(shutil.which("cat") or "/bin/cat", copy)
    code = "os.set_inheritable(instance(*paths[1:]), True); os.execv(paths[0], ['cat'])"
    child = subprocess.Popen(
        [sys.executable, "-c", _PRELUDE + code, copy, *folders[:7]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        # what comes back came through cat: it is running
        child.stdin.write(b"x\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"x\n"
        copy.unlink()

        assert records(child.pid)[0][3:] == [
            "7",
            "7",
            "0",
            "-",
            r"my\x20cat",
            rf"{copy.parent}/my\x20cat\x20(deleted)",
        ]
    finally:
        child.communicate()


def test_name_and_user_select(start: Start, folders: list[Path]) -> None:
    code = "libc.prctl(15, b'ls-{}'); ready(fd=instance(*paths))"
    one, _ = start(code.format("one"), *folders[:2])
    two, _ = start(code.format("two"), *folders[:3])

    def pids(*arguments: object) -> set[str]:
        done = ls(*arguments)
        assert done.returncode == 0
        return {line.split()[0] for line in done.stdout.splitlines()[1:-1]} & {str(one), str(two)}

    assert pids("-n", "s-t") == {str(two)}
    assert pids("-n", "ls-") == pids("-u", os.geteuid()) == pids("-u", _me())
    assert pids("-n", "ls-", "-p", one) == {str(one)}
    assert pids("-u", _NOBODY, "-n", "ls-") == set()


# --- what cannot be done ---


def test_a_process_that_does_not_exist() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()

    done = ls(os.getpid(), ended.pid)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"inotrace: no process {ended.pid}: ")
    assert done.stderr.count("\n") == 1


def test_a_thread_is_not_a_process() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    try:
        done = ls(thread.native_id)
    finally:
        end.set()
        thread.join()

    assert done.returncode == 1
    assert f"is a thread of process {os.getpid()}:" in done.stderr


def test_a_user_that_does_not_exist() -> None:
    done = ls("-u", "no-such-user")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("inotrace: no user called no-such-user: ")
    assert done.stderr.count("\n") == 1


@needs_root
def test_without_root_own_processes_and_a_word_on_the_others(
    start: Start, folders: list[Path]
) -> None:
    _skip_unless_anyone_can_run_us()
    theirs, _ = start("ready(fd=instance(*paths))", *folders)
    code = "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    # after the change of user /proc/PID would still be root's, as after setuid programs
    code += "libc.prctl(4, 1)\nready(fd=instance('/', '/proc', '/dev'))"
    own, _ = start(code)

    done = ls("-f", "json", user=_NOBODY, group=_NOBODY, extra_groups=[])

    shown = json.loads(done.stdout)
    assert done.returncode == 0
    assert (shown["complete"], shown["sharing_known"]) == (False, True)
    assert shown["host"]["truth"] == "fdinfo"
    assert {one["source"] for one in shown["limits"]} == {"counted"}
    held = {holder["pid"] for one in shown["instances"] for holder in one["holders"]}
    assert own in held and theirs not in held
    notice = r"inotrace: cannot look into [\d,]+ process(es)? of other users: run as root .*\n"
    assert re.fullmatch(notice, done.stderr)

    refused = ls(theirs, user=_NOBODY, group=_NOBODY, extra_groups=[])
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"inotrace: cannot look into process {theirs} of root: run")


@needs_root
def test_hidden_processes_are_mentioned() -> None:
    _skip_unless_anyone_can_run_us()
    script = f"""
        mount -t proc -o hidepid=2 proc /proc || exit 77
        exec setpriv --reuid {_NOBODY} --regid {_NOBODY} --clear-groups "$@"
    """
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *_LS, "-f", "json"]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip(f"cannot mount proc: {done.stderr}")

    assert json.loads(done.stdout)["complete"] is False
    assert "hidepid" in done.stderr


# --- where it goes ---


def test_a_closed_pipe_ends_quietly(start: Start, tmp_path: Path) -> None:
    """GIVEN more output than a pipe holds WHEN the reader leaves THEN not a word."""
    folders = [tmp_path / str(at) for at in range(2003)]
    for folder in folders:
        folder.mkdir()
    pid, _ = start("ready(fd=instance(*paths))", *folders)

    command = [*_LS, "--by", "target", str(pid)]
    reader = subprocess.Popen(
        command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert reader.stdout is not None and reader.stderr is not None
    assert reader.stdout.readline().split()[0] == b"INODE"
    reader.stdout.close()

    assert reader.stderr.read() == b""
    assert reader.wait() in (1, 141)


def test_an_existing_file_is_kept_unless_forced(
    start: Start, folders: list[Path], tmp_path: Path
) -> None:
    pid, _ = start("ready(fd=instance(*paths))", *folders)
    path = tmp_path / "report"
    path.write_text("mine")

    refused = ls(pid, "-o", path)
    assert (refused.returncode, refused.stdout, path.read_text()) == (1, "", "mine")
    assert refused.stderr == (
        f"inotrace: {path} exists: choose another name or overwrite it with --force\n"
    )

    forced = ls(pid, "-o", path, "--force")
    assert (forced.returncode, forced.stdout, forced.stderr) == (0, "", "")
    assert path.read_text() == ls(pid).stdout


@needs_root
def test_a_full_disk_loses_nothing(start: Start, folders: list[Path], tmp_path: Path) -> None:
    """GIVEN a disk of 4 KiB WHEN the report is larger THEN it is on standard output."""
    pid, _ = start("ready(all=[instance(*paths) for _ in range(3)])", *folders)
    with _small_disk(tmp_path / "small") as disk:
        done = ls(pid, "-f", "json", "-o", disk / "report")

        assert done.returncode == 1
        assert f"{disk}/report: No space left on device" in done.stderr
        assert done.stderr.count("\n") == 1
        assert len(json.loads(done.stdout)["watches"]) == 69
        assert os.listdir(disk) == []


def test_full_standard_output_is_an_error_of_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = ls(os.getpid(), stdout=full)

    assert done.returncode == 1
    assert done.stderr == "inotrace: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("width", [80, 160])
def test_a_terminal_gets_a_table_that_fits(start: Start, folders: list[Path], width: int) -> None:
    pid, _ = start("ready(all=instance(*paths), some=instance(*paths[:7]))", *folders)

    for by in GROUPINGS:
        shown = _on_terminal(width, pid, "--by", by)
        lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
        assert lines[0].startswith("30 watches on 23 targets, 7 of them watched more than once")
        assert max(map(len, lines)) <= width
        assert "\x1b[1m" in shown


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_plain_terminal_gets_no_colour(setting: dict[str, str]) -> None:
    shown = _on_terminal(80, os.getpid(), **setting)

    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", shown)
    assert "\x1b" not in shown or "NO_COLOR" in setting


# --- again and again ---


def test_in_a_pipe_each_look_is_a_block(start: Start, folders: list[Path], tmp_path: Path) -> None:
    """GIVEN a watch that is added between two looks WHEN watched THEN a later look has it."""
    go = tmp_path / "go"
    os.mkfifo(go)
    code = """
fd = instance(*paths[1:3])
if os.fork():
    ready()
open(paths[0]).read()
checked(libc.inotify_add_watch(fd, os.fsencode(paths[3]), 0x100))
wait()
"""
    pid, _ = start(code, go, *folders[:3])
    with _watching("--watch", "0.1", "-f", "json", "-p", pid) as lines:
        assert len(json.loads(next(lines))["watches"]) == 2
        go.write_text("x")
        until(lambda: len(json.loads(next(lines))["watches"]) == 3, "the third watch")


def test_blocks_have_the_time(start: Start, folders: list[Path]) -> None:
    pid, _ = start("ready(fd=instance(*paths))", *folders)

    with _watching("--watch=0.1", "--by", "fd", pid) as lines:
        shown = [next(lines).rstrip() for _ in range(8)]

    assert re.fullmatch(r"\d\d:\d\d:\d\d", shown[0]) and re.fullmatch(
        r"\d\d:\d\d:\d\d", shown[4 + 1]
    )
    assert shown[1].split()[:2] == ["PID", "FD"]
    assert shown[2].split()[0] == str(pid)
    assert shown[4] == ""


def test_the_end_of_a_process_asked_for_is_told_once(start: Start, folders: list[Path]) -> None:
    pid, _ = start("ready(fd=instance(*paths))", *folders)

    with _watching(
        "--watch=0.1", "-f", "json", pid, errors=f"inotrace: process {pid} has ended\n"
    ) as lines:
        assert len(json.loads(next(lines))["watches"]) == 23
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        until(lambda: not json.loads(next(lines))["watches"], "the end of the process")
        # of two more looks, none tells it again
        next(lines), next(lines)


@contextmanager
def _watching(*arguments: object, errors: str = "") -> Iterator[Iterator[str]]:
    """The lines of a command that then ends on Ctrl-C, with exit code 0 and those `errors`."""
    child = subprocess.Popen(
        [*_LS, *map(str, arguments)],
        env=_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        yield iter(child.stdout)
        child.send_signal(signal.SIGINT)
        _, told = child.communicate(timeout=PATIENCE_S)
    finally:
        child.kill()
        child.wait()
    assert (child.returncode, told) == (0, errors)


def test_a_terminal_is_refreshed_until_ctrl_c(start: Start, folders: list[Path]) -> None:
    """GIVEN a screen of 12 lines WHEN watched THEN it is left as it was, and no line is longer."""
    pid, _ = start("ready(fd=instance(*paths))", *folders)
    master, child = _started_on_terminal(80, 12, pid, "--by", "target", "--watch", "0.1")
    try:
        shown = b""
        while shown.count(b"Ctrl-C ends") < 3:
            shown += _read_terminal(master)
        child.send_signal(signal.SIGINT)
        shown += b"".join(iter(lambda: _read_terminal(master), b""))
        assert child.wait(PATIENCE_S) == 0
    finally:
        child.kill()
        os.close(master)

    text = shown.decode()
    assert text.count("\x1b[?1049h") == text.count("\x1b[?1049l") == 1
    assert "23 watches on 23 targets" in text
    assert re.search(r"and \d+ more lines", text)
    plain = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "\n", text)
    assert max(map(len, plain.splitlines())) <= 80


@pytest.mark.parametrize(
    "arguments",
    [
        ("--watch", "-o", "/tmp/never"),
        ("--tree", "--by", "fd"),
        ("--watch", "3601"),
        ("--watch=0",),
    ],
)
def test_what_does_not_go_together(arguments: tuple[str, ...]) -> None:
    done = ls(*arguments)

    assert (done.returncode, done.stdout) == (2, "")


# --- terminals ---


def _on_terminal(width: int, *arguments: object, **environment: str) -> str:
    """What the command writes to a terminal of that width."""
    master, child = _started_on_terminal(width, 24, *arguments, **environment)
    shown = b"".join(iter(lambda: _read_terminal(master), b""))
    os.close(master)
    assert child.wait() == 0, shown
    return shown.decode().replace("\r\n", "\n")


def _started_on_terminal(
    width: int, height: int, *arguments: object, **environment: str
) -> tuple[int, subprocess.Popen[bytes]]:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))
    settings = _environment(**{"TERM": "xterm-256color", **environment})
    child = subprocess.Popen(
        [*_LS, *map(str, arguments)], env=settings, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    return master, child


def _read_terminal(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:
        # EIO: the last program on the terminal ended
        return b""


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k", "inotrace-test", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _me() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def _skip_unless_anyone_can_run_us() -> None:
    try:
        runs = ls("--help", user=_NOBODY).returncode == 0
    except OSError:
        runs = False
    if not runs:
        pytest.skip(f"user {_NOBODY} cannot run {sys.executable} with {_CHECKOUT}")
