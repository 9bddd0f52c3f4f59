"""
The limits as JSON, schema ``inotrace.limits/1``.

Bytes that are not UTF-8 appear as lone surrogates, as in the report of a trace.
"""

from __future__ import annotations

import json
from typing import Any

from tracer.core.raising import DROP_IN, Raise
from tracer.core.shortage import Resource, Shortage
from tracer.views.failures import holder_object
from tracer.views.limits import Limits, User, summary
from tracer.views.namespaces import payer_object
from tracer.views.raising import command, drop_in
from tracer.views.text import decoded

SCHEMA = "inotrace.limits/1"
_HOLDERS_MAX = 100


def as_json(limits: Limits) -> str:
    """
    One object, in ASCII. A limit or what is free is null where there is none, or unknown.

    The settings are of the user namespace `userns`, null for the initial one.
    """
    settings = limits.settings
    document = {
        "schema": SCHEMA,
        "host": {"kernel": limits.kernel, "truth": limits.truth},
        "complete": limits.complete,
        "summary": list(summary(limits)),
        "in_use": {"watches": limits.watches, "instances": limits.instances},
        "settings": {
            "max_user_watches": settings.watches,
            "max_user_instances": settings.instances,
            "max_queued_events": settings.queued_events,
            "userns": settings.userns,
        },
        "limits": [_user(limits, user) for user in limits.shown],
        "descriptors": list(map(_descriptors, limits.descriptors)),
        "raise": list(map(_raise, limits.raises)),
        "drop_in": {"path": DROP_IN, "lines": list(drop_in(limits))},
    }
    return json.dumps(document) + "\n"


def _user(limits: Limits, user: User) -> dict[str, Any]:
    return {
        "uid": user.uid,
        "user": user.usage.user,
        "userns": user.usage.userns,
        "watches": _use(limits, user, Resource.WATCHES),
        "instances": _use(limits, user, Resource.INSTANCES),
        "charged_with": payer_object(user.maker),
        "source": user.usage.source,
        "complete": user.usage.complete,
        "holders": list(map(holder_object, user.holders[:_HOLDERS_MAX])),
        "others": len(user.holders[_HOLDERS_MAX:]),
    }


def _use(limits: Limits, user: User, resource: Resource) -> dict[str, Any]:
    """`free` until anyone who is charged has too many; `nearest` is whose limit that may be."""
    nearest = limits.nearest(user, resource)
    limit = user.limit(resource)
    return {
        "used": user.used(resource),
        "limit": limit,
        "free": limits.free(user, resource),
        "share": None if limit is None else round(user.share(resource), 4),
        "nearest": {"userns": nearest.usage.userns, "uid": nearest.uid},
    }


def _descriptors(shortage: Shortage) -> dict[str, Any]:
    (holder,) = shortage.holders
    return {
        "pid": holder.pid,
        "comm": decoded(holder.comm),
        "used": shortage.used,
        "limit": shortage.limit,
    }


def _raise(one: Raise) -> dict[str, Any]:
    return {
        "setting": one.setting,
        "userns": one.userns,
        "now": one.now,
        "suggested": one.suggested,
        "memory_bytes": one.memory or None,
        "command": command(one),
    }
