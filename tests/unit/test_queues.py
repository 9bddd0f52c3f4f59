"""What is unread of an instance, asked through a descriptor that is borrowed for a moment."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tracer.kernel import queues
from tracer.kernel.fdinfo import HeldFd
from tracer.kernel.queues import least_unread, max_queued_events

_IN_CREATE = 0x100
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[int]:
    fd = _libc.inotify_init1(os.O_CLOEXEC)
    if fd < 0:
        pytest.skip("no inotify instance is left for this user")
    assert _libc.inotify_add_watch(fd, os.fsencode(tmp_path), _IN_CREATE) > 0
    yield fd
    os.close(fd)


def _open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_nothing_is_unread(own: int) -> None:
    assert least_unread(HeldFd(os.getpid(), own)) in (0, None)


@pytest.mark.parametrize(("length", "least"), [(1, 3), (255, 23)])
def test_at_least_so_many_events(own: int, tmp_path: Path, length: int, least: int) -> None:
    """GIVEN 23 events with short, and with the longest names WHEN asked THEN it is never more."""
    if least_unread(HeldFd(os.getpid(), own)) is None:
        pytest.skip("the kernel has no pidfd_getfd, or a sandbox refuses it")
    before = _open_descriptors()
    for at in range(23):
        (tmp_path / chr(ord("a") + at).rjust(length, "-")).touch()

    assert least_unread(HeldFd(os.getpid(), own)) == least
    assert _open_descriptors() == before


def test_what_cannot_be_asked_is_not_known(own: int) -> None:
    file = os.open("/dev/null", os.O_RDONLY)
    try:
        assert least_unread(HeldFd(os.getpid(), file)) is None
    finally:
        os.close(file)
    for held in (HeldFd(os.getpid(), 1 << 20), HeldFd(0, own), HeldFd(2**22 + 7, own)):
        assert least_unread(held) is None


def test_the_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "max_queued_events"
    file.write_text("16384\n")
    monkeypatch.setattr(queues, "_MAX_QUEUED", file)
    assert max_queued_events() == 16384

    file.unlink()
    assert max_queued_events() is None
