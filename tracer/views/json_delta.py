"""
What differs between two reports or two outputs of ls, as JSON of schema ``inotrace.diff/1``.

Bytes that are not UTF-8 appear as lone surrogates, as in the report of a trace.
"""

from __future__ import annotations

import json
from typing import Any

from tracer.core.delta import Change, Delta, ProcessDelta, SiteDelta, TargetDelta
from tracer.views.json_report import frame_object

SCHEMA = "inotrace.diff/1"


def delta_json(delta: Delta) -> str:
    """One object of schema inotrace.diff/1, indented, in ASCII."""
    return json.dumps(delta_object(delta), indent=2) + "\n"


def delta_object(delta: Delta) -> dict[str, Any]:
    """
    Counts are objects of `a` and `b`; `of` is the schema of what was compared.

    `caveats` say why numbers may be off. `unlisted` watches have no target in the files.
    """
    return {
        "schema": SCHEMA,
        "of": delta.schema,
        "caveats": {"a": list(delta.caveats_before), "b": list(delta.caveats_after)},
        "watches": _pair(delta.watches),
        "instances": _pair(delta.instances),
        "sites": [_site_object(site) for site in delta.sites],
        "processes": [_process_object(process) for process in delta.processes],
        "targets": [_target_object(target) for target in delta.targets],
        "unlisted": _pair(delta.unlisted),
    }


def _pair(change: Change) -> dict[str, int]:
    return {"a": change.before, "b": change.after}


def _site_object(site: SiteDelta) -> dict[str, Any]:
    """`id` is null for the places without frames, which go by `comm`."""
    return {
        "id": site.id or None,
        "kind": site.kind.value,
        "comm": site.comm,
        "fate": site.fate.value,
        "live": _pair(site.live),
        "verdict": {"a": site.verdict_before, "b": site.verdict_after},
        "frames": [frame_object(frame) for frame in site.stack.frames],
        "stack": site.stack.state.value,
        "stack_reason": site.stack.reason or None,
    }


def _process_object(process: ProcessDelta) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "comm": process.comm,
        "fate": process.fate.value,
        "live": _pair(process.live),
        "instances": _pair(process.instances),
        "added": _pair(process.added),
        "processes": _pair(process.ended),
    }


def _target_object(target: TargetDelta) -> dict[str, Any]:
    """`dev` and `ino` are null where the path is what tells the target."""
    return {
        "path": target.path,
        "dev": target.dev,
        "ino": target.ino,
        "fate": target.fate.value,
        "watches": _pair(target.watches),
    }
