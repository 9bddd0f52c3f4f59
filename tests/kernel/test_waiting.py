"""Filesystems that do not answer any more: what is on them is told of without asking them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from harness import PATIENCE_S, environment

pytestmark = [pytest.mark.usefixtures("root"), pytest.mark.kernels]

# Serves a FUSE with a folder "below" until it has said that all is there, and watches as `argv[2]`
# says; `argv[1]` is for what it mounts. See include/uapi/linux/fuse.h.
_PROGRAM = r"""
import ctypes, os, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUSER, REC_PRIVATE, DETACH = 0x20000, 0x10000000, 0x44000, 2
HEAD, REPLY = struct.Struct("=IIQQIIIHH"), struct.Struct("=IiQ")
LOOKUP, FORGET, GETATTR, STATFS, RELEASE, GETXATTR, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR = (
    1, 2, 3, 17, 18, 22, 25, 26, 27, 28, 29
)

def mount(source, where, kind, options=None, flags=0):
    done = libc.mount(source.encode(), where.encode(), kind.encode(), ctypes.c_ulong(flags),
                      None if options is None else options.encode())
    if done:
        sys.exit(f"cannot mount {kind}: {os.strerror(ctypes.get_errno())}")

def attributes(ino):
    return struct.pack("=6Q10I", ino, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0)

def answer(code, node, name):
    if code == LOOKUP:
        # good for no time: it is asked for again and again
        return (0, struct.pack("=QQQQII", 2, 1, 0, 0, 0, 0) + attributes(2)) if name == b"below" \
            else (-2, b"")
    if code == INIT:
        return 0, struct.pack("=IIIIHHIIHHI7I", 7, 31, 65536, 0, 12, 10, 4096, 1, 1, 0, 0, *[0] * 7)
    return {
        GETATTR: (0, struct.pack("=QII", 0, 0, 0) + attributes(node)),
        OPENDIR: (0, struct.pack("=QII", 1, 0, 0)),
        STATFS: (0, bytes(80)), READDIR: (0, b""), RELEASEDIR: (0, b""), FLUSH: (0, b""),
        RELEASE: (0, b""),
    }.get(code, (-38, b""))

def serve(device, until):
    libc.prctl(1, 9)
    os.close(until[1])
    import select
    while device in select.select([device, until[0]], [], [])[0]:
        request = os.read(device, 1 << 17)
        length, code, unique, node, *_ = HEAD.unpack_from(request)
        if code in (FORGET, 36, 42):
            continue
        error, body = answer(code, node, request[HEAD.size:length].rstrip(b"\0"))
        os.write(device, REPLY.pack(REPLY.size + len(body), error, unique) + body)
    # it is there, and says nothing
    while True:
        os.read(until[0], 1) or __import__("time").sleep(1000)

def watch(fd, path):
    if libc.inotify_add_watch(fd, path.encode(), 0x100) < 0:
        sys.exit(f"cannot watch {path}: {os.strerror(ctypes.get_errno())}")

base, how = sys.argv[1:]
if libc.unshare(NEWNS | (NEWUSER if how == "user" else 0)):
    sys.exit("no namespace")
if how == "user":
    for name, said in ("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1"):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(said)
else:
    mount("", "/", "", flags=REC_PRIVATE)
mount("inotrace-test", base, "tmpfs")
for name in ("far", "up", "work", "merged", "near"):
    os.mkdir(f"{base}/{name}")
try:
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
except OSError as error:
    sys.exit(f"no FUSE: {error}")
mount("inotrace-test", f"{base}/far", "fuse", f"fd={device},rootmode=40000,user_id=0,group_id=0")
until = os.pipe()
server = os.fork()
if not server:
    serve(device, until)
inotify = libc.inotify_init1(0)
watcher = os.getpid()
if how == "root":
    watch(inotify, f"{base}/near")
    there = os.pipe()
    watcher = os.fork()
    if not watcher:
        libc.prctl(1, 9)
        os.close(inotify)
        inotify = libc.inotify_init1(0)
        watch(inotify, f"{base}/near")
        watch(inotify, f"{base}/far")
        os.chroot(f"{base}/far")
        os.chdir("/")
        os.close(until[1])
        os.write(there[1], b".")
        while True:
            os.read(until[0], 1) or __import__("time").sleep(1000)
    os.read(there[0], 1)
    if libc.umount2(f"{base}/far".encode(), DETACH):
        sys.exit("cannot unmount")
else:
    options = f"lowerdir={base}/far,upperdir={base}/up,workdir={base}/work"
    mount("none", f"{base}/merged", "overlay", options + (",userxattr" if how == "user" else ""))
    os.mkdir(f"{base}/merged/new")
    watch(inotify, f"{base}/near")
    watch(inotify, f"{base}/merged/new")
    watch(inotify, f"{base}/merged/below")
os.close(until[1])
print("ready", watcher, flush=True)
sys.stdin.read()
for child in {server, watcher} - {os.getpid()}:
    os.kill(child, 9)
    os.waitpid(child, 0)
"""


@pytest.fixture
def stalled(tmp_path: Path, root: None) -> Iterator[Callable[[str], tuple[int, int]]]:
    """Starts who watches what is on a FUSE that does not answer any more; who else, and who."""
    running: list[subprocess.Popen[bytes]] = []

    def start(how: str) -> tuple[int, int]:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, tmp_path, how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        running.append(process)
        assert process.stdout is not None and process.stderr is not None
        said_first = process.stdout.readline().split()
        if not said_first:
            said = process.stderr.read().decode()
            if said.startswith(("cannot mount", "no ")):
                pytest.skip(said.strip())
            pytest.fail(said)
        return process.pid, int(said_first[1])

    yield start
    for process in running:
        process.communicate(timeout=PATIENCE_S)


def _paths(*pids: int) -> list[str | None]:
    """Of the last one as ls tells them, in the order of watching; it may not take too long."""
    command = [sys.executable, "-m", "tracer", "ls", "-f", "json"]
    for pid in dict.fromkeys(pids):
        command += ["-p", str(pid)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, env=environment(), timeout=PATIENCE_S, check=True
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout)["watches"]
    own = [row for row in rows if row["pid"] == pids[-1]]
    return [row["path"] for row in sorted(own, key=lambda row: int(row["wd"]))]


@pytest.mark.parametrize("how", ["mount", "user"])
def test_an_overlay_over_a_filesystem_that_does_not_answer(
    stalled: Callable[[str], tuple[int, int]], tmp_path: Path, how: str
) -> None:
    """GIVEN one that root has mounted, or who has rights only in a user namespace."""
    near, new, below = _paths(*stalled(how))
    assert near == os.fspath(tmp_path / "near")
    # what is in memory can be told without it
    assert new in (None, os.fspath(tmp_path / "merged" / "new"))
    assert below is None


def test_a_root_that_does_not_answer_and_is_not_mounted_any_more(
    stalled: Callable[[str], tuple[int, int]],
) -> None:
    """GIVEN that it has the name of the root of another in its namespace."""
    assert _paths(*stalled("root")) == [None, None]
