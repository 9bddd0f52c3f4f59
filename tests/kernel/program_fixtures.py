"""Fixtures of the tests on real programs; such a test module names this in `pytest_plugins`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Callable

import pytest
from observing import Stream
from performance import Performance
from stage import Stage
from workshop import Workshop


@pytest.fixture(scope="session")
def workshop(root: None, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("programs"))


@pytest.fixture
def perform() -> Iterator[Callable[..., Performance]]:
    """Starts a program that waits; killed at the end of the test."""
    with ExitStack() as started:

        def start(command: list[str], **options: Any) -> Performance:
            performance = Performance(command, **options)
            started.callback(performance.end)
            performance.await_ready()
            return performance

        yield start


@pytest.fixture
def traced() -> Iterator[Callable[..., Stream]]:
    """Starts inotrace on what its options choose."""
    with ExitStack() as started:

        def start(*options: object) -> Stream:
            stream = Stream(*options)
            started.callback(stream.end)
            return stream

        yield start


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, workshop: Workshop) -> Iterator[Stage]:
    items = [
        item
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.module is request.module
        and hasattr(item, "callspec")
        and "program" in item.callspec.params
    ]
    stage = Stage(items, workshop)
    yield stage
    stage.leave()


@pytest.fixture
def performance(request: pytest.FixtureRequest, stage: Stage) -> Performance:
    """The program of a test that has a parameter `program`."""
    return stage.performance(request.node.nodeid)
