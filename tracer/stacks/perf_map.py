"""
Names of code that a process made itself, from the map that it writes for perf.

The format is that of tools/perf/Documentation/jit-interface.txt in the kernel's sources: lines of
start, size, both hexadecimal, and name. node (--perf-basic-prof), CPython (-X perf) and others
append to it while they run.
"""

from __future__ import annotations

import os
import re
import stat
from bisect import bisect_left, insort
from io import FileIO
from typing import NamedTuple

_LINE = re.compile(
    rb"^(?:0x)?([0-9a-f]{1,16}) (?:0x)?([0-9a-f]{1,8}) ([^\n]+)\n", re.IGNORECASE | re.MULTILINE
)
_CHUNK_BYTES = 256 << 10
# One call of refresh() reads no more, which takes half a second; the next one goes on.
_REFRESH_LINES = 100_000
_REFRESH_BYTES = 32 << 20
# node has at most 128 MiB of code, and functions of some 500 bytes; here each costs 60 bytes.
_FUNCTIONS_MAX = 250_000
_NAME_BYTES_MAX = 4096
# so much before the place that was reached tells whether the file was written anew
_TAIL_BYTES = 64

# V8's LogEventListener: kind, how far it is optimized, name, script, line and column
_V8_NAME = re.compile(
    r"(?:JS|LazyCompile|Function|Script|Eval):[~^+*]?(.*):([0-9]{1,9}):[0-9]{1,9}", re.DOTALL
)
# Names have blanks ("get size"), and so have paths.
_V8_FILE = re.compile(r"(?:^| )(?=/|file://|node:)")


class PerfMap:
    """
    Functions from a map, followed as it grows. The descriptor becomes its own: closed with it, or
    when it is forgotten.

    Where functions overlap, the code of the earlier was freed and its memory used again: it is
    forgotten.
    """

    _tail: bytes
    _functions: _Functions

    def __init__(self, fd: int) -> None:
        self._file = FileIO(fd)
        self._start_anew()

    def close(self) -> None:
        """Give the descriptor back; nothing is found from now on."""
        self._file.close()

    def refresh(self) -> bool:
        """
        Read what was written since the last time; whether that was anything.

        A line that has no end yet is read when it has one. Reads up to 32 MiB, so True means that
        there may be more.
        """
        if self._read(self._reached - len(self._tail), len(self._tail)) != self._tail:
            self._start_anew()
        before, lines = self._reached, 0
        while lines < _REFRESH_LINES and self._reached - before < _REFRESH_BYTES:
            chunk = self._read(self._reached, _CHUNK_BYTES)
            end = chunk.rfind(b"\n") + 1
            if not end and len(chunk) < _CHUNK_BYTES:
                break
            lines += self._take(chunk[:end]) if end else 0
            # a line as long as a chunk is none
            self._is_inside_line = not end
            self._reached += end or _CHUNK_BYTES
        tail = min(self._reached, _TAIL_BYTES)
        self._tail = self._read(self._reached - tail, tail)
        return self._reached > before

    def find(self, address: int) -> tuple[str, int, int] | None:
        """Name, start and size in bytes of the function at an address of the process."""
        function = self._functions.last_before(address + 1)
        if function is None or address >= function.start + function.size:
            return None
        line = self._read(function.line_at, _NAME_BYTES_MAX).partition(b"\n")[0] + b"\n"
        found = _LINE.fullmatch(line)
        if not found or (int(found[1], 16), int(found[2], 16)) != function[:2]:
            return None
        return found[3].decode(errors="replace"), function.start, function.size

    def _start_anew(self) -> None:
        self._reached = 0
        self._tail = b""
        self._is_inside_line = False
        self._functions = _Functions()

    def _read(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._file.fileno(), size, offset)
        # closed
        except (OSError, ValueError):
            return b""

    def _take(self, lines: bytes) -> int:
        """Take whole lines; how many."""
        begin = lines.index(b"\n") + 1 if self._is_inside_line else 0
        for found in _LINE.finditer(lines, begin):
            place = self._reached + found.start()
            self._functions.add(_Function(int(found[1], 16), int(found[2], 16), place))
        return lines.count(b"\n")


class _Function(NamedTuple):
    """Code of the process, and where in the file its line is."""

    start: int
    size: int
    line_at: int


