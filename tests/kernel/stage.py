"""Many programs at a time, traced by one inotrace."""

from __future__ import annotations

from contextlib import ExitStack
from typing import cast

import pytest
from observing import Stream
from performance import Performance, Program
from workshop import Workshop


class Stage:
    """
    The programs of all tests of a module that have a parameter `program`, one for each.

    One inotrace traces them all: it takes longer to start than most tests to run.
    """

    def __init__(self, items: list[pytest.Function], workshop: Workshop) -> None:
        self._absent: dict[str, BaseException] = {}
        self._present: dict[str, Performance] = {}
        with ExitStack() as ends:
            for item in items:
                program = cast(Program, item.callspec.params["program"])
                try:
                    performance = Performance(program.command(workshop), cwd=workshop.folder)
                except (pytest.skip.Exception, pytest.fail.Exception) as reason:
                    self._absent[item.nodeid] = reason
                else:
                    self._present[item.nodeid] = performance
                    ends.callback(performance.end)
            self.stream = self._attached()
            ends.callback(self.stream.end)
            self._ends = ends.pop_all()

    def _attached(self) -> Stream:
        """When all are ready."""
        options: list[object] = []
        for nodeid, performance in self._present.items():
            try:
                performance.await_ready()
                options += ["-p", performance.pid]
            except AssertionError as failure:
                # of this test only
                self._absent[nodeid] = failure
        return Stream(*options)

    def performance(self, nodeid: str) -> Performance:
        """That of a test; skips it or fails if there is none."""
        if nodeid in self._absent:
            raise self._absent[nodeid]
        return self._present[nodeid]

    def leave(self) -> None:
        """End all."""
        self._ends.close()
