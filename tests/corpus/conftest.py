"""Fixtures of the tests on the labelled corpus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from actors import Company, compiled
from harness import heed_signals, require_root
from reports import Reports


def pytest_configure() -> None:
    heed_signals()


@pytest.fixture(scope="session")
def root() -> None:
    """For tests that need root; INOTRACE_REQUIRE_ROOT=1 makes its absence a failure."""
    require_root()


@pytest.fixture(scope="session")
def programs(root: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs of the corpus are."""
    return compiled(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def reports(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reports]:
    """What inotrace says of them, traced together as far as they can be."""
    alone = tmp_path_factory.mktemp("alone")
    with Company(programs, tmp_path_factory.mktemp("together")) as company:
        yield Reports(company, programs, alone)
