"""A report or an output of ls that was kept, reduced to what two of them can be compared by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tracer.core.report import Unit
from tracer.core.stack import Stack

REPORT_SCHEMA = "inotrace.report/1"
LS_SCHEMA = "inotrace.ls/1"


class SiteKey(NamedTuple):
    """
    The same for the same place in every trace.

    Without frames the id is of one trace alone: then it is "" and `comm` is given.
    """

    kind: Unit
    id: str
    comm: str


class KeptSite(NamedTuple):
    """`live` in what the kind says. Several of one key are one, with ``/`` in the verdict."""

    comm: str
    live: int
    verdict: str
    stack: Stack


class ProcessKey(NamedTuple):
    """`pid` None: all of that name that have ended."""

    pid: int | None
    comm: str


class KeptProcess(NamedTuple):
    """`added` and `ended` processes are told by reports alone, and are else 0."""

    live: int
    instances: int
    added: int
    ended: int

    def plus(self, other: KeptProcess) -> KeptProcess:
        return KeptProcess(*map(sum, zip(self, other)))


class KeptTarget(NamedTuple):
    """What is watched, as far as it is known; `dev` is ``major:minor``."""

    path: str | None
    dev: str | None
    ino: int | None


@dataclass(frozen=True)
class Kept:
    """
    One of the two that are compared.

    `watches` and `instances` are all there are, a shared instance once; `targets` how many live
    watches are on each, `unlisted` how many more there are whose targets are not in the file.
    `caveats` say why numbers may be short.
    """

    schema: str
    watches: int
    instances: int
    sites: Mapping[SiteKey, KeptSite]
    processes: Mapping[ProcessKey, KeptProcess]
    targets: Mapping[KeptTarget, int]
    unlisted: int
    caveats: tuple[str, ...]
