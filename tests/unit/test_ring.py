"""What a perf buffer holds, without one: its records, and where they wrap around."""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterator

import pytest
from build import add, call_record, last, last_record
from hypothesis import given
from hypothesis import strategies as st

from tracer.core.wire import decode
from tracer.kernel.ring import Ring, records

_SAMPLE, _LOST, _THROTTLE = 9, 2, 5


def _sample(payload: bytes) -> bytes:
    """PERF_RECORD_SAMPLE with PERF_SAMPLE_RAW: header, size, payload, padding to 8 bytes."""
    raw = struct.pack("=I", len(payload)) + payload
    raw += bytes(-(8 + len(raw)) % 8)
    return struct.pack("=IHH", _SAMPLE, 0, 8 + len(raw)) + raw


def _lost(number: int) -> bytes:
    return struct.pack("=IHHQQ", _LOST, 0, 24, 1, number)


def test_nothing_holds_nothing() -> None:
    assert list(records(b"")) == []


def test_samples_come_in_order_and_without_their_headers() -> None:
    payloads = [b"a" * 12, b"b" * 4, b"c" * 28]

    assert list(records(b"".join(map(_sample, payloads)))) == payloads


@pytest.mark.parametrize("length", range(8, 24))
def test_a_sample_keeps_its_padding(length: int) -> None:
    (record,) = records(_sample(b"x" * length))

    assert record.rstrip(b"\0") == b"x" * length
    assert len(record) - length < 8
    assert (len(record) + 12) % 8 == 0


def test_the_kernels_own_notes_are_passed_over() -> None:
    content = _lost(23) + _sample(b"a" * 4) + _lost(5) + _lost(7)
    content += struct.pack("=IHHQQQ", _THROTTLE, 0, 32, 1, 2, 3) + _sample(b"b" * 4) + _lost(1)

    assert list(records(content)) == [b"aaaa", b"bbbb"]


@given(st.lists(st.binary(max_size=97) | st.integers(1, 23), max_size=23))
def test_any_mixture_gives_its_samples(entries: list[bytes | int]) -> None:
    content = b"".join(
        _lost(entry) if isinstance(entry, int) else _sample(entry) for entry in entries
    )
    payloads = [entry for entry in entries if isinstance(entry, bytes)]
    found = list(records(content))

    assert len(found) == len(payloads)
    for record, payload in zip(found, payloads):
        assert record[: len(payload)] == payload
        assert record[len(payload) :] == bytes(len(record) - len(payload))


def test_records_decode_with_the_padding_they_carry() -> None:
    events = [add(17, wd, path=b"/" + b"x" * wd) for wd in range(23)]
    content = b"".join(_sample(call_record(event)) for event in events)
    ending = last(23, [1, 2, 3])

    assert [decode(record) for record in records(content + _sample(last_record(ending)))] == [
        *events,
        ending,
    ]


# --- wrapping around ---

_PAGES = 2


class _FakeRing(Ring):
    """A ring in plain memory, written to as the kernel does."""

    def __init__(self) -> None:
        self._page = mmap.PAGESIZE
        self._size = _PAGES * mmap.PAGESIZE
        self._map = mmap.mmap(-1, self._page + self._size)
        self._head = ctypes.c_uint64.from_buffer(self._map, 1024)
        self._tail = ctypes.c_uint64.from_buffer(self._map, 1032)

    def start_at(self, position: int) -> None:
        self._head.value = self._tail.value = position

    def write(self, content: bytes) -> None:
        assert self._head.value + len(content) - self._tail.value <= self._size, "full"
        for byte in content:
            self._map[self._page + self._head.value % self._size] = byte
            self._head.value += 1

    @property
    def room(self) -> int:
        return self._size - (self._head.value - self._tail.value)


@pytest.fixture
def ring() -> Iterator[_FakeRing]:
    yield _FakeRing()


def test_what_is_taken_is_taken_once(ring: _FakeRing) -> None:
    assert ring.take() == b""
    ring.write(_sample(b"first"))
    assert ring.take() == _sample(b"first")
    assert ring.take() == b""
    ring.write(_sample(b"second"))
    assert ring.take() == _sample(b"second")
    assert ring.room == _PAGES * mmap.PAGESIZE


@pytest.mark.parametrize("before_the_end", [1, 8, 11, 12, 23, 40])
@pytest.mark.parametrize("turns", [1, 2**51])
def test_a_record_across_the_end_is_whole(ring: _FakeRing, before_the_end: int, turns: int) -> None:
    ring.start_at(turns * _PAGES * mmap.PAGESIZE - before_the_end)
    content = _sample(bytes(range(36))) + _lost(5) + _sample(b"after")
    ring.write(content)

    assert ring.take() == content


@pytest.mark.parametrize("position", [0, 8, 4096, 8184])
def test_a_full_ring_is_not_taken_for_an_empty_one(ring: _FakeRing, position: int) -> None:
    ring.start_at(position)
    content = bytes(range(256)) * (_PAGES * mmap.PAGESIZE // 256)
    ring.write(content)

    assert ring.room == 0
    assert ring.take() == content
