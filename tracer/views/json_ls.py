"""
What is watched now, as JSON of schema ``inotrace.ls/1``.

Bytes that are not UTF-8 appear as lone surrogates, as in the report of a trace.
"""

from __future__ import annotations

import json
from typing import Any

from tracer.core.events import mask_names
from tracer.views.ls import Holder, Instance, Snapshot, Usage, Watch
from tracer.views.text import decoded

SCHEMA = "inotrace.ls/1"


def as_json(snapshot: Snapshot) -> str:
    """One object of schema inotrace.ls/1; each watch once, under its instance's first holder."""
    document = {
        "schema": SCHEMA,
        "host": {"kernel": snapshot.kernel, "truth": snapshot.truth},
        "complete": snapshot.complete,
        "sharing_known": snapshot.sharing_known,
        "limits": [_usage_object(usage) for usage in snapshot.usage],
        "instances": [_instance_object(instance) for instance in snapshot.instances],
        "watches": [
            _watch_object(instance, watch)
            for instance in snapshot.instances
            for watch in instance.watches
        ],
    }
    return json.dumps(document, ensure_ascii=True) + "\n"


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


def _instance_object(instance: Instance) -> dict[str, Any]:
    return {
        "id": instance.id,
        "holders": [_holder_object(holder) for holder in instance.holders],
        "watches": len(instance.watches),
    }


def _holder_object(holder: Holder) -> dict[str, Any]:
    return {
        "pid": holder.pid,
        "fd": holder.fd,
        "comm": decoded(holder.comm),
        "exe": None if holder.exe is None else decoded(holder.exe),
        "user": holder.user,
    }


def _watch_object(instance: Instance, watch: Watch) -> dict[str, Any]:
    first = instance.holders[0]
    return {
        "pid": first.pid,
        "fd": first.fd,
        "instance": instance.id,
        "wd": watch.wd,
        "ino": watch.ino,
        "dev": watch.device,
        "mask": list(mask_names(watch.mask)),
        "path": None,
        "resolved_by": "unresolved",
    }
