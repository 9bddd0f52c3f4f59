"""Pods by files as kubelets and runtimes leave them, some made by strangers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Callable

import pytest

from tracer.core.events import Process
from tracer.errors import EXIT_USAGE, InotraceError
from tracer.kernel.procfs import read_process
from tracer.targets import containers, crictl
from tracer.targets import pods as module
from tracer.targets.cgroups import CgroupMount, Place, parse_memberships
from tracer.targets.pods import Pod, Pods, pod_title, pod_uid_in
from tracer.targets.processes import process_of

_UID = "5325873d-0b1c-4b6e-9d5c-0123456789ab"
_WEB_2 = "23232323-0b1c-4b6e-9d5c-0123456789ab"
_GONE = "77777777-0b1c-4b6e-9d5c-0123456789ab"
_STATIC = "0123456789abcdef0123456789abcdef"
_PATIENCE_S = 10


class Node:
    """A node's files: `start` makes those of a pod."""

    def __init__(self, top: Path) -> None:
        self.kubelet, self.logs, self.links = top / "kubelet", top / "logs", top / "links"
        self.cgroups = top / "cgroup"
        for folder in (self.kubelet / "pods", self.logs, self.links, self.cgroups):
            folder.mkdir(parents=True)

    def start(self, uid: str, title: str = "", cgroup: bool = False) -> None:
        if title:
            (self.logs / f"{title}_{uid}").mkdir()
        if cgroup:
            (self.cgroups / "kubepods" / "burstable" / f"pod{uid}" / "ctr").mkdir(parents=True)
        else:
            (self.kubelet / "pods" / uid).mkdir()

    def pods(self, before: Pods | None = None) -> Pods:
        kubelet, logs, links = map(os.fsencode, (self.kubelet, self.logs, self.links))
        return Pods(before, kubelet=kubelet, logs=logs, links=links)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    node = Node(tmp_path.resolve())
    point = os.fsencode(node.cgroups)
    mount = CgroupMount(1, True, Place(0, ()), point, frozenset())
    monkeypatch.setattr(module, "cgroup_mounts", lambda: (mount,))
    monkeypatch.setattr(module, "sees_all_cgroups", lambda: True)
    monkeypatch.setattr(module, "sees_all_processes", lambda: True)
    monkeypatch.setattr(module, "_running_kubelets", lambda: iter(()))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return node


def _crictl(tmp_path: Path, program: str) -> None:
    """A program of this name, which writes down that it was asked."""
    asked = tmp_path / "bin" / "crictl"
    asked.parent.mkdir()
    asked.write_text(
        f"#!{sys.executable}\nimport sys, time\n"
        f"print(*sys.argv[1:], file=open({str(tmp_path / 'asked')!r}, 'a'))\n{program}\n"
    )
    asked.chmod(0o755)


def _sandboxes(*pods: tuple[str, str, str]) -> str:
    items = [
        {"id": "ab", "metadata": {"name": name, "namespace": namespace, "uid": uid, "attempt": 1}}
        for namespace, name, uid in pods
    ]
    return f"print({json.dumps({'items': items})!r})"


# --- names ---


@pytest.mark.parametrize("cgroup", [False, True])
def test_a_pod_with_logs_has_its_name(node: Node, cgroup: bool) -> None:
    node.start(_UID, "kube-system_coredns-6xsx9.a", cgroup)
    pod = node.pods().named(_UID)
    assert pod == Pod(_UID, "kube-system", "coredns-6xsx9.a", True)
    assert pod_title(pod) == "kube-system/coredns-6xsx9.a"


def test_a_static_pod_has_its_name(node: Node) -> None:
    node.start(_STATIC, "kube-system_etcd-node")
    assert node.pods().named(_STATIC) == Pod(_STATIC, "kube-system", "etcd-node", True)


@pytest.mark.parametrize(
    "name",
    [
        f"a_b_c_{_UID}",
        f"a_b_{_UID}x",
        f"A_b_{_UID}",
        f"a__{_UID}",
        _UID,
        f"\x1b[2J_b_{_UID}",
        f"a_{'b' * 254}_{_STATIC}"[:255],
    ],
)
def test_what_no_kubelet_names_logs_names_no_pod(node: Node, name: str) -> None:
    (node.logs / name).mkdir()
    node.start(_UID)
    assert node.pods().named(_UID) == Pod(_UID, None, None, True)
    assert pod_title(node.pods().named(_UID)) == _UID


