"""Why calls failed: in a sentence, as a section of a report, as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from tracer.core.report import FailureRow
from tracer.core.shortage import HolderShare, Resource, Shortage
from tracer.views.columns import Column, aligned
from tracer.views.namespaces import in_namespace
from tracer.views.sites import LABEL
from tracer.views.text import counted, decoded, printable, wrapped

_SHOWN = 8


def failure_keys(failure: FailureRow) -> dict[str, Any]:
    """What JSON has of every kind of failed call."""
    return {
        "call": failure.call,
        "errno": failure.errno,
        "count": failure.count,
        "pid": failure.pid,
        "comm": decoded(failure.comm),
    }


def failure_lines(failures: Sequence[FailureRow], width: int) -> Iterator[Text]:
    """The section of a report: the kinds of failed calls, and below them why."""
    if not failures:
        return
    yield Text()
    total = counted(sum(failure.count for failure in failures), "failed call")
    yield Text.assemble((f"{'FAILED':<{LABEL}} ", "bold"), total)
    shown = failures[:_SHOWN]
    rows = [(f"{row.count:,}", f"{row.call} {row.errno}", caller(row)) for row in shown]
    columns = (Column(right=True), Column(), Column(shrink=True))
    reasons = [_reasons(failure) for failure in shown]
    for line, said, following in zip(
        aligned(rows, columns, width, indent=LABEL), reasons, [*reasons[1:], ()]
    ):
        yield line
        # once for all that come one after another
        for text in said if said != following else ():
            yield from wrapped(text, width, indent=LABEL + 2, style="dim")
    if failures[_SHOWN:]:
        yield Text(f"{'':{LABEL}}and {counted(len(failures[_SHOWN:]), 'more kind')}", "dim")


def brief_failures(failures: Sequence[FailureRow], width: int) -> Iterator[Text]:
    """A line for each: how many, what, whose, and why as far as there is room."""
    rows = [
        (f"{row.count:,} failed", f"{row.call} {row.errno}", caller(row), _brief(row))
        for row in failures
    ]
    columns = (Column(right=True), Column(), Column(shrink=True), Column(shrink=True, style="dim"))
    yield from aligned(rows, columns, width)


def failure_sentence(failure: FailureRow) -> str:
    """One line for the first failure of a kind: what, whose, and why."""
    said = "; ".join(_reasons(failure))
    what = f"{failure.call} {failure.errno}, {caller(failure)}"
    return f"{what}: {said}" if said else what


def caller(failure: FailureRow) -> str:
    """``agent[1173]``."""
    comm = printable(failure.comm)
    return comm if failure.pid is None else f"{comm}[{failure.pid}]"


def _reasons(failure: FailureRow) -> tuple[str, ...]:
    told = shortage_sentence(failure.shortage) if failure.shortage is not None else ""
    return tuple(filter(None, (failure.explanation, told)))


def _brief(failure: FailureRow) -> str:
    """The last of the reasons, which tells most."""
    return "".join(_reasons(failure)[-1:])


def shortage_sentence(shortage: Shortage) -> str:
    """``root has 8,192 of 8,192 watches: agent[1173] holds 7,468, udevd[450] 13, and 2 more``."""
    amounts = f"{shortage.used:,} of {shortage.limit:,}"
    now = "" if shortage.is_met else " now"
    if shortage.resource is Resource.DESCRIPTORS:
        (holder,) = shortage.holders
        return f"{_name(holder)} has{now} {amounts} file descriptors"
    return (
        f"{printable(shortage.user or '?')} has{now} {amounts} {shortage.resource.value}"
        f"{in_namespace(shortage.userns)}{held_by(shortage)}"
    )


def held_by(shortage: Shortage) -> str:
    """``: agent[1173] holds 7,468, udevd[450] 13, and 2 more``."""
    if not shortage.holders:
        return ""
    first, *rest = [
        (_name(holder), f"{holder.amount(shortage.resource):,}") for holder in shortage.holders
    ]
    parts = [f"{first[0]} holds {first[1]}", *(f"{name} {number}" for name, number in rest)]
    if shortage.others:
        parts.append(f"and {shortage.others:,} more")
    return ": " + ", ".join(parts)


def _name(holder: HolderShare) -> str:
    return f"{printable(holder.comm)}[{holder.pid}]"


def shortage_keys(shortage: Shortage | None) -> dict[str, Any]:
    """For JSON: the same keys, null where nothing is known."""
    if shortage is None:
        return {
            **dict.fromkeys(("resource", "user", "uid", "userns", "used", "limit")),
            "holders": [],
            "others": 0,
        }
    return {
        "resource": shortage.resource.value,
        "user": shortage.user,
        "uid": shortage.uid,
        "userns": shortage.userns,
        "used": shortage.used,
        "limit": shortage.limit,
        "holders": list(map(holder_object, shortage.holders)),
        "others": shortage.others,
    }


def holder_object(holder: HolderShare) -> dict[str, Any]:
    return {
        "pid": holder.pid,
        "comm": decoded(holder.comm),
        "watches": holder.watches,
        "instances": holder.instances,
    }
