"""What is known of processes, also after they ended."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable

from tracer.core.events import Process
from tracer.kernel.procfs import ProcessFacts, read_process, running_pids

_KNOWN_MAX = 16384
# many more than the ledger tells apart, so that none of those is looked up again
_ENDED_MAX = 65536
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class ProcessTable:
    """Facts of processes as they were when first met; the least recently used are forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[int, ProcessFacts] = OrderedDict()
        self._ended: OrderedDict[Process, None] = OrderedDict()

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
        with self._lock:
            facts = self._known.get(process.pid)
            if facts is not None and _is_same(facts, process):
                self._known.move_to_end(process.pid)
                return facts
            if process in self._ended:
                return None
        facts = self.meet(process.pid)
        if facts is not None and _is_same(facts, process):
            return facts
        self._has_ended(process)
        return None

    def ended(self, processes: Iterable[Process]) -> list[Process]:
        """
        Those of them that have ended for sure.

        A later owner of the pid that inotrace never met is not told from the process.
        """
        running = frozenset(running_pids())
        ended = []
        for process in processes:
            if process.pid not in running:
                self._has_ended(process)
                ended.append(process)
            elif self.get(process) is None:
                ended.append(process)
        return ended

    def _has_ended(self, process: Process) -> None:
        with self._lock:
            self._ended[process] = None
            if len(self._ended) > _ENDED_MAX:
                self._ended.popitem(last=False)


def _is_same(facts: ProcessFacts, process: Process) -> bool:
    # proc(5): starttime is in clock ticks since boot
    return facts.birth_ticks == process.birth // _TICK_NS
