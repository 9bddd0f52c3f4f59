"""Which processes are asked for."""

from __future__ import annotations

from dataclasses import dataclass

from tracer.kernel.probe import Scope
from tracer.kernel.procfs import ProcessFacts
from tracer.targets.cgroups import Cgroup


@dataclass(frozen=True)
class Filter:
    """
    Whom to trace: all, or what matches everything given.

    `name` is a part of a comm; `cgroup` is meant with all below it.
    """

    pids: frozenset[int] = frozenset()
    uid: int | None = None
    name: bytes = b""
    cgroup: Cgroup | None = None

    def includes(self, process: ProcessFacts) -> bool:
        """Whether a process is asked for."""
        return (
            self.uid in (None, process.uid)
            and self.name in process.comm
            and self.includes_pid(process.pid)
        )

    def includes_pid(self, pid: int) -> bool:
        """Whether the process is asked for, as far as its facts do not matter."""
        return (not self.pids or pid in self.pids) and (
            self.cgroup is None or self.cgroup.includes(pid)
        )

    def scope(self, *, stacks: bool = True, removal_stacks: bool = False) -> Scope:
        """The same for the kernel side."""
        return Scope(
            pids=self.pids or None,
            uid=self.uid,
            name=self.name,
            cgroup=None if self.cgroup is None else self.cgroup.scoped(),
            stacks=stacks,
            removal_stacks=removal_stacks,
        )
