"""
The report as JSON, schema ``inotrace.report/1``.

Keys are a contract: more may be added, none changes. Bytes that are not UTF-8 appear as the lone
surrogates U+DC80 to U+DCFF, which `surrogateescape` turns back into the bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tracer.core.cause import Cause
from tracer.core.report import (
    AuditRow,
    EndedRow,
    FailureRow,
    HolderRow,
    InstanceRow,
    PodRow,
    ProcessRow,
    Report,
    SiteRow,
    SuppressedRow,
    TargetRow,
    Use,
    UserLimits,
)
from tracer.core.stack import Frame
from tracer.core.verdict import Verdict
from tracer.views.failures import failure_keys, shortage_keys
from tracer.views.namespaces import payer_object
from tracer.views.text import decoded

SCHEMA = "inotrace.report/1"


def report_json(report: Report) -> str:
    """One object, indented, in ASCII."""
    return json.dumps(report_object(report), indent=2) + "\n"


def report_object(report: Report) -> dict[str, Any]:
    trace = report.trace
    return {
        "schema": SCHEMA,
        "host": {
            "kernel": report.host.kernel,
            "mode": report.host.mode,
            "truth": report.host.truth,
        },
        "trace": {
            "seconds": round(trace.seconds, 3),
            "rounds": trace.rounds,
            "added": trace.added,
            "updated": trace.updated,
            "removed": sum(trace.removed.values()),
            "removed_by_cause": _causes(trace.removed),
            "failed": trace.failed,
            "lost": trace.lost,
            "healed": trace.healed,
            "complete": trace.complete,
            "unfollowed": trace.unfollowed,
            "opened": trace.opened,
            "closed": trace.closed,
        },
        "limits": [_limits(user) | _growth(user) for user in report.limits],
        "audit": [_audit(row) for row in report.audit],
        "processes": [*_processes(report), *map(_ended, report.ended)],
        "pods": [_pod(pod) for pod in report.pods],
        "instances": [_instance(instance) for instance in report.instances],
        "sites": [_site(site) for site in report.sites],
        "failures": [_failure(failure) for failure in report.failures],
        "suppressed": [_suppressed(row) for row in report.suppressed],
    }


def frame_object(frame: Frame) -> dict[str, Any]:
    """
    A frame; `offset` is in bytes, from the start of the function if there is one, else it is where
    addr2line(1) finds it in the module. `address` is where it was in the process.
    """
    return {
        "function": frame.function,
        "file": frame.file,
        "line": frame.line,
        "module": _text(frame.module),
        "offset": frame.offset,
        "build_id": frame.build_id,
        "address": frame.address,
    }


def _limits(user: UserLimits) -> dict[str, Any]:
    return {
        "uid": user.uid,
        "user": user.user,
        "userns": user.userns,
        "watches": _use(user.watches),
        "instances": _use(user.instances),
        "charged_with": payer_object(user.maker),
    }


def _growth(user: UserLimits) -> dict[str, Any]:
    uses = {"watches": user.watches, "instances": user.instances}
    return {
        "per_hour": {name: round(use.per_hour, 3) for name, use in uses.items()},
        "limit_reached_in_s": {
            name: None if use.full_in_s is None else round(use.full_in_s, 1)
            for name, use in uses.items()
        },
    }


def _audit(row: AuditRow) -> dict[str, Any]:
    """Where the kernel's counters, `limits`, are not what was found."""
    return {
        **_limits(row.limits),
        "found": {"watches": row.watches, "instances": row.instances},
        "explanation": row.explanation,
    }


def _use(use: Use) -> dict[str, int]:
    return {"used": use.used, "limit": use.limit}


def _causes(removed: Mapping[Cause, int]) -> dict[str, int]:
    return {cause.value: removed.get(cause, 0) for cause in Cause}


def _processes(report: Report) -> Iterator[dict[str, Any]]:
    pods = {pod.uid: pod for pod in report.pods}
    for process in report.processes:
        yield _process(process, pods.get(process.pod) if process.pod is not None else None)


