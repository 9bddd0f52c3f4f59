"""What a look could not see: said once, and in words that are safe to print."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tracer.cli import looking as module
from tracer.cli.looking import Unseen, _missing, _require_readable
from tracer.cli.ls_watch import _tell
from tracer.errors import InotraceError
from tracer.filter import Filter
from tracer.kernel.procfs import ProcessFacts, read_process


@pytest.fixture
def other() -> ProcessFacts:
    facts = read_process(1)
    assert facts is not None
    return replace(facts, uid=4294967290)


class _Looking:
    def __init__(self, *missing: Unseen) -> None:
        self.missing = [*missing]


class _Scan:
    shows_all = sharing_known = True

    def __init__(self, changing: int) -> None:
        self._changing = changing

    def changing(self, filter_: Filter) -> int:
        return self._changing

    def in_flight(self, filter_: Filter) -> Any:
        return SimpleNamespace(instances=0, watches=0)


def test_what_differs_in_number_is_told_once(
    other: ProcessFacts, capsys: pytest.CaptureFixture[str]
) -> None:
    """GIVEN more and fewer processes of others, and instances that change THEN once of each."""
    told: set[str] = set()
    for hidden, changing in ((97, 0), (98, 2), (1, 0), (97, 1)):
        scan: Any = _Scan(changing)
        looking: Any = _Looking(*_missing(scan, Filter(), [other] * hidden))
        _tell(looking, told)

    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("inotrace: cannot look into 97 processes of other users: ")
    assert second == "inotrace: 2 instances changed while being read: run ls again"


def test_the_end_of_each_process_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    told: set[str] = set()
    for pids in ((), (11,), (11, 12), (11, 12)):
        looking: Any = _Looking(*(Unseen(f"process {pid}", f"{pid} has ended") for pid in pids))
        _tell(looking, told)

    assert capsys.readouterr().err == "inotrace: 11 has ended\ninotrace: 12 has ended\n"


def test_a_user_may_have_any_name(other: ProcessFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "user_name", lambda _: "\x1b[2Jroot")

    with pytest.raises(InotraceError) as caught:
        _require_readable(frozenset({other.pid}), [other])

    assert r"process 1 of \x1b[2Jroot: " in str(caught.value)
