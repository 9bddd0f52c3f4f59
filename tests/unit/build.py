"""Builders of what the pure code is fed with: events, walks, stacks and reports."""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from hypothesis import settings
from rich.cells import cell_len
from rich.text import Text

from tracer.core.cause import Cause
from tracer.core.events import (
    NO_STACK,
    Caller,
    CallEvent,
    ClosedEvent,
    GoneEvent,
    Instance,
    LastEvent,
    Op,
    Process,
    StackCopy,
)
from tracer.core.evidence import Evidence
from tracer.core.growth import History
from tracer.core.report import (
    AuditRow,
    EndedRow,
    FailureRow,
    HolderRow,
    Host,
    InstanceRow,
    ProcessRow,
    Report,
    SiteRow,
    SuppressedRow,
    TargetRow,
    TraceSummary,
    Unit,
    Use,
    UserLimits,
)
from tracer.core.shortage import INITIAL_USERNS, HolderShare, Resource, Shortage
from tracer.core.site import Place, Share, Site
from tracer.core.stack import Frame, Stack, StackState, missing
from tracer.core.verdict import Verdict
from tracer.core.walk import (
    HolderFd,
    Inode,
    KernelWatch,
    Queue,
    Target,
    UserUse,
    Walk,
    WalkedInstance,
    WatchRows,
)
from tracer.core.wire import CALL, CLOSED, COPY, EXACT_PC, GONE, LAST, WATCH_ROW, WatchRow

# a busy machine must not fail a test that is only slow
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")

SECOND = 1_000_000_000
IN_CREATE, IN_MODIFY = 0x100, 0x2
ENOSPC = 28

AGENT = Process(pid=1173, birth=7)
OTHER = Process(pid=2311, birth=11)
FIRST = Instance(group=0xFFFF888000001000, gen=100)

WRAPPER = Frame("inotify_add_watch", b"/usr/lib/x86_64-linux-gnu/libc.so.6", 11)
ATTACH = Frame("attach", b"/usr/bin/agent", 41, "secrets.c", 88)
MOUNT = Frame("mount_volume", b"/usr/bin/agent", 230)
START = Frame("__libc_start_main", b"/usr/lib/x86_64-linux-gnu/libc.so.6", 128)
STACK = Stack((WRAPPER, ATTACH, MOUNT, START), StackState.COMPLETE)
ANOTHER_STACK = Stack((WRAPPER, MOUNT, START), StackState.COMPLETE)


# --- events ---


def call(op: Op, ts: int, **changes: Any) -> CallEvent:
    """A successful call of AGENT on FIRST; `changes` are of the event or of its caller."""
    caller = Caller(
        op=op,
        process=AGENT,
        instance=FIRST,
        exec_id=1,
        tid=changes.get("process", AGENT).pid,
        uid=0,
        fd=3,
        comm=b"agent",
        stack=NO_STACK,
    )
    of_caller = {name: changes.pop(name) for name in Caller._fields if name in changes}
    event = CallEvent(ts=ts, caller=caller._replace(**of_caller), ret=0, arg=0, path=None)
    return event._replace(**changes)


def init(ts: int, fd: int = 3, **changes: Any) -> CallEvent:
    return call(Op.INIT, ts, fd=fd, ret=fd, **changes)


def add(ts: int, wd: int, **changes: Any) -> CallEvent:
    changes.setdefault("arg", IN_CREATE)
    changes.setdefault("path", b"/run/secrets/%d" % wd)
    return call(Op.ADD, ts, ret=wd, **changes)


def rm(ts: int, wd: int, **changes: Any) -> CallEvent:
    return call(Op.RM, ts, arg=wd & 0xFFFFFFFF, **changes)


def failed(op: Op, ts: int, errno: int, **changes: Any) -> CallEvent:
    return call(op, ts, ret=-errno, **changes)


