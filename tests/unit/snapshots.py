"""What `ls` shows, put together by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

from tracer.core.walk import Inode
from tracer.views.ls import Holder, Instance, Snapshot, Usage, Watch

IN_MODIFY, IN_CREATE = 0x2, 0x100
DISK, OTHER_DISK = 8 << 20 | 1, 8 << 20 | 2
_USERNS = 4026531837


def watch(wd: int, ino: int, dev: int = DISK, mask: int = IN_CREATE, address: int = 0) -> Watch:
    return Watch(wd, Inode(address, ino, dev, 0), mask)


def holder(
    pid: int,
    fd: int = 3,
    comm: bytes = b"agent",
    exe: bytes | None = b"/bin/agent",
    uid: int = 0,
    user: str = "root",
) -> Holder:
    return Holder(pid, fd, uid, user, comm, exe)


def instance(
    number: int, holders: tuple[Holder, ...], count: int, first: int = 100, **changes: Any
) -> Instance:
    """Of `count` watches, newest first, on inodes from `first` on."""
    watches = tuple(watch(wd + 1, first + wd) for wd in reversed(range(count)))
    changes.setdefault("payers", ((_USERNS, holders[0].uid),))
    return Instance(number, holders, watches, **changes)


def usage(**changes: Any) -> Usage:
    one = Usage(0, "root", _USERNS, 7300, 8192, 31, 128, "counted", True)
    return dataclasses.replace(one, **changes)


def snapshot(*instances: Instance, **changes: Any) -> Snapshot:
    whole = Snapshot(
        kernel="6.1.0-25-amd64",
        truth="fdinfo",
        complete=True,
        sharing_known=True,
        pids=frozenset(holder.pid for one in instances for holder in one.holders),
        instances=instances,
        usage=(usage(),),
    )
    return dataclasses.replace(whole, **changes)


def shared_snapshot() -> Snapshot:
    """
    23 watches held by 7 and its child 11, by 7 twice; 2 more of 7; 5 of 13 on the first of those.
    """
    return snapshot(
        instance(1, (holder(7, 3), holder(7, 5), holder(11, 3)), 23),
        instance(2, (holder(7, 4),), 2, first=500),
        instance(3, (holder(13, comm=b"two words", exe=None),), 5),
    )
