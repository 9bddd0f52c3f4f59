"""What gdb sees of a program's call."""

from __future__ import annotations

import json
import re
import struct
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from harness import Reader
from workshop import SOURCES, tool

_CODE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ..x. ([0-9a-f]+) \S+ \d+ *(.*)$", re.MULTILINE)
_PT_LOAD = 1


class Code(NamedTuple):
    """A range of executable memory."""

    start: int
    end: int
    file_offset: int
    path: str


class Theirs(NamedTuple):
    """
    One frame of gdb's. `is_code` is false where it went astray.

    `linked` is the address as the file has it, None where no file is.
    """

    address: int
    names: frozenset[str]
    is_code: bool
    linked: int | None


class Debugger:
    """gdb on a process: it stops its next inotify_add_watch and tells the stack."""

    def __init__(self, pid: int) -> None:
        script = str(SOURCES / "gdb_frames.py")
        self._process = subprocess.Popen(
            [tool("gdb"), "-q", "-nx", "-batch", "-p", str(pid), "-x", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        self._reader = Reader(self._process.stdout.fileno())

    def __enter__(self) -> Debugger:
        self._reader.until(b"ready\n")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def frames(self, *, inlined: bool) -> list[Theirs]:
        """The stack at the return of the call, with inlined functions or without."""
        lines = self._reader.rest().splitlines()
        line = next((line for line in lines if line.startswith(b"stack ")), None)
        assert line is not None, self._reader.seen.decode(errors="replace")
        stack = json.loads(line[len("stack ") :])
        code = [
            Code(int(start, 16), int(end, 16), int(offset, 16), path)
            for start, end, offset, path in _CODE.findall(stack["maps"])
        ]
        return [_frame(each, code) for each in stack["frames"] if inlined or not each["inlined"]]


def _frame(frame: Any, code: list[Code]) -> Theirs:
    address = frame["address"]
    names = frozenset(frame["names"])
    within = next((each for each in code if each.start <= address < each.end), None)
    if within is None:
        return Theirs(address, names, False, None)
    linked = _linked(within.path, address - within.start + within.file_offset)
    return Theirs(address, names, True, linked)


def _linked(path: str, offset: int) -> int | None:
    """Where the byte at an offset of an ELF file is linked to be, by its program headers."""
    if not path.startswith("/"):
        return None
    content = Path(path).read_bytes()
    (table,) = struct.unpack_from("<Q", content, 0x20)
    size, number = struct.unpack_from("<HH", content, 0x36)
    for at in range(table, table + number * size, size):
        kind, _, start, address, _, length = struct.unpack_from("<IIQQQQ", content, at)
        if kind == _PT_LOAD and start <= offset < start + length:
            return int(address + offset - start)
    return None