def test_links_to_logs_tell_names_if_the_logs_are_elsewhere(node: Node) -> None:
    """GIVEN links that lead nowhere from here, and a file."""
    node.start(_UID)
    link = node.links / "web-0_default_nginx-abababab.log"
    link.symlink_to(f"/elsewhere/default_web-0_{_UID}/nginx/0.log")
    (node.links / f"default_web-1_{_WEB_2}").touch()
    pods = node.pods()
    assert pods.named(_UID) == Pod(_UID, "default", "web-0", True)
    assert pods.named(_WEB_2).name is None


def test_names_are_kept_of_pods_that_are_gone(node: Node) -> None:
    """GIVEN a pod that was known WHEN its logs and folder are deleted."""
    node.start(_UID, "default_web-0")
    early = node.pods()
    early.learn()
    (node.logs / f"default_web-0_{_UID}").rmdir()
    (node.kubelet / "pods" / _UID).rmdir()
    assert node.pods(early).named(_UID) == Pod(_UID, "default", "web-0", False)
    assert node.pods().named(_UID) == Pod(_UID, None, None, False)


def test_names_are_learned_at_each_moment(node: Node) -> None:
    early = node.pods()
    early.learn()
    node.start(_UID, "default_web-0")
    assert early.named(_UID).name is None
    later = early.later()
    later.learn()
    assert node.pods(later).named(_UID).name == "web-0"


