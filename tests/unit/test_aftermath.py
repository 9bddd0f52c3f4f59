"""Why a watch went, told from what became of what it was on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from build import IN_CREATE

from tracer.core.accounts import ProcessAccount
from tracer.core.cause import Cause
from tracer.core.events import IN_ONESHOT, Process
from tracer.core.walk import Inode
from tracer.core.watch import Origin, Watch
from tracer.kernel.inodes import InodeState
from tracer.targets.aftermath import Aftermath
from tracer.targets.path import kernel_device

_SELF = ProcessAccount(Process(os.getpid(), 0))
_ENDED = ProcessAccount(Process(1 << 22, 0))
_NOWHERE = 0xFFFFFFF


def _watch(inode: Inode | None, mask: int, owner: ProcessAccount = _SELF) -> Watch:
    return Watch(1, Origin.TRACED, owner, 111, mask, inode=inode)


def _inode(dev: int) -> Inode:
    return Inode(0xFFFF888100000000, 23, dev, 7)


@pytest.mark.parametrize(
    ("state", "mask", "cause"),
    [
        (InodeState.DELETED, IN_CREATE, Cause.DELETED),
        (InodeState.LINKED, IN_CREATE, Cause.UNKNOWN),
        (InodeState.UNKNOWN, IN_CREATE, Cause.UNKNOWN),
        (InodeState.LINKED, IN_CREATE | IN_ONESHOT, Cause.ONESHOT),
        # it may have fired before
        (InodeState.DELETED, IN_CREATE | IN_ONESHOT, Cause.UNKNOWN),
        (InodeState.UNKNOWN, IN_CREATE | IN_ONESHOT, Cause.UNKNOWN),
    ],
)
@pytest.mark.parametrize("owner", [_SELF, _ENDED])
def test_on_a_mounted_filesystem_the_inode_tells(
    state: InodeState, mask: int, cause: Cause, owner: ProcessAccount, tmp_path: Path
) -> None:
    inode = _inode(kernel_device(tmp_path.stat()))
    assert Aftermath(lambda _: state).cause_of(_watch(inode, mask, owner)) is cause


@pytest.mark.parametrize("state", list(InodeState))
@pytest.mark.parametrize("mask", [IN_CREATE, IN_CREATE | IN_ONESHOT])
def test_a_filesystem_in_no_mount_table_was_unmounted(state: InodeState, mask: int) -> None:
    aftermath = Aftermath(lambda _: state)
    assert aftermath.cause_of(_watch(_inode(_NOWHERE), mask)) is Cause.UNMOUNTED


def test_what_was_not_told_is_not_guessed() -> None:
    aftermath = Aftermath(lambda _: InodeState.DELETED)
    assert aftermath.cause_of(_watch(None, IN_CREATE)) is Cause.UNKNOWN
