"""From attached probes to symbolized events in order of time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain

from tracer.core.cause import Cause
from tracer.core.events import CallEvent, Event, GoneEvent, TallyEvent, WalkEnd
from tracer.core.order import SLACK_NS, Order, Traced
from tracer.core.stack import missing
from tracer.core.wire import Arrival, decode
from tracer.errors import InotraceError
from tracer.kernel.causes import Causes
from tracer.kernel.hooks import Mode
from tracer.kernel.kallsyms import kernel_symbols
from tracer.kernel.probe import Probe, Scope
from tracer.kernel.ring import records
from tracer.kernel.spill import Spill
from tracer.kernel.stack_walk import StackWalk
from tracer.kernel.stream import Stream
from tracer.stacks.resolver import StackResolver
from tracer.targets.processes import ProcessTable

# past the __new__ of a NamedTuple, which is Python
_make_traced = Traced._make
# Events that wait for their turn while more is taken back, at some 400 bytes each.
_HELD_BACK_MAX = 131_072
_NO_CALL = missing("not a call")
_COPIES_WITHIN_S = 1.0


class Feed:
    """
    Use as a context manager; nothing comes before `attach`.

    `processes` learns of each process as soon as it is seen. What the buffers refused comes late:
    `lost` counts the records, `recovered` the calls that came so, and nothing from before
    `healed_until` (nanoseconds of CLOCK_MONOTONIC) is still to come. `mode` None is the best that
    works.
    """

    def __init__(
        self,
        scope: Scope,
        stacks: StackResolver,
        processes: ProcessTable,
        mode: Mode | None = None,
    ) -> None:
        self._stacks = stacks
        self._processes = processes
        self._is_attached = False
        self._order = Order()
        self.lost = 0
        self.recovered = 0
        self.healed_until = 0
        self._causes: Causes | None = None
        self.probe = Probe(scope, mode)
        try:
            self._spill = Spill(self.probe.bpf)
            stacks.begin(StackWalk(self.probe.bpf))
            self._stream = Stream(self.probe, self._meet, stacks.learn, stacks.tidy)
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

    def cause_of(self, event: GoneEvent) -> Cause:
        """Why a watch went."""
        if self._causes is None:
            self._causes = Causes(kernel_symbols())
        return self._causes.cause(event.trace)

    def rang_since(self, ts: int) -> bool:
        """Whether watches may have gone after `ts` that no event tells of."""
        doorbell = self.probe.doorbell
        return doorbell is not None and doorbell.rang_at() > ts

    @property
    def is_rushing(self) -> bool:
        """Whether a burst of calls is on its way, better worked on when it is over."""
        return self._stream.is_rushing

    def ready(self, within_s: float) -> Iterator[list[Traced]]:
        """The events whose place in time is certain, in portions, for `within_s` at most."""
        ends = time.monotonic() + within_s
        # what was refused is newer than a backlog: it waits in the kernel rather than here
        if len(self._order) < _HELD_BACK_MAX:
            self._recover()
        contents: list[bytes] | None = None
        while contents != [] and time.monotonic() < ends:
            contents, drained_until = self._stream.take()
            self._order.add(self._symbolized(_decoded(contents)))
            yield self._order.until(drained_until - SLACK_NS)

    def all_until(self, ts: int) -> Iterator[Traced]:
        """Every event up to `ts`. Raises InotraceError if the buffers cannot be drained."""
        enough = ts + SLACK_NS
        while True:
            taken = self._stream.take()
            self._order.add(self._symbolized(_decoded(taken.contents)))
            if taken.drained_until >= enough:
                self._recover()
                yield from self._order.until(ts)
                return
            yield from self._order.until(min(ts, taken.drained_until - SLACK_NS))
            if not taken.contents and not self._stream.wait_drained(enough):
                raise InotraceError(
                    "inotrace did not get to read its buffers for a minute: the machine is "
                    "overloaded, try again with 'nice -n -5'"
                )

    def _recover(self) -> None:
        """Take in what the buffers refused up to now."""
        now = time.monotonic_ns()
        lost = self.probe.counters().lost
        if lost != self.lost:
            self.lost = lost
            refused = list(self._spill.take())
            if any(_needs_copy(event) for event in refused):
                # which has a buffer of its own, and may still be there
                self._stream.wait_drained(time.monotonic_ns(), _COPIES_WITHIN_S)
            recovered = list(self._symbolized(refused))
            self.recovered += sum(isinstance(traced.event, CallEvent) for traced in recovered)
            self._order.add(recovered)
        self.healed_until = now

    def _symbolized(self, events: Iterable[Event]) -> Iterator[Traced]:
        # before ordering: a process may end any moment, and its names with it
        resolve = self._stacks.resolve
        for event in events:
            stack = _NO_CALL
            if isinstance(event, CallEvent):
                stack = resolve(event)
            elif isinstance(event, TallyEvent):
                stack = resolve(event.call)
            yield _make_traced((event.ts, event, stack))

    def _meet(self, arrival: Arrival) -> None:
        self._stacks.meet(arrival)
        self._processes.meet(arrival.tgid)


def _decoded(contents: Iterable[bytes]) -> Iterator[Event]:
    return map(decode, chain.from_iterable(map(records, contents)))


def _needs_copy(event: CallEvent | TallyEvent) -> bool:
    call = event.call if isinstance(event, TallyEvent) else event
    return call.caller.stack.end == WalkEnd.NO_ROW
