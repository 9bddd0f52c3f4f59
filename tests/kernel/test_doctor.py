"""`inotrace doctor` says what tracing then does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any, Callable

import pytest
from harness import PATIENCE_S, Inotrace, environment

from tracer.core.diagnosis import Diagnosis
from tracer.kernel import diagnosis
from tracer.kernel.diagnosis import diagnose
from tracer.kernel.hooks import Mode
from tracer.kernel.modes import find
from tracer.kernel.preflight import prepare

pytestmark = pytest.mark.usefixtures("root")

Start = Callable[..., Inotrace]


def check_of(found: Diagnosis, name: str) -> diagnosis.Check:
    (check,) = [check for check in found.checks if check.name == name]
    return check


def test_it_names_the_mode_that_a_trace_then_takes(inotrace: Start) -> None:
    doctor = inotrace("doctor", "-f", "json")
    report: Any = doctor.report()
    trace = inotrace("trace", "-d", "0.1", "-f", "json")

    assert (doctor.wait(), report["can_trace"]) == (0, True)
    assert report["mode"] == trace.report()["host"]["mode"]


def test_it_fits_80_columns_and_ends_in_the_answer(inotrace: Start) -> None:
    tool = inotrace("doctor")
    lines = tool.out.rest().decode().splitlines()

    assert tool.wait() == 0
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("Tracing works. --mode auto takes ")


@pytest.mark.kernels
def test_modes_are_told_with_the_reason_that_forcing_them_gives() -> None:
    prepare(print)
    found = diagnose()
    for mode in Mode:
        works, reason = find(mode)
        check = check_of(found, mode.value)
        assert check.works == works
        assert reason in check.found


@pytest.mark.kernels
def test_nothing_stays_behind() -> None:
    before = os.listdir("/proc/self/fd")
    diagnose()

    assert os.listdir("/proc/self/fd") == before


def test_with_the_doorbell_removals_come_soon_and_with_their_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(diagnosis, "_automatic", lambda: Mode.TRACEPOINT)
    monkeypatch.setattr(diagnosis, "WORKER", "vfs_read")

    check = check_of(diagnose(), "removals")

    assert check.works
    assert "0.1 s" in check.found and "with the cause" in check.found


def test_without_the_doorbell_removals_come_late(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(print)
    monkeypatch.setattr(diagnosis, "find", lambda mode: find(Mode.TRACEPOINT))
    monkeypatch.setattr(diagnosis, "_automatic", lambda: Mode.TRACEPOINT)
    monkeypatch.setattr(diagnosis, "WORKER", "no_such_function")

    check = check_of(diagnose(), "removals")

    assert check.works is False
    assert "every 2 s" in check.found and "no_such_function" in check.found
    assert "with the cause" in check.found


@pytest.mark.parametrize(
    ("mode", "sign", "works", "says"),
    [
        (Mode.TRACEPOINT, "vfs_read", False, "their calls are not seen"),
        (Mode.FENTRY, "vfs_read", True, "seen"),
        (Mode.TRACEPOINT, "no_such_function", True, "takes no 32-bit calls"),
    ],
)
def test_32_bit_callers_are_seen_except_by_tracepoints(
    mode: Mode, sign: str, works: bool, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "_automatic", lambda: mode)
    monkeypatch.setattr(diagnosis, "COMPAT_SIGN", sign)

    check = check_of(diagnose(), "32-bit callers")

    assert check.works is works
    assert says in check.found


def test_a_refused_iterator_leaves_the_list_in_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """GIVEN a kernel that refuses only the iterator THEN it can be traced, as a trace then does."""
    monkeypatch.setattr(diagnosis, "try_iterator", lambda _: "refused (not today)")

    found = diagnose()

    assert found.can_trace
    check = check_of(found, "kernel's list")
    assert (check.works, check.needed) == (False, False)
    assert "not today" in check.found and "from /proc instead" in check.found
    assert check_of(found, "fdinfo").needed


def test_without_any_list_nothing_can_be_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "try_iterator", lambda _: "refused (not today)")
    monkeypatch.setattr(diagnosis, "read_watches", lambda *_: ())

    assert not diagnose().can_trace


def test_without_root_it_says_what_it_did_not_try() -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is missing (util-linux)")
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-m", "tracer", "doctor"],
        env=environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
    )

    assert (done.returncode, done.stderr) == (1, "")
    assert "uid 65534; run it with sudo" in done.stdout
    assert done.stdout.count("not tried: needs root") >= 5
    assert done.stdout.splitlines()[-1].endswith("for want of: root.")
