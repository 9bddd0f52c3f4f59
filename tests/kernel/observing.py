"""What inotrace tells of a program's calls."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from typing import Any

from chains import mismatch
from harness import PATIENCE_S, Inotrace
from performance import COMPLETE


class Stream:
    """The calls with their stacks, of what the options of `inotrace events` choose."""

    def __init__(self, *options: object) -> None:
        self._tool = Inotrace("events", "--stack", "-f", "json", *options)
        assert json.loads(self._tool.out.line()) == {"schema": "inotrace.events/1"}

    def watch_calls(self, pid: int, number: int) -> list[Any]:
        """The next calls of inotify_add_watch by a process, as JSON has them."""
        return self._calls(pid, number, "inotify_add_watch")

    def wait_for_instance(self, pid: int) -> None:
        """Until it has told that a process made its instance."""
        self._calls(pid, 1, "inotify_init")

    def _calls(self, pid: int, number: int, name: str) -> list[Any]:
        calls: list[Any] = []
        ends = time.monotonic() + PATIENCE_S
        while len(calls) < number:
            event = json.loads(self._tool.out.line())
            if event.get("call") == name and event["pid"] == pid:
                calls.append(event)
            assert time.monotonic() < ends, f"{len(calls)} calls of {number}"
        return calls

    def end(self) -> None:
        """Nothing went wrong until here."""
        try:
            assert self._tool.stop() == 0
        finally:
            self._tool.process.kill()
            self._tool.process.communicate()


def complaint(call: Any, chain: str, states: Collection[str] = COMPLETE) -> str:
    """What is wrong with the stack of a call; nothing if it is the chain."""
    wrong = mismatch(call["frames"], chain)
    if wrong is None and call["stack"] in states:
        return ""
    return f"{call['stack']} ({call['stack_reason']})\n{wrong or ''}"
