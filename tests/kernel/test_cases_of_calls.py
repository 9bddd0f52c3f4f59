"""What each call does to the watches, whoever makes it and however it fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from agreement import Case, assert_removed
from harness import Puppet

from tracer.core.verdict import Verdict
from tracer.kernel.btf import compiler_definitions
from tracer.kernel.hooks import Mode

pytestmark = [pytest.mark.usefixtures("root"), pytest.mark.kernels]

_IN_MODIFY, _IN_ATTRIB = 0x2, 0x4
_IN_MASK_CREATE, _IN_MASK_ADD = 0x10000000, 0x20000000


@pytest.fixture
def puppet(traced_puppet: Puppet) -> Puppet:
    return traced_puppet


# --- adding what is watched already ---


def test_old_inotify_init_counts_too(case: Case, puppet: Puppet, folders: list[Path]) -> None:
    fd = puppet.ok("old-init")
    puppet.ok("add", fd, folders[0])
    found = case.agreed((puppet.pid, fd))

    assert found.report["instances"][0]["opened_by"] is not None


def test_a_hard_link_to_a_watched_file_is_an_update(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    file, link = folders[0] / "file", folders[0] / "link"
    file.touch()
    os.link(file, link)
    fd = puppet.ok("init")
    assert puppet.ok("add", fd, file) == puppet.ok("add", fd, link)
    found = case.agreed((puppet.pid, fd))

    assert (found.added, found.updated, found.live(puppet.pid)) == (1, 1, 1)


def test_another_mount_of_a_watched_folder_is_an_update(
    case: Case, puppet: Puppet, folders: list[Path], bound: Path
) -> None:
    fd = puppet.ok("init")
    assert puppet.ok("add", fd, folders[0]) == puppet.ok("add", fd, bound)
    found = case.agreed((puppet.pid, fd))

    assert (found.added, found.updated, found.live(puppet.pid)) == (1, 1, 1)


@pytest.mark.parametrize("mask", [_IN_ATTRIB, _IN_MASK_ADD | _IN_ATTRIB])
def test_adding_a_watched_target_again_replaces_or_extends_its_mask(
    case: Case, puppet: Puppet, folders: list[Path], mask: int
) -> None:
    fd = puppet.ok("init")
    assert puppet.ok("add", fd, folders[0], _IN_MODIFY) == puppet.ok("add", fd, folders[0], mask)
    found = case.agreed((puppet.pid, fd))

    assert (found.added, found.updated, found.live(puppet.pid)) == (1, 1, 1)


def test_a_watched_target_cannot_be_created_again(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0], _IN_MASK_CREATE | _IN_MODIFY)
    assert puppet("add", fd, folders[0], _IN_MASK_CREATE | _IN_ATTRIB) == -errno.EEXIST
    found = case.agreed((puppet.pid, fd))

    assert (found.added, found.updated, found.live(puppet.pid)) == (1, 0, 1)
    assert found.failures == {("inotify_add_watch", "EEXIST"): 1}


# --- failures ---


def test_a_failed_call_is_counted_and_changes_nothing(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    fd = puppet.ok("init")
    for _ in range(3):
        assert puppet("add", fd, folders[0] / "missing") == -errno.ENOENT
    assert puppet("rm", fd, 41) == -errno.EINVAL
    assert puppet("rm", 997, 1) == -errno.EBADF
    assert puppet("add", 997, folders[0]) == -errno.EBADF
    assert puppet("add", 0, folders[0]) == -errno.EINVAL
    assert puppet("init", 1) == -errno.EINVAL
    found = case.agreed((puppet.pid, fd))

    assert found.failures == {
        ("inotify_add_watch", "ENOENT"): 3,
        ("inotify_rm_watch", "EINVAL"): 1,
        ("inotify_rm_watch", "EBADF"): 1,
        ("inotify_add_watch", "EBADF"): 1,
        ("inotify_add_watch", "EINVAL"): 1,
        ("inotify_init", "EINVAL"): 1,
    }
    assert (found.added, found.live(puppet.pid)) == (0, 0)
    assert_removed(found.removed)


def test_removing_what_the_kernel_removed_first_is_no_second_removal(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    fd = puppet.ok("init")
    wds = [puppet.ok("add", fd, folder) for folder in folders[:5]]
    for wd, folder in zip(wds, folders):
        folder.rmdir()
        assert puppet("rm", fd, wd) == -errno.EINVAL
    found = case.agreed((puppet.pid, fd))

    assert found.failures == {("inotify_rm_watch", "EINVAL"): 5}
    assert_removed(found.removed, deleted=5)


def test_a_number_that_no_watch_got_is_no_watch(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN the limit reached WHEN an add fails THEN the kernel burns a number, and no more."""
    if puppet("limit-watches", 2):
        pytest.skip("needs user namespaces")
    fd = puppet.ok("init")
    wds = [puppet.ok("add", fd, folder) for folder in folders[:2]]
    assert puppet("add", fd, folders[2]) == -errno.ENOSPC
    puppet.ok("rm", fd, wds[0])
    last = puppet.ok("add", fd, folders[2])
    found = case.agreed((puppet.pid, fd))

    assert last > wds[1] + 1
    assert (found.added, found.live(puppet.pid)) == (3, 2)
    assert found.failures == {("inotify_add_watch", "ENOSPC"): 1}
    # who made the namespace pays as well, and has a limit of its own
    assert {"used": 2, "limit": 2} in [limits["watches"] for limits in found.report["limits"]]


