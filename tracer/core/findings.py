"""What else was found out about the watches or instances that a site left behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tracer.core.evidence import Evidence

# Programs put off reading for up to a few seconds, to take events of one change together. Nobody
# reads if none was read for much longer, while more came again and again: two points make any line.
UNREAD_NS = 10_000_000_000
LEAST_QUEUE_RISES = 3


class Findings(NamedTuple):
    """
    Of what is left of a site and old enough to judge, `number` in all.

    Of `checked` watches `gone` tells by reason how many targets are gone, in words that follow
    "3"; `repeated` watches are on a target that the process watches from there already, as often as
    `most_on_one`; `unread` watches (or instances) are of instances with `unread_events` that nobody
    reads, `unread_full` of them of such whose queue is full. Of instances, `without_watch` have
    none, and on `failed_adds` of those a call to add one failed. `orphans` of the `processes` have
    lost their parent.
    """

    number: int = 0
    checked: int = 0
    gone: Mapping[str, int] = {}
    repeated: int = 0
    most_on_one: int = 0
    unread: int = 0
    unread_events: int = 0
    unread_full: int = 0
    without_watch: int = 0
    failed_adds: int = 0
    orphans: int = 0
    processes: int = 0

    @property
    def gone_targets(self) -> int:
        return sum(self.gone.values())


def findings_evidence(findings: Findings) -> Iterator[Evidence]:
    """In words, with their numbers."""
    if findings.gone:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in findings.gone.items())
        total = f"{findings.gone_targets:,} of {findings.checked:,}"
        yield Evidence("target_gone", f"{total} targets are gone: {reasons}")
    if findings.repeated:
        yield Evidence(
            "watched_again",
            f"{findings.repeated:,} are on a target that was watched already; "
            f"one is watched {findings.most_on_one:,} times",
        )
    if findings.unread:
        more = "new ones are lost" if findings.unread_full == findings.unread else "more come"
        events = f"{findings.unread_events:,} events wait, and {more}"
        yield Evidence("unread", f"nobody reads what {findings.unread:,} report: {events}")
    if findings.without_watch:
        yield Evidence("without_watch", _without_watch(findings))
    if findings.orphans:
        yield Evidence("orphaned", _orphans(findings))


def _orphans(findings: Findings) -> str:
    if findings.processes == 1:
        return "the process is an orphan: its parent has ended"
    which = f"{findings.orphans:,} of {findings.processes:,}"
    return f"{which} processes are orphans: their parents have ended"


def _without_watch(findings: Findings) -> str:
    text = f"{findings.without_watch:,} have no watch"
    if findings.failed_adds:
        text += f", on {findings.failed_adds:,} of them inotify_add_watch failed"
    return text
