"""`inotrace doctor` says what tracing then does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
from harness import PATIENCE_S, WITHOUT_TRACEFS, Inotrace, environment, in_namespace
from privileges import limited

from tracer.core.diagnosis import Diagnosis
from tracer.errors import InotraceError
from tracer.kernel import diagnosis, modes, preflight
from tracer.kernel.btf import compiler_definitions
from tracer.kernel.capabilities import TRACING
from tracer.kernel.diagnosis import diagnose
from tracer.kernel.hooks import Mode
from tracer.kernel.modes import Finding, find
from tracer.kernel.preflight import prepare

pytestmark = pytest.mark.usefixtures("root")

Start = Callable[..., Inotrace]


def check_of(found: Diagnosis, name: str) -> diagnosis.Check:
    (check,) = [check for check in found.checks if check.name == name]
    return check


def json_check(done: subprocess.CompletedProcess[str], name: str) -> Any:
    (check,) = [check for check in json.loads(done.stdout)["checks"] if check["name"] == name]
    return check


def only(wanted: Mode) -> Callable[[Mode], Finding]:
    return lambda mode: Finding(mode is wanted, "not today" * (mode is not wanted))


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
    monkeypatch.setattr(diagnosis, "find", only(Mode.TRACEPOINT))
    monkeypatch.setattr(diagnosis, "WORKER", "vfs_read")

    check = check_of(diagnose(), "removals")

    assert check.works
    assert "0.1 s" in check.found and "with the cause" in check.found


def test_without_the_doorbell_removals_come_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "find", only(Mode.TRACEPOINT))
    monkeypatch.setattr(diagnosis, "WORKER", "no_such_function")

    check = check_of(diagnose(), "removals")

    assert check.works is False
    assert "every 2 s" in check.found and "no_such_function" in check.found
    assert "with the cause" in check.found


@pytest.mark.parametrize("mode", [Mode.FENTRY, Mode.KPROBE])
def test_without_kernel_addresses_removals_have_no_cause(
    monkeypatch: pytest.MonkeyPatch, mode: Mode
) -> None:
    monkeypatch.setattr(diagnosis, "find", only(mode))
    monkeypatch.setattr(diagnosis, "REMOVAL", "vfs_read")
    assert check_of(diagnose(), "removals").works

    monkeypatch.setattr(diagnosis, "REMOVAL", "no_such_function")
    check = check_of(diagnose(), "removals")
    assert check.works is False
    assert "the cause only as 'unknown'" in check.found


def test_hidden_kernel_addresses_are_told_with_the_way_to_see_them() -> None:
    """GIVEN kernel.kptr_restrict=2, as far as a process can see."""
    zeros = "sed 's/^[0-9a-f]*/0000000000000000/' /proc/kallsyms"
    hide = f"{zeros} >/mnt/zeros && mount --bind /mnt/zeros /proc/kallsyms"
    done = in_namespace(f"mount -t tmpfs none /mnt && {hide}", "doctor", "-f", "json")

    check = json_check(done, "removals")
    assert (done.returncode, check["works"]) == (0, False)
    assert check["advice"] == "'sysctl kernel.kptr_restrict=1'"


def test_tracefs_that_is_not_mounted_is_tried() -> None:
    done = in_namespace(WITHOUT_TRACEFS, "doctor", "-f", "json")

    check = json_check(done, "tracepoint")
    assert (done.returncode, check["works"]) == (0, True)
    assert check["advice"] == "tracefs is not mounted: a trace mounts it on /sys/kernel/tracing"


def test_tracefs_is_tried_where_nobody_sees_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mount = ["mount", "-t", "tmpfs", "none", str(tmp_path)]
    monkeypatch.setattr(modes, "mount_tracefs", lambda: subprocess.run(mount, check=True))
    monkeypatch.setattr(diagnosis, "find", only(Mode.KPROBE))
    monkeypatch.setattr(diagnosis, "is_tracefs_missing", lambda: True)
    mounts = Path("/proc/self/mountinfo").read_text()

    check = check_of(diagnose(), "tracepoint")

    assert check.works == find(Mode.TRACEPOINT).works
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_tracefs_that_is_empty_is_no_matter_of_mounting(monkeypatch: pytest.MonkeyPatch) -> None:
    """GIVEN a tracefs that is mounted, and has no events: that of a kernel that is locked down."""
    if "/sys/kernel/tracing tracefs" not in Path("/proc/mounts").read_text():
        pytest.skip("tracefs is not mounted")
    monkeypatch.setattr(diagnosis, "find", only(Mode.KPROBE))
    monkeypatch.setattr(diagnosis, "is_tracefs_missing", lambda: True)

    check = check_of(diagnose(), "tracepoint")

    assert check.works is False
    assert check.found.startswith("tracefs is mounted and has no events")


def test_tracefs_that_cannot_be_mounted_leaves_no_tracepoints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise InotraceError("cannot mount tracefs (not today)")

    monkeypatch.setattr(modes, "mount_tracefs", refuse)
    monkeypatch.setattr(diagnosis, "find", only(Mode.KPROBE))
    monkeypatch.setattr(diagnosis, "is_tracefs_missing", lambda: True)

    check = check_of(diagnose(), "tracepoint")

    assert (check.works, check.found) == (False, "cannot mount tracefs (not today)")


def test_missing_type_information_is_said_once() -> None:
    done = in_namespace("mount -t tmpfs none /sys/kernel/btf", "doctor")

    assert (done.returncode, done.stderr) == (1, "")
    text = " ".join(done.stdout.split())
    assert text.count("CONFIG_DEBUG_INFO_BTF") == 1
    for name in ("user registers", "kernel's list", "fentry"):
        assert f"{name} ? not tried: needs BTF" in text
    assert text.endswith("for want of: BTF.")


@pytest.mark.parametrize("user", [False, True])
def test_without_reading_memory_there_is_no_bpf(
    monkeypatch: pytest.MonkeyPatch, user: bool
) -> None:
    monkeypatch.setattr(preflight, "try_reading", lambda **of: "refused" * (of["user"] == user))

    found = diagnose()

    assert not found.can_trace
    assert "refused" in check_of(found, "BPF").found


def test_registers_are_found_without_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """GIVEN a kernel before Linux 5.15."""
    definitions = [one for one in compiler_definitions() if "PT_REGS" not in one]
    monkeypatch.setattr(diagnosis, "compiler_definitions", lambda: definitions)

    check = check_of(diagnose(), "user registers")

    assert check.works
    assert "where the task's stack begins" in check.found


def test_what_the_least_privileges_cost_is_told(nobody: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tracer", "doctor", "-f", "json"],
        env=environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        preexec_fn=limited(frozenset(TRACING), nobody),
    )

    assert done.stderr == ""
    assert json_check(done, "privileges")["found"] == f"uid {nobody} with CAP_BPF and CAP_PERFMON"
    assert "needs CAP_DAC_READ_SEARCH" in json_check(done, "tracepoint")["found"]
    assert "CAP_IPC_LOCK" in json_check(done, "buffers")["found"]
    assert json_check(done, "symbols")["works"] is False
    assert "CAP_SYS_PTRACE and CAP_CHECKPOINT_RESTORE" in json_check(done, "symbols")["found"]
    assert "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH" in json_check(done, "fdinfo")["found"]


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
    monkeypatch.setattr(diagnosis, "find", only(mode))
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


def test_without_privileges_it_says_what_it_did_not_try() -> None:
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
    text = " ".join(done.stdout.split())
    assert "tracing needs CAP_BPF and CAP_PERFMON: start it with sudo" in text
    assert text.count("not tried: needs privileges") >= 5
    assert text.endswith("for want of: privileges.")
