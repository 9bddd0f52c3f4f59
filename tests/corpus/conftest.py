"""Fixtures of the tests on the labelled corpus."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from actors import Company, compiled, let_pass
from harness import heed_signals, require_root
from reports import Reports


def pytest_configure() -> None:
    heed_signals()


@pytest.fixture(scope="session")
def root() -> None:
    """For tests that need root; INOTRACE_REQUIRE_ROOT=1 makes its absence a failure."""
    require_root()


@pytest.fixture(scope="session")
def open_folder(root: None) -> Iterator[Callable[[str], Path]]:
    """
    Makes folders that any user can pass through.

    Not below pytest's own, which every run of pytest closes to other users at its start.
    """
    with tempfile.TemporaryDirectory(prefix="inotrace-corpus-") as base:
        let_pass(Path(base))

        def make(name: str) -> Path:
            folder = Path(base, name)
            folder.mkdir()
            let_pass(folder)
            return folder

        yield make


@pytest.fixture(scope="session")
def programs(open_folder: Callable[[str], Path]) -> Path:
    """Where the programs of the corpus are."""
    return compiled(open_folder("programs"))


@pytest.fixture(scope="session")
def reports(programs: Path, open_folder: Callable[[str], Path]) -> Iterator[Reports]:
    """What inotrace says of them, traced together as far as they can be."""
    with Company(programs, open_folder("together")) as company:
        yield Reports(company, programs, open_folder("alone"))
