"""What the bench of stacks loads into the kernel: inotrace's programs, and their rivals."""

from __future__ import annotations

import ctypes
import enum
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from common import Worker

from tracer.core.events import CallEvent, Op, StackCopy, WalkEnd
from tracer.core.wire import Arrival, decode
from tracer.kernel.btf import compiler_definitions
from tracer.kernel.cpus import online_cpus
from tracer.kernel.hooks import Mode
from tracer.kernel.probe import Probe, Scope, bpf_folder
from tracer.kernel.ring import Ring, records
from tracer.kernel.stack_walk import StackWalk
from tracer.kernel.stream import Stream
from tracer.stacks.collector import Stacks
from tracer.stacks.resolver import NoStacks, StackResolver

# room for a portion of calls, since nobody reads it meanwhile
_RIVAL_PAGES = 1024
_WARM_UPS_MAX = 20
_RIVALS = Path(__file__).with_name("rivals.c")
_RUN = re.compile(r"^run_time_ns:\s+(\d+)\nrun_cnt:\s+(\d+)$", re.MULTILINE)


class Kind(enum.IntEnum):
    """Of stack, as in rivals.c."""

    NONE = 0
    GET_STACK = 1
    GET_STACKID = 2


class Tool(ABC):
    """`functions` of `bpf` are run by the calls; `copies` are the stacks that the kernel missed."""

    bpf: Any
    functions: tuple[bytes, ...]

    def __init__(self) -> None:
        self.copies: list[StackCopy] = []

    @abstractmethod
    def close(self) -> None:
        """Unload it."""

    @abstractmethod
    def take(self) -> list[bytes]:
        """All that came since."""

    @abstractmethod
    def frames_of(self, event: CallEvent) -> int:
        """How many the kernel told of."""

    def ran(self) -> tuple[int, int]:
        """Nanoseconds and runs so far, as far as the kernel keeps them."""
        found = []
        for function in self.functions:
            fd = self.bpf.funcs[function].fd
            match = _RUN.search(Path(f"/proc/self/fdinfo/{fd}").read_text())
            found.append((int(match[1]), int(match[2])) if match else (0, 0))
        return sum(ns for ns, _ in found), sum(runs for _, runs in found)


class Inotrace(Tool):
    """Its own loading, draining and learning; events are taken, and thrown away."""

    functions = (b"on_call",)

    def __init__(self, pids: frozenset[int], stacks: bool, learns: bool = True) -> None:
        super().__init__()
        self.resolver: StackResolver = Stacks() if stacks else NoStacks()
        self.arrivals: list[Arrival] = []
        self._learns = learns
        # the same hooks as the rivals'
        self._probe = Probe(Scope(pids=pids, stacks=stacks), Mode.TRACEPOINT)
        self.bpf = self._probe.bpf
        self.resolver.begin(StackWalk(self.bpf))
        self._stream = Stream(self._probe, self._meet, self._learn, self.resolver.tidy)
        self._probe.attach()

    def close(self) -> None:
        self._stream.close()
        self._probe.close()
        self.resolver.close()

    def take(self) -> list[bytes]:
        self._stream.wait_drained(time.monotonic_ns())
        contents: list[bytes] = []
        while (taken := self._stream.take()).contents:
            contents += taken.contents
        return contents

    def frames_of(self, event: CallEvent) -> int:
        assert event.caller.stack.end == WalkEnd.OUTERMOST
        return len(event.caller.stack.addresses())

    def _meet(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)
        self.resolver.meet(arrival)

    def _learn(self, copy: StackCopy) -> None:
        self.copies.append(copy)
        if self._learns:
            self.resolver.learn(copy)


class Rival(Tool):
    """rivals.c, with a kind of stack."""

    functions = (b"on_add", b"on_rm")

    def __init__(self, pids: frozenset[int], kind: Kind) -> None:
        super().__init__()
        os.environ["BCC_KERNEL_SOURCE"] = str(bpf_folder())
        from bcc import BPF

        options = ["-w", f"-I{bpf_folder()}", f"-DSTACK={kind.value}", *compiler_definitions()]
        self.bpf = BPF(text=_RIVALS.read_bytes(), cflags=options)
        self._rings = [Ring(cpu, _RIVAL_PAGES) for cpu in online_cpus()]
        events, scope = self.bpf[b"events"], self.bpf[b"scope"]
        for ring in self._rings:
            events[events.Key(ring.cpu)] = events.Leaf(ring.fd)
        for pid in pids:
            scope[ctypes.c_uint(pid)] = ctypes.c_ubyte(1)
        for call, function in zip(("add", "rm"), self.functions):
            point = f"syscalls:sys_exit_inotify_{call}_watch"
            self.bpf.attach_tracepoint(tp=point.encode(), fn_name=function)

    def close(self) -> None:
        self.bpf.cleanup()
        for ring in self._rings:
            ring.close()

    def take(self) -> list[bytes]:
        return [content for ring in self._rings if (content := ring.take())]

    def frames_of(self, event: CallEvent) -> int:
        # a negative number is an error
        if 0 < event.detail < 1 << 31:
            return len(list(self.bpf[b"stacks"].walk(event.detail)))
        return len(event.caller.stack.addresses())


def warmed_up(tool: Tool, worker: Worker, what: str = "pairs 100") -> list[CallEvent]:
    """The adds of a round in which the kernel missed nothing."""
    for _ in range(_WARM_UPS_MAX):
        copies = len(tool.copies)
        worker.ask(what)
        adds = adds_of(tool.take())
        if len(tool.copies) == copies:
            return adds
    raise RuntimeError("the kernel still sends copies")


def adds_of(contents: Iterable[bytes]) -> list[CallEvent]:
    events = map(decode, chain.from_iterable(map(records, contents)))
    return [event for event in events if isinstance(event, CallEvent) and event.op == Op.ADD]
