"""`inotrace events`: one line a call."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path
from typing import Any, Callable

import pytest
from harness import Inotrace, Puppet

pytestmark = pytest.mark.usefixtures("root")

Start = Callable[..., Inotrace]
IN_CREATE, IN_ONLYDIR = 0x100, 0x01000000


@pytest.fixture
def stream(inotrace: Start, puppet: Puppet) -> Callable[..., Inotrace]:
    """Starts a stream of the puppet's calls and returns when it is attached."""

    def start(*options: object) -> Inotrace:
        tool = inotrace("events", "-p", puppet.pid, *options)
        first = tool.out.line()
        if "json" in options:
            assert json.loads(first) == {"schema": "inotrace.events/1"}
        else:
            assert first.split() == b"TIME PID COMMAND CALL FD RESULT DETAILS".split()
        return tool

    return start


def objects(tool: Inotrace) -> tuple[list[Any], Any]:
    """The calls and the summary, after the end of the stream."""
    assert tool.stop() == 0
    _, *calls, last = map(json.loads, tool.out.rest().splitlines())
    return calls, last["summary"]


def test_every_call_is_a_line(
    stream: Callable[..., Inotrace], puppet: Puppet, folders: list[Path]
) -> None:
    tool = stream()
    fd = puppet.ok("init", os.O_NONBLOCK | os.O_CLOEXEC)
    wd = puppet.ok("add", fd, folders[0], IN_CREATE | IN_ONLYDIR)
    puppet.ok("rm", fd, wd)
    assert puppet("rm", fd, wd) == -errno.EINVAL
    assert puppet("add", fd, folders[0] / "no", 0xFFF) == -errno.ENOENT
    assert puppet("add", 997, folders[0], 2) == -errno.EBADF
    assert tool.stop() == 0
    lines = [line.split(maxsplit=3) for line in tool.out.rest().decode().splitlines()[1:]]

    assert {tuple(line[1:3]) for line in lines} == {(str(puppet.pid), "puppet")}
    assert [line[3].split() for line in lines] == [
        ["init", str(fd), "ok", "IN_NONBLOCK|IN_CLOEXEC"],
        ["add_watch", str(fd), "wd", str(wd), str(folders[0]), "IN_CREATE|IN_ONLYDIR"],
        ["rm_watch", str(fd), "ok", "wd", str(wd)],
        ["rm_watch", str(fd), "EINVAL", "wd", str(wd)],
        ["add_watch", str(fd), "ENOENT", f"{folders[0]}/no", "IN_ALL_EVENTS"],
        ["add_watch", "997", "EBADF", str(folders[0]), "IN_MODIFY"],
    ]
    times = [line[0] for line in lines]
    assert times == sorted(times)
    *_, last = tool.err.rest().splitlines()
    assert last == b"inotrace: 6 calls, 0 lost"


def test_only_failed_calls_are_shown_if_asked_for(
    stream: Callable[..., Inotrace], puppet: Puppet, folders: list[Path]
) -> None:
    tool = stream("-x")
    fd = puppet.ok("init")
    for folder in folders:
        puppet.ok("balance", fd, folder)
    assert puppet("rm", fd, 41) == -errno.EINVAL
    assert tool.stop(signal.SIGTERM) == 0

    (line,) = tool.out.rest().decode().splitlines()[1:]
    assert line.split()[3:] == ["rm_watch", str(fd), "EINVAL", "wd", "41"]
    assert tool.err.rest().decode().splitlines() == [
        f"inotrace: inotify_rm_watch EINVAL, puppet[{puppet.pid}]: no such watch in this "
        "instance: the kernel removed it before, or it is another's number",
        "inotrace: 1 call, 0 lost",
    ]


def test_a_stack_names_the_calling_functions(
    stream: Callable[..., Inotrace], puppet: Puppet, folders: list[Path]
) -> None:
    tool = stream("--stack")
    fd = puppet.ok("init")
    puppet.ok("balance", fd, folders[0])
    assert tool.stop() == 0
    calls: list[list[str]] = []
    for line in tool.out.rest().decode().splitlines()[1:]:
        if line.startswith(" "):
            calls[-1].append(line.split()[0])
        else:
            calls.append([line.split()[3]])

    init, add, rm = calls
    assert init[0] == "init" and init[2:4] == ["open_instance", "run"]
    assert add[0] == "add_watch" and add[2:5] == ["watch_volume", "balance_volume", "run"]
    assert rm[0] == "rm_watch" and rm[2:5] == ["remove_watch", "balance_volume", "run"]


