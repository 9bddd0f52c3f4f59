"""Tracing without being root: what is needed, and what each capability beyond that is for."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from harness import PATIENCE_S, Puppet, environment
from privileges import CANDIDATES, NOBODY, ROOT, limited, outcome

from tracer.cli import app
from tracer.kernel import preflight, stream
from tracer.kernel.capabilities import TRACING, Capability, effective
from tracer.kernel.hooks import Mode
from tracer.kernel.ring import LockedMemoryError, Ring
from tracer.kernel.stream import open_as_large_as_allowed
from tracer.kernel.trials import try_maps

pytestmark = pytest.mark.usefixtures("root")

NEEDED = frozenset({*TRACING, Capability.DAC_READ_SEARCH, Capability.SYS_RESOURCE})


def test_few_capabilities_are_enough_for_who_is_not_root(mode: Mode, nobody: int) -> None:
    """GIVEN a process of root, and 64 KiB of memory to lock WHEN nobody traces it."""
    found = outcome(mode, NEEDED, nobody)

    assert (found.error, found.truth, found.paths) == ("", "iterator", True)


def test_two_are_enough_for_root(mode: Mode) -> None:
    """Beside the memory that it may lock only if root has not locked as much already."""
    found = outcome(mode, frozenset({*TRACING, Capability.IPC_LOCK, Capability.SYS_RESOURCE}), ROOT)

    assert (found.error, found.truth, found.paths) == ("", "iterator", True)


def test_so_little_memory_to_lock_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(cpu: int, pages: int) -> Ring:
        raise LockedMemoryError(f"cannot lock {pages} pages of CPU {cpu}")

    monkeypatch.setattr(preflight, "Ring", refuse)
    monkeypatch.setattr(sys, "argv", ["inotrace", "trace"])

    assert app.main() == 1
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("inotrace: cannot lock ")


def test_tables_that_would_have_to_be_locked_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """GIVEN a kernel before Linux 5.11."""
    monkeypatch.setattr(preflight, "try_maps", lambda: "refused (Operation not permitted)")
    monkeypatch.setattr(preflight, "missing", lambda wanted: () if wanted == TRACING else wanted)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64 << 10, 64 << 10))
    monkeypatch.setattr(sys, "argv", ["inotrace", "trace"])

    assert app.main() == 1
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "CAP_SYS_RESOURCE" in err and "LimitMEMLOCK=infinity" in err


def test_a_table_can_be_made() -> None:
    assert try_maps() == ""


def test_buffers_are_as_large_as_may_be_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "pages_per_cpu", lambda: 1024)
    tried = []

    def refuse_large(pages: int) -> None:
        tried.append(pages)
        if pages > 128:
            raise LockedMemoryError("too much")

    assert open_as_large_as_allowed(refuse_large) == 128
    assert tried == [1024, 512, 256, 128]

    def refuse(_: int) -> None:
        raise LockedMemoryError("too much")

    with pytest.raises(LockedMemoryError):
        open_as_large_as_allowed(refuse)


def test_with_all_of_them_nothing_is_missing(mode: Mode, nobody: int) -> None:
    assert outcome(mode, frozenset(CANDIDATES), nobody).losses() == []


@pytest.mark.parametrize(
    ("lacking", "losses"),
    # without the latter, only names of files that are no longer where they were
    [(Capability.SYS_PTRACE, ["names"]), (Capability.CHECKPOINT_RESTORE, [])],
)
def test_names_of_functions_need_one_more(
    lacking: Capability, losses: list[str], nobody: int
) -> None:
    found = outcome(Mode.TRACEPOINT, frozenset(CANDIDATES) - {lacking}, nobody)

    assert found.losses() == losses


@pytest.mark.parametrize("uid", [NOBODY, ROOT])
@pytest.mark.parametrize("lacking", TRACING)
def test_what_is_needed_is_asked_for_by_name(lacking: Capability, uid: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tracer", "trace"],
        env=environment(),
        cwd="/",
        capture_output=True,
        text=True,
        preexec_fn=limited(frozenset(CANDIDATES) - {lacking}, uid),
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"inotrace: tracing needs CAP_{lacking.name}")
    assert done.stderr.count("\n") == 1


def test_a_tracefs_that_may_not_be_read_is_told(nobody: int) -> None:
    found = outcome(Mode.TRACEPOINT, NEEDED - {Capability.DAC_READ_SEARCH}, nobody)

    assert "needs CAP_DAC_READ_SEARCH" in found.error


def test_the_administrators_capability_stands_for_its_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    status = tmp_path / "status"
    status.write_text(f"CapPrm:\t{2**64 - 1:016x}\nCapEff:\t{1 << Capability.SYS_ADMIN:016x}\n")
    monkeypatch.setattr("tracer.kernel.capabilities._STATUS", status)

    assert effective() >= {*TRACING, Capability.SYSLOG, Capability.CHECKPOINT_RESTORE}
    assert Capability.SYS_PTRACE not in effective()


def test_what_counts_is_what_the_kernel_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    status = tmp_path / "status"
    held = {Capability.BPF, Capability.SYS_PTRACE}
    # that of chown(2), which is of no use here
    bits = sum(1 << each for each in held) | 1
    status.write_text(f"CapEff:\t{bits:016x}\n")
    monkeypatch.setattr("tracer.kernel.capabilities._STATUS", status)

    assert effective() == held


def test_capabilities_of_another_user_namespace_are_no_privileges() -> None:
    """GIVEN a user's own namespace, where it has all capabilities THEN the advice is not sudo."""
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-m", "tracer", "trace"]
    done = subprocess.run(
        command, env=environment(), cwd="/", capture_output=True, text=True, timeout=PATIENCE_S
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("inotrace: tracing needs CAP_BPF and CAP_PERFMON, which root ")
    assert "on the host" in done.stderr


def test_where_proc_hides_the_holders_ls_says_so(puppet: Puppet, folders: list[Path]) -> None:
    """GIVEN hidepid=2 WHEN one lists who may trace and not look THEN it is not called complete."""
    puppet.ok("add", puppet.ok("init"), folders[0])
    caps = "+bpf,+perfmon,+dac_read_search"
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    as_nobody += [
        f"--inh-caps={caps}",
        f"--ambient-caps={caps}",
        sys.executable,
        "-m",
        "tracer",
        "ls",
        "-f",
        "json",
    ]
    hide = 'mount -t proc -o hidepid=2 proc /proc && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hide, "sh", *as_nobody],
        env=environment(),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["complete"] is False
