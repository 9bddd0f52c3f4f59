"""Where `ls` has it from, the kernel's list or /proc, and what only the kernel knows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable

import pytest
from harness import CHECKOUT, environment
from listings import StartChild, document, ls, needs_kcmp, needs_root, records

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

    def changing(code: str) -> dict[str, str]:
        folder = tmp_path / f"site-{len(os.listdir(tmp_path))}"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(code)
        return environment(PYTHONPATH=f"{folder}:{CHECKOUT}")

    return changing


Changed = Callable[[str], dict[str, str]]


@pytest.mark.kernels
@needs_root
@needs_kcmp
def test_both_list_the_same(start_child: StartChild, folders: list[Path], changed: Changed) -> None:
    code = "fd = instance(*paths)\nready(fd=fd, twin=os.dup(fd), other=instance('/proc', '/sys'))"
    pid, _ = start_child(code, *folders)

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
    start_child: StartChild, folders: list[Path], changed: Changed, tmp_path: Path
) -> None:
    """GIVEN that fdinfo is what holds up the program WHEN root lists it THEN it is not opened."""
    pid, fds = start_child("ready(fd=instance(*paths))", *folders)
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
def test_a_user_namespace_has_its_own_use(start_child: StartChild, folders: list[Path]) -> None:
    """GIVEN 7 watches made in a user namespace WHEN listed THEN just those are its use there."""
    code = """
checked(libc.unshare(0x10000000))
limit = int(open("/proc/sys/user/max_inotify_watches").read())
ready(fd=instance(*paths), inner=os.stat("/proc/self/ns/user").st_ino, limit=limit)
"""
    pid, facts = start_child(code, *folders[:7])

    (usage,) = [one for one in document(pid)["limits"] if one["userns"] == facts["inner"]]

    assert (usage["uid"], usage["source"]) == (0, "kernel")
    assert usage["watches"] == {"used": 7, "limit": facts["limit"]}
    assert usage["instances"]["used"] == 1


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


def test_events_that_nobody_reads_are_counted(start_child: StartChild, folders: list[Path]) -> None:
    """GIVEN 23 new files in a watched folder WHEN listed THEN 23 events are unread, or some are."""
    code = """
fd = instance(paths[0])
for at in range(23):
    os.close(os.open(f"{paths[0]}/{at}", os.O_CREAT | os.O_WRONLY))
ready(fd=fd, idle=instance(*paths[1:3]))
"""
    pid, fds = start_child(code, *folders)

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
def test_a_full_queue_loses_events(start_child: StartChild, folders: list[Path]) -> None:
    """GIVEN more events than a queue holds, which nobody reads WHEN listed THEN it is full."""
    code = _OVERFLOW.replace("instance(paths[0])", "instance(paths[0], mask=0x300)")
    pid, facts = start_child(code, *folders[:1])

    (one,) = document(pid)["instances"]
    assert one["full"] and one["queued"] >= facts["limit"]
    assert "queue full, events are lost" in ls("--tree", pid).stdout
    assert records("--by", "fd", pid)[0][6] == "full"


@needs_root
def test_without_bpf_unread_events_are_at_least_so_many(
    start_child: StartChild, folders: list[Path], changed: Changed
) -> None:
    code = """
fd = instance(paths[0])
for at in range(23):
    os.close(os.open(f"{paths[0]}/{at}", os.O_CREAT | os.O_WRONLY))
ready(fd=fd)
"""
    pid, _ = start_child(code, *folders[:1])

    (one,) = document(pid, env=changed(_HIDE_BCC))["instances"]

    # 23 events of 32 bytes could be 3 of the largest
    assert (one["queued"], one["queued_at_least"], one["full"]) == (3, True, False)
