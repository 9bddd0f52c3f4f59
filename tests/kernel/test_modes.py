"""What the kernel allows is found by trying, and removals are seen as they happen."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from agreement import Case, by_iterator
from harness import Inotrace, Puppet, kernel_watches_of, ledger_watches, until, working_modes

from tracer import session as session_module
from tracer.core.accounts import Cause
from tracer.errors import InotraceError
from tracer.kernel import hooks, modes, probe, trials
from tracer.kernel.hooks import Mode
from tracer.kernel.modes import Finding, choose, find
from tracer.kernel.preflight import prepare
from tracer.kernel.probe import Probe, Scope
from tracer.kernel.symbols import BccStacks
from tracer.kernel.trials import try_fentry, try_hit, try_kprobe, try_reading
from tracer.session import Filter, Session

pytestmark = pytest.mark.usefixtures("root")

Start = Callable[..., Inotrace]
Removals = Callable[[], "dict[Cause, int]"]
IN_CREATE, IN_ONESHOT = 0x100, 0x80000000
_FAR_AWAY_S = 3600.0


def refused(*found: Mode) -> dict[Mode, Finding]:
    """Findings as if these modes did not work, and the others did."""
    return {mode: Finding(mode not in found, "not today" * (mode in found)) for mode in Mode}


# --- which mode ---


@pytest.mark.kernels
def test_each_mode_works_or_says_why_not() -> None:
    prepare(print)
    for mode in Mode:
        works, reason = find(mode)
        assert works == (reason == ""), mode


def test_a_mode_that_was_found_to_work_traces(mode: Mode) -> None:
    """What the trial says is what attaching the real programs says."""
    with Probe(Scope(), mode) as traced:
        assert traced.mode is mode


@pytest.mark.kernels
def test_modes_that_were_found_refused_do_not_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """GIVEN a trial that lies WHEN the real programs are attached THEN the kernel refuses too."""
    missing = set(Mode) - set(working_modes())
    monkeypatch.setattr(modes, "find", refused().get)

    for mode in missing:
        with pytest.raises(InotraceError):
            Probe(Scope(), mode)


@pytest.mark.parametrize(
    ("broken", "chosen"),
    [
        ((), Mode.FENTRY),
        ((Mode.FENTRY,), Mode.KPROBE),
        ((Mode.FENTRY, Mode.KPROBE), Mode.TRACEPOINT),
        ((Mode.KPROBE, Mode.TRACEPOINT), Mode.FENTRY),
    ],
)
def test_the_first_that_works_is_chosen(
    broken: tuple[Mode, ...], chosen: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modes, "find", refused(*broken).get)

    assert choose(None) is chosen


def test_no_mode_at_all_is_an_error_with_the_last_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "find", refused(*Mode).get)

    with pytest.raises(InotraceError, match="not today"):
        choose(None)


def test_a_forced_mode_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "find", refused(Mode.KPROBE).get)

    assert choose(Mode.TRACEPOINT) is Mode.TRACEPOINT
    with pytest.raises(InotraceError, match="--mode kprobe does not work here: not today"):
        choose(Mode.KPROBE)


def test_what_does_not_attach_after_all_gives_way_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GIVEN a first mode whose trial succeeds and whose programs the kernel refuses."""
    best, *_ = working_modes()
    other = Mode.TRACEPOINT if best is not Mode.TRACEPOINT else Mode.KPROBE
    first, second = (best, other) if best is not Mode.TRACEPOINT else (other, best)
    monkeypatch.setattr(modes, "find", refused(*(set(Mode) - {first, second})).get)
    attach = probe._attach
    broken = [hook._replace(target="no_such:function") for hook in hooks.hooks(first)]
    monkeypatch.setattr(probe, "hooks", lambda mode: broken if mode is first else hooks.hooks(mode))

    def refuse_first(bpf: Any, hook: hooks.Hook, mode: Mode) -> None:
        if mode is first:
            raise OSError("refused")
        attach(bpf, hook, mode)

    monkeypatch.setattr(probe, "_attach", refuse_first)

    with Probe(Scope()) as traced:
        assert traced.mode is second
    with pytest.raises(InotraceError):
        Probe(Scope(), first)


@pytest.mark.parametrize("command", [["trace"], ["events"], ["run", "--", "true"], ["demo"]])
def test_a_mode_that_does_not_work_is_one_line(inotrace: Start, command: list[str]) -> None:
    missing = [mode for mode in Mode if not find(mode).works]
    if not missing:
        pytest.skip("every mode works on this kernel")
    name, *rest = command
    tool = inotrace(name, "--mode", missing[0].value, *rest)

    assert tool.wait() == 1
    line = tool.error()
    assert line.startswith(f"--mode {missing[0].value} does not work here: ")
    assert "--mode auto" in line


def test_the_report_says_which_mode_it_was(inotrace: Start, mode: Mode) -> None:
    tool = inotrace("trace", "-d", "0.1", "-f", "json", "--mode", mode.value)

    assert tool.report()["host"]["mode"] == mode.value
    assert tool.wait() == 0