@pytest.mark.parametrize(
    ("limit", "named", "other"),
    [
        (("limit-instances", 3), "all the instances", "descriptor"),
        (("limit-descriptors", 6), "descriptor", "all the instances"),
    ],
)
def test_no_instance_left_and_no_descriptor_left_are_told_apart(
    case: Case, puppet: Puppet, limit: tuple[str, int], named: str, other: str
) -> None:
    """Before Linux 5.14 credentials do not lead to the counters, and both are named."""
    if puppet(*limit):
        pytest.skip("needs user namespaces")
    while (result := puppet("init")) >= 0:
        pass
    assert result == -errno.EMFILE
    found = case.agreed()

    assert found.failures == {("inotify_init", "EMFILE"): 1}
    (explanation,) = [
        row["explanation"] for row in found.report["failures"] if row["pid"] == puppet.pid
    ]
    assert named in explanation
    assert (other in explanation) == ("-DOFF_CRED_UCOUNTS=0" in compiler_definitions())


# --- callers ---


def in_32_bit(puppet: Puppet, *words: Any) -> int:
    result = puppet(*words)
    if result == -errno.ENOSYS:
        pytest.skip("this kernel takes no 32-bit calls (CONFIG_IA32_EMULATION)")
    assert result >= 0
    return result


def test_a_watch_added_by_a_32_bit_call_is_live_and_its_origin_known_or_said_not_to_be(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    fd = puppet.ok("init")
    puppet.ok("add", fd, folders[0])
    for folder in folders[1:4]:
        in_32_bit(puppet, "add32", fd, folder)
    found = case.agreed((puppet.pid, fd))

    assert found.live(puppet.pid) == 4
    if case.mode is not Mode.TRACEPOINT:
        # these have entry points of their own
        assert found.added == 4
        return
    (unsure,) = [
        site
        for site in found.report["sites"]
        if site["verdict"] == Verdict.INCONCLUSIVE.value and site["live"]
    ]
    assert (unsure["live"], unsure["pids"], unsure["stack"]) == (3, [puppet.pid], "missing")
    assert [evidence["kind"] for evidence in unsure["evidence"]] == ["unseen"]
    assert "32-bit" in unsure["evidence"][0]["text"]
    assert found.added == 1


def test_an_instance_opened_by_a_32_bit_call_is_found(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    fd = in_32_bit(puppet, "init32")
    puppet.ok("add", fd, folders[0])
    in_32_bit(puppet, "add32", fd, folders[1])
    found = case.agreed((puppet.pid, fd))

    is_seen = case.mode is not Mode.TRACEPOINT
    assert found.live(puppet.pid) == 2
    assert found.added == 1 + is_seen
    openers = [instance["opened_by"] for instance in found.report["instances"]]
    assert [opener is not None for opener in openers] == [is_seen]


def test_a_watch_removed_by_a_32_bit_call_is_gone(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    fd = puppet.ok("init")
    wds = [puppet.ok("add", fd, folder) for folder in folders[:3]]
    in_32_bit(puppet, "rm32", fd, wds[1])
    found = case.agreed((puppet.pid, fd))

    assert found.live(puppet.pid) == 2
    # nobody can know of the call who only sees the 64-bit ones
    assert found.removed in ({"unknown": 1}, {"rm_watch": 1})


def test_threads_add_and_remove_for_their_process(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    fd = puppet.ok("thread", "init")
    wds = [puppet.ok("thread", "add", fd, folder) for folder in folders[:7]]
    wds += [puppet.ok("add", fd, folder) for folder in folders[7:]]
    for wd in wds[5:11]:
        puppet.ok("thread", "rm", fd, wd)
    for wd in wds[:5]:
        puppet.ok("rm", fd, wd)
    found = case.agreed((puppet.pid, fd))

    assert (found.added, found.live(puppet.pid)) == (23, 12)
    assert_removed(found.removed, rm_watch=11)


def test_a_moved_target_that_a_32_bit_call_stopped_watching_was_not_deleted(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    fd = puppet.ok("init")
    wd = puppet.ok("add", fd, folders[0])
    in_32_bit(puppet, "rm32", fd, wd)
    folders[0].rename(folders[0].with_name("moved"))
    found = case.agreed((puppet.pid, fd))

    assert found.removed in ({"rm_watch": 1}, {"unknown": 1})


def test_an_address_that_an_unseen_call_uses_again_is_another_instance(
    case: Case, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN 11 closed instances WHEN 32-bit calls open as many THEN nothing of the old is live."""
    old = [puppet.ok("init") for _ in range(11)]
    for fd, folder in zip(old, folders[:11]):
        puppet.ok("add", fd, folder)
    for fd in old:
        puppet.ok("close", fd)
    new = [in_32_bit(puppet, "init32") for _ in range(11)]
    for fd, folder in zip(new, folders[11:22]):
        in_32_bit(puppet, "add32", fd, folder)
    found = case.agreed(*((puppet.pid, fd) for fd in new))

    assert found.removed == {"closed": 11}
