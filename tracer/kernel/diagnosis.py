"""Trying everything that inotrace may need, each on its own, so that one lack hides no other."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Callable

from tracer.core.diagnosis import Check, Diagnosis
from tracer.errors import InotraceError
from tracer.kernel.btf import compiler_definitions, kernel_btf
from tracer.kernel.doorbell import WORKER
from tracer.kernel.fdinfo import FdWatch, read_watches
from tracer.kernel.hooks import COMPAT_SIGN, Mode
from tracer.kernel.kallsyms import kernel_symbols
from tracer.kernel.modes import TRACEFS, find, mounted_tracefs
from tracer.kernel.preflight import need_bcc, need_bpf, need_no_lockdown
from tracer.kernel.ring import Ring
from tracer.kernel.stream import pages_per_cpu
from tracer.kernel.trials import try_iterator

_IN_CLOEXEC, _IN_DELETE = 0o2000000, 0x200
_UNTRIED = "not tried: needs root"
_COSTS = {
    Mode.FENTRY: "costs nothing but the inotify calls",
    Mode.KPROBE: "costs nothing but the inotify calls",
    Mode.TRACEPOINT: "slows every system call of the machine a little",
}


def diagnose() -> Diagnosis:
    """Changes nothing that stays. What needs root is not tried without."""
    is_root = os.geteuid() == 0
    mode = _automatic() if is_root else None
    iterator = _as_root(is_root, "kernel's list", _iterator, needed=False)
    checks = (
        Check("kernel", True, f"Linux {platform.release()}, {platform.machine()}"),
        _root(is_root),
        _tried("BCC", _bcc, needed=True),
        _as_root(is_root, "BPF", _bpf),
        _as_root(is_root, "BTF", _btf),
        iterator,
        _as_root(is_root, "locked memory", _locked_memory),
        *_modes(is_root),
        _removals(mode),
        _callers_in_32_bit(mode),
        # one of the two must tell what is watched
        _fdinfo()._replace(needed=iterator.works is False),
    )
    return Diagnosis(checks, mode.value if mode is not None else None)


def _automatic() -> Mode | None:
    return next((mode for mode in Mode if _finding(mode).works), None)


def _root(is_root: bool) -> Check:
    if is_root:
        return Check("root", True, "uid 0", needed=True)
    return Check("root", False, f"uid {os.geteuid()}", "run it with sudo", needed=True)


def _tried(name: str, trial: Callable[[], str], needed: bool = False) -> Check:
    """`trial` returns what it found, or raises InotraceError with what is wrong and what to do."""
    try:
        return Check(name, True, trial(), needed=needed)
    except InotraceError as error:
        return Check(name, False, str(error), needed=needed)


def _as_root(is_root: bool, name: str, trial: Callable[[], str], needed: bool = True) -> Check:
    return _tried(name, trial, needed) if is_root else Check(name, None, _UNTRIED, needed=needed)


def _bcc() -> str:
    need_bcc()
    import bcc

    return f"version {getattr(bcc, '__version__', 'unknown')}"


def _bpf() -> str:
    need_bpf()
    need_no_lockdown()
    return "allowed"


def _btf() -> str:
    return f"has all {sum(map(_is_offset, compiler_definitions()))} fields that are read"


def _is_offset(definition: str) -> bool:
    return definition.startswith("-DOFF_")


def _iterator() -> str:
    with kernel_btf() as btf:
        try:
            type_id = btf.function_id("bpf_iter_task_file")
        except KeyError:
            type_id = 0
    refusal = try_iterator(type_id) if type_id else "this kernel has none"
    if refusal:
        raise InotraceError(
            f"read from /proc instead, which holds up programs with very many watches: "
            f"no iterator over open files ({refusal})"
        )
    return "read by an iterator, without locks of the traced programs"


def _locked_memory() -> str:
    pages = pages_per_cpu()
    with _ring(pages):
        size = pages * os.sysconf("SC_PAGE_SIZE") * (os.cpu_count() or 1) >> 20
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    limit = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft >> 10:,} KiB"
    return f"{size} MiB for buffers, granted ('ulimit -l': {limit})"


@contextmanager
def _ring(pages: int) -> Iterator[None]:
    ring = Ring(min(os.sched_getaffinity(0)), pages)
    try:
        yield
    finally:
        ring.close()


def _finding(mode: Mode) -> Check:
    try:
        works, reason = find(mode)
    except InotraceError as error:
        works, reason = False, str(error)
    if mode is Mode.TRACEPOINT and mounted_tracefs() is None and TRACEFS.is_dir():
        advice = f"'mount -t tracefs nodev {TRACEFS}': a trace does so where it needs it"
        return Check(mode.value, None, "not known: tracefs is not mounted", advice)
    return Check(mode.value, works, _COSTS[mode] if works else reason)


def _modes(is_root: bool) -> Iterator[Check]:
    for mode in Mode:
        yield _finding(mode) if is_root else Check(mode.value, None, _UNTRIED)


def _removals(mode: Mode | None) -> Check:
    name = "removals"
    if mode is None:
        return Check(name, None, "not tried: no mode works")
    if mode is not Mode.TRACEPOINT:
        return Check(name, True, "without a call: told as they happen, with the cause")
    cause = "with the cause where what is left behind tells it"
    if kernel_symbols().address(WORKER):
        found = f"without a call: found within about 0.1 s by a doorbell, {cause}"
        return Check(name, True, found)
    advice = "'sysctl kernel.kptr_restrict=1'" if WORKER in kernel_symbols() else ""
    return Check(
        name,
        False,
        f"without a call: found every 2 s and at the end, {cause}; no doorbell: "
        f"/proc/kallsyms does not tell where {WORKER} is",
        advice,
    )


def _callers_in_32_bit(mode: Mode | None) -> Check:
    name = "32-bit callers"
    if mode is None:
        return Check(name, None, "not tried: no mode works")
    if COMPAT_SIGN not in kernel_symbols():
        return Check(name, True, "this kernel takes no 32-bit calls")
    if mode is not Mode.TRACEPOINT:
        return Check(name, True, "seen, at their entry points")
    return Check(name, False, "their calls are not seen, only their watches, in the kernel's list")


def _fdinfo() -> Check:
    """What `ls` reads, also without root."""
    name = "fdinfo"
    libc = ctypes.CDLL(None)
    fd = libc.inotify_init1(_IN_CLOEXEC)
    if fd < 0:
        return Check(name, None, "not tried: the user has no instance left, see 'inotrace ls'")
    try:
        with tempfile.TemporaryDirectory(prefix="inotrace-doctor-") as folder:
            wd = libc.inotify_add_watch(fd, os.fsencode(folder), _IN_DELETE)
            if wd < 0:
                return Check(name, None, "not tried: the user has no watch left")
            watches: tuple[FdWatch, ...] | None = None
            with suppress(OSError):
                watches = read_watches(os.getpid(), fd)
    finally:
        os.close(fd)
    if watches is not None and [watch.wd for watch in watches] == [wd]:
        return Check(name, True, "/proc lists the watches of an instance")
    return Check(name, False, "/proc does not list the watches of an instance (CONFIG_PROC_FS)")
