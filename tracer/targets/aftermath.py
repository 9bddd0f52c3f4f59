"""Why a watch went that nobody removed: told from what is left where it was."""

from __future__ import annotations

import os

from tracer.core.accounts import Cause, Watch
from tracer.kernel.procfs import mounted_devices, running_pids
from tracer.targets.path import kernel_device, path_state, seen_by


class Aftermath:
    """
    What is left at one moment, soon after the watches went. Use one for each comparison with the
    kernel: what is mounted is read once.

    A watch that went without a call, and without its instance being closed, had its inode deleted,
    its filesystem unmounted, or fired and was for one event only; or a 32-bit program removed it.
    What does not tell these apart stays unknown.
    """

    def __init__(self) -> None:
        self._mounts: dict[int, frozenset[int]] = {}
        self._mounted: dict[int, bool] = {}
        self._devices: dict[bytes, int | None] = {}

    def cause_of(self, watch: Watch) -> Cause:
        """Why this watch is gone."""
        target = watch.target
        if target is None:
            return Cause.UNKNOWN
        if not self._is_mounted(target.dev, watch.owner.process.pid):
            return Cause.UNMOUNTED
        if watch.path is None:
            return Cause.UNKNOWN
        state = path_state(watch.owner.process.pid, watch.path, target)
        if state == "verified":
            return Cause.ONESHOT if watch.is_oneshot else Cause.UNKNOWN
        if watch.is_oneshot or not self._is_on(target.dev, watch.owner.process.pid, watch.path):
            return Cause.UNKNOWN
        return Cause.DELETED if state in ("gone", "changed") else Cause.UNKNOWN

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

    def _is_on(self, dev: int, pid: int, path: bytes) -> bool:
        """
        Whether what is left of the path leads to this filesystem.

        Where it does not, the path was of another mount namespace, or another filesystem was
        mounted meanwhile and got the same number.
        """
        folder = os.path.dirname(seen_by(pid, path))
        if folder not in self._devices:
            self._devices[folder] = _device_of_nearest(folder)
        return self._devices[folder] == dev


def _device_of_nearest(folder: bytes) -> int | None:
    """The kernel's dev_t of a folder, or of the nearest above it that is still there."""
    while True:
        try:
            return kernel_device(os.stat(folder))
        except (FileNotFoundError, NotADirectoryError):
            if folder == b"/":
                return None
            folder = os.path.dirname(folder)
        except OSError:
            return None
