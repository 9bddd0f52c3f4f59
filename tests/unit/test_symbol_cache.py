"""Symbols of all files: read once as long as there is room, and never more than there is."""

from __future__ import annotations

import threading
from typing import Callable, cast

import pytest

from tracer.stacks import symbol_cache
from tracer.stacks.symbol_cache import SymbolCache
from tracer.stacks.symbol_table import SymbolTable

Read = Callable[[], tuple[SymbolTable, bool]]


class _Table:
    """Stands for a table that takes so many bytes."""

    def __init__(self, memory: int) -> None:
        self.memory = memory


class _Shelf:
    """A cache with room for ten entries of 10 bytes, 6 of symbols; and who had to read."""

    def __init__(self) -> None:
        self.cache = SymbolCache()
        self.reads: list[object] = []

    def get(self, owner: object, memory: int = 6, is_whole: bool = True) -> SymbolTable:
        return self.cache.get(owner, self._reading(owner, memory, is_whole))

    def _reading(self, owner: object, memory: int, is_whole: bool) -> Read:
        def read() -> tuple[SymbolTable, bool]:
            self.reads.append(owner)
            return cast(SymbolTable, _Table(memory)), is_whole

        return read


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> _Shelf:
    monkeypatch.setattr(symbol_cache, "_BYTES_MAX", 100)
    monkeypatch.setattr(symbol_cache, "_ENTRY_BYTES", 4)
    return _Shelf()


def test_what_was_read_is_there(shelf: _Shelf) -> None:
    """GIVEN two owners THEN each reads once, and has its own table from then on."""
    tables = [shelf.get("one"), shelf.get("other")]

    assert [shelf.get("one"), shelf.get("other")] == tables
    assert tables[0] is not tables[1]
    assert shelf.reads == ["one", "other"]


def test_what_is_not_all_there_is_is_read_again(shelf: _Shelf) -> None:
    """GIVEN a file that was out of reach WHEN it is within reach again THEN it is read."""
    part = shelf.get("one", is_whole=False)
    whole = shelf.get("one")

    assert part is not whole
    assert shelf.get("one") is whole
    assert shelf.reads == ["one", "one"]


def test_the_least_recently_used_makes_room(shelf: _Shelf) -> None:
    for owner in range(10):
        shelf.get(owner)
    shelf.get(0)
    shelf.get("large", memory=16)
    shelf.reads.clear()

    for owner in (0, *range(3, 10), "large"):
        shelf.get(owner)
    assert shelf.reads == []
    for owner in (1, 2):
        shelf.get(owner)
    assert shelf.reads == [1, 2]


def test_a_table_without_room_is_given_and_not_kept(shelf: _Shelf) -> None:
    """GIVEN one that is larger than all may be WHEN asked for THEN it is read each time."""
    shelf.get("small")
    assert cast(_Table, shelf.get("huge", memory=97)).memory == 97
    shelf.get("huge", memory=97)
    assert shelf.reads == ["small", "huge", "huge"]
    shelf.get("small")
    shelf.get("small")
    assert shelf.reads == ["small", "huge", "huge", "small"]


def test_what_made_room_does_not_count(shelf: _Shelf) -> None:
    """GIVEN many tables one after the other WHEN there is room for ten THEN the last ten stay."""
    for owner in range(1009):
        shelf.get(owner)
    shelf.reads.clear()

    for owner in range(999, 1009):
        shelf.get(owner)
    assert shelf.reads == []


def test_files_without_symbols_are_not_kept_for_ever(shelf: _Shelf) -> None:
    """GIVEN any number of files without a symbol THEN not all of them stay in memory."""
    for owner in range(1009):
        shelf.get(owner, memory=0)
    shelf.reads.clear()

    for owner in range(984, 1009):
        shelf.get(owner, memory=0)
    assert shelf.reads == []
    shelf.get(983, memory=0)
    assert shelf.reads == [983]


def test_several_threads_have_the_same_table(shelf: _Shelf) -> None:
    """GIVEN threads that ask for the same at once THEN all get one table, and one has read."""
    ready = threading.Barrier(4)
    found = []

    def ask() -> None:
        ready.wait()
        found.append(shelf.get("one"))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(map(id, found))) == 1
    assert shelf.reads == ["one"]


def test_a_failure_to_read_leaves_it_usable(shelf: _Shelf) -> None:
    def fail() -> tuple[SymbolTable, bool]:
        raise MemoryError

    with pytest.raises(MemoryError):
        shelf.cache.get("one", fail)
    shelf.get("one")
    assert shelf.reads == ["one"]
