"""What was traced stays traced, whoever holds it by then and under whatever number."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Callable

import pytest
from harness import Inotrace, Puppet, kernel_watches, ledger_watches

from tracer.session import Filter, Session
from tracer.stacks.collector import Stacks

pytestmark = pytest.mark.usefixtures("root")

_NOBODY = 65534
# an instance under a high number, with watches that only the exit frees
_HIGH_DESCRIPTOR = """
import ctypes, os, resource, sys
libc = ctypes.CDLL(None)
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
high = min(limit, 20011) - 1
instance = libc.inotify_init1(0)
os.dup2(instance, high)
os.close(instance)
for folder in sys.argv[1:]:
    assert libc.inotify_add_watch(high, folder.encode(), 0x100) > 0
"""


def test_watches_stay_when_their_holder_no_longer_matches_the_filter(
    puppet: Puppet, folders: list[Path]
) -> None:
    """GIVEN -u root WHEN the process becomes another user THEN its watches are still live."""
    with Session(Filter(uid=0, name=b"puppet"), Stacks(), older_s=0.0) as session:
        fd = puppet.ok("init")
        for folder in folders:
            puppet.ok("add", fd, folder)
        puppet.ok("become", _NOBODY, _NOBODY)
        report = session.finish()

        assert report.trace.complete
        assert ledger_watches(session) == kernel_watches(puppet.pid, fd)
        assert sum(ledger_watches(session).values()) == len(folders)


def test_a_descriptor_of_any_number_is_read_at_exit(
    inotrace: Callable[..., Inotrace], folders: list[Path], tmp_path: Path
) -> None:
    report = tmp_path / "report"
    command = [sys.executable, "-c", _HIGH_DESCRIPTOR, *folders]
    tool = inotrace("run", "-f", "json", "-o", report, "--", *command)

    assert tool.wait() in (0, 23), tool.err.rest()
    (site,) = json.loads(report.read_text())["sites"]
    assert (site["live"], site["added"]) == (len(folders), len(folders))
