"""Why a watch went that nobody removed: told from what is left where it was."""

from __future__ import annotations

import os
from typing import Callable

from tracer.core.accounts import Cause, Watch
from tracer.core.walk import Inode
from tracer.kernel.inodes import InodeState
from tracer.kernel.procfs import mounted_devices, running_pids


class Aftermath:
    """
    What is left at one moment, soon after the watches went. Use one for each comparison with the
    kernel: what is mounted is read once.

    A watch that went without a call, and without its instance being closed, had its inode deleted,
    its filesystem unmounted, or fired and was for one event only; or a call removed it that was
    not seen. What does not tell these apart stays unknown. No path is looked up: that could wait
    for a server for ever.
    """

    def __init__(self, state_of: Callable[[Inode], InodeState]) -> None:
        self._state_of = state_of
        self._mounts: dict[int, frozenset[int]] = {}
        self._mounted: dict[int, bool] = {}

    def cause_of(self, watch: Watch) -> Cause:
        """Why this watch is gone."""
        inode = watch.inode
        if inode is None:
            return Cause.UNKNOWN
        if not self._is_mounted(inode.dev, watch.owner.process.pid):
            return Cause.UNMOUNTED
        state = self._state_of(inode)
        if state is InodeState.LINKED and watch.is_oneshot:
            return Cause.ONESHOT
        if state is InodeState.DELETED and not watch.is_oneshot:
            return Cause.DELETED
        return Cause.UNKNOWN

    def _is_mounted(self, dev: int, pid: int) -> bool:
        """Whether a filesystem is in any mount table; that of `pid` is looked at first."""
        known = self._mounted.get(dev)
        if known is None:
            known = self._mounted[dev] = any(
                dev in self._mounts_of(each) for each in (pid, os.getpid(), *running_pids())
            )
        return known

    def _mounts_of(self, pid: int) -> frozenset[int]:
        try:
            namespace = os.stat(f"/proc/{pid}/ns/mnt").st_ino
            if namespace not in self._mounts:
                self._mounts[namespace] = mounted_devices(pid)
            return self._mounts[namespace]
        except OSError:
            # it has ended
            return frozenset()