def test_trials_name_what_is_missing() -> None:
    assert try_fentry(0, at_return=False)
    assert try_kprobe("no_such_function", at_return=False)


def test_kprobes_that_are_switched_off_are_found_out() -> None:
    """GIVEN probes that the kernel opens and does not arm."""
    if not find(Mode.KPROBE).works:
        pytest.skip(f"kprobes do not work here: {find(Mode.KPROBE).reason}")
    switch = Path("/sys/kernel/debug/kprobes/enabled")
    if not switch.exists():
        pytest.skip("debugfs is not mounted")
    switch.write_text("0")
    try:
        works, reason = find.__wrapped__(Mode.KPROBE)
    finally:
        switch.write_text("1")

    assert (works, reason) == (False, f"kprobes are switched off: 'echo 1 >{switch}'")


def test_nothing_is_tried_while_ftrace_is_switched_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """GIVEN a state in which trying breaks ftrace on Linux 5.10 THEN it is only named."""

    def tried(*_: object) -> int:
        raise AssertionError("tried")

    switch = tmp_path / "ftrace_enabled"
    switch.write_text("0\n")
    monkeypatch.setattr(trials, "_FTRACE_ENABLED", switch)
    monkeypatch.setattr(trials, "_KPROBE_TYPE", switch)
    monkeypatch.setattr(trials, "bpf_call", tried)
    monkeypatch.setattr(trials, "system_call", tried)

    wanted = "ftrace is switched off: 'sysctl kernel.ftrace_enabled=1'"
    assert try_fentry(1, at_return=True) == wanted
    assert try_kprobe("any_function", at_return=True) == wanted
    assert try_hit("any_function", lambda: None) == wanted


@pytest.mark.parametrize("hits", [0, 1])
def test_a_kprobe_that_counts_nothing_is_switched_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hits: int
) -> None:
    counter = tmp_path / "counter"
    counter.write_bytes(bytes([hits, *bytes(7)]))
    monkeypatch.setattr(trials, "_KPROBE_TYPE", counter)
    monkeypatch.setattr(trials, "_kprobe", lambda *_: os.open(counter, os.O_RDONLY))

    assert ("kprobes/enabled" in try_hit("any_function", lambda: None)) == (not hits)


def test_a_bcc_that_looks_elsewhere_for_tracepoints_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """GIVEN BCC 0.18, which knows tracefs only inside debugfs, and no debugfs."""
    if modes.mounted_tracefs() is None:
        pytest.skip("tracefs is not mounted")
    monkeypatch.setattr("bcc.TRACEFS", str(tmp_path))

    works, reason = find.__wrapped__(Mode.TRACEPOINT)

    assert not works
    assert reason.endswith("'mount -t debugfs nodev /sys/kernel/debug'")


@pytest.mark.parametrize("user", [False, True])
def test_programs_may_read_memory_here(user: bool) -> None:
    assert try_reading(user=user) == ""


def test_trials_leave_nothing_open() -> None:
    before = os.listdir("/proc/self/fd")
    for mode in Mode:
        find.__wrapped__(mode)
    assert os.listdir("/proc/self/fd") == before


