"""What is known of processes, also after they ended."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from tracer.core.events import Process
from tracer.kernel.procfs import ProcessFacts, birth_ticks, read_process, running_pids
from tracer.targets.cgroups import memberships
from tracer.targets.containers import Belonging, belonging_of

_KNOWN_MAX = 16384
# many more than the ledger tells apart, so that none of those is looked up again
_ENDED_MAX = 65536
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass
class _Met:
    """
    `parent` and `belonging` are the first that were seen, `is_orphan` what was last found when
    asked.
    """

    facts: ProcessFacts
    parent: int
    belonging: Belonging | None
    is_orphan: bool = False


class ProcessTable:
    """
    Facts of processes as they were when first met; the least recently used are forgotten.

    What they belong to is read only with `belongings`.
    """

    def __init__(self, *, belongings: bool = False) -> None:
        self._belongings = belongings
        self._lock = threading.Lock()
        self._known: OrderedDict[int, _Met] = OrderedDict()
        self._ended: OrderedDict[Process, None] = OrderedDict()

    def meet(self, pid: int) -> ProcessFacts | None:
        """Read them now, replacing what was known of an earlier owner of the pid."""
        facts = read_process(pid)
        if facts is not None:
            self._keep(facts)
        return facts

    def belonging(self, process: Process) -> Belonging | None:
        """What it belonged to when it was first met; None if that was not read in time."""
        if self.get(process) is None:
            return None
        with self._lock:
            met = self._known.get(process.pid)
            return met.belonging if met is not None and _is_same(met.facts, process) else None

    def _keep(self, facts: ProcessFacts) -> _Met:
        with self._lock:
            met = self._known.get(facts.pid)
        if met is None or met.facts.birth_ticks != facts.birth_ticks:
            met = _Met(facts, facts.parent, _belonging(facts) if self._belongings else None)
        with self._lock:
            self._known[facts.pid] = met
            met.facts = facts
            self._known.move_to_end(facts.pid)
            if len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)
            return met

    def get(self, process: Process) -> ProcessFacts | None:
        """Facts of just this process; None if it ended before they could be read."""
        with self._lock:
            met = self._known.get(process.pid)
            if met is not None and _is_same(met.facts, process):
                self._known.move_to_end(process.pid)
                return met.facts
            if process in self._ended:
                return None
        facts = self.meet(process.pid)
        if facts is not None and _is_same(facts, process):
            return facts
        self._has_ended(process)
        return None

    def is_orphan(self, process: Process) -> bool:
        """Whether its parent has ended; of a process that has ended, as it was last seen."""
        now = read_process(process.pid)
        with self._lock:
            met = self._known.get(process.pid)
        if met is not None and not _is_same(met.facts, process):
            met = None
        if now is not None and _is_same(now, process):
            met = met or self._keep(now)
            met.is_orphan = now.parent != met.parent or _was_handed_on(now)
        return met is not None and (met.is_orphan or met.facts.parent != met.parent)

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


def process_of(pid: int) -> Process | None:
    """Which process has a pid now; None if none has. Its birth is of a clock tick's precision."""
    ticks = birth_ticks(pid)
    return None if ticks is None else Process(pid, ticks * _TICK_NS)


def is_running(process: Process) -> bool:
    """Whether it has not ended, and the pid not been given to another. Reads /proc each time."""
    ticks = birth_ticks(process.pid)
    return ticks is not None and ticks == process.birth // _TICK_NS


def _belonging(facts: ProcessFacts) -> Belonging | None:
    found = belonging_of(memberships(facts.pid))
    # the pid may be of another by now
    return found if birth_ticks(facts.pid) == facts.birth_ticks else None


def _is_same(facts: ProcessFacts, process: Process) -> bool:
    # proc(5): starttime is in clock ticks since boot
    return facts.birth_ticks == process.birth // _TICK_NS


def _was_handed_on(facts: ProcessFacts) -> bool:
    # A child is of its parent's session or leads one of its own, as the daemons do that systemd
    # starts: credentials(7). Once the parent has ended, the child is handed to init or a subreaper,
    # which is of another session: by that POSIX.1 tells an orphaned process group. The daemon that
    # forked again after setsid() has lost its parent, too.
    if not facts.parent or not facts.session or facts.session == facts.pid:
        return False
    parent = read_process(facts.parent)
    return parent is not None and parent.session != facts.session
