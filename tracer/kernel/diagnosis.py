"""Trying everything that inotrace may need, each on its own, so that one lack hides no other."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import tempfile
from contextlib import ExitStack, suppress
from typing import Callable

from tracer.core.diagnosis import Check, Diagnosis
from tracer.errors import InotraceError
from tracer.kernel.btf import compiler_definitions, kernel_btf
from tracer.kernel.capabilities import LOOKING, NAMING, TRACING, Capability, missing, named
from tracer.kernel.cpus import online_cpus
from tracer.kernel.doorbell import WORKER
from tracer.kernel.fdinfo import FdWatch, read_watches
from tracer.kernel.hooks import COMPAT_SIGN, REMOVAL, Mode
from tracer.kernel.kallsyms import kernel_symbols
from tracer.kernel.modes import TRACEFS, find, is_tracefs_missing, tracepoints_once_mounted
from tracer.kernel.preflight import (
    need_bcc,
    need_bpf,
    need_btf,
    need_maps,
    need_no_lockdown,
    need_privileges,
    need_reading,
    need_the_hosts_clock,
)
from tracer.kernel.ring import Ring
from tracer.kernel.stream import open_as_large_as_allowed, pages_per_cpu
from tracer.kernel.trials import try_iterator
from tracer.stacks.mapped_file import Location, paths
from tracer.stacks.mappings import read_mappings

_IN_CLOEXEC, _IN_DELETE = 0o2000000, 0x200
_UNTRIED = "not tried: needs privileges"
_COSTS = {
    Mode.FENTRY: "costs nothing but the inotify calls",
    Mode.KPROBE: "costs nothing but the inotify calls",
    Mode.TRACEPOINT: "slows every system call of the machine a little",
}


def diagnose() -> Diagnosis:
    """Changes nothing that stays. What needs privileges is not tried without."""
    privileges = _tried("privileges", _privileges, needed=True)
    btf = _after(privileges, "BTF", _btf)
    modes = {mode: _mode(mode, privileges, btf) for mode in Mode}
    chosen = next((mode for mode, check in modes.items() if check.works), None)
    iterator = _after(btf, "kernel's list", _iterator, needed=False)
    checks = (
        Check("kernel", True, f"Linux {platform.release()}, {platform.machine()}"),
        privileges,
        _tried("BCC", _bcc, needed=True),
        _after(privileges, "BPF", _bpf),
        btf,
        _after(btf, "user registers", _registers, needed=False),
        iterator,
        _after(privileges, "buffers", _buffers),
        *modes.values(),
        _removals(chosen),
        _callers_in_32_bit(chosen),
        _after(privileges, "symbols", _symbols, needed=False),
        # one of the two must tell what is watched
        _fdinfo()._replace(needed=iterator.works is False),
    )
    return Diagnosis(checks, chosen.value if chosen is not None else None)


def _tried(name: str, trial: Callable[[], str], needed: bool = False) -> Check:
    """`trial` returns what it found, or raises InotraceError with what is wrong and what to do."""
    try:
        return Check(name, True, trial(), needed=needed)
    except InotraceError as error:
        return Check(name, False, str(error), needed=needed)


def _after(first: Check, name: str, trial: Callable[[], str], needed: bool = True) -> Check:
    """Not tried without the `first`, so that what it lacks is said once."""
    if first.works:
        return _tried(name, trial, needed)
    lacking = first.found if first.works is None else f"not tried: needs {first.name}"
    return Check(name, None, lacking, needed=needed)


def _privileges() -> str:
    need_privileges()
    need_the_hosts_clock()
    return f"uid {os.geteuid()} with {named(TRACING)}"


def _bcc() -> str:
    need_bcc()
    import bcc

    return f"version {getattr(bcc, '__version__', 'unknown')}"


def _bpf() -> str:
    need_bpf()
    need_no_lockdown()
    need_reading()
    need_maps()
    return "allowed, also to read memory of the kernel and of processes"


def _btf() -> str:
    need_btf()
    return f"has all {sum(map(_is_offset, compiler_definitions()))} fields that are read"


def _is_offset(definition: str) -> bool:
    return definition.startswith("-DOFF_")


def _registers() -> str:
    helper = "-DBPF_FUNC_TASK_PT_REGS="
    if any(definition.startswith(helper) for definition in compiler_definitions()):
        return "handed out by the kernel (bpf_task_pt_regs)"
    return "read where the task's stack begins (Linux 5.15 and later hand them out)"


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


def _buffers() -> str:
    wanted, got = pages_per_cpu(), open_as_large_as_allowed(_open_rings)
    size = got * os.sysconf("SC_PAGE_SIZE") * len(online_cpus())
    if got == wanted:
        soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        limit = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft >> 10:,} KiB"
        return f"{size >> 20} MiB of locked memory, granted ('ulimit -l': {limit})"
    return (
        f"{size >> 10:,} KiB of locked memory instead of {size * wanted // got >> 10:,} KiB, so "
        "more has to wait in the kernel; CAP_IPC_LOCK or 'ulimit -l' allows more"
    )


def _open_rings(pages: int) -> None:
    with ExitStack() as opened:
        for cpu in online_cpus():
            opened.callback(Ring(cpu, pages).close)


def _mode(mode: Mode, privileges: Check, btf: Check) -> Check:
    needed = btf if mode is Mode.FENTRY else privileges
    if not needed.works:
        return _after(needed, mode.value, str, needed=False)
    works, reason = find(mode)
    unmounted = mode is Mode.TRACEPOINT and not works and is_tracefs_missing()
    if unmounted:
        works, reason = tracepoints_once_mounted()
    advice = f"tracefs is not mounted: a trace mounts it on {TRACEFS}" if unmounted else ""
    return Check(mode.value, works, _COSTS[mode] if works else reason, advice * works)


def _removals(mode: Mode | None) -> Check:
    name = "removals"
    if mode is None:
        return Check(name, None, "not tried: no mode works")
    where = WORKER if mode is Mode.TRACEPOINT else REMOVAL
    shown = kernel_symbols().address(where) != 0
    if mode is not Mode.TRACEPOINT:
        told = "without a call: told as they happen"
        lack = "the cause only as 'unknown'"
        found = f"{told}, with the cause" if shown else f"{told}, {lack}"
    else:
        cause = "with the cause where what is left behind tells it"
        if shown:
            found = f"without a call: found within about 0.1 s by a doorbell, {cause}"
        else:
            found = f"without a call: found every 2 s and at the end, {cause}; no doorbell"
    if shown:
        return Check(name, True, found)
    hidden = f"{found}: /proc/kallsyms does not tell where {where} is"
    return Check(name, False, hidden, _how_to_see(where))


def _how_to_see(function: str) -> str:
    if function not in kernel_symbols():
        return ""
    if missing((Capability.SYSLOG,)):
        return "needs CAP_SYSLOG"
    return "'sysctl kernel.kptr_restrict=1'"


def _callers_in_32_bit(mode: Mode | None) -> Check:
    name = "32-bit callers"
    if mode is None:
        return Check(name, None, "not tried: no mode works")
    if COMPAT_SIGN not in kernel_symbols():
        return Check(name, True, "this kernel takes no 32-bit calls")
    if mode is not Mode.TRACEPOINT:
        return Check(name, True, "seen, at their entry points")
    return Check(name, False, "their calls are not seen, only their watches, in the kernel's list")


def _symbols() -> str:
    lacking = missing(NAMING)
    if Capability.SYS_PTRACE in lacking:
        raise InotraceError(f"no stacks of other users' programs: needs {named(lacking)}")
    if lacking:
        raise InotraceError(f"no stacks of programs that were replaced: needs {named(lacking)}")
    if not _can_open_mapped_files():
        raise InotraceError(
            "no stacks of programs that were replaced: a sandbox or security module refuses "
            "/proc/PID/map_files"
        )
    return "read from the files that processes have mapped"


def _can_open_mapped_files() -> bool:
    own = next(mapping for mapping in read_mappings(os.getpid()).all if mapping.ino)
    by_range, _ = paths(Location(os.getpid(), own))[0]
    try:
        os.close(os.open(by_range, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _fdinfo() -> Check:
    """What `ls` reads, also without root."""
    name = "fdinfo"
    libc = ctypes.CDLL(None)
    fd = libc.inotify_init1(_IN_CLOEXEC)
    if fd < 0:
        found = "not tried: the user has no inotify instance left, see 'inotrace ls'"
        return Check(name, None, found, "fs.inotify.max_user_instances allows more")
    try:
        with tempfile.TemporaryDirectory(prefix="inotrace-doctor-") as folder:
            wd = libc.inotify_add_watch(fd, os.fsencode(folder), _IN_DELETE)
            if wd < 0:
                return Check(
                    name,
                    None,
                    "not tried: the user has no watch left, see 'inotrace ls'",
                    "fs.inotify.max_user_watches allows more",
                )
            watches: tuple[FdWatch, ...] | None = None
            with suppress(OSError):
                watches = read_watches(os.getpid(), fd)
    finally:
        os.close(fd)
    if watches is not None and [watch.wd for watch in watches] == [wd]:
        lacking = missing(LOOKING)
        others = f"; of others' processes it needs {named(lacking)}" if lacking else ""
        return Check(name, True, f"/proc lists the watches of an instance{others}")
    return Check(name, False, "/proc does not list the watches of an instance (CONFIG_PROC_FS)")
