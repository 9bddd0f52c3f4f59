"""
Judging a site by what it left behind: the class, and in words why.

Growth (see growth.py) is what tells a leak from a cache. Some findings are a leak without it, or
a reason to look: targets that are gone, queues that nobody reads, the same target again and again.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tracer.core.cause import Cause
from tracer.core.events import Process
from tracer.core.evidence import Evidence, causes
from tracer.core.findings import Findings, findings_evidence
from tracer.core.growth import LEAST, Growth, History, growth, has_rounds, no_growth


class Verdict(str, enum.Enum):
    """Ordered from what needs action to what needs none."""

    LEAK = "leak"
    SUSPECT = "suspect"
    INCONCLUSIVE = "inconclusive"
    YOUNG = "young"
    HELD = "held"
    CLEAN = "clean"

    @property
    def rank(self) -> int:
        return _RANKS[self]


_RANKS = {verdict: rank for rank, verdict in enumerate(Verdict)}


class Judgement(NamedTuple):
    """`per_hour` is how much more it gets; `of_processes` judges the share of each."""

    verdict: Verdict
    evidence: tuple[Evidence, ...]
    per_hour: float = 0.0
    of_processes: Mapping[Process, Verdict] = {}


class ShareHistory(NamedTuple):
    """
    What one process has of a site. `is_replacement`: the process has no more watches in all than it
    had before the trace.
    """

    process: Process
    history: History
    findings: Findings = Findings()
    is_replacement: bool = False


class SiteHistory(NamedTuple):
    """
    What is known of a site at the end of a trace.

    `shares` are of the processes that left something, `total` is of all, without what had been
    freed by an exit. `freed_by_exit` counts that. `exits_are_told`: it is known what it counts.
    """

    shares: Sequence[ShareHistory]
    total: History
    freed_by_exit: int
    removed: Counter[Cause]
    findings: Findings
    older_s: float
    opens_instances: bool = False
    exits_are_told: bool = False


def judge(site: SiteHistory) -> Judgement:
    """The verdict on a site, and the evidence that led to it."""
    left = sum(len(share.history.left_since) for share in site.shares)
    if not left:
        return _clean(site)
    judged = [share for share in site.shares if _old(share.history)]
    if not judged:
        return _young(site)
    grown = _grown(judged, site)
    of_all = _of_all(grown.of_all, site.findings)
    verdicts = {
        share.process: _worst(_of_share(share, grown), _of_findings(share.findings), of_all)
        for share in site.shares
    }
    # those that are too young speak neither for nor against the others
    verdict = _worst(*(verdicts[share.process] for share in judged))
    found = tuple(findings_evidence(site.findings))
    by_findings = verdict in (Verdict.LEAK, Verdict.SUSPECT) and not grown.is_growth
    evidence = (
        *(found if by_findings else grown.evidence),
        _removals(site, left),
        *(() if by_findings else found),
        *_exits(site, left),
    )
    return Judgement(verdict, evidence, grown.per_hour, verdicts)


def unseen(left: int, freed_by_exit: int) -> Judgement:
    """Of watches that a walk found, and whose calls were not seen."""
    text = "in the kernel's list: call lost, 32-bit, or made by an untraced process"
    evidence = [Evidence("unseen", text)]
    if freed_by_exit:
        evidence.append(_freed_by_exit(freed_by_exit, left))
    return Judgement(Verdict.INCONCLUSIVE, tuple(evidence))


# --- growth ---


class _Grown(NamedTuple):
    """What grows: processes by themselves, or else only their number."""

    shares: Mapping[Process, Growth]
    of_all: Growth | None
    evidence: tuple[Evidence, ...]
    per_hour: float

    @property
    def is_growth(self) -> bool:
        return bool(self.shares or self.of_all)


def _grown(judged: Sequence[ShareHistory], site: SiteHistory) -> _Grown:
    shares = {share.process: found for share in judged if (found := _share_growth(share))}
    if shares:
        most = max(shares.values(), key=lambda one: (one.is_certain, one.per_hour))
        evidence = most.evidence
        if len(shares) > 1:
            more = Evidence("in_several", f"so it does in {len(shares):,} processes")
            evidence = (evidence[0], more, *evidence[1:])
        return _Grown(shares, None, evidence, sum(one.per_hour for one in shares.values()))
    of_all = _growth_in_number(judged, site.total)
    if of_all is not None:
        none = Evidence("more_processes", "in more and more processes, none of which grows")
        return _Grown({}, of_all, (*of_all.evidence, none), of_all.per_hour)
    return _Grown({}, None, _why_not(judged), 0.0)


def _share_growth(share: ShareHistory) -> Growth | None:
    """What a process adds while it removes as much from before the trace may be replacing it."""
    found = growth(share.history)
    if found is None or not share.is_replacement or has_rounds(share.history.nets):
        return found
    return found._replace(is_certain=False, evidence=(*found.evidence, _AS_BEFORE))


_AS_BEFORE = Evidence("as_at_baseline", "the process has no more than it had before the trace")


def _growth_in_number(judged: Sequence[ShareHistory], total: History) -> Growth | None:
    """Processes that were there before the trace, and replace what they had, are not more."""
    found = growth(total) if len(judged) > 1 else None
    replacing = sum(share.is_replacement for share in judged)
    if found is None or replacing * 2 < len(judged) or has_rounds(total.nets):
        return found
    text = f"{replacing:,} of {len(judged):,} processes have no more than before the trace"
    as_before = Evidence(_AS_BEFORE.kind, text)
    return found._replace(is_certain=False, evidence=(*found.evidence, as_before))


def _why_not(judged: Sequence[ShareHistory]) -> tuple[Evidence, ...]:
    most = max(judged, key=lambda share: len(share.history.left_since))
    evidence = no_growth(most.history)
    return (*evidence, _AS_BEFORE) if most.is_replacement else evidence


def _of_share(share: ShareHistory, grown: _Grown) -> Verdict:
    found = grown.shares.get(share.process)
    if found is not None:
        return Verdict.LEAK if found.is_certain else Verdict.SUSPECT
    if not share.history.left_since:
        return Verdict.CLEAN
    return Verdict.HELD if _old(share.history) else Verdict.YOUNG


def _old(history: History) -> bool:
    return bool(history.left_since) and history.left_since[0] <= history.until


def _worst(*verdicts: Verdict) -> Verdict:
    return min(verdicts, key=lambda one: one.rank)


def _of_all(of_all: Growth | None, findings: Findings) -> Verdict:
    """
    Where only the number of processes grows: services that start do that as well, and end again.
    Those whose parent has ended are waited for by nobody.
    """
    if of_all is None:
        return Verdict.CLEAN
    if of_all.is_certain and 0 < findings.processes <= findings.orphans * 2:
        return Verdict.LEAK
    return Verdict.SUSPECT


def _of_findings(findings: Findings) -> Verdict:
    """
    What they make of what does not grow.

    A target that is gone, or an event that nobody reads, makes a watch useless: if that is true of
    half of them, and not of one or two by chance, the others are seldom better. So is an instance
    without a watch, unless one is to come. The same target again may be meant so.
    """
    gone, unread = findings.gone_targets, findings.unread
    if gone >= LEAST and gone * 2 >= findings.checked:
        return Verdict.LEAK
    if unread and unread * 2 >= findings.number:
        return Verdict.LEAK
    if max(gone, unread, findings.without_watch) >= LEAST:
        return Verdict.SUSPECT
    return Verdict.CLEAN


# --- the rest ---


def _clean(site: SiteHistory) -> Judgement:
    gone = sum(site.removed.values())
    by_call = Cause.CLOSED if site.opens_instances else Cause.RM_WATCH
    how = "all were closed" if site.opens_instances else "all were removed"
    if gone > site.removed[by_call]:
        how = f"all are gone: {causes(site.removed)}"
    evidence = [Evidence("balanced", how)]
    if site.removed[Cause.CLOSED] and not site.opens_instances and site.exits_are_told:
        text = f"{site.removed[Cause.CLOSED]:,} went as the program itself closed their instance"
        evidence.append(Evidence("closed_on_purpose", text))
    return Judgement(Verdict.CLEAN, tuple(evidence))


def _young(site: SiteHistory) -> Judgement:
    what = "instances" if site.opens_instances else "watches"
    text = f"all live {what} are younger than {site.older_s:g} s: trace longer, or lower --older"
    if not site.older_s:
        text = f"all live {what} came as the trace ended"
    verdicts = {share.process: Verdict.YOUNG for share in site.shares}
    return Judgement(Verdict.YOUNG, (Evidence("young", text),), of_processes=verdicts)


def _removals(site: SiteHistory, left: int) -> Evidence:
    number = sum(site.removed.values())
    verb = "closed" if site.opens_instances else "removed"
    if not number:
        return Evidence("never_removed", f"none was ever {verb}")
    by_call = Cause.CLOSED if site.opens_instances else Cause.RM_WATCH
    if number == site.removed[by_call]:
        were = _are(number, f"was {verb}", f"were {verb}")
        return Evidence("partly_removed", f"{were}, {_are(left, 'was not', 'were not')}")
    gone = f"{_are(number, 'is gone', 'are gone')}, {_are(left, 'is not', 'are not')}"
    return Evidence("partly_removed", f"{gone}: {causes(site.removed)}")


def _are(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"


def _exits(site: SiteHistory, left: int) -> Iterable[Evidence]:
    if site.freed_by_exit:
        yield _freed_by_exit(site.freed_by_exit, left)


def _freed_by_exit(number: int, left: int) -> Evidence:
    which = "all were" if number == left else f"{number:,} of {left:,} were"
    if left == 1:
        which = "it was"
    return Evidence("freed_only_by_exit", f"{which} freed only by the exit of the process")
