"""The limits as a table for eyes, and as plain records for awk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.text import Text

from tracer.core.shortage import NEAR, HolderShare, Resource
from tracer.views.columns import GAP, Column, aligned, natural_width
from tracer.views.limits import (
    Limits,
    Line,
    answered,
    lines,
    percent,
    process,
    remarks,
    summary,
    top,
)
from tracer.views.namespaces import namespace_name
from tracer.views.raising import command, how_to_raise
from tracer.views.text import printable, shortened, wrapped

_HOLDERS_SHOWN = 3
# of the name of one and of a user, where there is little room
_NAME_LEAST = 6
_USER_LEAST = 12
_NO_WIDTH = 1 << 20


def table_lines(limits: Limits, width: int) -> Iterator[Text]:
    """The answer, a line for each limit, what is to know about it, and how to raise it."""
    shown = lines(limits)
    styles = list(map(_style, answered(limits))) or [""]
    for style, answer in zip(styles, summary(limits)):
        yield from wrapped(answer, width, style=style)
    if shown:
        yield Text()
        yield from _table(limits, shown, width)
    yield from _after_blank(
        text for remark in remarks(limits) for text in wrapped(remark, width, style="")
    )
    yield from _after_blank(how_to_raise(limits, width))


def as_plain(limits: Limits) -> str:
    r"""
    The answer, the records under a header, and how to raise the limits; the first and the last in
    lines that begin with #.

    Records begin with a digit. A field never holds a blank: it is written ``\x20``.
    """
    shown = lines(limits)
    rows = [
        tuple(
            _field(cell) for cell in (*_cells(limits, line, grouped=False), _held_in_record(line))
        )
        for line in shown
    ]
    header = tuple(name.replace(" ", "_") for name in _HEADER)
    records = aligned(rows, _COLUMNS, _NO_WIDTH, header=header) if rows else ()
    commands = filter(None, map(command, limits.raises))
    return "".join(
        f"{line}\n"
        for line in (
            *(f"# {answer}" for answer in summary(limits)),
            *(record.plain for record in records),
            *(f"# {remark}" for remark in remarks(limits)),
            *(f"# {text}" for text in commands),
        )
    )


# --- the table ---

_HEADER = ("USED", "USER", "NAMESPACE", "LIMIT OF", "HAS", "ALLOWED", "FREE", "HELD BY")
_RIGHT = Column(right=True)
_COLUMNS = (
    *(_RIGHT, Column(shrink=True), Column(), Column()),
    # who holds it is fitted before
    *(_RIGHT, _RIGHT, _RIGHT, Column()),
)


def _table(limits: Limits, shown: Sequence[Line], width: int) -> Iterator[Text]:
    rows = [_cells(limits, line) for line in shown]
    most_of_user = [(cells[0], cells[1][:_USER_LEAST], *cells[2:]) for cells in rows]
    room = width - natural_width([_HEADER[:-1], *most_of_user]) - GAP
    held = [_held_within(top(line.user, line.resource), line.resource, room) for line in shown]
    complete = [(*cells, holders) for cells, holders in zip(rows, held)]
    header, *texts = aligned(complete, _COLUMNS, width, header=_HEADER)
    yield header
    for text, line in zip(texts, shown):
        text.stylize(_style(line))
        yield text


def _cells(limits: Limits, line: Line, grouped: bool = True) -> tuple[str, ...]:
    """All but the last."""

    def number(value: int | None) -> str:
        return "-" if value is None else f"{value:,}" if grouped else str(value)

    user, resource, _ = line
    used = "-" if user.limit(resource) is None else percent(user.share(resource))
    return (
        # a record begins with a digit
        used if grouped else used.replace(" ", "").replace("-", "0%"),
        user.name,
        namespace_name(user.usage.userns),
        resource.value,
        number(user.used(resource)),
        number(user.limit(resource)),
        number(limits.free(user, resource)),
    )


def _held_in_record(line: Line) -> str:
    holders = top(line.user, line.resource)
    shown = [
        # a comma would pass for the one between two holders
        f"{process(one)}:{one.amount(line.resource)}".replace(",", "\\x2c")
        for one in holders[:_HOLDERS_SHOWN]
    ]
    more = len(holders) - len(shown)
    return ",".join((*shown, f"+{more}") if more else shown)


def _held_within(holders: Sequence[HolderShare], resource: Resource, room: int) -> str:
    """
    As many as fit, the first at least: of that the name is cut before the number of the others is
    left out, and what it holds never.
    """
    for named in range(min(len(holders), _HOLDERS_SHOWN), 0, -1):
        text = ", ".join(_held(holders[:named], len(holders) - named, resource))
        if cell_len(text) <= room:
            return text
    if not holders:
        return "-"
    first, more = holders[0], len(holders) - 1
    name = printable(first.comm)
    number = f"[{first.pid}] {first.amount(resource):,}"
    for end in (f"{number}, +{more:,}", number) if more else (number,):
        left = room - cell_len(end)
        if left >= _NAME_LEAST:
            break
    return shortened(name, max(left, 1)) + end


def _held(holders: Sequence[HolderShare], more: int, resource: Resource) -> Iterator[str]:
    for one in holders:
        yield f"{process(one)} {one.amount(resource):,}"
    if more:
        yield f"+{more:,}"


def _field(cell: str) -> str:
    return cell.replace(" ", "\\x20") or "-"


def _style(line: Line) -> str:
    if line.share < NEAR:
        return ""
    return "bold red" if line.share >= 1 else "yellow"


def _after_blank(lines: Iterable[Text]) -> Iterator[Text]:
    for at, line in enumerate(lines):
        if not at:
            yield Text()
        yield line