class _Functions:
    """
    Disjoint functions in order of their addresses.

    Each is one number, and the list of them is in pieces: an insertion moves what follows it.
    """

    _PIECE = 1000

    def __init__(self) -> None:
        self._pieces: list[list[int]] = [[]]
        self._firsts: list[int] = [0]
        self._number = 0

    def add(self, function: _Function) -> None:
        """Those that it overlaps make room for it; beyond 250,000 it is left out."""
        if not function.size:
            return
        end = function.start + function.size
        earlier = self.last_before(end)
        while earlier is not None and earlier.start + earlier.size > function.start:
            self._remove(earlier)
            earlier = self.last_before(end)
        if self._number < _FUNCTIONS_MAX:
            self._insert(_packed(function))

    def last_before(self, address: int) -> _Function | None:
        """The one that begins last of those that begin before the address."""
        key = address << 96
        at = self._piece(key)
        index = bisect_left(self._pieces[at], key)
        if not index:
            # a removal may have left less than what the piece began with
            if not at:
                return None
            at, index = at - 1, len(self._pieces[at - 1])
        return _unpacked(self._pieces[at][index - 1])

    def _piece(self, key: int) -> int:
        return max(0, bisect_left(self._firsts, key) - 1)

    def _insert(self, key: int) -> None:
        at = self._piece(key)
        piece = self._pieces[at]
        insort(piece, key)
        self._number += 1
        if len(piece) > 2 * self._PIECE:
            self._pieces[at : at + 1] = piece[: self._PIECE], piece[self._PIECE :]
            self._firsts.insert(at + 1, piece[self._PIECE])

    def _remove(self, function: _Function) -> None:
        key = _packed(function)
        at = self._piece(key + 1)
        piece = self._pieces[at]
        del piece[bisect_left(piece, key)]
        self._number -= 1
        if not piece and len(self._pieces) > 1:
            del self._pieces[at], self._firsts[at]
            self._firsts[0] = 0


def _packed(function: _Function) -> int:
    return function.start << 96 | function.size << 64 | function.line_at


def _unpacked(key: int) -> _Function:
    return _Function(key >> 96, key >> 64 & 0xFFFFFFFF, key & 0xFFFFFFFFFFFFFFFF)


def open_perf_map(pid: int) -> int | None:
    """
    The map that a process writes, as a descriptor that the caller has to close; None without one.

    It is in the process's own /tmp under its own pid. As in perf, dso__load in
    tools/perf/util/symbol.c, it has to belong to root or the user that the process runs as: anyone
    may write into /tmp.
    """
    try:
        own_pid, user = _own_pid_and_user(pid)
        descriptor = _open_below_root(pid, f"perf-{own_pid}.map")
    except (OSError, ValueError):
        return None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_uid in (0, user):
        return descriptor
    os.close(descriptor)
    return None


def _own_pid_and_user(pid: int) -> tuple[int, int]:
    """The pid in the innermost namespace, proc_pid_status(5), and the effective user."""
    own_pid, user = pid, None
    with open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            key, _, value = line.partition(b":")
            if key == b"NSpid":
                own_pid = int(value.split()[-1])
            elif key == b"Uid":
                user = int(value.split()[1])
    if user is None:
        raise ValueError("a status without a user")
    return own_pid, user


def _open_below_root(pid: int, name: str) -> int:
    """Follows no link, which would lead out of the process's root into ours."""
    directory = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        tmp = os.open("tmp", flags, dir_fd=directory)
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            return os.open(name, flags, dir_fd=tmp)
        finally:
            os.close(tmp)
    finally:
        os.close(directory)


def described(name: str) -> tuple[str, str | None, int | None]:
    """
    Function, file and line, where the name has the form of CPython or V8; else the name as it is.

    `py::watch:/srv/app.py` has no line, and V8 has no name for some functions.
    """
    if name.startswith("py::"):
        function, _, file = name[len("py::") :].partition(":")
        return (function, file, None) if function and file else (name, None, None)
    found = _V8_NAME.fullmatch(name)
    if not found:
        return name, None, None
    script, line = found[1], int(found[2])
    split = _V8_FILE.search(script)
    if split:
        function, file = script[: split.start()], script[split.end() :]
    else:
        function, _, file = script.rpartition(" ")
    return function or "(anonymous)", file.replace("file://", "", 1) or None, line
