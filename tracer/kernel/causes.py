"""Why a watch went, by which of the kernel's functions were at work."""

from __future__ import annotations

from collections.abc import Iterable

from tracer.core.cause import Cause
from tracer.kernel.hooks import COMPAT_PREFIX, NATIVE_PREFIX
from tracer.kernel.kallsyms import KernelSymbols

# Callers of fsnotify_destroy_mark and its like, in fs/notify/. What is compiled into its caller
# has no symbol: then that caller's tells the same.
_FUNCTIONS = {
    "inotify_handle_inode_event": Cause.ONESHOT,
    "fsnotify_unmount_inodes": Cause.UNMOUNTED,
    "fsnotify_sb_delete": Cause.UNMOUNTED,
    "__fsnotify_inode_delete": Cause.DELETED,
    # which the one above may end in a jump to; of inotify's marks only inodes have this end
    "fsnotify_destroy_marks": Cause.DELETED,
    "fsnotify_destroy_group": Cause.CLOSED,
    "inotify_release": Cause.CLOSED,
    f"{NATIVE_PREFIX}inotify_rm_watch": Cause.RM_WATCH,
    f"{COMPAT_PREFIX}inotify_rm_watch": Cause.RM_WATCH,
    "__do_sys_inotify_rm_watch": Cause.RM_WATCH,
    "__se_sys_inotify_rm_watch": Cause.RM_WATCH,
}


class Causes:
    """Looks up where return addresses lie."""

    def __init__(self, symbols: KernelSymbols) -> None:
        self._code = [
            (code, cause) for name, cause in _FUNCTIONS.items() for code in symbols.ranges(name)
        ]

    def cause(self, trace: Iterable[int]) -> Cause:
        """Of a kernel stack, innermost first; UNKNOWN if it shows none of the functions."""
        found = [cause for address in trace if (cause := self._of(address)) is not None]
        # an unmount deletes what it finds in memory by the same function
        if found[:1] == [Cause.DELETED] and Cause.UNMOUNTED in found:
            return Cause.UNMOUNTED
        return found[0] if found else Cause.UNKNOWN

    def _of(self, address: int) -> Cause | None:
        # a return address is behind its call, which may be the function's last instruction
        return next((cause for code, cause in self._code if address - 1 in code), None)
