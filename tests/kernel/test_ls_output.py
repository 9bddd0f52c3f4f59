"""What `ls` cannot do, and where its output goes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

import pytest
from harness import Terminal, environment
from listings import LS, StartChild, ls, needs_root

from tracer.views.ls import GROUPINGS

StartTerminal = Callable[..., Terminal]

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


def test_without_root_own_processes_and_a_word_on_the_others(
    start_child: StartChild, folders: list[Path], nobody: int
) -> None:
    theirs, _ = start_child("ready(fd=instance(*paths))", *folders)
    code = "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    # after the change of user /proc/PID would still be root's, as after setuid programs
    code += "libc.prctl(4, 1)\nready(fd=instance('/', '/proc', '/dev'))"
    own, _ = start_child(code)

    done = ls("-f", "json", user=nobody, group=nobody, extra_groups=[])

    shown = json.loads(done.stdout)
    assert done.returncode == 0
    assert (shown["complete"], shown["sharing_known"]) == (False, True)
    assert shown["host"]["truth"] == "fdinfo"
    assert {one["source"] for one in shown["limits"]} == {"counted"}
    held = {holder["pid"] for one in shown["instances"] for holder in one["holders"]}
    assert own in held and theirs not in held
    notice = r"inotrace: cannot look into [\d,]+ process(es)? of other users: run as root .*\n"
    assert re.fullmatch(notice, done.stderr)

    refused = ls(theirs, user=nobody, group=nobody, extra_groups=[])
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"inotrace: cannot look into process {theirs} of root: run")


@pytest.mark.parametrize("hidepid", ["noaccess", "invisible"])
def test_hidden_processes_are_mentioned(nobody: int, hidepid: str) -> None:
    script = f"""
        mount -t proc -o hidepid={hidepid} proc /proc || exit 77
        exec setpriv --reuid {nobody} --regid {nobody} --clear-groups "$@"
    """
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *LS, "-f", "json"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip(f"cannot mount proc: {done.stderr}")

    assert json.loads(done.stdout)["complete"] is False
    assert "hidepid" in done.stderr


# --- where it goes ---


def test_a_closed_pipe_ends_quietly(start_child: StartChild, tmp_path: Path) -> None:
    """GIVEN more output than a pipe holds WHEN the reader leaves THEN not a word."""
    folders = [tmp_path / str(at) for at in range(2003)]
    for folder in folders:
        folder.mkdir()
    pid, _ = start_child("ready(fd=instance(*paths))", *folders)

    command = [*LS, "--by", "target", str(pid)]
    reader = subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert reader.stdout is not None and reader.stderr is not None
    assert reader.stdout.readline().split()[0] == b"INODE"
    reader.stdout.close()

    assert reader.stderr.read() == b""
    assert reader.wait() in (1, 141)


def test_an_existing_file_is_kept_unless_forced(
    start_child: StartChild, folders: list[Path], tmp_path: Path
) -> None:
    pid, _ = start_child("ready(fd=instance(*paths))", *folders)
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
def test_a_full_disk_loses_nothing(
    start_child: StartChild, folders: list[Path], tmp_path: Path
) -> None:
    """GIVEN a disk of 4 KiB WHEN the report is larger THEN it is on standard output."""
    pid, _ = start_child("ready(all=[instance(*paths) for _ in range(3)])", *folders)
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
def test_a_terminal_gets_a_table_that_fits(
    start_child: StartChild, folders: list[Path], terminal: StartTerminal, width: int
) -> None:
    pid, _ = start_child("ready(all=instance(*paths), some=instance(*paths[:7]))", *folders)

    for by in GROUPINGS:
        shown = _shown(terminal("ls", pid, "--by", by, width=width))
        lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
        assert lines[0].startswith("30 watches on 23 targets, 7 of them watched more than once")
        assert max(map(len, lines)) <= width
        assert "\x1b[1m" in shown


@pytest.mark.parametrize("setting", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_a_plain_terminal_gets_no_colour(terminal: StartTerminal, setting: dict[str, str]) -> None:
    shown = _shown(terminal("ls", os.getpid(), env=environment(**setting)))

    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", shown)
    assert "\x1b" not in shown or "NO_COLOR" in setting


def _shown(tool: Terminal) -> str:
    """What the command writes until it ends."""
    assert tool.wait() == 0
    return tool.rest().decode().replace("\r\n", "\n")


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
