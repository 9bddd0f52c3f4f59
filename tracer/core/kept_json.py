"""
Reading what was kept as JSON: a report (``inotrace.report/1``) or an output of ls
(``inotrace.ls/1``), as views/json_report.py and views/json_ls.py write them.

Keys that are not needed are not looked at.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from tracer.core.json_fields import (
    Fields,
    KeptError,
    choice,
    fields,
    flag,
    number,
    number_or_none,
    raw_or_none,
    rows,
    text,
    text_or_none,
    type_name,
)
from tracer.core.kept import (
    LS_SCHEMA,
    REPORT_SCHEMA,
    Kept,
    KeptProcess,
    KeptSite,
    KeptTarget,
    ProcessKey,
    SiteKey,
)
from tracer.core.report import Unit
from tracer.core.stack import Frame, Stack, StackState

# a report has no more than 64 of the kernel's, which inlined functions may multiply
_FRAMES_MAX = 1024
# dev_t of the kernel: 20 bits of minor number
_MINOR_BITS = 20
_BUILD_ID = re.compile(r"[0-9a-f]*")


def kept(document: object) -> Kept:
    """Raises KeptError for what is neither, or has a value of a wrong type where one is needed."""
    if not isinstance(document, dict):
        raise KeptError(f"it is {type_name(document)}, not an object")
    schema = document.get("schema")
    if schema == REPORT_SCHEMA:
        return _kept_report(document)
    if schema == LS_SCHEMA:
        return _kept_ls(document)
    told = ascii(schema[:40]) if isinstance(schema, str) else type_name(schema)
    raise KeptError(f"schema is {told}, neither {REPORT_SCHEMA} nor {LS_SCHEMA}")


# reports


class _Site(NamedTuple):
    key: SiteKey
    site: KeptSite
    targets: tuple[KeptTarget, ...]


def _kept_report(document: Fields) -> Kept:
    sites = rows(document, "sites", _site)
    processes = _merged(rows(document, "processes", _process))
    of_watches = [one for one in sites if one.key.kind is Unit.WATCHES]
    return Kept(
        schema=REPORT_SCHEMA,
        watches=sum(process.live for process in processes.values()),
        instances=len(rows(document, "instances", lambda instance: None)),
        sites=_merged_sites(sites),
        processes=processes,
        targets=Counter(target for one in of_watches for target in one.targets),
        unlisted=sum(max(one.site.live - len(one.targets), 0) for one in of_watches),
        caveats=tuple(_caveats_of_report(fields(document, "trace"))),
    )


def _caveats_of_report(trace: Fields) -> Iterable[str]:
    if number(trace, "lost") > number(trace, "healed"):
        yield "records were lost"
    if not flag(trace, "complete"):
        yield "the ledger was not verified against the kernel's list"
    if number_or_none(trace, "unfollowed"):
        yield "not all descendants of the command were followed"


def _site(of: Fields) -> _Site:
    stack = _stack(of)
    comm = text(of, "comm")
    kind = choice(of, "kind", Unit, Unit.WATCHES)
    site_id = text(of, "id")
    key = SiteKey(kind, site_id, "") if stack.frames else SiteKey(kind, "", comm)
    targets = rows(of, "targets", _target)
    return _Site(
        key, KeptSite(comm, number(of, "live"), text(of, "verdict"), stack), tuple(targets)
    )


def _stack(of: Fields) -> Stack:
    frames = tuple(rows(of, "frames", _frame))
    if len(frames) > _FRAMES_MAX:
        raise KeptError(f"frames are more than {_FRAMES_MAX:,}")
    state = choice(of, "stack", StackState)
    return Stack(frames, state, text_or_none(of, "stack_reason") or "")


def _frame(of: Fields) -> Frame:
    build_id = text_or_none(of, "build_id")
    if build_id is not None and not _BUILD_ID.fullmatch(build_id):
        raise KeptError("build_id is not hexadecimal")
    return Frame(
        function=text_or_none(of, "function"),
        module=raw_or_none(of, "module"),
        offset=number(of, "offset"),
        file=text_or_none(of, "file"),
        line=number_or_none(of, "line"),
        build_id=build_id,
    )


def _process(of: Fields) -> tuple[ProcessKey, KeptProcess]:
    pid = number_or_none(of, "pid")
    ended = (number_or_none(of, "processes") or 0) if pid is None else 0
    process = KeptProcess(
        live=number(of, "live"),
        instances=number_or_none(of, "instances") or 0,
        added=number(of, "added"),
        ended=ended,
    )
    return ProcessKey(pid, text(of, "comm")), process


def _target(of: Fields) -> KeptTarget:
    """`dev` is a number in reports, ``major:minor`` in outputs of ls."""
    if isinstance(of.get("dev"), str):
        dev: str | None = text(of, "dev")
    else:
        known = number_or_none(of, "dev")
        minor = (1 << _MINOR_BITS) - 1
        dev = None if known is None else f"{known >> _MINOR_BITS}:{known & minor}"
    return KeptTarget(text_or_none(of, "path"), dev, number_or_none(of, "ino"))


# outputs of ls


def _kept_ls(document: Fields) -> Kept:
    watches = rows(document, "watches", lambda watch: (number(watch, "instance"), _target(watch)))
    in_instance = Counter(instance for instance, _ in watches)
    instances = rows(document, "instances", _holders)
    return Kept(
        schema=LS_SCHEMA,
        watches=len(watches),
        instances=len(instances),
        sites={},
        processes=_merged(
            (holder, KeptProcess(in_instance[instance], 1, 0, 0))
            for instance, holders in instances
            for holder in holders
        ),
        targets=Counter(target for _, target in watches),
        unlisted=0,
        caveats=tuple(_caveats_of_ls(document)),
    )


def _holders(of: Fields) -> tuple[int, frozenset[ProcessKey]]:
    """An instance's number, and whose it is; several descriptors of one process are one."""
    holders = rows(of, "holders", lambda one: ProcessKey(number(one, "pid"), text(one, "comm")))
    return number(of, "id"), frozenset(holders)


def _caveats_of_ls(document: Fields) -> Iterable[str]:
    if not flag(document, "complete"):
        yield "not all processes could be looked into"
    if not flag(document, "sharing_known"):
        yield "shared instances count once for each process"


# both


def _merged(found: Iterable[tuple[ProcessKey, KeptProcess]]) -> dict[ProcessKey, KeptProcess]:
    processes: dict[ProcessKey, KeptProcess] = {}
    for key, process in found:
        known = processes.get(key)
        processes[key] = process if known is None else known.plus(process)
    return processes


def _merged_sites(found: Iterable[_Site]) -> dict[SiteKey, KeptSite]:
    by_key: defaultdict[SiteKey, list[KeptSite]] = defaultdict(list)
    for one in found:
        by_key[one.key].append(one.site)
    return {
        key: same[0]._replace(
            live=sum(site.live for site in same),
            verdict="/".join(sorted({site.verdict for site in same})),
        )
        for key, same in by_key.items()
    }
