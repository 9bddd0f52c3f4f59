"""Loading bpf/ with BCC and attaching it."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracer.errors import InotraceError
from tracer.kernel.btf import compiler_definitions

_CALLS = {
    "on_init_exit": ("inotify_init", "inotify_init1"),
    "on_add_watch_exit": ("inotify_add_watch",),
    "on_rm_watch_exit": ("inotify_rm_watch",),
}
_SUBMITTED, _LOST = 0, 1
_DOES_NOT_LOAD = "the BPF program does not compile or load here: --debug shows why"


@dataclass(frozen=True)
class Scope:
    """
    What the kernel side lets through.

    `pids` None is every process, otherwise the traced processes; with `follow`, their
    descendants as well. `uid` is an effective user id or None, `name` a part of a comm. `stacks`
    are collected for adds and new instances, with `removal_stacks` for removals too.
    """

    pids: frozenset[int] | None = None
    uid: int | None = None
    name: bytes = b""
    follow: bool = False
    stacks: bool = True
    removal_stacks: bool = False


@dataclass(frozen=True)
class Counters:
    """Records that the kernel side made, and how many of them found the buffer full."""

    submitted: int
    lost: int


def bpf_folder() -> Path:
    """Where the C is: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parents[1] / "bpf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "bpf"


class Probe:
    """
    The loaded BPF program.

    Use as a context manager. `attach` only after the buffers are open, as
    :class:`tracer.kernel.stream.Stream` does: the kernel drops, without a word, what is sent to a
    buffer nobody opened.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self.bpf = _load(scope)
        try:
            for pid in scope.pids or ():
                self.add_to_scope(pid)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach everything; the kernel frees the maps with the last descriptor."""
        self.bpf.cleanup()

    def attach(self) -> None:
        """Start tracing. Raises InotraceError if the kernel refuses."""
        with bcc_errors("the kernel refuses to attach to the inotify calls"):
            for function, calls in _CALLS.items():
                for call in calls:
                    self._attach_exit(function, call)
            if self._scope.follow:
                self._follow_descendants()

    def _attach_exit(self, function: str, call: str) -> None:
        tracepoint = f"syscalls:sys_exit_{call}"
        # architectures made after inotify_init1 never had inotify_init
        if call == "inotify_init" and not self.bpf.tracepoint_exists(
            "syscalls", f"sys_exit_{call}"
        ):
            return
        self.bpf.attach_tracepoint(tp=tracepoint.encode(), fn_name=function.encode())

    def _follow_descendants(self) -> None:
        from bcc import BPF

        walk = self.bpf.load_func(b"on_last_walk", BPF.RAW_TRACEPOINT)
        self.bpf[b"last_chain"][ctypes.c_int(0)] = ctypes.c_int(walk.fd)
        self.bpf.attach_raw_tracepoint(tp=b"sched_process_fork", fn_name=b"on_fork")
        self.bpf.attach_raw_tracepoint(tp=b"sched_process_exit", fn_name=b"on_exit")

    def add_to_scope(self, pid: int) -> None:
        self.bpf[b"scope"][ctypes.c_uint(pid)] = ctypes.c_ubyte(1)

    def scope_pids(self) -> frozenset[int]:
        """The processes that are in scope now; those that ended have left it."""
        return frozenset(key.value for key in self.bpf[b"scope"])

    def counters(self) -> Counters:
        table = self.bpf[b"counters"]
        return Counters(submitted=sum(table[_SUBMITTED]), lost=sum(table[_LOST]))


@contextmanager
def bcc_errors(message: str) -> Iterator[None]:
    """Turn what BCC raises into one line, with its own output kept as the detail."""
    with _captured_output() as output:
        try:
            yield
        except InotraceError:
            raise
        # BCC raises plain Exception for most failures
        except Exception as error:
            raise InotraceError(message, detail=f"{error}\n{output.text()}") from error


def load_walk() -> Any:
    """
    Only the walk over open files, and nothing that traces.

    Raises InotraceError if it does not compile or load.
    """
    return _compiled(("common.c", "rows.c", "walk.c"), ())


def _load(scope: Scope) -> Any:
    names = ["common.c", "rows.c", "ask.c", "calls.c", "walk.c"]
    if scope.follow:
        names.append("descendants.c")
    bpf = _compiled(names, _tunables(scope))
    with bcc_errors(_DOES_NOT_LOAD):
        for function in _CALLS:
            bpf.load_func(function.encode(), bpf.TRACEPOINT)
    return bpf


def _compiled(names: Sequence[str], tunables: Iterable[str]) -> Any:
    folder = bpf_folder()
    os.environ["BCC_KERNEL_SOURCE"] = str(folder)
    from bcc import BPF

    options = [f"-I{folder}", "-w", *compiler_definitions(), *tunables]
    with bcc_errors(_DOES_NOT_LOAD):
        return BPF(text=_joined(folder, names).encode(), cflags=options)


def _tunables(scope: Scope) -> list[str]:
    tunables = [
        f"-DSCOPED={int(scope.pids is not None)}",
        f"-DSTACKS={int(scope.stacks)}",
        f"-DRM_STACKS={int(scope.removal_stacks)}",
    ]
    if scope.uid is not None:
        tunables.append(f"-DFILTER_UID={scope.uid}")
    if scope.name:
        tunables.append(f"-DFILTER_NAME={{{','.join(map(str, scope.name))}}}")
    return tunables


def _joined(folder: Path, names: Sequence[str]) -> str:
    return "".join(f'#line 1 "{name}"\n{(folder / name).read_text()}' for name in names)


class _Output:
    """What was written to stdout and stderr by C code, which sys.stdout cannot redirect."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def text(self) -> str:
        self._file.seek(0)
        return str(self._file.read().decode(errors="replace"))


@contextmanager
def _captured_output() -> Iterator[_Output]:
    with tempfile.TemporaryFile() as file:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        kept = [(target, os.dup(target)) for target in (1, 2)]
        for target, _ in kept:
            os.dup2(file.fileno(), target)
        try:
            yield _Output(file)
        finally:
            for target, copy in kept:
                os.dup2(copy, target)
                os.close(copy)
