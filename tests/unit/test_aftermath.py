"""Why a watch went, told from what is left where it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from build import IN_CREATE, OTHER

from tracer.core.accounts import Cause, Origin, ProcessAccount, Watch
from tracer.core.events import IN_ONESHOT, Process
from tracer.core.walk import Target
from tracer.targets.aftermath import Aftermath

_SELF = ProcessAccount(Process(os.getpid(), 0))
_NOWHERE = 0xFFFFFFF


def _target(path: Path) -> Target:
    found = path.stat()
    return Target(os.major(found.st_dev) << 20 | os.minor(found.st_dev), found.st_ino)


def _watch(
    path: Path | bytes | None,
    target: Target | None,
    mask: int = IN_CREATE,
    owner: ProcessAccount = _SELF,
) -> Watch:
    raw = os.fsencode(path) if isinstance(path, Path) else path
    return Watch(1, Origin.TRACED, owner, 111, mask, path=raw, target=target)


@pytest.fixture
def target(tmp_path: Path) -> Target:
    """Of a folder that was `watched`, and is gone."""
    folder = tmp_path / "watched"
    folder.mkdir()
    target = _target(folder)
    # another takes the name: the inode must not be reused for it
    folder.rename(tmp_path / "kept")
    return target


def test_a_path_that_leads_nowhere_was_deleted(tmp_path: Path, target: Target) -> None:
    assert Aftermath().cause_of(_watch(tmp_path / "watched", target)) is Cause.DELETED


def test_a_path_in_a_folder_that_went_as_well_was_deleted(tmp_path: Path, target: Target) -> None:
    assert Aftermath().cause_of(_watch(tmp_path / "a/b/watched", target)) is Cause.DELETED


def test_a_path_that_leads_elsewhere_was_deleted(tmp_path: Path, target: Target) -> None:
    (tmp_path / "watched").mkdir()
    assert Aftermath().cause_of(_watch(tmp_path / "watched", target)) is Cause.DELETED


def test_a_relative_path_is_looked_up_where_its_process_is(
    tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Aftermath().cause_of(_watch(b"watched", target)) is Cause.DELETED


def test_a_watch_for_one_event_that_is_still_there_has_fired(tmp_path: Path) -> None:
    watch = _watch(tmp_path, _target(tmp_path), IN_CREATE | IN_ONESHOT)
    assert Aftermath().cause_of(watch) is Cause.ONESHOT


def test_a_watch_for_one_event_that_is_gone_may_have_done_either(
    tmp_path: Path, target: Target
) -> None:
    watch = _watch(tmp_path / "watched", target, IN_CREATE | IN_ONESHOT)
    assert Aftermath().cause_of(watch) is Cause.UNKNOWN


def test_what_is_still_there_went_for_no_reason_we_know(tmp_path: Path) -> None:
    assert Aftermath().cause_of(_watch(tmp_path, _target(tmp_path))) is Cause.UNKNOWN


@pytest.mark.parametrize("mask", [IN_CREATE, IN_CREATE | IN_ONESHOT])
def test_a_filesystem_in_no_mount_table_was_unmounted(tmp_path: Path, mask: int) -> None:
    watch = _watch(tmp_path / "gone", Target(_NOWHERE, 2), mask)
    assert Aftermath().cause_of(watch) is Cause.UNMOUNTED


def test_a_number_that_another_filesystem_got_is_no_proof(tmp_path: Path) -> None:
    """GIVEN a path on one filesystem WHEN the watch was on another, mounted one THEN unknown."""
    watch = _watch(tmp_path / "gone", _target(Path("/proc")))
    assert Aftermath().cause_of(watch) is Cause.UNKNOWN


@pytest.mark.parametrize("known", ["path", "target"])
def test_what_was_not_told_is_not_guessed(tmp_path: Path, target: Target, known: str) -> None:
    watch = _watch(
        tmp_path / "watched" if known == "path" else None, target if known == "target" else None
    )
    assert Aftermath().cause_of(watch) is Cause.UNKNOWN


def test_the_mounts_of_a_process_that_ended_are_those_of_the_others(
    tmp_path: Path, target: Target
) -> None:
    ended = ProcessAccount(OTHER._replace(pid=1 << 22))
    watch = _watch(tmp_path / "watched", target, owner=ended)
    assert Aftermath().cause_of(watch) is Cause.DELETED
