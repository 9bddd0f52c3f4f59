"""Why a watch went that nobody removed: told from what is left where it was."""

from __future__ import annotations

from typing import Callable

from tracer.core.cause import Cause
from tracer.core.walk import Inode
from tracer.core.watch import Watch
from tracer.kernel.inodes import InodeState
from tracer.targets.mounts import Mounts


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
        self._mounts = Mounts()

    def cause_of(self, watch: Watch) -> Cause:
        """Why this watch is gone."""
        inode = watch.inode
        if inode is None:
            return Cause.UNKNOWN
        if not self._mounts.is_mounted(inode.dev, watch.owner.process.pid):
            return Cause.UNMOUNTED
        state = self._state_of(inode)
        if state is InodeState.LINKED and watch.is_oneshot:
            return Cause.ONESHOT
        if state is InodeState.DELETED and not watch.is_oneshot:
            return Cause.DELETED
        return Cause.UNKNOWN
