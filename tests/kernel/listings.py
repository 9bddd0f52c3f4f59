"""What the tests of `ls` have in common: children that hold instances, and the finished command."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from typing import Any, Callable

import pytest
from harness import PATIENCE_S, environment

from tracer.kernel.fdinfo import can_compare_files

LS = [sys.executable, "-m", "tracer", "ls"]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: start it with sudo")
needs_kcmp = pytest.mark.skipif(not can_compare_files(), reason="the kernel refuses kcmp")

# before the code of a child
PRELUDE = """
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
StartChild = Callable[..., tuple[int, Facts]]


def ls(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """The finished command; what it prints is captured as UTF-8."""
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("env", environment())
    return subprocess.run(
        [*LS, *map(str, arguments)],
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


def me() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name
