"""Fixtures of the tests of paths."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest
from locating import Kernel

from tracer.kernel.fdinfo import Handle
from tracer.targets import by_handle


@pytest.fixture(scope="module")
def kernel(root: None) -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.close()


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No handle may be opened."""

    def refuse(mount: int, handle: Handle) -> int:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(by_handle, "open_by_handle", refuse)
