"""What happens when a table of the BPF program is full, or the clock is another."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest
from harness import Puppet, environment, kernel_watches_of, ledger_watches, removed, site_of

from tracer.core.watch import Origin
from tracer.kernel import probe
from tracer.session import Filter, Session
from tracer.stacks.collector import Stacks
from tracer.views.json_report import report_object

pytestmark = pytest.mark.usefixtures("root")

Shrink = Callable[[str], None]
# nobody else's, whose instances would count as well
_UID = 52_318


@pytest.fixture
def shrink(monkeypatch: pytest.MonkeyPatch) -> Shrink:
    """Makes a table of the BPF program small: NAME_ENTRIES=number."""
    return lambda definition: monkeypatch.setattr(probe, "_EXTRA_DEFINITIONS", (f"-D{definition}",))


def test_an_instance_whose_generation_was_forgotten_is_still_known(
    puppet: Puppet, watchable: list[Path], shrink: Shrink
) -> None:
    """GIVEN an idle instance WHEN many more are opened THEN it is neither closed nor unseen."""
    shrink("GENERATION_ENTRIES=16")
    puppet.ok("become", _UID)
    with Session(Filter(frozenset({puppet.pid})), Stacks(), older_s=0.0) as session:
        idle = puppet.ok("init")
        for folder in watchable[:5]:
            puppet.ok("leak", idle, folder)
        others = [puppet.ok("init") for _ in range(97)]
        puppet.ok("leak", idle, watchable[5])
        report = session.finish()
        forgotten = sum(not row.gen for row in session._kernel.rows().holders)
        assert ledger_watches(session) == kernel_watches_of((puppet.pid, idle))
        origins = {watch.origin for _, watch in session._ledger.watches()}

    assert forgotten > 50
    assert origins == {Origin.TRACED}
    shown = report_object(report)
    assert shown["trace"]["removed_by_cause"] == removed()
    assert site_of(shown, "leak_secret")["live"] == 6
    assert len(shown["instances"]) == 1 + len(others)


def test_a_descendant_too_many_is_told(
    start_puppet: Callable[..., Puppet], folders: list[Path], shrink: Shrink
) -> None:
    shrink("SCOPE_ENTRIES=2")
    with Session(Filter(), Stacks(), older_s=0.0, follow=True) as session:
        with session.spawning():
            puppet = start_puppet()
        puppet.ok("fork")
        puppet.ok("fork")
        fd = puppet.ok("init")
        puppet.ok("add", fd, folders[0])
        report = session.finish()
        for _ in range(2):
            puppet.tell("exit", 0)
            assert puppet.answer() == 0

    assert report.trace.unfollowed == 1
    assert not report.conclusive


def test_another_time_namespace_is_refused() -> None:
    """GIVEN clocks that are not the host's WHEN started THEN it says where to start it."""
    if shutil.which("unshare") is None or not Path("/proc/self/timens_offsets").exists():
        pytest.skip("needs unshare and time namespaces (Linux 5.6)")
    command = ["unshare", "--time", "--monotonic", "1000", "--", sys.executable, "-m", "tracer"]
    done = subprocess.run(
        [*command, "events", "-d", "1"], capture_output=True, text=True, env=environment()
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "inotrace: inotrace runs in a time namespace of its own: start it in the host's "
        "(nsenter -t 1 --time)\n"
    )
    told = subprocess.run([*command, "doctor"], capture_output=True, text=True, env=environment())
    assert told.returncode == 1
    assert "a time namespace of its own" in " ".join(told.stdout.split())
