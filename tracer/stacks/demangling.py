"""
Names as the source has them, where C++ or Rust mangled them.

For C++ that is libstdc++'s __cxa_demangle. A name can make it need exponential memory or overflow
its stack, and names are a stranger's: so it runs in a small process of its own, with limits and
without privileges, which may die of a name.
"""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import threading
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from time import monotonic

from tracer.stacks.demangling_child import LENGTH, READY
from tracer.stacks.rust_v0 import demangle as demangled_rust_v0

# A longer one is shown as it is; the longest of node's are some 2,000 bytes.
_NAME_BYTES_MAX = 4096
_KEPT_NAMES = 4096
_PATIENCE_S = 1.0
# A Python that starts on a busy machine takes seconds.
_START_PATIENCE_S = 10.0
_STARTS_MAX = 4
_ROOT = Path(__file__).parents[2]
_CHILD = (
    "import sys; sys.path.insert(0, sys.argv[1]); from tracer.stacks import demangling_child as it"
)

# rustc-demangle, legacy.rs: elements with their length, the last one a hash of 16 digits
_RUST_LEGACY = re.compile(r"_ZN(.+)17h[0-9a-f]{16}E((?:\.[\x21-\x7e]*)?)", re.ASCII)
_LLVM_SUFFIX = re.compile(r"\.llvm\.[0-9A-F@]+")
_ELEMENT_LENGTH = re.compile(r"[1-9][0-9]{0,3}")
_ESCAPE = re.compile(r"\.\.|\$([A-Z]{1,2}|u[0-9a-f]{1,6})\$")
_ESCAPES = {
    "SP": "@",
    "BP": "*",
    "RF": "&",
    "LT": "<",
    "GT": ">",
    "LP": "(",
    "RP": ")",
    "C": ",",
}


class Demangler:
    """
    Demangles function names; close it after use.

    The process for C++ starts with the first such name. When it does not answer within a second or
    ends, the name stays mangled and another is started, a few times at most.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._starts_left = _STARTS_MAX
        self._known = lru_cache(_KEPT_NAMES)(self._demangled)

    def __call__(self, name: bytes) -> str:
        """The whole name; what cannot be demangled stays, with � for what is no UTF-8."""
        return self._known(name)

    def close(self) -> None:
        """End the process; names of C++ stay mangled from now on."""
        with self._lock:
            self._starts_left = 0
            self._end_child()

    def _demangled(self, name: bytes) -> str:
        found = None
        if len(name) <= _NAME_BYTES_MAX:
            if name.startswith(b"_R"):
                found = demangled_rust_v0(name)
            elif name.startswith(b"_Z"):
                found = demangled_rust_legacy(name) or self._demangled_cpp(name)
        return found if found is not None else name.decode(errors="replace")

    def _demangled_cpp(self, name: bytes) -> str | None:
        with self._lock:
            if self._child is None and self._starts_left:
                self._starts_left -= 1
                self._child = _Child()
            if self._child is None:
                return None
            try:
                return self._child.ask(name).decode(errors="replace") or None
            except (OSError, EOFError):
                # even if it still lives: its next answer might be to an earlier name
                self._end_child()
                return None

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


class _Child:
    """The process that runs __cxa_demangle."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        with suppress(OSError):
            self._process = subprocess.Popen(
                [
                    sys.executable or "python3",
                    "-I",
                    "-S",
                    "-c",
                    f"{_CHILD}; it.serve()",
                    os.fspath(_ROOT),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                cwd="/",
                # Ctrl-C is not for it: it ends when its input does
                start_new_session=True,
            )

    def ask(self, name: bytes) -> bytes:
        """The demangled name or nothing. Raises OSError or EOFError if the process failed."""
        if not self._is_ready:
            if self._read(len(READY), _START_PATIENCE_S) != READY:
                raise EOFError
            self._is_ready = True
        self._write(LENGTH.pack(len(name)) + name)
        (size,) = LENGTH.unpack(self._read(LENGTH.size, _PATIENCE_S))
        return self._read(size, _PATIENCE_S)

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            with self._process:
                # closes the pipes and waits for it, which has just been killed
                pass

    def _write(self, content: bytes) -> None:
        """A request fits into an empty pipe, so this does not block."""
        if self._process is None or self._process.stdin is None:
            raise EOFError
        os.write(self._process.stdin.fileno(), content)

    def _read(self, size: int, patience_s: float) -> bytes:
        if self._process is None or self._process.stdout is None:
            raise EOFError
        deadline = monotonic() + patience_s
        content = b""
        while len(content) < size:
            poll = select.poll()
            poll.register(self._process.stdout, select.POLLIN)
            if not poll.poll(max(0.0, deadline - monotonic()) * 1000):
                raise EOFError
            chunk = os.read(self._process.stdout.fileno(), size - len(content))
            if not chunk:
                raise EOFError
            content += chunk
        return content


def demangled_rust_legacy(name: bytes) -> str | None:
    """
    A name of Rust's older mangling, without its hash; None if it is another's.

    It looks like one of C++, for which only the hash at its end is improbable.
    """
    found = _RUST_LEGACY.fullmatch(name.decode("latin-1"))
    if not found:
        return None
    elements, rest = [], found[1]
    while rest:
        length = _ELEMENT_LENGTH.match(rest)
        end = length.end() + int(length[0]) if length else len(rest) + 1
        if length is None or end > len(rest):
            return None
        elements.append(_plain_element(rest[length.end() : end]))
        rest = rest[end:]
    return "::".join(elements) + _LLVM_SUFFIX.sub("", found[2])


def _plain_element(element: str) -> str:
    # an underscore makes an identifier of what begins with an escape
    return _ESCAPE.sub(_unescaped, element[1:] if element.startswith("_$") else element)


def _unescaped(found: re.Match[str]) -> str:
    code = found[1]
    if code is None:
        return "::"
    if not code.startswith("u"):
        return _ESCAPES.get(code, found[0])
    value = int(code[1:], 16)
    is_text = value <= sys.maxunicode and chr(value).isprintable()
    return chr(value) if is_text else found[0]
