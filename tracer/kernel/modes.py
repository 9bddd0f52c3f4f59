"""
Which mode the kernel allows.

Found by trying, not by the kernel's version: distributions leave things out, add them to older
kernels, and security modules refuse what is there.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from tracer.errors import InotraceError
from tracer.kernel.btf import kernel_btf
from tracer.kernel.hooks import NATIVE_PREFIX, Hook, Mode, hooks
from tracer.kernel.trials import try_fentry, try_hit, try_kprobe

TRACEFS = Path("/sys/kernel/tracing")
_TRACEFS_IN_DEBUGFS = Path("/sys/kernel/debug/tracing")
_TRACEPOINT = "events/syscalls/sys_exit_inotify_add_watch"
# include/uapi/linux/sched.h, include/uapi/linux/mount.h
_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000


class Finding(NamedTuple):
    """Whether something works, else `reason` why not, in words."""

    works: bool
    reason: str = ""


def mounted_tracefs() -> Path | None:
    """Raises InotraceError if it is mounted where this process may not look."""
    for folder in (TRACEFS, _TRACEFS_IN_DEBUGFS):
        try:
            # Path.is_dir() hides, since Python 3.14, that it may not look
            os.stat(folder / "events")
            return folder
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            if folder == TRACEFS:
                raise InotraceError(
                    f"{folder} is root's and may not be read: needs CAP_DAC_READ_SEARCH"
                ) from error
    return None


def is_tracefs_missing() -> bool:
    """Whether it only has to be mounted."""
    try:
        return mounted_tracefs() is None and TRACEFS.is_dir()
    except InotraceError:
        return False


def mount_tracefs() -> None:
    """Raises InotraceError if the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"nodev", os.fsencode(TRACEFS), b"tracefs", 0, None) != 0:
        reason = os.strerror(ctypes.get_errno())
        if ctypes.get_errno() == errno.EBUSY:
            raise InotraceError(
                "tracefs is mounted and has no events: a kernel that is locked down "
                "(confidentiality), or built without CONFIG_EVENT_TRACING"
            )
        raise InotraceError(
            f"cannot mount tracefs ({reason}): try 'mount -t tracefs nodev {TRACEFS}', "
            "or run inotrace outside the container"
        )


def tracepoints_once_mounted() -> Finding:
    """What would be found with tracefs, mounted where nobody else sees it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            os.write(writing, _found_in_private().reason.encode() or b"\0")
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as answer:
        text = answer.read().decode()
    os.waitpid(child, 0)
    return Finding(text == "\0", text or "tracefs cannot be tried")


def _found_in_private() -> Finding:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) or libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None):
        return Finding(False, f"tracefs is not mounted ({os.strerror(ctypes.get_errno())})")
    try:
        mount_tracefs()
    except InotraceError as error:
        return Finding(False, str(error))
    return _tracepoints()


@cache
def find(mode: Mode) -> Finding:
    """
    Whether a mode works, tried once, in milliseconds and without a compiler.

    Raises InotraceError if the kernel has no BTF.
    """
    if mode is Mode.FENTRY:
        return _first_refusal(_fentry_refusal(hook) for hook in _tried(mode))
    if mode is Mode.KPROBE:
        return _first_refusal(_kprobe_refusals())
    return _tracepoints()


def choose(forced: Mode | None) -> Mode:
    """The first mode that works, or `forced`. Raises InotraceError if that does not work."""
    return next(usable(forced))


def usable(forced: Mode | None) -> Iterator[Mode]:
    """
    The modes that work, best first; only `forced` if it is given.

    Raises InotraceError instead of ending without any.
    """
    if forced is not None:
        _require(forced)
        yield forced
        return
    working = [mode for mode in Mode if mode is not Mode.TRACEPOINT and find(mode).works]
    yield from working
    if find(Mode.TRACEPOINT).works:
        yield Mode.TRACEPOINT
    elif not working:
        raise InotraceError(
            f"no way to trace works on this kernel: {find(Mode.TRACEPOINT).reason}; "
            "'inotrace doctor' tells more"
        )


def _require(mode: Mode) -> None:
    finding = find(mode)
    if not finding.works:
        raise InotraceError(
            f"--mode {mode.value} does not work here: {finding.reason}; "
            "leave the choice to inotrace (--mode auto), or see 'inotrace doctor'"
        )


def _tried(mode: Mode) -> list[Hook]:
    """One call stands for the others: they differ in name only."""
    needed = [hook for hook in hooks(mode) if hook.needed]
    calls = [hook for hook in needed if hook.at_return]
    return calls[:1] + [hook for hook in needed if not hook.at_return]


def _first_refusal(refusals: Iterator[str]) -> Finding:
    reason = next(filter(None, refusals), "")
    return Finding(not reason, reason)


def _kprobe_refusals() -> Iterator[str]:
    for hook in _tried(Mode.KPROBE):
        yield _told(hook, try_kprobe(hook.target, hook.at_return))
    call = partial(ctypes.CDLL(None).inotify_rm_watch, -1, -1)
    yield try_hit(f"{NATIVE_PREFIX}inotify_rm_watch", call)


def _fentry_refusal(hook: Hook) -> str:
    try:
        with kernel_btf() as btf:
            type_id = btf.function_id(hook.target)
    except KeyError:
        return f"the kernel's type information has no {hook.target}"
    return _told(hook, try_fentry(type_id, hook.at_return))


def _told(hook: Hook, refusal: str) -> str:
    return f"{hook.target}: {refusal}" if refusal else ""


def _tracepoints() -> Finding:
    try:
        tracefs = mounted_tracefs()
    except InotraceError as refusal:
        return Finding(False, str(refusal))
    if tracefs is None:
        return Finding(False, f"tracefs is not mounted: 'mount -t tracefs nodev {TRACEFS}'")
    if not (tracefs / _TRACEPOINT).is_dir():
        return Finding(
            False,
            "this kernel has no tracepoints for system calls: use one built with "
            "CONFIG_FTRACE_SYSCALLS",
        )
    try:
        from bcc import TRACEFS as looked_for
    except ImportError:
        # which is told before
        return Finding(True)
    if not os.path.isdir(os.path.join(looked_for, _TRACEPOINT)):
        # 0.18 knows no other place
        return Finding(
            False,
            f"this BCC looks for tracepoints in {looked_for}: "
            "'mount -t debugfs nodev /sys/kernel/debug'",
        )
    return Finding(True)
