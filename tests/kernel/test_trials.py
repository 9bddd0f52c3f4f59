"""Trials tell what the kernel refuses, and why, and leave nothing behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tracer.kernel import modes, trials
from tracer.kernel.hooks import Mode
from tracer.kernel.modes import find
from tracer.kernel.trials import try_fentry, try_hit, try_kprobe, try_reading

pytestmark = pytest.mark.usefixtures("root")


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
