"""What the BPF programs read from this kernel, and what they leave in it."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, NamedTuple

import pytest
from bcc.utils import get_online_cpus
from bpf_objects import objects_of
from harness import CHECKOUT, Puppet, until

from tracer.core.events import CallEvent, Instance, Op
from tracer.core.wire import UserRow, decode
from tracer.kernel.hooks import Mode, hooks
from tracer.kernel.preflight import prepare
from tracer.kernel.probe import Probe, Scope
from tracer.kernel.ring import Ring, records
from tracer.kernel.stream import Stream
from tracer.kernel.walk import KernelList

pytestmark = pytest.mark.usefixtures("root")

_FIELD = re.compile(r"field:[^;]*\b(\w+);\s*offset:(\d+);\s*size:(\d+);")


# --- layouts ---


class Field(NamedTuple):
    offset: int
    size: int


@pytest.mark.kernels
@pytest.mark.parametrize(
    "call", ["inotify_init", "inotify_init1", "inotify_add_watch", "inotify_rm_watch"]
)
def test_struct_sys_exit_is_laid_out_as_the_kernel_says(call: str, tmp_path: Path) -> None:
    prepare(print, Mode.TRACEPOINT)
    text = _tracefs(f"events/syscalls/sys_exit_{call}/format").read_text()
    fields = {name: Field(int(offset), int(size)) for name, offset, size in _FIELD.findall(text)}

    assert _layout_in_c(tmp_path) == {"nr": fields["__syscall_nr"], "ret": fields["ret"]}


def _tracefs(path: str) -> Path:
    folders = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
    return next(folder / path for folder in folders if (folder / path).exists())


def _layout_in_c(folder: Path) -> dict[str, Field]:
    source = (CHECKOUT / "bpf/tracepoint.c").read_text()
    struct = re.search(r"^struct sys_exit \{.*?^\};", source, re.MULTILINE | re.DOTALL)
    assert struct is not None
    program = f"""
        #include <stddef.h>
        #include <stdint.h>
        #include <stdio.h>
        typedef uint64_t u64; typedef int64_t s64; typedef uint32_t u32; typedef int32_t s32;
        {struct.group()}
        #define SHOW(field) printf("%zu %zu\\n", offsetof(struct sys_exit, field), \\
                                   sizeof(((struct sys_exit *)0)->field))
        int main(void) {{ SHOW(nr); SHOW(ret); }}
    """
    (folder / "layout.c").write_text(program)
    subprocess.run(["gcc", "-o", "layout", "layout.c"], cwd=folder, check=True)
    shown = subprocess.run([folder / "layout"], capture_output=True, text=True, check=True)
    nr, ret = (Field(*map(int, line.split())) for line in shown.stdout.splitlines())
    return {"nr": nr, "ret": ret}


# --- identity ---


class Tracer:
    """A probe on one process and the calls it saw."""

    def __init__(self, probe: Probe, kernel: KernelList, stream: Stream) -> None:
        self.probe = probe
        self.kernel = kernel
        self._stream = stream

    def calls(self) -> list[CallEvent]:
        """What came since the last time, in order of time."""
        assert self._stream.wait_drained(time.monotonic_ns())
        found = []
        while contents := self._stream.take().contents:
            found += [decode(record) for content in contents for record in records(content)]
        calls = [event for event in found if isinstance(event, CallEvent)]
        return sorted(calls, key=lambda event: event.ts)

    def held(self, pid: int) -> dict[tuple[int, int], Instance]:
        """(tid, fd) -> instance, for the process."""
        return {
            (row.tid, row.fd): Instance(row.group, row.gen)
            for row in self.kernel.rows().holders
            if row.tgid == pid
        }


@contextmanager
def tracer_of(scope: Scope, mode: Mode | None = None) -> Iterator[Tracer]:
    with Probe(scope, mode) as probe:
        stream = Stream(probe, lambda _: None)
        kernel = KernelList(probe.bpf)
        try:
            probe.attach()
            yield Tracer(probe, kernel, stream)
        finally:
            kernel.close()
            stream.close()


@pytest.fixture(scope="module")
def everywhere(root: None) -> Iterator[Tracer]:
    """One probe on all processes, for the tests of this module that only look."""
    with tracer_of(Scope()) as tracer:
        yield tracer


def instance_opened_by(tracer: Tracer, pid: int) -> Instance:
    (opened,) = [
        event for event in tracer.calls() if event.caller.process.pid == pid and event.op == Op.INIT
    ]
    assert opened.caller.instance.group and opened.caller.instance.gen
    return opened.caller.instance


def test_a_duplicate_is_the_same_instance(everywhere: Tracer, puppet: Puppet) -> None:
    fd = puppet.ok("init")
    twin = puppet.ok("dup", fd)
    instance = instance_opened_by(everywhere, puppet.pid)

    assert everywhere.held(puppet.pid) == {
        (puppet.pid, fd): instance,
        (puppet.pid, twin): instance,
    }


def test_a_child_holds_the_same_instance(everywhere: Tracer, puppet: Puppet) -> None:
    fd = puppet.ok("init")
    child = puppet.ok("fork")
    instance = instance_opened_by(everywhere, puppet.pid)

    assert everywhere.held(puppet.pid) == {(puppet.pid, fd): instance}
    assert everywhere.held(child) == {(child, fd): instance}


def test_a_passed_instance_is_the_same(everywhere: Tracer, puppet: Puppet) -> None:
    here, there = divmod(puppet.ok("socketpair"), 1000)
    child = puppet.ok("fork")
    made = puppet.ok("init")
    instance = instance_opened_by(everywhere, child)
    puppet.ok("send", there, made)
    puppet.tell("exit", 0)
    assert puppet.answer() == 0

    # in flight it is in no table of descriptors
    assert everywhere.held(puppet.pid) == {}
    received = puppet.ok("receive", here)
    assert everywhere.held(puppet.pid) == {(puppet.pid, received): instance}


def test_a_reused_descriptor_is_another_instance(everywhere: Tracer, puppet: Puppet) -> None:
    """GIVEN a closed instance WHEN number and memory are reused THEN the generation differs."""
    first = puppet.ok("init")
    before = instance_opened_by(everywhere, puppet.pid)
    puppet.ok("close", first)
    second = puppet.ok("init")
    after = instance_opened_by(everywhere, puppet.pid)

    assert first == second
    assert before.gen < after.gen
    assert everywhere.held(puppet.pid) == {(puppet.pid, second): after}


def test_a_thread_with_its_own_table_shows_its_own(everywhere: Tracer, puppet: Puppet) -> None:
    shared = puppet.ok("init")
    common = instance_opened_by(everywhere, puppet.pid)
    thread = puppet.ok("table")
    own = puppet.ok("init")
    private = instance_opened_by(everywhere, puppet.pid)

    assert everywhere.held(puppet.pid) == {
        (puppet.pid, shared): common,
        (thread, shared): common,
        (thread, own): private,
    }


def test_calls_name_instance_process_and_arguments(
    everywhere: Tracer, puppet: Puppet, folders: list[Path]
) -> None:
    fd = puppet.ok("init")
    wd = puppet.ok("add", fd, folders[0], 0x42)
    puppet.ok("rm", fd, wd)
    assert puppet("add", 997, folders[0]) == -errno.EBADF
    init, add, rm, failed = [
        event for event in everywhere.calls() if event.caller.process.pid == puppet.pid
    ]

    assert (
        init.caller.instance == add.caller.instance == rm.caller.instance != failed.caller.instance
    )
    assert (init.op, init.ret, init.arg) == (Op.INIT, fd, os.O_CLOEXEC)
    assert (add.op, add.caller.fd, add.ret, add.arg) == (Op.ADD, fd, wd, 0x42)
    assert add.path == os.fsencode(folders[0])
    assert (rm.op, rm.caller.fd, rm.ret, rm.wd) == (Op.RM, fd, 0, wd)
    assert (failed.caller.fd, failed.ret, failed.caller.instance.group) == (997, -errno.EBADF, 0)
    for event in (init, add, rm, failed):
        caller = event.caller
        assert (caller.tid, caller.uid, caller.comm) == (puppet.pid, os.getuid(), b"puppet")
        assert caller.process.birth // 10_000_000 == _start_ticks(puppet.pid)


def _start_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def test_rows_carry_the_kernels_own_counters(
    everywhere: Tracer, puppet: Puppet, folders: list[Path]
) -> None:
    fd = puppet.ok("init")
    for folder in folders:
        puppet.ok("add", fd, folder)
    rows = everywhere.kernel.rows()
    (row,) = [row for row in rows.holders if row.tgid == puppet.pid]

    (payer,) = [user for user in rows.users if user.ucounts == row.ucounts]
    _is_us(payer)
    assert row.queued == 0
    for folder in folders[:3]:
        (folder / "new").touch()
    (row,) = [row for row in everywhere.kernel.rows().holders if row.tgid == puppet.pid]
    limit = Path("/proc/sys/fs/inotify/max_queued_events").read_text()
    assert (row.queued, row.queue_limit) == (3, int(limit))


def _is_us(row: UserRow) -> None:
    limits = Path("/proc/sys/fs/inotify")
    assert (row.uid, row.userns) == (os.getuid(), os.stat("/proc/self/ns/user").st_ino)
    assert row.watches_limit == int((limits / "max_user_watches").read_text())
    assert row.instances_limit == int((limits / "max_user_instances").read_text())
    assert row.watches_used >= 23
    assert row.instances_used >= 1


# --- counters ---


def test_counters_are_what_was_done(puppet: Puppet, folders: list[Path]) -> None:
    with tracer_of(Scope(pids=frozenset({puppet.pid}))) as tracer:
        fd = puppet.ok("init")
        for folder in folders:
            puppet.ok("balance", fd, folder)
        assert puppet("rm", fd, 1) == -errno.EINVAL
        calls = tracer.calls()
        counters = tracer.probe.counters()

    assert len(calls) == 1 + 2 * 23 + 1
    # fentry and kprobes tell of others' removals too
    assert counters.submitted >= 48 and counters.lost == 0
    assert counters.submitted == 48 or tracer.probe.mode is not Mode.TRACEPOINT


def test_other_processes_are_out_of_scope(
    start_puppet: Callable[..., Puppet], folders: list[Path]
) -> None:
    wanted, other = start_puppet(), start_puppet()
    with tracer_of(Scope(pids=frozenset({wanted.pid}))) as tracer:
        for puppet in (wanted, other):
            puppet.ok("flood", puppet.ok("init"), folders[0], 3)
        assert {event.caller.process.pid for event in tracer.calls()} == {wanted.pid}
        submitted = tracer.probe.counters().submitted
        assert submitted == 7 or tracer.probe.mode is not Mode.TRACEPOINT


def test_every_lost_record_is_counted(puppet: Puppet, folders: list[Path]) -> None:
    """GIVEN buffers of one page that nobody drains WHEN 1,994 calls come THEN all add up."""
    with Probe(Scope(pids=frozenset({puppet.pid}))) as probe:
        rings = [Ring(cpu, pages=1) for cpu in get_online_cpus()]
        try:
            events = probe.bpf[b"events"]
            for ring in rings:
                events[events.Key(ring.cpu)] = events.Leaf(ring.fd)
            probe.attach()
            fd = puppet.ok("init")
            assert len(_taken(rings)) == 1
            puppet.ok("flood", fd, folders[0], 997)
            received = _taken(rings)
            counters = probe.counters()

            # room again: the next call arrives
            puppet.ok("add", fd, folders[0])
            assert [decode(record).op for record in _taken(rings)] == [Op.ADD]
        finally:
            for ring in rings:
                ring.close()

    assert counters.submitted == 1 + 2 * 997
    assert counters.lost == 2 * 997 - len(received)
    assert 0 < len(received) < 2 * 997


def _taken(rings: list[Ring]) -> list[bytes]:
    return [record for ring in rings for record in records(ring.take())]


# --- what is left ---


def test_a_user_without_instances_left_can_still_be_traced(puppet: Puppet) -> None:
    """GIVEN the limit that inotrace is called for, reached WHEN it starts THEN it does."""
    puppet.ok("init")
    with tracer_of(Scope()) as tracer:
        rows = tracer.kernel.rows()
    payers = {row.ucounts for row in rows.holders if row.tgid == puppet.pid}
    used = max(user.instances_used for user in rows.users if user.ucounts in payers)
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    before = limit.read_text()
    limit.write_text(str(used))
    try:
        with tracer_of(Scope()) as tracer:
            assert puppet.pid in {row.tgid for row in tracer.kernel.rows().holders}
    finally:
        limit.write_text(before)


def test_nothing_is_left_after_close(mode: Mode) -> None:
    """GIVEN a probe with all it can attach WHEN closed THEN no descriptor and no program stays."""
    scope = Scope(pids=frozenset({os.getpid()}), follow=True)
    with tracer_of(scope, mode):
        pass
    before, others = _descriptors(), objects_of(os.getpid(), "prog")
    with tracer_of(scope, mode):
        programs = objects_of(os.getpid(), "prog") - others
    after = _descriptors()

    assert after == before
    # the iterator, fork, exit, the walk at exit; with tracepoints, the doorbell
    others_attached = 5 if mode is Mode.TRACEPOINT else 4
    # one program serves several hooks, but that fentry binds each to its function
    own = len(hooks(mode)) if mode is Mode.FENTRY else len({hook.function for hook in hooks(mode)})
    assert len(programs) == own + others_attached
    until(lambda: not any(program.is_loaded() for program in programs), "the end of the programs")


def _descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            # the one that listed
            continue
    return found
