"""Pods of this node: what they are called, and which there are; from files, no API server asked."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from itertools import islice
from typing import NamedTuple

from tracer.core.events import Process
from tracer.errors import EXIT_USAGE, InotraceError
from tracer.kernel.procfs import read_process, running_pids, shows_all_processes
from tracer.targets.cgroups import all_below, cgroup_mounts, has_processes, sees_all_cgroups
from tracer.targets.containers import POD_CGROUP, POD_UID, Containers, uid_text
from tracer.targets.crictl import names_by_crictl
from tracer.targets.mounts import Mounts
from tracer.targets.path import Paths
from tracer.targets.processes import process_of

# pkg/kubelet/config/defaults.go, and what there may be in the folder of a pod
_KUBELET = b"/var/lib/kubelet"
_POD_FOLDER = re.compile(
    rb"/pods/(?P<uid>" + POD_UID + rb")(?=/(?:volumes|volume-subpaths|volumeDevices|plugins|"
    rb"containers|etc-hosts)(?:/|$))"
)
_IN_KUBELET = re.compile(rb"/kubelet/pods/(?P<uid>" + POD_UID + rb")(?=/|$)")
# pkg/kubelet/kuberuntime/helpers.go: NAMESPACE_NAME_UID; the names are DNS labels and subdomains
_LOGS = b"/var/log/pods"
_LOG_FOLDER = re.compile(
    rb"(?:^|/)(?P<namespace>[a-z0-9-]{1,63})_(?P<name>[a-z0-9.-]{1,253})_(?P<uid>"
    + POD_UID
    + rb")(?=/|$)"
)
# pkg/kubelet/kuberuntime/legacy.go: links to the logs, which may be elsewhere (podLogsDir)
_LINKS = b"/var/log/containers"
_ROOT_DIR = b"--root-dir"
# include/linux/proc_ns.h: PROC_PID_INIT_INO
_FIRST_NAMESPACE = 0xEFFFFFFC
_INIT = 1
# The kubelet allows 110 pods by default; more than these are not looked at or kept.
_NAMES_MAX = 16_384
_CGROUPS_MAX = 100_000
_KUBELETS_MAX = 64
_SHOWN_MAX = 4
_UID_PREFIX = re.compile(r"[0-9a-f-]{8,36}")


class Pod(NamedTuple):
    """
    A pod by its uid. `namespace` and `name` are None if they are not known.

    `exists` is True if it has a cgroup, a folder of a kubelet or a process, and None if it cannot
    be told from here that it has none.
    """

    uid: str
    namespace: str | None
    name: str | None
    exists: bool | None


class _Names(NamedTuple):
    namespace: str
    name: str


class _Kubelet(NamedTuple):
    """Who sees the files of a kubelet, and its --root-dir."""

    process: Process
    root: bytes


class Pods:
    """
    The pods of one moment: use one for each report. What is read is read when first needed.

    Looks in the folders of the kubelet, `kubelet` unless one that runs has another --root-dir, also
    as kubelets in containers see them (kind); and in `logs` and `links` of the runtimes. Names that
    `before` knew are kept: those of a pod are deleted with it.
    """

    def __init__(
        self,
        before: Pods | None = None,
        *,
        kubelet: bytes = _KUBELET,
        logs: bytes = _LOGS,
        links: bytes = _LINKS,
    ) -> None:
        self._folders = kubelet, logs, links
        self._paths = Paths(Mounts())
        self._names: dict[str, _Names] = {} if before is None else before._names
        self._is_named = False
        self._asks_runtime: bool = before is None or before._asks_runtime

    def later(self) -> Pods:
        """A later moment, only to :meth:`learn` names: kubelets that were started are not found."""
        kubelet, logs, links = self._folders
        pods = Pods(self, kubelet=kubelet, logs=logs, links=links)
        pods.__dict__["_kubelets"] = self._kubelets
        return pods

    def named(self, uid: str) -> Pod:
        """The pod with this uid, also if nothing else is known of it."""
        if uid not in self._names:
            self.learn()
        if uid not in self._names and self._asks_runtime and uid in self._existing:
            self._ask_runtime()
        names = self._names.get(uid)
        return Pod(
            uid,
            names.namespace if names else None,
            names.name if names else None,
            self.exists(uid),
        )

    def exists(self, uid: str) -> bool | None:
        """See :class:`Pod`; nothing of it is left if it has neither cgroup nor folder any more."""
        if uid in self._existing or uid in self._running:
            return True
        return False if self._are_all_seen else None

    def find(self, uid_or_name: str) -> Pod:
        """
        By a uid or the first 8 characters of one, by its name, or by NAMESPACE/NAME.

        One that exists goes before others. Raises InotraceError (EXIT_USAGE) if there is none, or
        more than one.
        """
        # the names of systemd's slices have _ for -, those of pods have none
        wanted = uid_or_name.replace("_", "-")
        self.learn()
        known = {uid for uid in (*self._existing, *self._names) if self._is(uid, wanted)}
        if not known and self._asks_runtime:
            self._ask_runtime()
            known = {uid for uid in self._names if self._is(uid, wanted)}
        pods = [self.named(uid) for uid in sorted(known)]
        pods = [pod for pod in pods if pod.uid in self._existing] or pods
        if len(pods) != 1:
            raise InotraceError(self._what_is_wrong(uid_or_name, pods), exit_code=EXIT_USAGE)
        return pods[0]

    def in_paths(self, paths: Iterable[bytes]) -> str:
        """``default/web-0 and 2 more``: pods that paths are in, one with a name if there is any."""
        uids = sorted(set(filter(None, map(pod_uid_in, paths))))
        if not uids:
            return ""
        first = next((pod for pod in map(self.named, uids) if pod.name), self.named(uids[0]))
        return pod_title(first) + (f" and {len(uids) - 1:,} more" if len(uids) > 1 else "")

    def cgroup(self, pod: Pod) -> str:
        """
        The folder of a pod's cgroup, in the hierarchy that has its processes if only one has.

        Raises InotraceError (EXIT_USAGE) if it has none.
        """
        folders = self._cgroups.get(pod.uid, [])
        if not folders:
            raise InotraceError(
                f"pod {pod_title(pod)} has no cgroup here: it has ended, or is not of this node",
                exit_code=EXIT_USAGE,
            )
        # anyone who was given a cgroup can make one below it that is called like a pod's
        depth = min(map(_depth, folders))
        own = [folder for folder in folders if _depth(folder) == depth]
        return os.fsdecode(next(filter(has_processes, own), own[0]))

    def learn(self) -> None:
        """Remember the names of all pods that have logs now."""
        if self._is_named:
            return
        self._is_named = True
        _, logs, links = self._folders
        # ourselves last: what others see may be made up to rename pods that are not theirs
        for process in {one.process: None for one in reversed(self._kubelets)}:
            found = list(map(_log_name, self._names_in(process, logs) or ()))
            if not any(found):
                found = list(map(_log_name, self._links_in(process, links)))
            self._keep(filter(None, found))

    def _keep(self, found: Iterable[tuple[str, _Names]]) -> None:
        for uid, names in found:
            self._names.pop(uid, None)
            self._names[uid] = names
            if len(self._names) > _NAMES_MAX:
                del self._names[next(iter(self._names))]

    def _ask_runtime(self) -> None:
        """Once, and only if there are no logs to tell the names: it takes its time."""
        self._asks_runtime = False
        if not self._names:
            self._keep(filter(None, map(_log_name, names_by_crictl())))

    def _is(self, uid: str, wanted: str) -> bool:
        if uid == wanted or (_UID_PREFIX.fullmatch(wanted) and uid.startswith(wanted)):
            return True
        names = self._names.get(uid)
        return names is not None and wanted in (names.name, f"{names.namespace}/{names.name}")

    def _what_is_wrong(self, wanted: str, pods: list[Pod]) -> str:
        if pods:
            some = ", ".join(f"{pod_title(pod)} ({pod.uid})" for pod in pods[:_SHOWN_MAX])
            return f"{wanted!r} is more than one pod: give the uid of one, as of {some}"
        if not self._existing:
            return f"there is no pod {wanted!r}: no pod runs here"
        known = [pod_title(self.named(uid)) for uid in sorted(self._existing)]
        more = " …" if len(known) > _SHOWN_MAX else ""
        return f"there is no pod {wanted!r}: give a uid or a name, as {', '.join(known[:4])}{more}"

    # which exist

    @cached_property
    def _existing(self) -> set[str]:
        return self._found_folders[0] | self._cgroups.keys()

    @cached_property
    def _are_all_seen(self) -> bool:
        """False if there may be pods that cannot be seen from here."""
        return self._found_folders[1] and (self._found_cgroups[1] or sees_all_processes())

    @cached_property
    def _running(self) -> set[str]:
        """Those with processes, where not all cgroups are to be seen: who has ended has a folder"""
        if self._found_cgroups[1]:
            return set()
        containers = Containers()
        found = filter(None, map(containers.of, running_pids()))
        return {one.pod for one in found if one.pod and not one.is_removed}

    @property
    def _cgroups(self) -> dict[str, list[bytes]]:
        return self._found_cgroups[0]

    @cached_property
    def _found_cgroups(self) -> tuple[dict[str, list[bytes]], bool]:
        """Those of each pod, version 2 first, and whether they are all there is."""
        found: dict[str, list[bytes]] = defaultdict(list)
        folders = all_below(mount.point for mount in cgroup_mounts())
        for folder in islice(folders, _CGROUPS_MAX):
            if pod_folder(folder) == folder:
                found[pod_uid_in(folder) or ""].append(folder)
        return found, sees_all_cgroups() and next(folders, None) is None

    @cached_property
    def _found_folders(self) -> tuple[set[str], bool]:
        """Those that a kubelet has a folder of, and whether they are all there is."""
        found: set[str] = set()
        are_all = True
        for process, root in self._kubelets:
            names = self._names_in(process, root.rstrip(b"/") + b"/pods")
            are_all &= names is not None and len(names) < _NAMES_MAX
            found.update(uid_text(name) for name in names or () if _is_uid(name))
        # where there are none at all, a kubelet may have them where we do not look
        return found, are_all and (bool(found) or sees_all_processes())

    @cached_property
    def _kubelets(self) -> list[_Kubelet]:
        """
        What we see where they are by default, and what each that runs sees.

        If that is nothing, what init sees: some run by another name, and we may be in a container.
        """
        default = self._folders[0]
        own = process_of(os.getpid())
        found = [_Kubelet(own, default)] if own is not None else []
        for pid, root in islice(_running_kubelets(), _KUBELETS_MAX):
            process = process_of(pid)
            if process is not None:
                found.append(_Kubelet(process, root or default))
        if len(found) < 2 and (init := process_of(_INIT)) and not self._sees(own, default):
            found.append(_Kubelet(init, default))
        return found

    # files

    def _sees(self, process: Process | None, folder: bytes) -> bool:
        sight = self._paths.sight(process, folder) if process is not None else None
        return sight is not None and sight.target is not None

    def _names_in(self, process: Process, folder: bytes) -> list[bytes] | None:
        """None if that cannot be told."""
        try:
            with self._paths.listed(process, folder) as fd:
                return _entries(fd)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError:
            return None

    def _links_in(self, process: Process, folder: bytes) -> Iterator[bytes]:
        with suppress(OSError), self._paths.listed(process, folder) as fd:
            for name in _entries(fd):
                with suppress(OSError):
                    yield os.readlink(name, dir_fd=fd)


def pod_title(pod: Pod) -> str:
    """NAMESPACE/NAME, or the uid."""
    return f"{pod.namespace}/{pod.name}" if pod.name is not None else pod.uid


def pod_folder(path: bytes) -> bytes | None:
    """The folder of the kubelet, or the cgroup, that a path names as that of a pod."""
    found = _pod_in(path)
    # containerd without systemd's driver makes a folder pod….slice:cri-containerd:… of a container
    if found is None or path[found.end() : found.end() + 1] == b":":
        return None
    return path[: found.end()]


def pod_uid_in(path: bytes) -> str | None:
    """
    The uid of the pod that a path is in, by its names alone.

    Known are the folders of the kubelet, cgroups, and the logs of the runtimes.
    """
    found = _pod_in(path)
    if found is None and b"pod" in path:
        found = _IN_KUBELET.search(path)
        if found is None and path.startswith(_LOGS + b"/"):
            found = _LOG_FOLDER.search(path)
    return None if found is None else uid_text(found["uid"])


def _pod_in(path: bytes) -> re.Match[bytes] | None:
    if b"pod" not in path:
        return None
    return _POD_FOLDER.search(path) or POD_CGROUP.search(path)


def sees_all_processes() -> bool:
    """Whether /proc has those of the whole machine."""
    with suppress(OSError):
        return os.stat("/proc/self/ns/pid").st_ino == _FIRST_NAMESPACE and shows_all_processes()
    return False


def _is_uid(name: bytes) -> bool:
    return re.fullmatch(POD_UID, name) is not None


def _log_name(path: bytes) -> tuple[str, _Names] | None:
    found = _LOG_FOLDER.search(path)
    if found is None:
        return None
    return uid_text(found["uid"]), _Names(found["namespace"].decode(), found["name"].decode())


def _entries(folder: int) -> list[bytes]:
    with os.scandir(folder) as entries:
        return [os.fsencode(entry.name) for entry in islice(entries, _NAMES_MAX)]


def _running_kubelets() -> Iterator[tuple[int, bytes]]:
    """Those of root, with their --root-dir if they have one: anybody may call a program so."""
    for pid in running_pids():
        with suppress(OSError), open(f"/proc/{pid}/comm", "rb") as file:
            if file.read(16) != b"kubelet\n":
                continue
            facts = read_process(pid)
            if facts is not None and facts.uid == 0:
                yield pid, _root_dir(facts.cmdline)


def _root_dir(cmdline: tuple[bytes, ...]) -> bytes:
    for argument, following in zip(cmdline, (*cmdline[1:], b"")):
        name, equals, value = argument.partition(b"=")
        if name == _ROOT_DIR:
            root = value if equals else following
            return root if root.startswith(b"/") else b""
    return b""


def _depth(folder: bytes) -> int:
    return folder.count(b"/")
