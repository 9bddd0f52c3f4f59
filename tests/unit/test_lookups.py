"""Paths and pods are looked up for what is shown, and for nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pytest
from build import walk, walked

from tracer.core.events import Instance, Process
from tracer.filter import Filter
from tracer.kernel.procfs import read_process
from tracer.listing import Scan, scan_walk, take_snapshot
from tracer.lookups import with_homes, with_paths
from tracer.targets.containers import Belonging
from tracer.targets.locate import How, Location, Sought
from tracer.targets.pods import Pod
from tracer.views.ls import Home, Located

_POD = "5325873d-1d5a-4d6c-9d6c-0b5a3d0a7e11"


class FakeLocate:
    """Every odd inode has a path."""

    def __init__(self) -> None:
        self.asked: list[Sought] = []

    def __call__(self, sought: Sequence[Sought]) -> Iterator[Location]:
        self.asked += sought
        for one in sought:
            odd = one.inode.ino % 2
            yield Location(b"/%d" % one.inode.ino if odd else None, How.DENTRY if odd else _NOT)


_NOT = How.UNRESOLVED


class FakeContainers:
    def __init__(self, belonging: Belonging | None) -> None:
        self._belonging = belonging

    def of(self, pid: int) -> Belonging | None:
        return self._belonging


class FakePods:
    def named(self, uid: str) -> Pod:
        return Pod(uid, "shop", "web-0", True)


@pytest.fixture
def us() -> Process:
    facts = read_process(os.getpid())
    assert facts is not None
    return Process(facts.pid, facts.birth_ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK"))


@pytest.fixture
def scan(us: Process) -> Scan:
    one = walked(range(1, 24), 1, process=us, fd=7)
    other = walked(range(1, 4), 1, instance=Instance(0xFFFF888000002000, 100), process=us, fd=9)
    return scan_walk(walk(one, other, began=1))


def test_every_watch_has_a_path_or_says_that_it_has_none(us: Process, scan: Scan) -> None:
    locate = FakeLocate()
    snapshot = with_paths(take_snapshot(scan, Filter()), scan, locate)

    first, second = snapshot.instances
    assert first.located[:2] == (Located(b"/1001", "dentry"), Located(None, "unresolved"))
    assert [len(one.located) for one in snapshot.instances] == [23, 3]
    assert second.located[2] == Located(b"/1003", "dentry")
    assert {(one.holders[0].pid, one.fd) for one in locate.asked} == {(us.pid, 7), (us.pid, 9)}
    assert {one.holders for one in locate.asked} == {(us,)}
    assert locate.asked[0].wd == 1


def test_only_the_first_of_those_shown_are_looked_up(scan: Scan) -> None:
    locate = FakeLocate()
    snapshot = with_paths(take_snapshot(scan, Filter()), scan, locate, frozenset({1}), 2)

    assert [len(one.located) for one in snapshot.instances] == [2, 0]
    assert len(locate.asked) == 2


def test_a_process_of_a_pod(scan: Scan) -> None:
    belonging = Belonging(b"/kubepods", "ab", "containerd", _POD, "burstable", "kubelet.service")
    snapshot = take_snapshot(scan, Filter())

    known = with_homes(snapshot, FakeContainers(belonging), FakePods())
    unknown = with_homes(snapshot, FakeContainers(None), FakePods())

    assert known.homes == {
        os.getpid(): Home(
            cgroup=b"/kubepods",
            container="ab",
            runtime="containerd",
            pod=_POD,
            pod_name="web-0",
            namespace="shop",
            pod_exists=True,
            qos="burstable",
            unit="kubelet.service",
        )
    }
    assert unknown.homes == {os.getpid(): Home()}
