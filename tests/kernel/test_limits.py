"""`inotrace limits` against what puppets made, and against the kernel that refuses them more."""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from harness import Inotrace, Puppet, environment, site_of

from tracer.core.shortage import INITIAL_USERNS, UNLIMITED
from tracer.kernel.procfs import user_namespace
from tracer.session import Filter, Session
from tracer.stacks.collector import Stacks
from tracer.views.json_report import report_object

pytestmark = pytest.mark.usefixtures("root")

Start = Callable[..., Inotrace]
_SETTINGS = Path("/proc/sys/fs/inotify")


def _limits(inotrace: Start, *options: object) -> Any:
    tool = inotrace("limits", "-f", "json", *options)
    assert (tool.wait(), tool.err.rest()) == (0, b"")
    return json.loads(tool.out.rest())


def _user_of(limits: Any, uid: int, userns: int = INITIAL_USERNS) -> Any:
    (user,) = [one for one in limits["limits"] if (one["uid"], one["userns"]) == (uid, userns)]
    return user


def _held(user: Any, pid: int) -> tuple[int, int]:
    (holder,) = [one for one in user["holders"] if one["pid"] == pid]
    return holder["watches"], holder["instances"]


@pytest.fixture
def own_uid() -> int:
    """A user whom nobody else on this machine is."""
    return 60_000 + os.getpid() % 5_000


@pytest.fixture
def theirs(
    start_puppet: Callable[..., Puppet], puppet_program: Path, nobody: int, own_uid: int
) -> Iterator[Puppet]:
    """A puppet of that user."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield start_puppet(Path(shutil.copy(puppet_program, folder)), user=own_uid)


@pytest.fixture
def places() -> Iterator[list[Path]]:
    """Folders that everybody may watch."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        made = [Path(folder, str(at)) for at in range(24)]
        for one in made:
            one.mkdir()
        yield made


@pytest.fixture
def namespaced(theirs: Puppet, places: list[Path]) -> tuple[Puppet, int]:
    """A puppet that has 21 of 23 watches, and the instance that they are of."""
    if theirs("limit-watches", 23):
        pytest.skip("needs user namespaces")
    fd = theirs.ok("init")
    for place in places[:21]:
        theirs.ok("add", fd, place)
    return theirs, fd


def test_a_user_is_charged_for_what_its_processes_hold(
    inotrace: Start, theirs: Puppet, places: list[Path], own_uid: int
) -> None:
    before = _limits(inotrace, "-u", own_uid)
    first, second = theirs.ok("init"), theirs.ok("init")
    for place in places[:17]:
        theirs.ok("add", first, place)
    for place in places[:5]:
        theirs.ok("add", second, place)
    # the instance once, by whatever number of descriptors
    theirs.ok("dup", first)
    user = _user_of(_limits(inotrace, "-u", own_uid), own_uid)

    assert (user["source"], user["complete"]) == ("kernel", True)
    assert _held(user, theirs.pid) == (22, 2)
    assert user["watches"]["limit"] == int((_SETTINGS / "max_user_watches").read_text())
    assert user["watches"]["free"] == user["watches"]["limit"] - user["watches"]["used"]
    assert before["settings"]["max_queued_events"] == int(
        (_SETTINGS / "max_queued_events").read_text()
    )


def test_in_a_namespace_all_who_made_it_are_charged_and_the_nearest_limit_is_named(
    inotrace: Start, namespaced: tuple[Puppet, int], own_uid: int
) -> None:
    puppet, _ = namespaced
    userns = user_namespace(puppet.pid)
    assert userns is not None
    limits = _limits(inotrace)
    inner, outer = (_user_of(limits, own_uid, one) for one in (userns, INITIAL_USERNS))

    assert (inner["watches"]["used"], inner["watches"]["limit"]) == (21, 23)
    assert (inner["watches"]["free"], inner["watches"]["share"]) == (2, round(21 / 23, 4))
    assert inner["watches"]["nearest"] == {"userns": userns, "uid": own_uid}
    assert inner["charged_with"] == {"userns": INITIAL_USERNS, "uid": own_uid}
    # no limit of its own for instances: the next one counts
    assert inner["instances"]["limit"] is None
    assert inner["instances"]["free"] == outer["instances"]["free"]
    assert inner["instances"]["nearest"] == {"userns": INITIAL_USERNS, "uid": own_uid}
    assert _held(inner, puppet.pid) == _held(outer, puppet.pid) == (21, 1)


