"""Which function in bpf/ is attached where, for each mode."""

from __future__ import annotations

import enum
import platform
from typing import NamedTuple


class Mode(str, enum.Enum):
    """How the kernel tells of calls and removals, the least costly first."""

    FENTRY = "fentry"
    KPROBE = "kprobe"
    TRACEPOINT = "tracepoint"


class Hook(NamedTuple):
    """
    A BPF function and what it is attached to.

    `at_return` is for kernel functions. One that is not `needed` is left out where the kernel
    has no such thing.
    """

    function: str
    target: str
    at_return: bool = False
    needed: bool = True


# The kernel's entry points of system calls begin with this, for native callers and for 32-bit
# ones: SYSCALL_DEFINE in arch/*/include/asm/syscall_wrapper.h
_PREFIXES = {"x86_64": ("__x64_sys_", "__ia32_sys_"), "aarch64": ("__arm64_sys_", "")}
NATIVE_PREFIX, COMPAT_PREFIX = _PREFIXES.get(platform.machine(), ("sys_", ""))
# A function that kernels have which take 32-bit calls, even where those share the entry points.
_COMPAT_SIGNS = {"x86_64": "__ia32_sys_inotify_add_watch", "aarch64": "do_el0_svc_compat"}
COMPAT_SIGN = _COMPAT_SIGNS.get(platform.machine(), "")

REMOVAL, RELEASE = "inotify_ignored_and_remove_idr", "inotify_release"
# architectures made after inotify_init1 never had inotify_init
_OLD_INIT = "inotify_init"
_CALLS = ("inotify_init1", "inotify_add_watch", "inotify_rm_watch")


def hooks(mode: Mode) -> tuple[Hook, ...]:
    """Everything that `mode` attaches for calls and removals."""
    if mode is Mode.TRACEPOINT:
        prefix, compat_prefix = "syscalls:sys_exit_", ""
    else:
        prefix, compat_prefix = NATIVE_PREFIX, COMPAT_PREFIX
    at_return = mode is not Mode.TRACEPOINT
    calls = [Hook("on_call", f"{prefix}{call}", at_return) for call in _CALLS]
    calls.append(Hook("on_call", f"{prefix}{_OLD_INIT}", at_return, needed=False))
    if compat_prefix:
        # inotify_init has one entry point for both kinds of callers
        calls += [Hook("on_call", f"{compat_prefix}{call}", True, needed=False) for call in _CALLS]
    if mode is Mode.TRACEPOINT:
        return tuple(calls)
    return (*calls, Hook("on_removal", REMOVAL), Hook("on_release", RELEASE))