def _pod(pod: PodRow | None) -> dict[str, Any] | None:
    if pod is None:
        return None
    return {
        "uid": pod.uid,
        "namespace": pod.namespace,
        "name": pod.name,
        "exists": pod.exists,
    }


def _process(process: ProcessRow, pod: PodRow | None) -> dict[str, Any]:
    return {
        "pid": process.pid,
        "comm": decoded(process.comm),
        "exe": _text(process.exe),
        "uid": process.uid,
        "added": process.added,
        "updated": process.updated,
        "failed": process.failed,
        "removed": _causes(process.removed),
        "live": process.live,
        "baseline": process.baseline,
        "instances": process.instances,
        "leaked": process.leaked,
        "container": process.container,
        "pod": _pod(pod),
        "unit": process.unit,
        "verdict": process.verdict.value,
        "processes": 1,
    }


def _ended(row: EndedRow) -> dict[str, Any]:
    """A process without a pid: the sum of several that have ended."""
    return {
        "pid": None,
        "comm": decoded(row.comm),
        "exe": None,
        "uid": None,
        "added": row.added,
        "updated": row.updated,
        "failed": row.failed,
        "removed": _causes(row.removed),
        "live": 0,
        "baseline": row.baseline,
        "instances": 0,
        "leaked": 0,
        "container": None,
        "pod": None,
        "unit": None,
        "verdict": Verdict.CLEAN.value,
        "processes": row.processes,
    }


def _instance(instance: InstanceRow) -> dict[str, Any]:
    return {
        "id": instance.id,
        "holders": [_holder(holder) for holder in instance.holders],
        "watches": instance.watches,
        "queued": instance.queued,
        "opened_by": instance.opened_by,
    }


def _holder(holder: HolderRow) -> dict[str, Any]:
    return {"pid": holder.pid, "fd": holder.fd, "comm": decoded(holder.comm)}


def _site(site: SiteRow) -> dict[str, Any]:
    return {
        "id": site.id,
        "kind": site.unit.value,
        "verdict": site.verdict.value,
        "comm": decoded(site.comm),
        "pids": list(site.pids),
        "live": site.live,
        "added": site.added,
        "removed": _causes(site.removed),
        "per_round": list(site.per_round),
        "per_hour": round(site.per_hour, 3),
        "uid": site.payer[1] if site.payer is not None else None,
        "userns": site.payer[0] if site.payer is not None else None,
        "limit_reached_in_s": None if site.full_in_s is None else round(site.full_in_s, 1),
        "limit_reached_by": payer_object(site.full_payer),
        "suppressed_by": site.suppressed_by,
        "frames": [frame_object(frame) for frame in site.stack.frames],
        "stack": site.stack.state.value,
        "stack_reason": site.stack.reason or None,
        "evidence": [{"kind": item.kind, "text": item.text} for item in site.evidence],
        "targets": [_target(target) for target in site.targets],
        "holders": [_holder(holder) for holder in site.holders],
    }


def _suppressed(row: SuppressedRow) -> dict[str, Any]:
    return {
        "pattern": row.pattern,
        "written_at": row.written_at,
        "places": row.places,
        "watches": row.watches,
        "instances": row.instances,
    }


def _target(row: TargetRow) -> dict[str, Any]:
    return {
        "path": _text(row.path),
        "ino": row.target.ino if row.target is not None else None,
        "dev": row.target.dev if row.target is not None else None,
        "pid": row.pid,
        "wd": row.wd,
        "age_s": round(row.age_s, 3),
        "state": row.state,
        "fate": row.fate or None,
        "path_pid": row.path_pid,
        "resolved_by": row.resolved_by,
    }


def _failure(failure: FailureRow) -> dict[str, Any]:
    return {
        **failure_keys(failure),
        "explanation": failure.explanation,
        **shortage_keys(failure.shortage),
    }


def _text(raw: bytes | None) -> str | None:
    return decoded(raw) if raw is not None else None