def last(ts: int, wds: Iterable[int], **changes: Any) -> LastEvent:
    """AGENT ends while FIRST has these watches."""
    process = changes.pop("process", AGENT)
    instance = changes.pop("instance", FIRST)
    event = LastEvent(
        process.pid, ts, instance.group, instance.gen, process.birth, tuple(wds), False
    )
    return event._replace(**changes)


def gone(ts: int, wd: int, instance: Instance = FIRST, trace: Iterable[int] = ()) -> GoneEvent:
    """A watch goes by itself; who caused it has no part in inotify."""
    return GoneEvent(4001, ts, instance.group, instance.gen, wd, tuple(trace))


def closed(ts: int, instance: Instance = FIRST, closer: Process = AGENT) -> ClosedEvent:
    return ClosedEvent(closer.pid, ts, instance.group, instance.gen)


def call_record(event: CallEvent, padding: int = 0) -> bytes:
    """The record from which `event` is decoded, with as much padding at the end."""
    caller = event.caller
    stack = caller.stack
    path = b"" if event.path is None else event.path + b"\0"
    head = CALL.pack(
        caller.op,
        caller.process.pid,
        event.ts,
        event.ret,
        event.arg,
        len(stack.frames),
        len(path),
        event.inode,
        event.ino,
        event.dev,
        event.detail,
        *caller.instance,
        caller.process.birth,
        stack.end,
        stack.guessed,
        caller.exec_id,
        caller.tid,
        caller.uid,
        caller.fd,
        caller.comm,
    )
    return head + stack.frames + path + b"\xa5" * padding


def copy_record(copy: StackCopy, padding: int = 0) -> bytes:
    """As bpf/unwind.c sends it; perf may pad it."""
    pc = copy.pc | EXACT_PC if copy.is_exact else copy.pc
    head = COPY.pack(
        Op.COPY,
        copy.process.pid,
        copy.ts,
        copy.process.birth,
        copy.exec_id,
        copy.tid,
        pc,
        copy.sp,
        copy.fp,
        copy.base,
        copy.stack,
        copy.frames,
        len(copy.content),
        copy.present,
        0,
        struct.pack("=33Q", *copy.registers),
    )
    return head + copy.content + b"\xa5" * padding


def last_record(event: LastEvent, padding: int = 0) -> bytes:
    head = LAST.pack(
        Op.LAST,
        event.tgid,
        event.ts,
        event.group,
        event.gen,
        event.birth,
        len(event.wds),
        event.truncated,
    )
    return head + struct.pack(f"={len(event.wds)}i", *event.wds) + b"\xa5" * padding


def gone_record(event: GoneEvent, padding: int = 0) -> bytes:
    frames = struct.pack(f"={len(event.trace)}Q", *event.trace)
    head = GONE.pack(Op.GONE, event.tgid, event.ts, event.group, event.gen, event.wd, len(frames))
    return head + frames + b"\xa5" * padding


def closed_record(event: ClosedEvent, padding: int = 0) -> bytes:
    return CLOSED.pack(Op.CLOSED, *event) + b"\xa5" * padding


# --- walks ---


def kernel_watch(wd: int, mask: int = IN_CREATE) -> KernelWatch:
    return KernelWatch(Inode(0xFFFF888100000000 + wd, 1000 + wd, os.makedev(8, 1), 7), mask)


def watch_rows(watches: Mapping[int, KernelWatch], portion: int = 7) -> WatchRows:
    """As a walk tells them, so many in each portion."""
    rows = [
        WATCH_ROW.pack(
            *WatchRow(
                one.inode.address, one.inode.ino, wd, one.inode.dev, one.mask, one.inode.generation
            )
        )
        for wd, one in watches.items()
    ]
    portions = (b"".join(rows[at : at + portion]) for at in range(0, len(rows), portion))
    return WatchRows([memoryview(content) for content in portions])


