"""The ledger of a session against the kernel's own list, watch by watch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from harness import kernel_watches_of, ledger_watches, process_of, until

from tracer.core.report import Report
from tracer.kernel.symbols import BccStacks
from tracer.session import Filter, Session
from tracer.stacks.resolver import NoStacks, StackResolver
from tracer.views.json_report import report_object

# The only causes that are told apart so far; the others are reported as "unknown".
_TOLD_APART = ("rm_watch", "closed")


@contextmanager
def tracing(*pids: int, name: bytes = b"", stacks: bool = True) -> Iterator[Session]:
    """A session; many tests in one are much faster without stacks, and of no less use."""
    resolver: StackResolver = BccStacks() if stacks else NoStacks()
    with Session(Filter(frozenset(pids), name=name), resolver, older_s=0.0) as session:
        yield session


def agreed(session: Session, *held: tuple[int, int]) -> Any:
    """Finish; the report as JSON, once it was found equal to fdinfo of the descriptors `held`."""
    report = session.finish()
    assert report.trace.complete and report.conclusive
    assert report.trace.lost == 0
    assert ledger_watches(session) == kernel_watches_of(*held)
    _agrees_with_itself(report, session)
    return report_object(report)


def _agrees_with_itself(report: Report, session: Session) -> None:
    live = ledger_watches(session).total()
    assert sum(instance.watches for instance in report.instances) == live
    assert report.live == live
    in_sites = sum(site.live for site in report.sites)
    assert in_sites + report.baseline == live


class Found:
    """What happened within one case of a session that several cases share."""

    def __init__(self, before: Any, after: Any) -> None:
        self.report = after
        self.added: int = after["trace"]["added"] - before["trace"]["added"]
        self.updated: int = after["trace"]["updated"] - before["trace"]["updated"]
        self.removed = _causes(after) - _causes(before)
        self.failures = _failures(after) - _failures(before)

    def live(self, pid: int) -> int:
        """How many watches the process is charged with."""
        live: int = process_of(self.report, pid)["live"]
        return live

    def holders(self) -> set[tuple[int, int]]:
        """(pid, fd) of everything that still holds an instance."""
        return {
            (holder["pid"], holder["fd"])
            for instance in self.report["instances"]
            for holder in instance["holders"]
        }

    def explanations(self, call: str, name: str) -> set[str]:
        return {
            row["explanation"]
            for row in self.report["failures"]
            if (row["call"], row["errno"]) == (call, name)
        }


class Case:
    """A part of a session that begins when nothing is live."""

    def __init__(self, session: Session) -> None:
        def is_empty() -> bool:
            self._before = report_object(session.finish())
            return not ledger_watches(session)

        # those of the case before it have been told to end
        until(is_empty, "the end of what an earlier case watched")
        self._session = session

    def agreed(self, *held: tuple[int, int]) -> Found:
        """As :func:`agreed`; what this case did so far."""
        return Found(self._before, agreed(self._session, *held))


def assert_removed(removed: Mapping[str, int], **by_cause: int) -> None:
    """
    That these removals were for these reasons.

    The causes are the true ones: what is not told apart yet may be "unknown".
    """
    true = Counter(by_cause)
    blurred: Counter[str] = Counter()
    for cause, number in by_cause.items():
        blurred[cause if cause in _TOLD_APART else "unknown"] += number
    assert +Counter(removed) in (true, blurred)


def _causes(report: Any) -> Counter[str]:
    return Counter(report["trace"]["removed_by_cause"])


def _failures(report: Any) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    for row in report["failures"]:
        counts[row["call"], row["errno"]] += row["count"]
    return counts
