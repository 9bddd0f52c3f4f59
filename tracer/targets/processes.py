"""What is known of processes, also after they ended."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from tracer.core.events import Process
from tracer.kernel.procfs import ProcessFacts, read_process

_KNOWN_MAX = 16384
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class ProcessTable:
    """Facts of processes as they were when first met; the least recently used are forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[int, ProcessFacts] = OrderedDict()
        self._ended: set[Process] = set()

    def meet(self, pid: int) -> ProcessFacts | None:
        """Read them now, replacing what was known of an earlier owner of the pid."""
        facts = read_process(pid)
        if facts is not None:
            with self._lock:
                self._known[pid] = facts
                self._known.move_to_end(pid)
                if len(self._known) > _KNOWN_MAX:
                    self._known.popitem(last=False)
        return facts

    def get(self, process: Process) -> ProcessFacts | None:
        """Facts of just this process; None if it ended before they could be read."""
        facts = self._known.get(process.pid)
        if facts is not None and _is_same(facts, process):
            return facts
        if process in self._ended:
            return None
        facts = self.meet(process.pid)
        if facts is not None and _is_same(facts, process):
            return facts
        if len(self._ended) >= _KNOWN_MAX:
            self._ended.clear()
        self._ended.add(process)
        return None


def _is_same(facts: ProcessFacts, process: Process) -> bool:
    # proc(5): starttime is in clock ticks since boot
    return facts.birth_ticks == process.birth // _TICK_NS
