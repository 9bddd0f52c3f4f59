"""Draining the kernel's buffers in a thread of their own."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

from tracer.core.events import StackCopy
from tracer.core.wire import ARRIVAL, Arrival, decode_copy
from tracer.errors import InotraceError
from tracer.kernel.cpus import online_cpus
from tracer.kernel.probe import Probe
from tracer.kernel.ring import LockedMemoryError, Ring, records

_POLL_MS = 20
_PATIENCE_S = 60.0
_NICE = -10
# For as long each thread may keep the interpreter to itself. The draining thread gives it up at
# each of its many system calls, and would wait for the other as often.
_SWITCH_S = 0.0001
# Locked memory for all CPUs together, and what one CPU gets of it at most and at least.
_BUFFER_BYTES = 32 << 20
_CPU_BYTES_MAX = 4 << 20
_CPU_BYTES_MIN = 256 << 10
# For outputs of which little comes, and for arrivals.
_FEW_PAGES, _ARRIVALS_PAGES = 16, 8
# Copies of stacks get a quarter of what events get: some 100 small ones, or 16 of the largest; at
# least one of these.
_COPIES_SHARE = 4
# What a CPU's buffers come to where little may be locked, each of them a power of two.
_SMALLEST = _CPU_BYTES_MIN // os.sysconf("SC_PAGE_SIZE")
SMALLEST_PAGES = (_SMALLEST, _SMALLEST // _COPIES_SHARE, _FEW_PAGES, _ARRIVALS_PAGES)
_LOOK_AT_CPUS_EVERY_S = 0.5
# What nobody has taken yet. Beyond this the thread stops draining and the kernel counts losses:
# a loss that is told is better than a tracer that eats the node's memory.
_BACKLOG_BYTES_MAX = 64 << 20
# What comes in one round of a burst: some 100,000 calls a second.
_RUSH_BYTES = 256 << 10


class Round(NamedTuple):
    """
    What one round over the buffers found, and when it began.

    Nothing that happened before that time comes in a later round.
    """

    contents: list[bytes]
    drained_until: int


class Stream:
    """
    The records of a probe, until `close`.

    Three are called on the draining thread: `on_arrival` as soon as a new program image uses
    inotify, so that its files can be opened before it ends; `on_copy` before the call can be taken
    that the copy belongs to; `on_drained` after each round over the buffers.
    """

    def __init__(
        self,
        probe: Probe,
        on_arrival: Callable[[Arrival], None],
        on_copy: Callable[[StackCopy], None] = lambda _: None,
        on_drained: Callable[[], None] = lambda: None,
    ) -> None:
        self._bpf = probe.bpf
        self._on_arrival = on_arrival
        self._on_copy = on_copy
        self._on_drained = on_drained
        self._arrivals: deque[Arrival] = deque()
        self._lock = threading.Condition()
        self._rounds: deque[Round] = deque()
        self._backlog = 0
        self._last_round = 0
        self._drained_until = 0
        self._failure: BaseException | None = None
        self._stop = threading.Event()
        # of each CPU: one for each of the outputs, in this order
        self._rings: dict[int, list[Ring]] = {}
        self._outputs = (*probe.outputs, b"copies")
        self._pages = 0
        try:
            self._open_buffers()
        except BaseException:
            self._close_rings()
            raise
        self._switch_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        self._thread = threading.Thread(target=self._run, name="inotrace-drain", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        sys.setswitchinterval(self._switch_s)
        self._close_rings()

    def take(self) -> Round:
        """
        The oldest round that was not taken yet, or an empty one.

        Raises what ended the draining thread, if anything did.
        """
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if not self._rounds:
                return Round([], self._drained_until)
            taken = self._rounds.popleft()
            self._backlog -= sum(map(len, taken.contents))
            return taken

    @property
    def is_rushing(self) -> bool:
        """
        Whether so much comes right now that the processors are better left to who makes it.

        Not for long: what comes must be worked on before no more of it can be kept.
        """
        return self._last_round > _RUSH_BYTES and self._backlog < _BACKLOG_BYTES_MAX // 2

    def wait_drained(self, ts: int, timeout: float = _PATIENCE_S) -> bool:
        """
        Wait until all that happened before `ts` can be taken.

        False on time-out, by default a minute: on a busy machine the draining thread may have to
        wait for seconds, which is no reason to give up a trace.
        """
        with self._lock:
            return self._lock.wait_for(
                lambda: self._drained_until >= ts or self._failure is not None, timeout
            )

    def _open_buffers(self) -> None:
        # first: it is too small to do without
        self._open_arrivals()
        open_as_large_as_allowed(self._open_rings)

    def _open_rings(self, pages: int) -> None:
        self._pages = pages
        for cpu in online_cpus():
            try:
                self._rings[cpu] = self._opened(cpu)
            except InotraceError:
                # one that went since it was listed needs none
                if cpu in online_cpus():
                    self._close_rings()
                    raise

    def _open_arrivals(self) -> None:
        def on_arrival(_cpu: int, address: int, _size: int) -> None:
            arrival = Arrival(*ARRIVAL.unpack(ctypes.string_at(address, ARRIVAL.size)))
            # the others only wake
            if arrival.tgid:
                self._arrivals.append(arrival)

        # a lost wake-up costs at most a symbol; the callback only keeps BCC from printing
        self._bpf[b"arrivals"].open_perf_buffer(
            on_arrival, page_cnt=_ARRIVALS_PAGES, lost_cb=lambda _: None
        )

    def _follow_cpus(self) -> None:
        """
        Buffers for those that came, none for those that went.

        Until it has one, what a CPU tells goes to the spill.
        """
        online = online_cpus()
        for cpu in self._rings.keys() - online:
            gone = self._rings.pop(cpu)
            # what it had to tell must not be lost with its buffers, however much waits already
            self._keep(self._taken([gone]), self._drained_until)
            _close(gone)
        for cpu in online - self._rings.keys():
            # one that is refused may be on its way out: the next look tries again
            with suppress(InotraceError):
                self._rings[cpu] = self._opened(cpu)

    def _opened(self, cpu: int) -> list[Ring]:
        """The buffers of a CPU; records come to them only once all of them are open."""
        rings: list[Ring] = []
        try:
            for output in self._outputs:
                rings.append(Ring(cpu, self._pages_of(output)))
            for output, ring in zip(self._outputs, rings):
                table = self._bpf[output]
                table[table.Key(cpu)] = table.Leaf(ring.fd)
        except BaseException:
            _close(rings)
            raise
        return rings

    def _pages_of(self, output: bytes) -> int:
        share = {
            b"events": self._pages,
            b"copies": max(self._pages // _COPIES_SHARE, _FEW_PAGES),
        }
        return share.get(output, _FEW_PAGES)

    def _run(self) -> None:
        try:
            # what it is late for is lost or healed at a price; it never works for long
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
            next_look = time.monotonic()
            while not self._stop.is_set():
                if time.monotonic() >= next_look:
                    self._follow_cpus()
                    next_look = time.monotonic() + _LOOK_AT_CPUS_EVERY_S
                self._bpf.perf_buffer_poll(timeout=_POLL_MS)
                while self._arrivals:
                    self._on_arrival(self._arrivals.popleft())
                self._drain()
                self._on_drained()
        except BaseException as error:
            with self._lock:
                self._failure = error
                self._lock.notify_all()

    def _drain(self) -> None:
        if self._backlog > _BACKLOG_BYTES_MAX:
            time.sleep(_POLL_MS / 1000)
            return
        before = time.monotonic_ns()
        contents = self._taken(self._rings.values())
        self._last_round = sum(map(len, contents))
        self._keep(contents, before)

    def _taken(self, rings: Iterable[list[Ring]]) -> list[bytes]:
        """What the buffers hold; what copies tell is learned."""
        by_output = list(zip(*rings))
        if not by_output:
            return []
        contents = _contents(chain.from_iterable(by_output[:-1]))
        # after the calls: each copy was sent before its call, so none is missing now
        for content in _contents(by_output[-1]):
            for record in records(content):
                self._on_copy(decode_copy(record))
        return contents

    def _keep(self, contents: list[bytes], drained_until: int) -> None:
        with self._lock:
            if contents:
                self._rounds.append(Round(contents, drained_until))
                self._backlog += sum(map(len, contents))
            self._drained_until = drained_until
            self._lock.notify_all()

    def _close_rings(self) -> None:
        while self._rings:
            _close(self._rings.popitem()[1])


def _contents(rings: Iterable[Ring]) -> list[bytes]:
    return [content for ring in rings if (content := ring.take())]


def _close(rings: Iterable[Ring]) -> None:
    for ring in rings:
        ring.close()


def open_as_large_as_allowed(open_all: Callable[[int], None]) -> int:
    """
    Call `open_all` with pages for each CPU's buffer, with fewer while so many may not be locked.

    Returns how many it came to. What does not fit small buffers waits in the spill.
    """
    pages = pages_per_cpu()
    while True:
        try:
            open_all(pages)
        except LockedMemoryError:
            pages //= 2
            if pages * os.sysconf("SC_PAGE_SIZE") < _CPU_BYTES_MIN:
                raise
        else:
            return pages


def pages_per_cpu() -> int:
    """Of a buffer: a share of what all may lock together."""
    share = _BUFFER_BYTES // (os.cpu_count() or 1)
    size = min(max(share, _CPU_BYTES_MIN), _CPU_BYTES_MAX)
    pages = size // os.sysconf("SC_PAGE_SIZE")
    # perf accepts powers of two only
    return 1 << (pages.bit_length() - 1)
