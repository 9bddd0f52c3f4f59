"""Pods of a kubelet that only names them: mounts, cgroups, watches and processes are real."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple
from uuid import UUID, uuid5

import pytest
from harness import Inotrace, Puppet, own_name, process_of, watch_sites

pytestmark = pytest.mark.usefixtures("root")

Start = Callable[..., Puppet]
_ID = "ab" * 32
_PODS, _KEPT = 7, 3
_AGENT = "agent"
# linux/sched.h
_CLONE_NEWCGROUP = 0x02000000
# where each test has its own: --cgroup-root
_TOP = own_name("pods").decode().rstrip(".")
_SPACE = UUID(int=os.getpid())


class Driver(NamedTuple):
    """How a kubelet and containerd name cgroups, below a folder that stands for --cgroup-root."""

    name: str
    top: str
    pod: str
    container: str

    def uid(self, pod: str) -> str:
        return str(uuid5(_SPACE, pod))

    def cgroup(self, hierarchy: Path, pod: str) -> Path:
        uid = self.uid(pod)
        return hierarchy / self.pod.format(top=_TOP, uid=uid, unit=uid.replace("-", "_"))


_DRIVERS = (
    Driver(
        "systemd",
        "{top}.slice",
        "{top}.slice/{top}-kubepods.slice/{top}-kubepods-burstable.slice/"
        "{top}-kubepods-burstable-pod{unit}.slice",
        f"cri-containerd-{_ID}.scope",
    ),
    Driver("cgroupfs", "{top}", "{top}/kubepods/burstable/pod{uid}", _ID),
)
# a controller of version 1 that no other program is likely to need in version 2
_VERSIONS = {"v2": ("cgroup2", "rw"), "v1": ("cgroup", "freezer")}


class Node:
    """What a kubelet has of pods: folders with a tmpfs each, cgroups, and logs that name them."""

    def __init__(self, driver: Driver, hierarchy: Path, top: Path) -> None:
        self.driver, self.hierarchy = driver, hierarchy
        self.kubelet, self.kept = top / "kubelet", top / "kept"
        self.names = [_AGENT, *(f"web-{at}" for at in range(_PODS))]
        self.logs: list[Path] = []
        for name in self.names:
            self.secret(name).mkdir(parents=True)
            self.container(name).mkdir(parents=True)
            command = ["mount", "-t", "tmpfs", "inotrace-test", self.secret(name)]
            subprocess.run(command, check=True)

    def folder(self, name: str) -> Path:
        return self.kubelet / "pods" / self.uid(name)

    def secret(self, name: str) -> Path:
        return self.folder(name) / "volumes" / "kubernetes.io~projected" / "token"

    def container(self, name: str) -> Path:
        return self.driver.cgroup(self.hierarchy, name) / self.driver.container

    def uid(self, name: str) -> str:
        return self.driver.uid(name)

    def log(self, name: str) -> str:
        return f"/var/log/pods/default_{name}_{self.uid(name)}"

    def script(self, program: Path) -> str:
        """Starts the kubelet where only it has the logs, and where some mounts stay."""
        lines = ["#!/bin/sh", "set -e", "mount -t tmpfs inotrace-test /var/log"]
        lines += [f"mkdir -p {self.log(name)}" for name in self.names]
        for name in self.names[1 : 1 + _KEPT]:
            (self.kept / name).mkdir(parents=True)
            lines.append(f"mount --bind {self.secret(name)} {self.kept / name}")
        lines.append(f"exec {program} --root-dir={self.kubelet}")
        return "\n".join(lines) + "\n"

    def remove(self, name: str) -> None:
        """As a kubelet that cleans up, also for the namespaces of others."""
        if not self.folder(name).exists():
            return
        secret = self.secret(name)
        if secret.is_mount():
            subprocess.run(["umount", secret], check=True)
        for folder in (secret, *list(secret.parents)[:3]):
            folder.rmdir()
        if self.container(name).exists():
            self._remove_cgroup(name)

    def end(self, name: str) -> None:
        """As a pod of a job that is done: what it mounted and its cgroup go, its folder stays."""
        subprocess.run(["umount", self.secret(name)], check=True)
        self._remove_cgroup(name)

    def _remove_cgroup(self, name: str) -> None:
        for cgroup in (self.container(name), self.container(name).parent):
            self._empty(cgroup)
            cgroup.rmdir()

    def _empty(self, cgroup: Path) -> None:
        for pid in (cgroup / "cgroup.procs").read_text().split():
            (self.hierarchy / "cgroup.procs").write_text(pid)

    def close(self) -> None:
        for name in self.names:
            self.remove(name)
        top = self.hierarchy / self.driver.top.format(top=_TOP)
        for cgroup in sorted((each for each in top.rglob("*") if each.is_dir()), reverse=True):
            cgroup.rmdir()
        top.rmdir()


def _hierarchy(version: str) -> Iterator[Path]:
    """Where it is mounted."""
    filesystem, options = _VERSIONS[version]
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, rest = line.partition(" - ")
        if rest.split()[0] == filesystem and options in (rest.split()[2] + ",rw").split(","):
            yield Path(mount.split()[4])


@pytest.fixture(params=_VERSIONS)
def hierarchy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    found = next(_hierarchy(request.param), None)
    if found is not None:
        yield found
        return
    filesystem, options = _VERSIONS[request.param]
    at = tmp_path / "hierarchy"
    at.mkdir()
    command = ["mount", "-t", filesystem, "-o", options, "inotrace-test", at]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip(f"this kernel has no {request.param} hierarchy to mount")
    yield at
    subprocess.run(["umount", at], check=True)


@pytest.fixture(params=_DRIVERS, ids=lambda driver: driver.name)
def node(
    request: pytest.FixtureRequest,
    hierarchy: Path,
    tmp_path: Path,
    start_puppet: Start,
    puppet_program: Path,
) -> Iterator[Node]:
    node = Node(request.param, hierarchy, tmp_path)
    try:
        program = tmp_path / "bin" / "kubelet"
        program.parent.mkdir()
        shutil.copy(puppet_program, program)
        inside, outside = tmp_path / "inside", tmp_path / "outside"
        inside.write_text(node.script(program))
        outside.write_text(f"#!/bin/sh\nexec unshare --mount --propagation private {inside}\n")
        for script in (inside, outside):
            script.chmod(0o755)
        kubelet = start_puppet(outside)
        node.logs = [Path(f"/proc/{kubelet.pid}/root{node.log(name)}") for name in node.names]
        yield node
    finally:
        node.close()


@pytest.fixture
def agent(node: Node, start_puppet: Start) -> Puppet:
    """A process in a container of a pod."""
    agent = start_puppet()
    (node.container(_AGENT) / "cgroup.procs").write_text(str(agent.pid))
    return agent


def _watch(puppet: Puppet, targets: list[Path]) -> None:
    fd = puppet.ok("init")
    for target in targets:
        puppet.ok("add", fd, target)


def _secrets(node: Node) -> list[Path]:
    return [node.secret(name) for name in node.names[1:]]


@pytest.mark.kernels
def test_watches_in_pods_that_were_removed_are_told(
    inotrace: Callable[..., Inotrace],
    node: Node,
    agent: Puppet,
    puppet: Puppet,
    folders: list[Path],
) -> None:
    """GIVEN pods whose mounts some namespace keeps WHEN they go, with their logs, THEN by name."""
    tool = inotrace("trace", "--pod", f"default/{_AGENT}", "-f", "json", "--older", "0")
    tool.err.until(b"tracing")
    _watch(agent, _secrets(node))
    _watch(puppet, folders)
    for name, log in zip(node.names[1:], node.logs[1:]):
        node.remove(name)
        log.rmdir()
    # it is gone by the end as well, but not when it was met
    (node.hierarchy / "cgroup.procs").write_text(str(agent.pid))
    tool.stop()
    report = tool.report()

    process = process_of(report, agent.pid)
    assert [row["pid"] for row in report["processes"]] == [agent.pid]
    assert process["pod"] == {
        "uid": node.uid(_AGENT),
        "namespace": "default",
        "name": _AGENT,
        "exists": True,
    }
    assert process["container"] == _ID
    is_unit = node.driver.name == "systemd"
    assert process["unit"] == (node.driver.container if is_unit else None)
    (site,) = watch_sites(report)
    # what went with its filesystem; a device number may be of another by the time one looks
    assert sum(site["removed"].values()) == _PODS - _KEPT
    assert [target["fate"] for target in site["targets"]] == ["pod_removed"] * _KEPT
    named = sorted(node.names[1 : 1 + _KEPT], key=node.uid)[0]
    assert [item["text"] for item in site["evidence"] if item["kind"] == "target_gone"] == [
        f"{_KEPT} of {_KEPT} targets are gone: "
        f"{_KEPT} in pods that were removed (default/{named} and {_KEPT - 1} more)"
    ]


def test_pods_that_are_there_are_no_evidence(
    inotrace: Callable[..., Inotrace], node: Node, agent: Puppet
) -> None:
    tool = inotrace("trace", "--pod", node.uid(_AGENT), "-f", "json", "--older", "0")
    tool.err.until(b"tracing")
    _watch(agent, _secrets(node))
    tool.stop()
    report = tool.report()

    (site,) = watch_sites(report)
    assert {target["fate"] for target in site["targets"]} == {"there"}
    assert all(item["kind"] != "target_gone" for item in site["evidence"])


@pytest.mark.kernels
def test_removed_cgroups_of_pods_are_told(
    inotrace: Callable[..., Inotrace], node: Node, agent: Puppet
) -> None:
    """GIVEN a kernel that leaves watches on what is removed."""
    tool = inotrace("trace", "--pod", _AGENT, "-f", "json", "--older", "0")
    tool.err.until(b"tracing")
    _watch(agent, [node.container(name).parent for name in node.names[1:]])
    for name in node.names[1:]:
        node.remove(name)
    tool.stop()
    (site,) = watch_sites(tool.report())

    if not site["live"]:
        pytest.skip("this kernel takes the watches of a removed cgroup")
    assert {target["fate"] for target in site["targets"]} == {"pod_removed"}


@pytest.mark.kernels
def test_a_pod_that_ended_was_not_removed(
    inotrace: Callable[..., Inotrace], node: Node, agent: Puppet
) -> None:
    """GIVEN pods without a cgroup THEN only that is told to be gone, as long as they are there."""
    tool = inotrace("trace", "--pod", _AGENT, "-f", "json", "--older", "0")
    tool.err.until(b"tracing")
    _watch(agent, [node.container(name).parent for name in node.names[1:]])
    for name in node.names[1:]:
        node.end(name)
    tool.stop()
    report = tool.report()
    (site,) = watch_sites(report)

    if not site["live"]:
        pytest.skip("this kernel takes the watches of a removed cgroup")
    assert {target["fate"] for target in site["targets"]} == {"cgroup_removed"}
    assert {pod["exists"] for pod in report["pods"]} == {True}
    assert len(report["pods"]) == 1 + _PODS
    assert [item["text"] for item in site["evidence"] if item["kind"] == "target_gone"] == [
        f"{_PODS} of {_PODS} targets are gone: {_PODS} cgroups that were removed"
    ]


@pytest.mark.kernels
def test_from_another_pod_the_same_is_told(
    inotrace: Callable[..., Inotrace], node: Node, agent: Puppet
) -> None:
    """GIVEN inotrace in a container with a cgroup namespace, which shows no cgroups of others."""
    own, *names = reversed(node.names[1:])

    def enter() -> None:
        (node.container(own) / "cgroup.procs").write_text("0")
        if ctypes.CDLL(None).unshare(_CLONE_NEWCGROUP):
            raise OSError("there are no cgroup namespaces")

    arguments = ("trace", "-p", agent.pid, "-f", "json", "--older", "0")
    tool = inotrace(*arguments, preexec_fn=enter)
    tool.err.until(b"tracing")
    _watch(agent, _secrets(node))
    for name in names:
        node.remove(name)
    tool.stop()
    report = tool.report()
    (site,) = watch_sites(report)
    exists = {pod["name"]: pod["exists"] for pod in report["pods"]}

    assert process_of(report, agent.pid)["pod"]["name"] == _AGENT
    fates = {target["path"]: target["fate"] for target in site["targets"]}
    kept = node.names[1 : 1 + _KEPT]
    assert fates == {
        **{str(node.secret(name)): "pod_removed" for name in kept},
        str(node.secret(own)): "there",
    }
    assert exists == {_AGENT: True, own: True, **dict.fromkeys(kept, False)}


@pytest.mark.kernels
def test_ls_lists_the_processes_of_a_pod(
    inotrace: Callable[..., Inotrace],
    node: Node,
    agent: Puppet,
    puppet: Puppet,
    folders: list[Path],
) -> None:
    for each in (agent, puppet):
        _watch(each, folders)
    tool = inotrace("ls", "-f", "json", "--pod", _AGENT)
    listed = tool.report()

    assert tool.wait() == 0
    assert {watch["pid"] for watch in listed["watches"]} == {agent.pid}


def test_events_has_the_calls_of_a_pod(
    inotrace: Callable[..., Inotrace],
    node: Node,
    agent: Puppet,
    puppet: Puppet,
    folders: list[Path],
) -> None:
    tool = inotrace("events", "-f", "json", "--pod", node.uid(_AGENT)[:8])
    tool.out.line()
    for each in (puppet, agent):
        _watch(each, folders[:3])
    tool.out.until_seen(b'"inotify_add_watch"', 3)
    tool.stop()
    calls = [json.loads(line) for line in tool.out.rest().splitlines()[1:-1]]

    assert [call["pid"] for call in calls] == [agent.pid] * 4


def test_run_traces_a_pod_while_a_command_runs(
    inotrace: Callable[..., Inotrace],
    node: Node,
    agent: Puppet,
    folders: list[Path],
    tmp_path: Path,
) -> None:
    """GIVEN a command that pokes a daemon in a pod THEN the daemon is reported."""
    go, out = tmp_path / "go", tmp_path / "report"
    os.mkfifo(go)
    tool = inotrace("run", "--pod", _AGENT, "-f", "json", "-o", out, "--", "cat", go)
    # it opens when cat does: tracing has begun
    with go.open("w"):
        _watch(agent, folders)
    tool.wait()
    report: Any = json.loads(out.read_text())

    assert process_of(report, agent.pid)["added"] == len(folders)
    assert process_of(report, agent.pid)["pod"]["name"] == _AGENT


@pytest.mark.parametrize("command", ["trace", "events", "ls"])
def test_a_pod_that_is_not_there_is_told_in_one_line(
    command: str, inotrace: Callable[..., Inotrace]
) -> None:
    tool = inotrace(command, "--pod", "no-such-pod")

    assert tool.wait() == 2
    assert tool.error().startswith("there is no pod 'no-such-pod': ")


@pytest.mark.parametrize("command", ["trace", "events", "ls"])
def test_a_pod_and_a_cgroup_exclude_each_other(
    command: str, inotrace: Callable[..., Inotrace]
) -> None:
    tool = inotrace(command, "--pod", _AGENT, "--cgroup", "/")

    assert tool.wait() == 2
    assert b"--cgroup and --pod exclude each other" in tool.err.rest()
