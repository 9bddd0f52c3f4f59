"""What cgroups are of, by the names that kubelets, runtimes and systemd give them."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.targets import containers
from tracer.targets.cgroups import parse_memberships
from tracer.targets.containers import Belonging, Containers, belonging, belonging_of

_UID = "5325873d-0b1c-4b6e-9d5c-0123456789ab"
_U = _UID.replace("-", "_")
_OTHER = "23232323-0b1c-4b6e-9d5c-0123456789ab"
_STATIC = "0123456789abcdef0123456789abcdef"
_ID, _NODE = "ab" * 32, "cd" * 32
_BURSTABLE = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{_U}.slice"
_NODE_POD = f"kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{_U}.slice"
_USER = "/user.slice/user-1000.slice"
_WORDS = (
    *b"/ - .. .slice .scope kubepods pod docker- machine- lxc user@1.service \xff".split(),
    _UID.encode(),
    _ID.encode(),
    b":cri-containerd:",
    b" (deleted)",
)


def _of(path: str) -> Belonging:
    return belonging(path.encode())


# --- pods ---


@pytest.mark.parametrize(
    ("path", "pod", "qos"),
    [
        (f"{_BURSTABLE}/cri-containerd-{_ID}.scope", _UID, "burstable"),
        (f"{_BURSTABLE}", _UID, "burstable"),
        (f"/kubepods.slice/kubepods-pod{_U}.slice/crio-{_ID}.scope", _UID, "guaranteed"),
        (
            f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{_U}.slice/x",
            _UID,
            "besteffort",
        ),
        (f"/kubepods/burstable/pod{_UID}/{_ID}", _UID, "burstable"),
        (f"/kubepods/besteffort/pod{_UID}/{_ID}", _UID, "besteffort"),
        (f"/kubepods/pod{_UID}/{_ID}", _UID, "guaranteed"),
        (f"/kubepods/burstable/pod{_STATIC}", _STATIC, "burstable"),
        # --cgroup-root, and what is around a node of kind
        (f"/kubelet/kubepods/burstable/pod{_UID}/{_ID}", _UID, "burstable"),
        (f"/docker/{_NODE}/kubelet/kubepods/burstable/pod{_UID}/{_ID}", _UID, "burstable"),
        (f"/system.slice/docker-{_NODE}.scope/{_NODE_POD}", _UID, "guaranteed"),
        # a kubelet in a pod
        (f"/kubepods/pod{_OTHER}/{_NODE}/kubepods/besteffort/pod{_UID}/x", _UID, "besteffort"),
        # from within a cgroup namespace, also that of a pod, and of one that is removed
        (f"/../../burstable/pod{_UID}/{_ID}", _UID, "burstable"),
        (f"/../../../besteffort/pod{_STATIC}", _STATIC, "besteffort"),
        (f"/../../pod{_UID}/{_ID}", _UID, None),
        (f"/../pod{_OTHER}/{_NODE}/kubepods/besteffort/pod{_UID}/x", _UID, "besteffort"),
        (f"/../../kubepods/burstable/pod{_UID}/{_ID}", _UID, "burstable"),
        (f"/kubepods/pod{_UID} (deleted)", _UID, "guaranteed"),
    ],
)
def test_a_pod_is_told_by_both_drivers(path: str, pod: str, qos: str | None) -> None:
    assert (_of(path).pod, _of(path).qos) == (pod, qos)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/kubepods",
        "/kubepods.slice/kubepods-burstable.slice",
        f"/pod{_UID}",
        f"/../a/pod{_UID}",
        f"/../../pod{_UID}x",
        f"/a/../pod{_UID}",
        f"/kubepods/pod{_UID}x",
        f"/kubepods/pod{_UID.upper()}",
        f"/kubepods/some/pod{_UID}",
        f"/mykubepods/pod{_UID}",
        f"/kubepods/podx{_UID}",
        "/machine.slice/machine-libpod_pod_" + _ID + ".slice",
    ],
)
def test_what_is_no_pod(path: str) -> None:
    assert (_of(path).pod, _of(path).qos) == (None, None)


# --- containers ---


@pytest.mark.parametrize(
    ("path", "container", "runtime"),
    [
        (f"{_BURSTABLE}/cri-containerd-{_ID}.scope", _ID, "containerd"),
        (f"{_BURSTABLE}/crio-{_ID}.scope/container", _ID, "cri-o"),
        (f"{_BURSTABLE}/docker-{_ID}.scope", _ID, "docker"),
        (f"/kubepods/pod{_UID}/crio-{_ID}", _ID, "cri-o"),
        (f"/kubepods/pod{_UID}/{_ID}", _ID, None),
        (
            f"/system.slice/containerd.service/kubepods-pod{_U}.slice:cri-containerd:{_ID}",
            _ID,
            "containerd",
        ),
        (f"/docker/{_ID}", _ID, "docker"),
        (f"/docker/{_ID}/init.scope", _ID, "docker"),
        (f"/system.slice/docker-{_ID}.scope", _ID, "docker"),
        (f"/system.slice/nerdctl-{_ID}.scope", _ID, "containerd"),
        (f"/default/{_ID}", _ID, None),
        (f"/machine.slice/libpod-{_ID}.scope/container", _ID, "podman"),
        (f"{_USER}/user@1000.service/user.slice/libpod-{_ID}.scope", _ID, "podman"),
        (f"/libpod_parent/libpod-{_ID}", _ID, "podman"),
        ("/lxc/101/ns", "101", "lxc"),
        ("/lxc.payload.web/system.slice/a.service", "web", "lxc"),
        ("/lxc.payload/web", "web", "lxc"),
        (r"/machine.slice/systemd-nspawn@a\x2db.service/payload", "a-b", "systemd-nspawn"),
        (r"/machine.slice/machine-a\x2db.scope", "a-b", "systemd-nspawn"),
        (r"/machine.slice/machine-lxc\x2d23\x2dweb.scope", "lxc-23-web", "libvirt-lxc"),
        (r"/machine.slice/machine-lxc\x2dweb.scope/libvirt", "lxc-web", "libvirt-lxc"),
        ("/machine/web.libvirt-lxc", "web", "libvirt-lxc"),
        ("/machine.slice/machine-lxc.scope", "lxc", "systemd-nspawn"),
        (r"/machine.slice/machine-ch\x2dweb.scope", "ch-web", "systemd-nspawn"),
        (f"/../../pod{_UID}/{_ID}", _ID, None),
        # the innermost, but none around a pod
        (f"/docker/{_NODE}/docker/{_ID}", _ID, "docker"),
        (f"/docker/{_NODE}/kubelet/kubepods/pod{_UID}/{_ID}", _ID, None),
        (f"/docker/{_NODE}/kubelet/kubepods/pod{_UID}", None, None),
        (f"/docker/{_NODE}/kubelet.slice/kubelet.service", _NODE, "docker"),
        (f"/kubepods/pod{_UID}/{_NODE}/docker/{_ID}", _ID, "docker"),
    ],
)
def test_a_container_is_told(path: str, container: str | None, runtime: str | None) -> None:
    assert (_of(path).container, _of(path).runtime) == (container, runtime)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docker",
        f"/docker/{_ID[1:]}",
        f"/docker/{_ID}0",
        f"/docker/{_ID.upper()}",
        # who looks after one
        f"{_BURSTABLE}/crio-conmon-{_ID}.scope",
        f"/machine.slice/libpod-conmon-{_ID}.scope",
        "/lxc",
        "/lxc.monitor.web",
        r"/machine.slice/machine-qemu\x2d1\x2dvm.scope",
        r"/machine.slice/machine-qemu\x2dvm.scope/libvirt/emulator",
        r"/machine.slice/machine-ch\x2d1\x2dvm.scope",
        "/machine/vm.libvirt-qemu",
        "/system.slice/docker.service",
    ],
)
def test_what_is_no_container(path: str) -> None:
    assert (_of(path).container, _of(path).runtime) == (None, None)


# --- units ---


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/kubelet.service", "kubelet.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("/init.scope", "init.scope"),
        (f"{_USER}/session-3.scope", "session-3.scope"),
        (f"{_USER}/user@1000.service/init.scope", "init.scope"),
        (f"{_USER}/user@1000.service/app.slice/app-a.slice/a.service", "a.service"),
        (f"{_USER}/user@1000.service", "user@1000.service"),
        (f"{_USER}/user@1000.service/app.slice", "user@1000.service"),
        # what a unit has below it is its own affair
        (f"/system.slice/docker-{_ID}.scope/system.slice/b.service", f"docker-{_ID}.scope"),
        ("/system.slice/a.service/b.service", "a.service"),
        ("/system.slice/user@a.service/b.service", "user@a.service"),
        # a name that might be a file of the kernel's
        ("/system.slice/_cpu.service", "cpu.service"),
        ("/../../system.slice/a.service", "a.service"),
        (f"{_BURSTABLE}/crio-{_ID}.scope", f"crio-{_ID}.scope"),
        ("/", None),
        ("/system.slice", None),
        ("/.service", None),
        (f"/kubepods/pod{_UID}/{_ID}", None),
        ("/mine/a.service", None),
    ],
)
def test_the_unit_is_who_systemd_takes_it_for(path: str, unit: str | None) -> None:
    assert _of(path).unit == unit


def test_the_path_is_kept_as_it_is() -> None:
    path = b"/system.slice/\xff\x1b[2J.service (deleted)"
    assert belonging(path) == Belonging(path, None, None, None, None, "\udcff\x1b[2J.service")


@given(st.lists(st.sampled_from(_WORDS)))
def test_any_path_is_of_something_or_nothing(parts: list[bytes]) -> None:
    found = belonging(b"/" + b"".join(parts))
    assert found.qos is None or found.pod is not None
    assert found.runtime is None or found.container is not None


@pytest.mark.parametrize(
    "part", [b"/kubepods", b"kubepods/pod", b"-pod", b"/user@1.service", b":", b"libpod-", b"/a"]
)
def test_no_path_takes_long(part: bytes) -> None:
    began = time.thread_time()
    for at in range(100):
        belonging(b"/%d" % at + part * (4096 // len(part)))
    assert time.thread_time() - began < 1


# --- processes ---


def _in(text: str) -> Belonging:
    found = belonging_of(parse_memberships(text.encode()))
    assert found is not None
    return found


def test_the_hierarchy_that_tells_most_counts() -> None:
    """GIVEN a hybrid of both versions in which only some know of the pod."""
    found = _in(
        f"5:memory:/kubepods/pod{_UID}/{_ID}\n"
        f"4:pids:/kubepods/pod{_UID}\n"
        "1:name=systemd:/system.slice/containerd.service\n"
        "0::/\n"
    )
    assert found == Belonging(
        f"/kubepods/pod{_UID}/{_ID}".encode(), _ID, None, _UID, "guaranteed", "containerd.service"
    )


def test_version_2_counts_before_others() -> None:
    found = _in("5:memory:/system.slice/a.service\n1:name=systemd:/b.service\n0::/c.service\n")
    assert (found.cgroup, found.unit) == (b"/c.service", "c.service")


def test_systemds_own_hierarchy_counts_before_controllers() -> None:
    assert _in("5:memory:/a.service\n1:name=systemd:/b.service\n").unit == "b.service"


def test_a_path_beyond_the_own_namespace_is_told_as_the_kernel_does() -> None:
    assert _in("0::/../../a.service\n").cgroup == b"/../../a.service"


def test_each_process_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Containers()
    own = known.of(os.getpid())
    assert own is not None
    monkeypatch.setattr(containers, "memberships", lambda pid: [])
    assert known.of(os.getpid()) is own
    assert Containers().of(os.getpid()) is None


def test_of_a_process_that_has_ended_nothing_is_known() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert Containers().of(ended.pid) is None
