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

REMOVAL, RELEASE = "inotify_ignored_and_remove_idr", "inotify_release"
_CALLS = {
    "old_init": "inotify_init",
    "init": "inotify_init1",
    "add_watch": "inotify_add_watch",
    "rm_watch": "inotify_rm_watch",
}


def hooks(mode: Mode) -> tuple[Hook, ...]:
    """Everything that `mode` attaches for calls and removals."""
    if mode is Mode.TRACEPOINT:
        return tuple(
            Hook(f"on_{name}_exit", f"syscalls:sys_exit_{call}", needed=_is_needed(call))
            for name, call in _CALLS.items()
        )
    calls = [(name, NATIVE_PREFIX + call, _is_needed(call)) for name, call in _CALLS.items()]
    if COMPAT_PREFIX:
        # inotify_init has one entry point under both names
        calls += [
            (f"compat_{name}", COMPAT_PREFIX + call, False)
            for name, call in _CALLS.items()
            if name != "old_init"
        ]
    if mode is Mode.KPROBE:
        returns = [Hook(f"on_{name}_return", target, True, need) for name, target, need in calls]
        return (*returns, Hook("on_removal", REMOVAL), Hook("on_release", RELEASE))
    # BCC takes the target from the name
    exits = [Hook(f"kretfunc__{target}", target, True, need) for _, target, need in calls]
    return (*exits, *(Hook(f"kfunc__{target}", target) for target in (REMOVAL, RELEASE)))


def _is_needed(call: str) -> bool:
    # architectures made after inotify_init1 never had inotify_init
    return call != "inotify_init"