def test_only_so_many_names_are_kept(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NAMES_MAX", 2)
    pods = node.pods()
    for uid in (_UID, _WEB_2, _GONE):
        node.start(uid, "default_web")
        pods = pods.later()
        pods.learn()
        (node.logs / f"default_web_{uid}").rmdir()
    assert [pods.named(uid).name for uid in (_UID, _WEB_2, _GONE)] == [None, "web", "web"]


# --- crictl ---


def test_the_runtime_tells_names_where_no_logs_do(node: Node, tmp_path: Path) -> None:
    node.start(_UID)
    node.start(_WEB_2)
    _crictl(tmp_path, _sandboxes(("default", "web-0", _UID), ("a\x1b", "b", _WEB_2)))
    pods = node.pods()
    assert pods.named(_UID) == Pod(_UID, "default", "web-0", True)
    # a name that no API server lets by
    assert pods.named(_WEB_2).name is None
    assert node.pods(pods).find("web-0").uid == _UID
    assert (tmp_path / "asked").read_text() == "pods -o json\n"


def test_the_runtime_is_not_asked_where_logs_do(node: Node, tmp_path: Path) -> None:
    node.start(_UID, "default_web-0")
    node.start(_WEB_2)
    _crictl(tmp_path, _sandboxes(("default", "web-1", _WEB_2)))
    pods = node.pods()
    assert pods.named(_UID).name == "web-0"
    assert pods.named(_WEB_2).name is None
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(
    "program",
    [
        "sys.exit(1)",
        "print('[')",
        "print('[]')",
        "print('{}')",
        "print('{\"items\": [{}]}')",
        'print(\'{"items": [{"metadata": {"uid": 1, "name": 2, "namespace": 3}}]}\')',
        "print('{\"items\": 23}')",
        "print('[' * 100000)",
        "sys.stdout.buffer.write(b'\\xff')",
        "time.sleep(60)",
    ],
)
def test_a_runtime_that_does_not_answer_is_done_without(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(crictl, "_ANSWER_S", 0.5)
    node.start(_UID)
    _crictl(tmp_path, program)
    began = time.monotonic()
    pods = node.pods()
    assert pods.named(_UID) == Pod(_UID, None, None, True)
    assert pods.named(_UID).name is None
    assert time.monotonic() - began < _PATIENCE_S


# --- which exist ---


@pytest.mark.parametrize("cgroup", [False, True])
def test_a_pod_with_a_folder_or_a_cgroup_exists(node: Node, cgroup: bool) -> None:
    node.start(_UID, cgroup=cgroup)
    assert node.pods().named(_UID).exists is True
    assert node.pods().named(_GONE).exists is False


def test_the_cgroup_of_a_container_is_not_that_of_a_pod(node: Node) -> None:
    name = f"kubepods-pod{_UID.replace('-', '_')}.slice:cri-containerd:{'ab' * 32}"
    (node.cgroups / name).mkdir()
    assert node.pods().named(_UID).exists is False


def test_logs_alone_are_no_pod(node: Node) -> None:
    (node.logs / f"default_web-0_{_UID}").mkdir()
    assert node.pods().named(_UID) == Pod(_UID, "default", "web-0", False)


def test_in_a_cgroup_namespace_none_is_told_to_be_gone(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a namespace of processes as well, so that who runs outside is not seen."""
    monkeypatch.setattr(module, "sees_all_cgroups", lambda: False)
    monkeypatch.setattr(module, "sees_all_processes", lambda: False)
    node.start(_UID)
    assert node.pods().named(_UID).exists is True
    assert node.pods().named(_GONE).exists is None


@pytest.mark.parametrize(
    ("cgroup", "exists"),
    [
        (f"/../../pod{_UID}/ctr", True),
        (f"/../../kubepods/burstable/pod{_UID} (deleted)", False),
        ("/", False),
    ],
)
def test_in_a_cgroup_namespace_processes_tell_which_exist(
    node: Node, monkeypatch: pytest.MonkeyPatch, cgroup: str, exists: bool
) -> None:
    """GIVEN all processes of the machine, and a folder of each pod that has ended."""
    monkeypatch.setattr(module, "sees_all_cgroups", lambda: False)
    members = tuple(parse_memberships(f"0::{cgroup}\n".encode()))
    monkeypatch.setattr(containers, "memberships", lambda pid: members)
    assert node.pods().exists(_UID) is exists


def test_without_any_folder_of_pods_a_container_cannot_tell(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a container that has neither the folder of a kubelet nor its processes."""
    monkeypatch.setattr(module, "sees_all_processes", lambda: False)
    (node.kubelet / "pods").rmdir()
    node.kubelet.rmdir()
    assert node.pods().exists(_GONE) is None


def test_where_we_have_no_folder_that_of_init_counts(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a container with the processes of the machine, one of which has another root."""
    kubelet = Path("/var/lib/kubelet")
    if kubelet.exists():
        pytest.skip("this machine has pods")
    other = tmp_path.resolve() / "root"
    (other / "var/lib/kubelet/pods" / _UID).mkdir(parents=True)
    init, own = process_of(os.getppid()), process_of(os.getpid())
    assert init is not None and own is not None
    monkeypatch.setattr(module, "_INIT", init.pid)
    monkeypatch.setattr(node, "kubelet", kubelet)
    pods = node.pods()
    own_names = pods._names_in

    def names_in(process: Process, folder: bytes) -> list[bytes] | None:
        return own_names(own, (os.fsencode(other) if process == init else b"") + folder)

    monkeypatch.setattr(pods, "_names_in", names_in)
    assert pods.exists(_UID) is True
    assert pods.exists(_GONE) is False


def test_where_not_all_cgroups_are_looked_at_none_is_told_to_be_gone(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CGROUPS_MAX", 2)
    monkeypatch.setattr(module, "sees_all_processes", lambda: False)
    node.start(_UID, cgroup=True)
    assert node.pods().named(_GONE).exists is None


def test_where_the_folder_may_wait_for_ever_none_is_told_to_be_gone(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a folder of a kubelet on a filesystem of another machine."""
    monkeypatch.setattr("tracer.targets.mounts.LOCAL_KINDS", frozenset())
    assert node.pods().named(_GONE).exists is None


# --- kubelets ---


@pytest.mark.parametrize(
    ("arguments", "root"),
    [
        ((b"--v=2", b"--root-dir=/k/a", b"--root-dir-x=/b"), b"/k/a"),
        ((b"--root-dir", b"/k/a"), b"/k/a"),
        ((b"--root-dir",), b""),
        ((b"--root-dir=k/a",), b""),
        ((b"--config=/var/lib/kubelet/config.yaml",), b""),
        ((), b""),
    ],
)
def test_the_folder_of_a_kubelet_is_on_its_command_line(
    arguments: tuple[bytes, ...], root: bytes
) -> None:
    assert module._root_dir((b"/usr/bin/kubelet", *arguments)) == root


def test_what_a_running_kubelet_sees_counts(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path.resolve() / "elsewhere"
    (root / "pods" / _UID).mkdir(parents=True)
    kubelet = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    )
    found = [(kubelet.pid, os.fsencode(root)), (1 << 22, b"/none")]
    monkeypatch.setattr(module, "_running_kubelets", lambda: iter(found))
    try:
        assert node.pods().named(_UID).exists
    finally:
        kubelet.communicate()


@pytest.mark.parametrize(("uid", "is_believed"), [(0, True), (1000, False)])
def test_only_a_kubelet_of_root_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, is_believed: bool
) -> None:
    program = tmp_path / "kubelet"
    program.write_text("#!/bin/sh\necho\nread line\n")
    program.chmod(0o755)
    kubelet = subprocess.Popen(
        [program, "--root-dir=/k"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert kubelet.stdout is not None and kubelet.stdout.readline() == b"\n"
    facts = read_process(kubelet.pid)
    assert facts is not None
    monkeypatch.setattr(module, "read_process", lambda pid: replace(facts, uid=uid))
    try:
        found = [root for pid, root in module._running_kubelets() if pid == kubelet.pid]
    finally:
        kubelet.communicate()
    assert found == ([b"/k"] if is_believed else [])


def test_what_a_container_sees_renames_no_pod_of_ours(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN a kubelet of a stranger, and more names there than are kept."""
    node.start(_UID, "default_web-0")
    kubelet = process_of(os.getppid())
    assert kubelet is not None
    monkeypatch.setattr(module, "_running_kubelets", lambda: iter([(kubelet.pid, b"/none")]))
    pods = node.pods()
    own_names = pods._names_in

    def names_in(process: Process, folder: bytes) -> list[bytes] | None:
        if process != kubelet:
            return own_names(process, folder)
        return [f"evil_{at}_{uid}".encode() for at, uid in enumerate((_UID, _WEB_2, _GONE))]

    monkeypatch.setattr(module, "_NAMES_MAX", 2)
    monkeypatch.setattr(pods, "_names_in", names_in)
    assert pods.named(_UID).name == "web-0"
    assert pods.named(_GONE).name == "2"


# --- to find one ---


@pytest.fixture
def found(node: Node) -> Callable[[str], str]:
    node.start(_UID, "default_web-0")
    node.start(_WEB_2, "test_web-0")
    node.start(_STATIC)
    (node.logs / f"default_db-0_{_GONE}").mkdir()
    return lambda text: node.pods().find(text).uid


@pytest.mark.parametrize(
    ("text", "uid"),
    [
        (_UID, _UID),
        (_UID.replace("-", "_"), _UID),
        (_UID[:8], _UID),
        (_UID[:15], _UID),
        ("default/web-0", _UID),
        ("test/web-0", _WEB_2),
        (_STATIC, _STATIC),
        (_STATIC[:8], _STATIC),
        # one that has ended
        ("db-0", _GONE),
    ],
)
def test_a_pod_is_found(found: Callable[[str], str], text: str, uid: str) -> None:
    assert found(text) == uid


@pytest.mark.parametrize("text", ["", "web", "web-1", "default/db", _UID[:7], _UID[:9] + "f", "/"])
def test_a_pod_that_is_not_there_is_told(found: Callable[[str], str], text: str) -> None:
    with pytest.raises(InotraceError, match="there is no pod .*: give a uid or a name, as") as told:
        found(text)
    assert told.value.exit_code == EXIT_USAGE
    assert "default/web-0" in str(told.value) and _STATIC in str(told.value)


def test_a_name_of_several_is_told(found: Callable[[str], str]) -> None:
    with pytest.raises(InotraceError, match="'web-0' is more than one pod: give the uid") as told:
        found("web-0")
    assert told.value.exit_code == EXIT_USAGE
    assert f"default/web-0 ({_UID})" in str(told.value) and _WEB_2 in str(told.value)


def test_one_that_exists_goes_before_those_of_its_name_that_ended(node: Node) -> None:
    """GIVEN a stateful set that made a pod anew, and the logs of the first."""
    (node.logs / f"default_web-0_{_GONE}").mkdir()
    node.start(_UID, "default_web-0")
    assert node.pods().find("web-0") == Pod(_UID, "default", "web-0", True)


def test_on_a_machine_without_pods_that_is_told(node: Node) -> None:
    with pytest.raises(InotraceError, match="there is no pod 'web': no pod runs here"):
        node.pods().find("web")


def test_the_cgroup_of_a_pod(node: Node) -> None:
    node.start(_UID, "default_web-0", cgroup=True)
    pods = node.pods()
    assert pods.cgroup(pods.find("web-0")) == f"{node.cgroups}/kubepods/burstable/pod{_UID}"


def test_that_with_processes_goes_before_another(node: Node) -> None:
    """GIVEN two hierarchies, only one of which has what is in the pod."""
    node.start(_UID, cgroup=True)
    other = node.cgroups / "kubepods" / f"pod{_UID}"
    other.mkdir()
    (node.cgroups / "kubepods" / "burstable" / f"pod{_UID}" / "ctr" / "cgroup.procs").write_text("")
    (other / "cgroup.procs").write_text("23\n")
    pods = node.pods()
    assert pods.cgroup(pods.named(_UID)) == str(other)


def test_a_pod_without_a_cgroup_is_told(node: Node) -> None:
    node.start(_UID, "default_web-0")
    pods = node.pods()
    with pytest.raises(InotraceError, match="pod default/web-0 has no cgroup here") as told:
        pods.cgroup(pods.find("web-0"))
    assert told.value.exit_code == EXIT_USAGE


# --- paths ---


@pytest.mark.parametrize(
    ("path", "uid"),
    [
        (f"/var/lib/kubelet/pods/{_UID}/volumes/a/b", _UID),
        (f"/var/lib/kubelet/pods/{_UID}", _UID),
        (f"/var/snap/x/var/lib/kubelet/pods/{_UID}/x", _UID),
        (f"/k/pods/{_UID}/etc-hosts", _UID),
        (f"/k/pods/{_UID}/x", None),
        (f"/var/lib/kubelet/pods/{_UID}x/volumes", None),
        (f"/sys/fs/cgroup/memory/kubepods/burstable/pod{_UID}/memory.stat", _UID),
        (f"/c/kubepods.slice/kubepods-pod{_UID.replace('-', '_')}.slice", _UID),
        (f"/c/kubepods-pod{_UID.replace('-', '_')}.slice:cri-containerd:{'ab' * 32}", _UID),
        (f"/var/log/pods/default_web-0_{_UID}/nginx", _UID),
        (f"/var/log/pods/default_web-0_{_STATIC}", _STATIC),
        (f"/mine/default_web-0_{_UID}/nginx", None),
        ("/var/lib/kubelet/pods", None),
        ("/", None),
        ("pod", None),
    ],
)
def test_the_pod_that_a_path_is_in(path: str, uid: str | None) -> None:
    assert pod_uid_in(path.encode()) == uid


@pytest.mark.parametrize(
    "part", [b"/kubelet/pods/", b"_pod_", b"/var/log/pods/a_", b"kubepods-pod", b"a_pod/"]
)
def test_no_path_takes_long(part: bytes) -> None:
    began = time.thread_time()
    for _ in range(100):
        assert pod_uid_in(b"/var/log/pods/" + part * (4096 // len(part))) is None
    assert time.thread_time() - began < 1


def test_the_pods_of_many_paths_are_told_by_one_with_a_name(node: Node) -> None:
    (node.logs / f"default_web-0_{_UID}").mkdir()
    paths = [f"/k/pods/{uid}/volumes/{at}".encode() for uid in (_WEB_2, _UID) for at in range(3)]
    pods = node.pods()
    assert pods.in_paths([*paths, b"/tmp"]) == "default/web-0 and 1 more"
    assert pods.in_paths(paths[:3]) == _WEB_2
    assert pods.in_paths([b"/tmp"]) == ""
