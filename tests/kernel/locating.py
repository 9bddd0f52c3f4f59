"""What the tests of paths have in common: what the kernel says, and where each way finds it."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness import Puppet

from tracer.kernel.inodes import Inodes
from tracer.kernel.probe import load_walk
from tracer.kernel.walk import KernelList
from tracer.targets.locate import How, Location, Locator, Sought
from tracer.targets.processes import process_of

NOWHERE = Location(None, How.UNRESOLVED)


class Kernel:
    """What the kernel's own list says of watches, and where they are by each way."""

    def __init__(self) -> None:
        self._bpf = load_walk(inodes=True)
        self._list = KernelList(self._bpf)
        inodes = Inodes(self._bpf)
        self.names_of, self.state_of = inodes.names_of, inodes.state

    def close(self) -> None:
        self._list.close()
        self._bpf.cleanup()

    def sought(self, pid: int, traced: bytes | None = None) -> list[Sought]:
        """The watches of a process, in the order in which they were added."""
        process = process_of(pid)
        assert process is not None
        rows = [
            Sought((process,), holder.fd, wd, watch.inode, traced)
            for walked in self._list.walk().instances.values()
            for holder in walked.holders
            if holder.process.pid == pid
            for wd, watch in walked.watches or ()
        ]
        return sorted(rows, key=lambda one: (one.fd, one.wd))

    def by_names(self, pid: int, traced: bytes | None = None) -> list[Location]:
        return places(Locator(self.names_of).locate_all(self.sought(pid, traced)))

    def by_told_handles(self, pid: int) -> list[Location]:
        """As if only fdinfo told of the watches."""
        sought = [
            one._replace(inode=one.inode._replace(address=0, generation=0))
            for one in self.sought(pid)
        ]
        return places(Locator().locate_all(sought))

    def by_made_handles(self, pid: int) -> list[Location]:
        """As if fdinfo could not be read."""
        sought = [one._replace(fd=-1) for one in self.sought(pid)]
        return places(Locator(state_of=self.state_of).locate_all(sought))


def places(found: Iterable[Location]) -> list[Location]:
    """Without who sees them, which is the one holder."""
    return [location._replace(viewer=None) for location in found]


def watch(puppet: Puppet, *targets: Path | bytes) -> None:
    fd = puppet.ok("init")
    for target in targets:
        puppet.ok("add", fd, target)


def located(path: Path | bytes, how: How) -> Location:
    return Location(os.fsencode(path), how)


@contextmanager
def descriptors(more: int) -> Iterator[None]:
    """Few of them for who looks: so many more can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    with ExitStack() as closing:
        # the numbers below that are free
        last = -1
        while last <= highest:
            last = os.dup(0)
            closing.callback(os.close, last)
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1 + more, hard))
        closing.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        yield
