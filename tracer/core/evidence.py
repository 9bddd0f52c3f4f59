"""Reasons for a verdict, and how they speak of causes and times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tracer.core.cause import Cause


class Evidence(NamedTuple):
    """One reason for a verdict: a word for programs, a sentence for people."""

    kind: str
    text: str


def causes(removed: Mapping[Cause, int]) -> str:
    """``17 removed, 3 deleted``, in the order of Cause."""
    return ", ".join(f"{removed[cause]:,} {_WORDS[cause]}" for cause in Cause if removed.get(cause))


_WORDS = {
    Cause.RM_WATCH: "removed",
    Cause.DELETED: "deleted",
    Cause.UNMOUNTED: "unmounted",
    Cause.ONESHOT: "fired once",
    Cause.CLOSED: "closed",
    Cause.UNKNOWN: "for unknown reasons",
}


def duration(seconds: float) -> str:
    """``4 ms``, ``1.4 s``, ``12 s``, ``2 min 13 s``, ``3 h 5 min``."""
    # as they are rounded: neither 1000 ms nor 10.0 s
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
