"""Which container, pod and systemd unit a process belongs to, told by the names of its cgroups."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from tracer.targets.cgroups import Membership, memberships

# a UUID, with _ for - in the names of systemd's units, or what the kubelet makes of the manifest of
# a static pod: pkg/kubelet/cm/cgroup_manager_linux.go and pkg/kubelet/config/common.go there
POD_UID = rb"(?:[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})"
# The cgroup of a pod, below whatever --cgroup-root is. The cgroupfs driver makes a folder of each
# word, the systemd driver a slice whose name has them all (systemd.slice(5)): see
# pkg/kubelet/cm/{qos,pod}_container_manager_linux.go. Guaranteed pods are in no folder of their own
POD_CGROUP = re.compile(
    rb"(?:^|[/-])kubepods(?:[-/](?P<qos>burstable|besteffort))?[-/]pod(?P<uid>"
    + POD_UID
    + rb")(?P<end>\.slice)?(?=[/:]|$)"
)
# The same of the cgroupfs driver from a cgroup namespace that is itself below kubepods: where that
# is left out, so may the class be
_POD_BESIDE = re.compile(
    rb"(?:/\.\.)+(?:/(?P<qos>burstable|besteffort))?/pod(?P<uid>" + POD_UID + rb")(?=/|$)"
)
_GUARANTEED = "guaranteed"
# What runtimes name cgroups by: runc's libcontainer/cgroups/systemd (prefix-id.scope), containerd's
# internal/cri/server (slice:cri-containerd:id, which is a folder where runc was not told of
# systemd), CRI-O's internal/config/cgmgr, podman's libpod/container_internal_linux.go. The
# crio-conmon-id and libpod-conmon-id beside them have who looks after a container.
_RUNTIMES = {
    b"cri-containerd": "containerd",
    b"nerdctl": "containerd",
    b"crio": "cri-o",
    b"docker": "docker",
    b"libpod": "podman",
}
_NAMED = re.compile(
    rb"(?:.*:)?(?P<by>" + b"|".join(_RUNTIMES) + rb")[-:](?P<id>[0-9a-f]{64})(?:\.scope)?"
)
_BARE = re.compile(rb"[0-9a-f]{64}")
# lxc.container.conf(5), also of versions before 4
_LXC = re.compile(rb"lxc\.payload\.(?P<name>.+)")
_LXC_FOLDERS = (b"lxc", b"lxc.payload")
# systemd-nspawn(1) with --keep-unit, and as systemd-machined registers it
_NSPAWN = re.compile(rb"(?:systemd-nspawn@(?P<unit>.+)\.service|machine-(?P<name>.+)\.scope)")
# what libvirt registers there, with its driver first (src/util/virsystemd.c): qemu and ch are for
# virtual machines. Without systemd it makes a folder by itself (src/util/vircgroup.c)
_LIBVIRT = re.compile(
    rb"machine-(?P<scope>(?P<by>lxc|qemu|ch(?=\\x2d[0-9]))\\x2d.+)\.scope|(?P<name>.+)\.libvirt-lxc"
)
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
# the types of systemd.unit(5) that have processes
_UNIT = re.compile(rb".+\.(?:service|scope|socket|mount|swap)")
_USER_MANAGER = re.compile(rb"user@[0-9]+\.service")
_SLICE = b".slice"
# proc_cgroup_show() in kernel/cgroup/cgroup.c
_REMOVED = b" (deleted)"
_UNSHIFTED = b".."


class Belonging(NamedTuple):
    """
    What a cgroup is of, each None if it is of none.

    `cgroup` is the path that tells it, as /proc/PID/cgroup has it; `container` an id (64 digits of
    a hash) or, with LXC, libvirt and systemd-nspawn, a name, and `runtime` what made it, if the
    path says so. `pod` is a uid with dashes, `qos` "guaranteed", "burstable" or "besteffort", None
    too if the path of a pod does not say. `unit` is the systemd unit that the system's manager
    knows, or the user's manager below user@UID.service; no slice. Names are as their makers chose
    them: any bytes, those that are not UTF-8 as surrogateescape has them.
    """

    cgroup: bytes
    container: str | None
    runtime: str | None
    pod: str | None
    qos: str | None
    unit: str | None

    @property
    def is_removed(self) -> bool:
        """Whether the cgroup is: only processes that have ended are left in it."""
        return self.cgroup.endswith(_REMOVED)


@lru_cache(maxsize=4096)
def belonging(cgroup: bytes) -> Belonging:
    """
    Of one cgroup path.

    With a container in another, as with a node of kind, the innermost pod and container count, and
    of containers around a pod none does.
    """
    path = cgroup[: -len(_REMOVED)] if cgroup.endswith(_REMOVED) else cgroup
    pods = list(POD_CGROUP.finditer(path))
    pod = pods[-1] if pods else _POD_BESIDE.match(path)
    inside = path[pod.end("uid") :] if pod else path
    container, runtime = _container(inside.split(b"/"))
    return Belonging(
        cgroup=cgroup,
        container=container,
        runtime=runtime,
        pod=uid_text(pod["uid"]) if pod else None,
        qos=_qos(pod) if pod else None,
        unit=_unit([part for part in path.split(b"/") if part not in (b"", _UNSHIFTED)]),
    )


def _qos(pod: re.Match[bytes]) -> str | None:
    if pod["qos"]:
        return pod["qos"].decode()
    return _GUARANTEED if pod.re is POD_CGROUP else None


def uid_text(uid: bytes) -> str:
    """The uid of a pod as the API has it, from what is in a path."""
    return uid.replace(b"_", b"-").decode()


class Containers:
    """What processes belong to, each looked up once: use one for each report."""

    def __init__(self) -> None:
        self._known: dict[int, Belonging | None] = {}

    def of(self, pid: int) -> Belonging | None:
        """By /proc/PID/cgroup; None if the process is gone."""
        if pid not in self._known:
            self._known[pid] = belonging_of(memberships(pid))
        return self._known[pid]


def belonging_of(memberships: Iterable[Membership]) -> Belonging | None:
    """
    Of a process in several hierarchies: by the one that tells most, version 2 and systemd's first.

    None if it is in none, as if it is gone.
    """
    found = [belonging(_path(member)) for member in sorted(memberships, key=_order)]
    if not found:
        return None
    unit = next((one.unit for one in found if one.unit), None)
    most = max(found, key=lambda one: (one.pod is not None, one.container is not None))
    return most if most.unit else most._replace(unit=unit)


def _order(member: Membership) -> tuple[bool, bool]:
    return member.hierarchy != 0, b"name=systemd" not in member.labels


def _path(member: Membership) -> bytes:
    return b"/" + b"/".join((*[_UNSHIFTED] * member.place.up, *member.place.down))


def _container(parts: Sequence[bytes]) -> tuple[str | None, str | None]:
    """The id and the runtime of the innermost container."""
    found: tuple[str | None, str | None] = None, None
    for above, part in zip((b"", *parts), parts):
        found = next(_containers_at(above, part), found)
    return found


def _containers_at(above: bytes, part: bytes) -> Iterator[tuple[str, str | None]]:
    named = _NAMED.fullmatch(part)
    if named:
        yield named["id"].decode(), _RUNTIMES[named["by"]]
    elif _BARE.fullmatch(part):
        # dockerd's --cgroup-parent is /docker by default
        yield part.decode(), "docker" if above == b"docker" else None
    elif above in _LXC_FOLDERS and part:
        yield os.fsdecode(part), "lxc"
    elif lxc := _LXC.fullmatch(part):
        yield os.fsdecode(lxc["name"]), "lxc"
    elif libvirt := _LIBVIRT.fullmatch(part):
        if libvirt["by"] in (None, b"lxc"):
            yield os.fsdecode(_unescaped(libvirt["scope"] or libvirt["name"])), "libvirt-lxc"
    elif nspawn := _NSPAWN.fullmatch(part):
        yield os.fsdecode(_unescaped(nspawn["unit"] or nspawn["name"])), "systemd-nspawn"


def _unescaped(name: bytes) -> bytes:
    """systemd.unit(5), string escaping; a machine has no dashes that stand for slashes."""
    return _ESCAPE.sub(lambda digits: bytes((int(digits[1], 16),)), name)


def _unit(parts: Sequence[bytes]) -> str | None:
    """As src/basic/cgroup-util.c of systemd: the first no slice, again in a user's manager."""
    units = []
    for part in parts:
        # cg_unescape() there: a name that could be a file of the kernel's has _ before it
        name = part[1:] if part.startswith(b"_") else part
        if name.endswith(_SLICE):
            continue
        if not _UNIT.fullmatch(name):
            break
        units.append(name)
        if len(units) > 1 or not _USER_MANAGER.fullmatch(name):
            break
    return os.fsdecode(units[-1]) if units else None