def walked(
    wds: Iterable[int] | None,
    read_at: int,
    instance: Instance = FIRST,
    process: Process = AGENT,
    fd: int = 3,
    queued: int = 0,
    oldest: int = 0xFFFF888200000000,
    queue_limit: int | None = None,
) -> WalkedInstance:
    """`wds` None: the instance could not be read."""
    watches = None if wds is None else watch_rows({wd: kernel_watch(wd) for wd in wds})
    queue = Queue(queued, oldest, queue_limit)
    return WalkedInstance(instance, (HolderFd(process, fd),), queue, read_at, watches)


def walk(
    *instances: WalkedInstance,
    began: int,
    ended: int | None = None,
    users: tuple[UserUse, ...] = (),
) -> Walk:
    latest = max((one.read_at for one in instances), default=began)
    by_key = {one.instance: one for one in instances}
    return Walk(began, max(began, latest) + 1 if ended is None else ended, by_key, users)


# --- histories ---


def history(lives: Iterable[tuple[float, float]], until: float, **changes: Any) -> History:
    """
    Of one process, which added and removed at these times; those that go after `until` are left.

    Times in seconds.
    """
    times = [(int(came * SECOND), int(min(gone, 1 << 32) * SECOND)) for came, gone in lives]
    share = Share(Site(Place(int(Op.ADD), b"", None, STACK.identity), STACK, b"agent"), AGENT)
    share.site.shares[AGENT] = share
    end = int(until * SECOND)
    comings = [(came, 1, came) for came, _ in times]
    goings = [(gone, -1, came) for came, gone in times if gone <= end]
    # who goes makes room for who comes
    for at, change, came in sorted([*goings, *comings], key=lambda one: one[:2]):
        if change > 0:
            share.enter(at)
        else:
            share.leave(at, came, Cause.RM_WATCH)
    made = History(
        left_since=sorted(came for came, gone in times if gone > end),
        removed=share.removed,
        longest_life=share.longest_life,
        course=share.course,
        until=end,
    )
    return made._replace(**changes)


# --- reports ---


def target(number: int = 1, **changes: Any) -> TargetRow:
    row = TargetRow(
        path=b"/run/secrets/%d" % number,
        target=Target(os.makedev(8, 1), 1000 + number),
        pid=AGENT.pid,
        wd=number,
        age_s=61.5,
        state="verified",
    )
    return dataclasses.replace(row, **changes)


def site(verdict: Verdict, live: int, added: int | None = None, **changes: Any) -> SiteRow:
    row = SiteRow(
        id=f"{verdict.value:0<12.12}",
        unit=Unit.WATCHES,
        verdict=verdict,
        comm=b"agent",
        pids=(AGENT.pid,) if live else (),
        live=live,
        added=live if added is None else added,
        removed={},
        per_round=(),
        stack=STACK,
        evidence=(),
        targets=tuple(map(target, range(1, live + 1))),
    )
    return dataclasses.replace(row, **changes)


def leak(live: int = 23, **changes: Any) -> SiteRow:
    evidence = (
        Evidence("grows_to_end", "grew in each of 4 parts of 2 min 13 s, up to the end"),
        Evidence("never_removed", "none was ever removed"),
    )
    return site(Verdict.LEAK, live, **{"evidence": evidence, **changes})


def opening(verdict: Verdict, live: int, added: int | None = None, **changes: Any) -> SiteRow:
    """A place that opens instances, by the descriptors from 3 on."""
    holders = tuple(HolderRow(AGENT.pid, 3 + i, b"agent") for i in range(live))
    default = {"unit": Unit.INSTANCES, "targets": (), "holders": holders}
    return site(verdict, live, added, **{**default, **changes})


def process(pid: int = AGENT.pid, **changes: Any) -> ProcessRow:
    row = ProcessRow(
        pid=pid,
        comm=b"agent",
        exe=b"/usr/bin/agent",
        uid=0,
        added=0,
        updated=0,
        failed=0,
        removed={},
        live=0,
        baseline=0,
        instances=1,
    )
    return dataclasses.replace(row, **changes)


def ended(comm: bytes = b"sh", processes: int = 23, **changes: Any) -> EndedRow:
    row = EndedRow(comm, processes, added=30, updated=2, failed=3, removed={}, baseline=0)
    return dataclasses.replace(row, **changes)