def _map_root(puppet: Puppet, uid: int) -> None:
    """As a container has it."""
    for kind, outside in (("uid", uid), ("gid", 0)):
        Path(f"/proc/{puppet.pid}/{kind}_map").write_text(f"0 {outside} 1\n")


def _own_raise(limits: Any, puppet: Puppet) -> Any:
    (own,) = [one for one in limits["raise"] if one["userns"] == user_namespace(puppet.pid)]
    return own


def _run(command: str) -> None:
    subprocess.run(shlex.split(command), check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("limit", [23, 5])
def test_the_command_that_is_printed_raises_the_limit(
    inotrace: Start, namespaced: tuple[Puppet, int], places: list[Path], own_uid: int, limit: int
) -> None:
    """
    GIVEN a namespace's limit met, or set below what is used
    WHEN the command for it is run
    THEN the next watch is added.
    """
    puppet, fd = namespaced
    for folder in places[21:23]:
        puppet.ok("add", fd, folder)
    assert puppet("add", fd, places[23]) == -errno.ENOSPC
    _map_root(puppet, own_uid)
    _run(f"nsenter -t {puppet.pid} -U sysctl -w user.max_inotify_watches={limit}")
    own = _own_raise(_limits(inotrace), puppet)
    assert (own["setting"], own["now"], own["suggested"]) == ("user.max_inotify_watches", limit, 46)
    _run(own["command"])

    puppet.ok("add", fd, places[23])


@pytest.mark.usefixtures("counters_of_all")
def test_what_nobody_holds_is_charged_to_who_made_the_namespace_as_well(
    inotrace: Start, namespaced: tuple[Puppet, int], own_uid: int
) -> None:
    """GIVEN an instance in a socket WHEN asked THEN it is known what is left, and how to raise."""
    puppet, fd = namespaced
    here, _ = divmod(puppet.ok("socketpair"), 1000)
    puppet.ok("send", here, fd)
    puppet.ok("close", fd)
    _map_root(puppet, own_uid)
    limits = _limits(inotrace)
    userns = user_namespace(puppet.pid)
    assert userns is not None
    inner, outer = (_user_of(limits, own_uid, one) for one in (userns, INITIAL_USERNS))

    assert (inner["holders"], outer["watches"]["used"]) == ([], 21)
    assert inner["charged_with"] == {"userns": INITIAL_USERNS, "uid": own_uid}
    assert (inner["watches"]["used"], inner["watches"]["free"]) == (21, 2)
    assert inner["instances"]["free"] == outer["instances"]["free"]
    assert _own_raise(limits, puppet)["command"].startswith(f"nsenter -t {puppet.pid} -U ")


_INSIDE = """
import os, subprocess, sys
from ctypes import CDLL
open("/proc/sys/user/max_inotify_watches", "w").write("40")
libc = CDLL(None)
fd = libc.inotify_init1(0)
for place in sys.argv[1:]:
    assert libc.inotify_add_watch(fd, place.encode(), 0x100) > 0
sys.exit(subprocess.run([sys.executable, "-m", "tracer", "limits", "-f", "json"]).returncode)
"""


def test_within_a_namespace_its_own_limits_are_shown_and_raised(places: list[Path]) -> None:
    """GIVEN the host's root in a namespace of its own WHEN advised THEN the host stays as it is."""
    inside = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("needs user namespaces")
    done = subprocess.run(
        [*inside, sys.executable, "-c", _INSIDE, *map(str, places)],
        env=environment(),
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    limits = json.loads(done.stdout)
    (user,) = limits["limits"]

    assert (user["watches"]["used"], user["watches"]["limit"]) == (24, 40)
    assert (user["watches"]["free"], user["source"]) == (16, "counted")
    assert (limits["complete"], limits["settings"]["userns"]) == (False, user["userns"])
    assert [one["command"] for one in limits["raise"]] == ["sysctl -w user.max_inotify_watches=80"]
    assert limits["drop_in"]["lines"] == []
    assert "outside this user namespace to see all" in done.stderr
    assert "sandbox" not in done.stderr


def test_a_leak_in_a_namespace_meets_the_limit_of_who_made_it(
    puppet: Puppet, tmp_path: Path
) -> None:
    if puppet("limit-watches", UNLIMITED):
        pytest.skip("needs user namespaces")
    with Session(Filter(frozenset({puppet.pid})), Stacks(), older_s=0.0) as session:
        fd = puppet.ok("init")
        puppet.ok("churn", fd, tmp_path, 20_000)
        report = report_object(session.finish())
    leak = site_of(report, "leak_secret")
    root = {"userns": INITIAL_USERNS, "uid": 0}
    (limits,) = [one for one in report["limits"] if one["userns"] == INITIAL_USERNS]

    assert leak["userns"] == user_namespace(puppet.pid)
    assert leak["limit_reached_by"] == root
    assert leak["limit_reached_in_s"] == limits["limit_reached_in_s"]["watches"]
    assert limits["per_hour"]["watches"] == leak["per_hour"] > 0
    left = limits["watches"]["limit"] - limits["watches"]["used"]
    assert leak["limit_reached_in_s"] == pytest.approx(left / leak["per_hour"] * 3600, rel=0.01)


@pytest.mark.parametrize("width", [80, 160])
def test_the_answer_comes_first_and_lines_fit(
    inotrace: Start, namespaced: tuple[Puppet, int], own_uid: int, width: int
) -> None:
    puppet, _ = namespaced
    tool = inotrace("limits", "-u", own_uid, "-f", "table", env=environment(COLUMNS=str(width)))
    assert (tool.wait(), tool.err.rest()) == (0, b"")
    text = tool.out.rest().decode()
    first = " ".join(text.partition("\n\n")[0].split())

    assert first.startswith(f"{own_uid} has 21 of 23 watches (91 %) in user namespace ")
    assert first.endswith(f": puppet[{puppet.pid}] holds all of them")
    # a command is not broken
    assert all(len(line) <= width for line in text.splitlines() if "sysctl" not in line)
    assert "fs.inotify.max_user_watches = " in text
    assert "/etc/sysctl.d/60-inotify.conf" in text


def test_in_a_pipe_records_begin_with_a_digit(
    inotrace: Start, namespaced: tuple[Puppet, int], own_uid: int
) -> None:
    puppet, _ = namespaced
    tool = inotrace("limits", "-u", own_uid)
    assert (tool.wait(), tool.err.rest()) == (0, b"")
    answer, header, *rest = tool.out.rest().decode().splitlines()
    records = [line.split() for line in rest if line[:5].strip()[:1].isdigit()]

    assert answer.startswith(f"# {own_uid} has 21 of 23 watches")
    assert header.split() == [
        "USED",
        "USER",
        "NAMESPACE",
        "LIMIT_OF",
        "HAS",
        "ALLOWED",
        "FREE",
        "HELD_BY",
    ]
    assert records[0] == [
        "91%",
        str(own_uid),
        str(user_namespace(puppet.pid)),
        "watches",
        "21",
        "23",
        "2",
        f"puppet[{puppet.pid}]:21",
    ]
    assert {len(record) for record in records} == {len(header.split())}
    assert all(line.startswith("# ") for line in rest[len(records) :])


def test_only_one_user_is_shown_if_asked_for(
    inotrace: Start, puppet: Puppet, theirs: Puppet, own_uid: int
) -> None:
    for one in (puppet, theirs):
        one.ok("init")
    limits = _limits(inotrace, "-u", own_uid)

    assert {user["uid"] for user in limits["limits"]} == {own_uid}
    assert _held(_user_of(limits, own_uid), theirs.pid) == (0, 1)
    tool = inotrace("limits", "-u", "no-such-user")
    assert tool.wait() == 2
    assert "no user called no-such-user" in tool.error()


def test_who_is_near_to_its_own_limit_of_descriptors_is_named(
    inotrace: Start, puppet: Puppet
) -> None:
    for _ in range(7):
        puppet.ok("init")
    in_use = len(os.listdir(f"/proc/{puppet.pid}/fd"))
    puppet.ok("limit-descriptors", in_use + 1)
    (near,) = [one for one in _limits(inotrace)["descriptors"] if one["pid"] == puppet.pid]

    assert (near["used"], near["limit"]) == (in_use, in_use + 1)


@pytest.fixture
def settings() -> Iterator[dict[str, str]]:
    def now() -> dict[str, str]:
        return {path.name: path.read_text() for path in _SETTINGS.iterdir()}

    before = now()
    yield before
    assert now() == before


def test_nothing_is_changed(inotrace: Start, settings: dict[str, str]) -> None:
    limits = _limits(inotrace)

    now = {name: int(text) for name, text in settings.items()}
    assert limits["settings"] == {**now, "userns": None}
    assert not Path(limits["drop_in"]["path"]).exists() or limits["drop_in"]["lines"]