# --- removals without a call ---


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions whose timer does not come while the test lasts."""
    monkeypatch.setattr(session_module, "_WALK_EVERY_S", _FAR_AWAY_S)


@pytest.fixture
def puppet(traced_puppet: Puppet) -> Puppet:
    return traced_puppet


@pytest.fixture
def removals(session: Session, patient: None, case: Case) -> Removals:
    """Tells the removals since the start of the test, from which on no timer comes."""
    _needs_doorbell(session)
    before = Counter(session._ledger.totals.removed)
    return lambda: dict(Counter(session._ledger.totals.removed) - before)


def _needs_doorbell(session: Session) -> None:
    probe = session._feed.probe
    if probe.mode is Mode.TRACEPOINT and probe.doorbell is None:
        pytest.skip("no doorbell: fsnotify_mark_destroy_workfn is not in /proc/kallsyms")


def live_after_a_step(session: Session) -> int:
    session.step()
    return sum(ledger_watches(session).values())


def add_all(session: Session, puppet: Puppet, folders: list[Path], *mask: int) -> int:
    fd = puppet.ok("init")
    for folder in folders:
        puppet.ok("add", fd, folder, *mask)
    until(lambda: live_after_a_step(session) == len(folders), "the adds")
    return fd


@by_iterator
@pytest.mark.kernels
def test_a_deleted_folder_leaves_the_ledger_before_the_timer(
    session: Session, removals: Removals, puppet: Puppet, folders: list[Path]
) -> None:
    fd = add_all(session, puppet, folders)
    for folder in folders[:7]:
        folder.rmdir()
    until(lambda: live_after_a_step(session) == 16, "the removals")

    kernel = kernel_watches_of((puppet.pid, fd))
    assert {one.wd for one in ledger_watches(session)} == {one.wd for one in kernel}
    assert removals() == {Cause.DELETED: 7}


@by_iterator
@pytest.mark.kernels
def test_a_oneshot_watch_that_fired_leaves_before_the_timer(
    session: Session, removals: Removals, puppet: Puppet, folders: list[Path]
) -> None:
    add_all(session, puppet, folders[:5], IN_CREATE | IN_ONESHOT)
    for folder in folders[:3]:
        (folder / "new").touch()
    until(lambda: live_after_a_step(session) == 2, "the removals")

    assert removals() == {Cause.ONESHOT: 3}


@by_iterator
@pytest.mark.kernels
def test_an_unmounted_filesystem_takes_its_watches_before_the_timer(
    session: Session,
    removals: Removals,
    puppet: Puppet,
    folders: list[Path],
    mounted: Callable[..., Path],
) -> None:
    disk = mounted()
    for name in ("a", "b", "c"):
        (disk / name).mkdir()
    add_all(session, puppet, [disk / "a", disk / "b", disk / "c", folders[0]])
    subprocess.run(["umount", str(disk)], check=True)
    until(lambda: live_after_a_step(session) == 1, "the removals")

    assert removals() == {Cause.UNMOUNTED: 3}


@by_iterator
@pytest.mark.kernels
def test_a_closed_instance_leaves_before_the_timer(
    session: Session, removals: Removals, puppet: Puppet, folders: list[Path]
) -> None:
    fd = add_all(session, puppet, folders)
    puppet.ok("close", fd)
    until(lambda: live_after_a_step(session) == 0, "the end of the instance")

    assert removals() == {Cause.CLOSED: 23}
    assert not session._ledger.instances


@by_iterator
@pytest.mark.kernels
def test_a_removal_by_a_call_is_counted_once(
    session: Session, removals: Removals, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN calls that tell of their removals WHEN the kernel does too THEN it counts for one."""
    totals = session._ledger.totals
    before = totals.added
    fd = puppet.ok("init")
    for folder in folders:
        puppet.ok("balance", fd, folder)
    until(lambda: live_after_a_step(session) == 0 and totals.added == before + 23, "the calls")

    assert removals() == {Cause.RM_WATCH: 23}
    session.finish()
    assert removals() == {Cause.RM_WATCH: 23}


@by_iterator
@pytest.mark.kernels
def test_a_call_by_who_is_not_traced_is_a_removal(
    session: Session, removals: Removals, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN an instance shared with a child that is not traced WHEN the child removes a watch."""
    fd = add_all(session, puppet, folders[:3])
    puppet.ok("fork")
    puppet.ok("comm", b"of another name")
    puppet.ok("rm", fd, 2)
    until(lambda: live_after_a_step(session) == 2, "the removal")

    # nobody can know of the call who only sees those of the traced
    is_seen = session._feed.probe.mode is not Mode.TRACEPOINT
    assert removals() == {Cause.RM_WATCH if is_seen else Cause.UNKNOWN: 1}


# --- the doorbell ---


@pytest.fixture
def with_doorbell(puppet: Puppet, patient: None) -> Iterator[Session]:
    filter_ = Filter(frozenset({puppet.pid}))
    with Session(filter_, BccStacks(), older_s=0.0, mode=Mode.TRACEPOINT) as session:
        _needs_doorbell(session)
        yield session


def test_the_doorbell_makes_walks_no_more_frequent_than_their_share(
    with_doorbell: Session, monkeypatch: pytest.MonkeyPatch, puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN a doorbell that rings all the time THEN walks and their work take a fiftieth."""
    session = with_doorbell
    add_all(session, puppet, folders)
    monkeypatch.setattr(session._feed, "rang_since", lambda _: True)
    began, worked = time.monotonic(), time.thread_time()
    walks = 0
    while walks < 10:
        before = session._walked_at
        session.step()
        walks += session._walked_at != before
    elapsed, worked = time.monotonic() - began, time.thread_time() - worked

    assert elapsed >= 9 * session_module._WALK_SOONEST_S
    assert worked < elapsed


def test_a_doorbell_that_is_silent_makes_no_walk(
    with_doorbell: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = with_doorbell
    walked = session._walked_at
    monkeypatch.setattr(session._feed, "rang_since", lambda _: False)
    until(lambda: time.monotonic() > session._soonest_walk, "the time for a walk")
    session.step()

    assert session._walked_at == walked


def test_the_doorbell_tells_when_it_rang(
    with_doorbell: Session, puppet: Puppet, folders: list[Path]
) -> None:
    feed = with_doorbell._feed
    doorbell = feed.probe.doorbell
    assert doorbell is not None
    puppet.ok("add", puppet.ok("init"), folders[0])
    removed_at = time.monotonic_ns()
    folders[0].rmdir()
    until(lambda: doorbell.rang_at() >= removed_at, "the ring")

    assert doorbell.rang_at() <= time.monotonic_ns()
    assert feed.rang_since(removed_at)
    assert not feed.rang_since(time.monotonic_ns())


def test_without_the_workers_address_there_is_no_doorbell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "WORKER", "no_such_function")
    with Probe(Scope(), Mode.TRACEPOINT) as traced:
        assert traced.doorbell is None