def test_json_lines_have_schema_calls_and_summary(
    stream: Callable[..., Inotrace], puppet: Puppet, folders: list[Path]
) -> None:
    tool = stream("-f", "json", "--stack")
    fd = puppet.ok("init")
    wd = puppet.ok("leak", fd, folders[0])
    assert puppet("rm", fd, 41) == -errno.EINVAL
    (init, add, rm), summary = objects(tool)

    assert (summary["calls"], summary["lost"]) == (3, 0)
    assert [(one["errno"], one["count"]) for one in summary["failures"]] == [("EINVAL", 1)]
    assert {(call["pid"], call["tid"], call["uid"], call["comm"]) for call in (init, add, rm)} == {
        (puppet.pid, puppet.pid, os.getuid(), "puppet")
    }
    assert (init["call"], init["ret"], init["flags"]) == ("inotify_init", fd, ["IN_CLOEXEC"])
    assert (add["call"], add["fd"], add["wd"]) == ("inotify_add_watch", fd, wd)
    assert (add["path"], add["mask"], add["errno"]) == (str(folders[0]), ["IN_CREATE"], None)
    assert (rm["call"], rm["wd"], rm["errno"]) == ("inotify_rm_watch", 41, "EINVAL")
    assert init["monotonic_ns"] < add["monotonic_ns"] < rm["monotonic_ns"]
    assert [frame["function"] for frame in add["frames"]][1:3] == ["leak_secret", "run"]


def test_a_hostile_path_is_escaped_in_lines_and_exact_in_json(
    stream: Callable[..., Inotrace], puppet: Puppet, folders: list[Path]
) -> None:
    names = (
        *(b"new\nline", b"\x1b[2J\x1b]0;title\x07", b"\xff\xfe \x80", b"[red]x\\n"),
        "ünï\u202e\u2028".encode(),
    )
    paths = [os.path.join(os.fsencode(folders[0]), name) for name in names]
    lines, as_json = stream(), stream("-f", "json")
    fd = puppet.ok("init")
    for path in paths:
        os.mkdir(path)
        puppet.ok("add", fd, path)
    assert lines.stop() == 0
    (_, *adds), _ = objects(as_json)

    assert [add["path"].encode("utf-8", "surrogateescape") for add in adds] == paths
    shown = lines.out.rest()
    assert shown.count(b"\n") == 2 + len(paths)
    text = shown.decode("utf-8")
    assert all(character == "\n" or character.isprintable() for character in text)


def test_the_longest_path_is_whole(
    stream: Callable[..., Inotrace], puppet: Puppet, tmp_path: Path
) -> None:
    """GIVEN a path of 4,095 bytes, all that the kernel takes WHEN watched THEN it is all there."""
    base = os.fsencode(tmp_path)
    # a path may be long without its target being deep
    path = base + b"/." * ((4095 - len(base)) // 2)
    path += b"/" * (4095 - len(path))
    assert len(path) == 4095
    lines, as_json = stream(), stream("-f", "json")
    fd = puppet.ok("init")
    puppet.ok("add", fd, path)
    assert puppet("add", fd, path + b"/") == -errno.ENAMETOOLONG
    assert lines.stop() == 0
    (_, add, failed), summary = objects(as_json)

    assert summary["lost"] == 0
    assert add["path"] == path.decode()
    assert path in lines.out.rest()
    assert failed["errno"] == "ENAMETOOLONG"
    # one byte more does not fit: what is shown is not taken for the whole
    assert failed["path"] in (None, path.decode())


def test_a_duration_ends_by_itself(inotrace: Start) -> None:
    tool = inotrace("events", "-d", "0.1", "-f", "json", "-p", os.getpid())

    first, last = map(json.loads, tool.out.rest().splitlines())
    assert (first["schema"], last["summary"]["lost"]) == ("inotrace.events/1", 0)
    assert tool.wait() == 0


def test_a_flood_is_told_to_the_last_call(
    stream: Callable[..., Inotrace], puppet: Puppet, folders: list[Path]
) -> None:
    tool = stream("-f", "json")
    puppet.tell("flood", puppet.ok("init"), folders[0], 5003)
    # drained as it comes, or the pipe would fill up
    seen = 1
    while seen < 1 + 2 * 5003:
        assert tool.out.line()
        seen += 1
    assert puppet.answer() == 5003
    assert tool.stop() == 0
    summary = json.loads(tool.out.rest().splitlines()[-1])

    assert summary == {"summary": {"calls": 10_007, "lost": 0, "failures": []}}


def test_a_closed_pipe_ends_quietly(
    stream: Callable[..., Inotrace], puppet: Puppet, folders: list[Path]
) -> None:
    tool = stream()
    assert tool.process.stdout is not None
    tool.process.stdout.close()
    puppet.ok("init")

    assert tool.wait() == 128 + signal.SIGPIPE
    assert tool.err.rest() == b""
