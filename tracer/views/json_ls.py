"""
What is watched now, as JSON of schema ``inotrace.ls/1``.

Bytes that are not UTF-8 appear as lone surrogates, as in the report of a trace.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

from tracer.core.events import mask_names
from tracer.views.ls import (
    Holder,
    Home,
    Instance,
    Located,
    Queue,
    Snapshot,
    Targets,
    Usage,
    Watch,
)
from tracer.views.ls_groups import Group, groups
from tracer.views.text import decoded

SCHEMA = "inotrace.ls/1"
_NOT_LOCATED = Located(None, "unresolved")


def as_json(snapshot: Snapshot) -> str:
    """One object of schema inotrace.ls/1; each watch once, under its instance's first holder."""
    document = {
        "schema": SCHEMA,
        "host": {"kernel": snapshot.kernel, "truth": snapshot.truth},
        "complete": snapshot.complete,
        "sharing_known": snapshot.sharing_known,
        "duplicates_only": snapshot.duplicates,
        "targets": _targets_object(snapshot.targets(snapshot.instances)),
        "limits": [_usage_object(usage) for usage in snapshot.usage],
        "processes": [
            _process_object(snapshot, group)
            for group in groups(snapshot, lambda holder: holder.pid)
        ],
        "instances": [_instance_object(snapshot, instance) for instance in snapshot.instances],
        "watches": list(chain.from_iterable(map(_watch_objects, snapshot.instances))),
    }
    return json.dumps(document, ensure_ascii=True) + "\n"


def _targets_object(targets: Targets) -> dict[str, Any]:
    return {
        "unique": targets.unique,
        "repeated": targets.repeated,
        "repeated_by_itself": targets.by_itself,
    }


def _usage_object(usage: Usage) -> dict[str, Any]:
    return {
        "uid": usage.uid,
        "user": usage.user,
        "userns": usage.userns,
        "watches": {"used": usage.watches, "limit": usage.watches_limit},
        "instances": {"used": usage.instances, "limit": usage.instances_limit},
        "source": usage.source,
        "complete": usage.complete,
    }


def _process_object(snapshot: Snapshot, group: Group[int]) -> dict[str, Any]:
    holder = group.holders[group.key]
    return {
        "pid": holder.pid,
        "comm": decoded(holder.comm),
        "exe": None if holder.exe is None else decoded(holder.exe),
        "uid": holder.uid,
        "user": holder.user,
        "instances": len(group.instances),
        "watches": group.watches,
        "targets": _targets_object(snapshot.targets(group.instances)),
        **_home_object(snapshot.homes.get(holder.pid, Home())),
    }


def _home_object(home: Home) -> dict[str, Any]:
    pod = None
    if home.pod is not None:
        pod = {
            "uid": home.pod,
            "namespace": home.namespace,
            "name": home.pod_name,
            "exists": home.pod_exists,
            "qos": home.qos,
        }
    return {
        "cgroup": _text(home.cgroup),
        "container": home.container,
        "runtime": home.runtime,
        "pod": pod,
        "unit": _text(home.unit),
    }


def _text(name: str | bytes | None) -> str | None:
    return decoded(name) if isinstance(name, bytes) else name


def _instance_object(snapshot: Snapshot, instance: Instance) -> dict[str, Any]:
    return {
        "id": instance.id,
        "holders": [_holder_object(holder) for holder in instance.holders],
        "watches": len(instance.watches),
        "targets": _targets_object(snapshot.targets([instance])),
        **_queue_object(instance.queue),
    }


def _queue_object(queue: Queue | None) -> dict[str, Any]:
    if queue is None:
        return {"queued": None, "queued_at_least": False, "full": None}
    return {"queued": queue.events, "queued_at_least": not queue.exact, "full": queue.full}


def _holder_object(holder: Holder) -> dict[str, Any]:
    return {
        "pid": holder.pid,
        "fd": holder.fd,
        "comm": decoded(holder.comm),
        "exe": None if holder.exe is None else decoded(holder.exe),
        "user": holder.user,
    }


def _watch_objects(instance: Instance) -> Iterator[dict[str, Any]]:
    located = chain(instance.located, repeat(_NOT_LOCATED))
    for watch, where in zip(instance.watches, located):
        yield _watch_object(instance, watch, where)


def _watch_object(instance: Instance, watch: Watch, where: Located) -> dict[str, Any]:
    first = instance.holders[0]
    return {
        "pid": first.pid,
        "fd": first.fd,
        "instance": instance.id,
        "wd": watch.wd,
        "ino": watch.inode.ino,
        "dev": watch.device,
        "mask": list(mask_names(watch.mask)),
        "path": None if where.path is None else decoded(where.path),
        "path_pid": where.pid,
        "resolved_by": where.how,
    }