def failure(**changes: Any) -> FailureRow:
    row = FailureRow(
        call="inotify_add_watch",
        errno="ENOSPC",
        count=17,
        pid=AGENT.pid,
        comm=b"agent",
        explanation="the user has as many watches as fs.inotify.max_user_watches allows",
    )
    return dataclasses.replace(row, **changes)


def shortage(**changes: Any) -> Shortage:
    row = Shortage(
        resource=Resource.WATCHES,
        used=8192,
        limit=8192,
        uid=0,
        user="root",
        userns=INITIAL_USERNS,
        holders=(
            HolderShare(AGENT.pid, b"agent", 7468, 27),
            HolderShare(450, b"udevd", 13, 1),
        ),
        others=2,
    )
    return dataclasses.replace(row, **changes)


def limits(**changes: Any) -> UserLimits:
    row = UserLimits(
        uid=0, user="root", userns=4026531837, watches=Use(7491, 8192), instances=Use(28, 128)
    )
    return dataclasses.replace(row, **changes)


def instance(**changes: Any) -> InstanceRow:
    row = InstanceRow(
        id="ffff888000001000.64",
        holders=(HolderRow(AGENT.pid, 3, b"agent"),),
        watches=23,
        queued=5,
        opened_by=None,
    )
    return dataclasses.replace(row, **changes)


def trace(**changes: Any) -> TraceSummary:
    row = TraceSummary(
        seconds=133.2,
        rounds=0,
        added=0,
        updated=0,
        removed={},
        failed=0,
        lost=0,
        healed=0,
        complete=True,
    )
    return dataclasses.replace(row, **changes)


def report(
    sites: Iterable[SiteRow] = (),
    processes: Iterable[ProcessRow] = (),
    failures: Iterable[FailureRow] = (),
    limits: Iterable[UserLimits] = (),
    instances: Iterable[InstanceRow] = (),
    ended: Iterable[EndedRow] = (),
    audit: Iterable[AuditRow] = (),
    suppressed: Iterable[SuppressedRow] = (),
    **changes: Any,
) -> Report:
    """`changes` are of the trace."""
    return Report(
        host=Host("6.1.0-25-amd64", "tracepoint", "iterator and /proc fdinfo"),
        trace=trace(**changes),
        limits=tuple(limits),
        processes=tuple(processes),
        instances=tuple(instances),
        sites=tuple(sites),
        failures=tuple(failures),
        ended=tuple(ended),
        audit=tuple(audit),
        suppressed=tuple(suppressed),
    )


def busy_report() -> Report:
    """A leak, held, clean and lost stacks, failures and limits: one of everything."""
    held = (Evidence("plateau", "did not grow in the last 2 min 1 s"),)
    removed: Mapping[Cause, int] = {Cause.RM_WATCH: 261, Cause.DELETED: 5}
    lost_stack = missing("the process ended before its symbols could be read")
    return report(
        sites=[
            leak(),
            site(Verdict.HELD, 5, stack=ANOTHER_STACK, evidence=held),
            site(Verdict.CLEAN, 0, 266, removed=removed, stack=lost_stack),
        ],
        processes=[
            process(
                added=294,
                removed={Cause.RM_WATCH: 261, Cause.DELETED: 5},
                live=7491,
                baseline=7463,
                instances=28,
                leaked=23,
                failed=17,
                verdict=Verdict.LEAK,
            ),
            process(450, comm=b"udevd", live=13, baseline=13, verdict=Verdict.HELD),
        ],
        failures=[failure()],
        limits=[limits()],
        instances=[instance()],
        added=294,
        removed=removed,
        failed=17,
    )


# --- text ---


def plain(lines: Iterable[Text]) -> list[str]:
    return [line.plain for line in lines]


def widest(lines: Iterable[Text]) -> int:
    return max((line.cell_len for line in lines), default=0)


def cells(text: str) -> int:
    return cell_len(text)
