"""From a traced path to what is there now."""

from __future__ import annotations

import os

from tracer.core.walk import Target


def path_state(pid: int, path: bytes | None, target: Target | None) -> str:
    """
    Whether `path`, as process `pid` passed it, still leads to `target`.

    "verified", "changed" (it leads to another inode), "gone", or "unverified" (the process or
    the inode is unknown, or the filesystem shows another device number than the kernel has).
    """
    if path is None:
        return "unverified"
    try:
        found = os.stat(seen_by(pid, path))
    except FileNotFoundError:
        return (
            "gone" if os.path.exists(f"/proc/{pid}/root") or path.startswith(b"/") else "unverified"
        )
    except OSError:
        return "unverified"
    if target is None:
        return "unverified"
    if found.st_ino != target.ino:
        return "changed"
    return "verified" if kernel_device(found) == target.dev else "unverified"


def kernel_device(found: os.stat_result) -> int:
    """The device as the kernel has it: major << 20 | minor."""
    return os.major(found.st_dev) << 20 | os.minor(found.st_dev)


def seen_by(pid: int, path: bytes) -> bytes:
    """The path from here: through the root or the working directory of the process."""
    if not path.startswith(b"/"):
        return b"/proc/%d/cwd/%s" % (pid, path)
    if os.path.exists(f"/proc/{pid}/root"):
        return b"/proc/%d/root%s" % (pid, path)
    return path
