"""What must hold before the first probe is loaded, each with the fix for what does not."""

from __future__ import annotations

import errno
import os
import platform
import resource
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Callable

from tracer.errors import InotraceError
from tracer.kernel.capabilities import TRACING, Capability, missing, named
from tracer.kernel.cpus import online_cpus
from tracer.kernel.hooks import Mode
from tracer.kernel.modes import TRACEFS, choose, find, mount_tracefs, mounted_tracefs
from tracer.kernel.ring import Ring
from tracer.kernel.stream import SMALLEST_PAGES
from tracer.kernel.system_call import BPF, system_call
from tracer.kernel.trials import try_maps, try_reading

_TIME_OFFSETS = Path("/proc/self/timens_offsets")
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_BTF = Path("/sys/kernel/btf/vmlinux")
# the last of enum bpf_cmd and then some: refused as invalid by every kernel that has BPF
_NO_SUCH_COMMAND = 10_000
_OUTSIDE = "run inotrace on the host, or in a privileged container with --pid=host"


def prepare(notice: Callable[[str], None], mode: Mode | None = None) -> None:
    """
    Check what tracing in `mode` needs, in any mode if None.

    Mounts tracefs if it is missing and no other mode works. `notice` is told what was changed.
    Raises InotraceError with what to do.
    """
    need_privileges()
    need_the_hosts_clock()
    need_bcc()
    need_bpf()
    need_no_lockdown()
    need_reading()
    need_maps()
    need_btf()
    need_buffers()
    if not _does_without_tracefs(mode):
        _need_tracefs(notice)
    choose(mode)


def need_privileges() -> None:
    """Raises InotraceError if the kernel will not let this process trace."""
    lacking = missing(TRACING)
    if not lacking:
        return
    if os.geteuid() == 0:
        raise InotraceError(
            f"tracing needs {named(lacking)}, which root does not have here, as in most "
            f"containers: {_OUTSIDE}"
        )
    raise InotraceError(f"tracing needs {named(lacking)}: start it with sudo")


def need_the_hosts_clock() -> None:
    """
    Raises InotraceError in a time namespace (time_namespaces(7)).

    BPF programs read the host's clock: ours has to be the same.
    """
    try:
        offsets = _TIME_OFFSETS.read_text().split()
    except OSError:
        return
    # name, seconds, nanoseconds, for each clock
    if any(int(number) for at, number in enumerate(offsets) if at % 3):
        raise InotraceError(
            "inotrace runs in a time namespace of its own: start it in the host's "
            "(nsenter -t 1 --time)"
        )


def need_bcc() -> None:
    """Raises InotraceError if BCC's Python module is missing."""
    try:
        import bcc  # noqa: F401 (only whether it is there)
    except ImportError as error:
        raise InotraceError(
            "BCC's Python module is missing: install python3-bpfcc (Debian, Ubuntu), python3-bcc "
            "(Fedora, openSUSE) or python-bcc (Arch); the package bcc on PyPI is another project",
            detail=f"{sys.executable}: {error}",
        ) from error


def need_bpf() -> None:
    """Raises InotraceError if the kernel has no BPF, or refuses it."""
    if platform.machine() not in BPF:
        raise InotraceError(f"inotrace does not know the processor {platform.machine()} yet")
    try:
        system_call(BPF, _NO_SUCH_COMMAND, 0, 0)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise InotraceError(
                "this kernel has no BPF: use one built with CONFIG_BPF_SYSCALL"
            ) from error
        if error.errno == errno.EPERM:
            raise InotraceError(
                f"BPF is refused here, as in most containers: {_OUTSIDE}"
            ) from error


def need_no_lockdown() -> None:
    """Raises InotraceError if the kernel is locked down so far that tracing is forbidden."""
    try:
        mode = _LOCKDOWN.read_text()
    except OSError:
        return
    if "[confidentiality]" in mode:
        raise InotraceError(
            "the kernel is locked down (confidentiality), which forbids tracing: "
            "boot without lockdown=confidentiality"
        )


def need_reading() -> None:
    """Raises InotraceError if BPF programs may not read what they need."""
    refusal = try_reading(user=False)
    if refusal:
        raise InotraceError(
            f"BPF programs may not read the kernel's memory: {refusal}; a kernel that is locked "
            "down (confidentiality) has to be booted without lockdown=confidentiality"
        )
    refusal = try_reading(user=True)
    if refusal:
        raise InotraceError(
            f"BPF programs may not read the memory of processes: {refusal}; Linux 5.5 or later "
            "lets them"
        )


def need_maps() -> None:
    """
    Raises InotraceError if tables are locked memory, and little may be locked.

    They were until 3ac1f01b43b6 (in v5.11). BCC raises the limit by itself where it may.
    """
    _, limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit == resource.RLIM_INFINITY or not missing((Capability.SYS_RESOURCE,)):
        return
    if try_maps():
        raise InotraceError(
            f"'ulimit -l' ({limit >> 10:,} KiB) is too low for BPF's tables, which this kernel "
            "counts as locked memory: needs CAP_SYS_RESOURCE, or no such limit "
            "(LimitMEMLOCK=infinity in a unit of systemd)"
        )


def need_btf() -> None:
    """Raises InotraceError if the kernel does not tell where its fields lie."""
    if not _BTF.exists():
        raise InotraceError(
            f"this kernel has no type information ({_BTF}): use one built with "
            "CONFIG_DEBUG_INFO_BTF, as distributions' kernels since 2020 are"
        )


def need_buffers() -> None:
    """Raises InotraceError if the kernel opens no buffers, however small."""
    with ExitStack() as opened:
        for cpu in online_cpus():
            for pages in SMALLEST_PAGES:
                try:
                    opened.callback(Ring(cpu, pages).close)
                except InotraceError:
                    # one that went since it was listed needs none
                    if cpu in online_cpus():
                        raise


def _does_without_tracefs(mode: Mode | None) -> bool:
    if mode is None:
        return find(Mode.FENTRY).works or find(Mode.KPROBE).works
    return mode is not Mode.TRACEPOINT


def _need_tracefs(notice: Callable[[str], None]) -> None:
    if mounted_tracefs() is None:
        mount_tracefs()
        notice(f"mounted tracefs on {TRACEFS}, where it stays")
