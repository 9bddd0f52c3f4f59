"""Every number the ledger keeps, against a recount of what it keeps whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from tracer.core.cause import Cause
from tracer.core.ledger import Ledger
from tracer.core.site import Share, Site


def causes(counts: Counter[Cause]) -> dict[Cause, int]:
    """Without the zeros that a look at a Counter may leave."""
    return {cause: count for cause, count in counts.items() if count}


def assert_counts_add_up(ledger: Ledger) -> None:
    """Raises AssertionError at the first number that differs."""
    _assert_stocks_add_up(ledger)
    owners = Counter(watch.owner.process for _, watch in ledger.watches())
    for key, process in ledger.accounts.processes.items():
        assert process.live == owners[key]
    totals = ledger.totals
    processes = (*ledger.accounts.processes.values(), *ledger.accounts.ended.values())
    assert totals.added == sum(process.added for process in processes)
    assert totals.updated == sum(process.updated for process in processes)
    assert sum(ledger.accounts.failures.values()) == sum(process.failed for process in processes)
    removed: Counter[Cause] = Counter()
    for process in processes:
        removed.update(process.removed)
    assert causes(removed) == causes(totals.removed)


def _assert_stocks_add_up(ledger: Ledger) -> None:
    live, freed = Counter(_live(ledger)), Counter(_freed(ledger))
    sites = ledger.accounts.sites.values()
    # of what is there, nothing was summed up by name
    assert {share.site for share in live | freed} <= set(sites)
    for site in sites:
        shares = site.shares.values()
        for share in shares:
            assert (share.live, share.freed_by_exit) == (live[share], freed[share])
        assert site.live == _of_site(live, site)
        assert site.freed_by_exit == _of_site(freed, site)
        assert site.added == site.left + sum(site.removed.values())
        assert sum(share.removed for share in shares) <= sum(site.removed.values())
        for number in range(len(ledger.marks)):
            at_mark = sum(sum(share.at_marks[number : number + 1]) for share in shares)
            assert at_mark <= sum(site.at_marks[number : number + 1])
    _assert_totals_are_of_sites(ledger)


def _assert_totals_are_of_sites(ledger: Ledger) -> None:
    totals = ledger.totals
    opening = [site for site in ledger.accounts.sites.values() if site.opens_instances]
    assert totals.opened == sum(site.added for site in opening)
    assert totals.closed == sum(sum(site.removed.values()) for site in opening)
    added = sum(site.added for site in ledger.accounts.sites.values())
    assert totals.added == added - totals.opened


def _of_site(counts: Counter[Share], site: Site) -> int:
    return sum(count for share, count in counts.items() if share.site is site)


def _live(ledger: Ledger) -> Iterator[Share]:
    for account in ledger.instances.values():
        if account.opening_share is not None:
            yield account.opening_share
        for watch in account.watches.values():
            if watch.share is not None:
                yield watch.share


def _freed(ledger: Ledger) -> Iterator[Share]:
    for _, watch in ledger.freed_by_exit:
        if watch.share is not None:
            yield watch.share
    for account in ledger.instances_freed_by_exit:
        if account.opening_share is not None:
            yield account.opening_share
