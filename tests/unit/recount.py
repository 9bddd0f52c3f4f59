"""Every number the ledger keeps, against a recount of what it keeps whole."""

from __future__ import annotations

from collections import Counter

from tracer.core.accounts import Cause
from tracer.core.ledger import Ledger


def causes(counts: Counter[Cause]) -> dict[Cause, int]:
    """Without the zeros that a look at a Counter may leave."""
    return {cause: count for cause, count in counts.items() if count}


def assert_counts_add_up(ledger: Ledger) -> None:
    """Raises AssertionError at the first number that differs."""
    owners = Counter(watch.owner.process for _, watch in ledger.watches())
    sites = Counter(id(watch.site) for _, watch in ledger.watches() if watch.site is not None)
    freed = Counter(id(watch.site) for _, watch in ledger.freed_by_exit)
    for key, process in ledger.accounts.processes.items():
        assert process.live == owners[key]
    for site in ledger.accounts.sites.values():
        assert site.live == sites[id(site)]
        assert site.freed_by_exit == freed[id(site)]
        assert site.added == site.live + sum(site.removed.values())
    totals = ledger.totals
    processes = (*ledger.accounts.processes.values(), *ledger.accounts.ended.values())
    assert totals.added == sum(process.added for process in processes)
    assert totals.added == sum(site.added for site in ledger.accounts.sites.values())
    assert totals.updated == sum(process.updated for process in processes)
    assert sum(ledger.accounts.failures.values()) == sum(process.failed for process in processes)
    removed: Counter[Cause] = Counter()
    for process in processes:
        removed.update(process.removed)
    assert causes(removed) == causes(totals.removed)
