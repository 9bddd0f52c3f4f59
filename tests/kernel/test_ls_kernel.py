"""Where `ls` has it from, the kernel's list or /proc, and what only the kernel knows."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
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
    # of ourselves, it tells which mount a descriptor is on
    assert not [path for path in opened if re.match(r"/proc/\d+/fdinfo/", path)]

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


_MAX_QUEUED = Path("/proc/sys/fs/inotify/max_queued_events")
# an instance of which so many events, created and deleted in turn, are never read
_UNREAD = """
def unread(path, events):
    fd = instance(path, mask=0x300)
    name = path + "/file"
    for at in range(events):
        if at % 2:
            os.unlink(name)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    return fd
"""


@pytest.fixture
def set_max_queued() -> Iterator[Callable[[int], object]]:
    """For instances that are made from then on, until the test has ended."""
    before = _MAX_QUEUED.read_text()
    yield lambda events: _MAX_QUEUED.write_text(str(events))
    _MAX_QUEUED.write_text(before)


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


@pytest.mark.kernels
@needs_root
def test_a_full_queue_loses_events(start_child: StartChild, folders: list[Path]) -> None:
    """GIVEN one event less than a queue holds, as many, and more THEN the first is not full."""
    limit = int(_MAX_QUEUED.read_text())
    numbers = (limit - 1, limit, limit + 23)
    pid, facts = start_child(f"{_UNREAD}ready(fds=[*map(unread, paths, {numbers})])", *folders[:3])

    shown = {one["holders"][0]["fd"]: one for one in document(pid)["instances"]}

    # what says that some are lost is one more
    assert [(shown[fd]["queued"], shown[fd]["full"]) for fd in facts["fds"]] == [
        (limit - 1, False),
        (limit, True),
        (limit + 1, True),
    ]
    tree = ls("--tree", pid).stdout
    assert "2 queues full, new events are lost" in tree
    assert tree.count("queue full: ") == 2
    assert [row[6] for row in records("--by", "fd", pid)[:-1]].count("full") == 2


@pytest.mark.kernels
@needs_root
def test_a_queue_keeps_the_limit_it_was_made_with(
    start_child: StartChild, folders: list[Path], set_max_queued: Callable[[int], object]
) -> None:
    """
    GIVEN a queue that lost events, and one of as many that lost none as it was made when more were
    allowed WHEN listed then, and when fewer are allowed again THEN only the first is full.
    """
    limit = int(_MAX_QUEUED.read_text())
    code = f"{_UNREAD}ready(fd=unread(paths[0], {limit + 23}))"
    loses, _ = start_child(code, folders[0])
    set_max_queued(2 * limit)
    keeps, _ = start_child(code, folders[1])

    for allowed in (2 * limit, limit):
        set_max_queued(allowed)

        shown = document(loses, keeps)["instances"]

        assert {one["holders"][0]["pid"]: (one["queued"], one["full"]) for one in shown} == {
            loses: (limit + 1, True),
            keeps: (limit + 23, False),
        }


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
    assert (one["queued"], one["queued_at_least"], one["full"]) == (3, True, None)


@needs_root
def test_who_opened_an_instance_is_charged_for_it(
    start_child: StartChild, folders: list[Path]
) -> None:
    """GIVEN a daemon that opened it before it became another user."""
    pid, _ = start_child("fd = instance(*paths); os.setuid(54321); ready(fd=fd)", *folders)

    assert re.search(r"root has [\d,]+ of [\d,]+", ls("--tree", pid).stdout.partition("\n\n")[0])


@needs_root
def test_what_is_on_its_way_in_a_socket_is_mentioned(
    start_child: StartChild, folders: list[Path]
) -> None:
    """GIVEN an instance that was sent, and closed by the sender WHEN listed THEN it is missed."""
    code = """
os.setuid(54321)
left, right = socket.socketpair()
fd = instance(*paths[:7])
socket.send_fds(left, [b"x"], [fd])
os.close(fd)
ready()
"""
    for folder in (*folders[0].parents, *folders):
        folder.chmod(folder.stat().st_mode | 0o055)
    start_child(code, *folders)

    done = ls("-f", "json", "-u", 54321)
    assert not json.loads(done.stdout)["complete"]
    assert done.stderr == (
        "inotrace: 1 instance with 7 watches more: on the way in a socket, of no process\n"
    )
