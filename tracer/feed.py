"""From attached probes to symbolized events in order of time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain

from tracer.core.events import CallEvent
from tracer.core.order import SLACK_NS, Order, Traced
from tracer.core.stack import missing
from tracer.core.wire import Arrival, decode
from tracer.errors import InotraceError
from tracer.kernel.probe import Probe, Scope
from tracer.kernel.ring import records
from tracer.kernel.stream import Stream
from tracer.stacks.resolver import StackResolver
from tracer.targets.processes import ProcessTable

_NO_CALL = missing("not a call")


class Feed:
    """
    Use as a context manager; nothing comes before `attach`.

    `processes` learns of each process as soon as it is seen.
    """

    def __init__(self, scope: Scope, stacks: StackResolver, processes: ProcessTable) -> None:
        self._stacks = stacks
        self._processes = processes
        self._is_attached = False
        self._order = Order()
        self.probe = Probe(scope)
        try:
            self._stream = Stream(self.probe, self._meet)
        except BaseException:
            self.probe.close()
            raise

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def attach(self) -> None:
        """Start tracing, unless it was started. Raises InotraceError if the kernel refuses."""
        if not self._is_attached:
            self._is_attached = True
            self.probe.attach()

    def close(self) -> None:
        with ExitStack() as closing:
            closing.callback(self._stacks.close)
            closing.callback(self.probe.close)
            closing.callback(self._stream.close)

    def ready(self, within_s: float) -> Iterator[list[Traced]]:
        """The events whose place in time is certain, in portions, for `within_s` at most."""
        ends = time.monotonic() + within_s
        contents: list[bytes] | None = None
        while contents != [] and time.monotonic() < ends:
            contents, drained_until = self._stream.take()
            self._order.add(self._symbolized(contents))
            yield self._order.until(drained_until - SLACK_NS)

    def all_until(self, ts: int) -> Iterator[Traced]:
        """Every event up to `ts`. Raises InotraceError if the buffers cannot be drained."""
        enough = ts + SLACK_NS
        while True:
            taken = self._stream.take()
            self._order.add(self._symbolized(taken.contents))
            yield from self._order.until(min(ts, taken.drained_until - SLACK_NS))
            if taken.drained_until >= enough:
                return
            if not taken.contents and not self._stream.wait_drained(enough):
                raise InotraceError("the kernel's buffers could not be drained within 5 s")

    def _symbolized(self, contents: Iterable[bytes]) -> Iterator[Traced]:
        # before ordering: a process may end any moment, and its names with it
        for record in chain.from_iterable(map(records, contents)):
            event = decode(record)
            stack = self._stacks.resolve(event) if isinstance(event, CallEvent) else _NO_CALL
            yield Traced(event.ts, event, stack)

    def _meet(self, arrival: Arrival) -> None:
        self._stacks.meet(arrival)
        self._processes.meet(arrival.tgid)
