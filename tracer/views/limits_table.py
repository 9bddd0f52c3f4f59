"""The limits as a table for eyes, and as plain records for awk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.text import Text

from tracer.core.shortage import INITIAL_USERNS, NEAR, HolderShare, Resource
from tracer.views.columns import Column, aligned
from tracer.views.limits import Limits, Line, lines, percent, process, remarks, summary, top
from tracer.views.raising import command, how_to_raise
from tracer.views.text import printable, wrapped

_HOLDERS_SHOWN = 3
# where that many do not fit, one is named
_WIDE = 120
_NO_WIDTH = 1 << 20


def table_lines(limits: Limits, width: int) -> Iterator[Text]:
    """The answer, a line for each limit, what is to know about it, and how to raise it."""
    shown = lines(limits)
    # the answers are of the first lines
    styles = [*map(_style, shown), ""]
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
        tuple(_field(cell) for cell in _cells(limits, line, _HOLDERS_SHOWN, grouped=False))
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
    *(_RIGHT, _RIGHT, _RIGHT, Column(shrink=True)),
)


def _table(limits: Limits, shown: Sequence[Line], width: int) -> Iterator[Text]:
    named = _HOLDERS_SHOWN if width >= _WIDE else 1
    rows = [_cells(limits, line, named) for line in shown]
    header, *texts = aligned(rows, _COLUMNS, width, header=_HEADER)
    yield header
    for text, line in zip(texts, shown):
        text.stylize(_style(line))
        yield text


def _cells(limits: Limits, line: Line, named: int, grouped: bool = True) -> tuple[str, ...]:
    def number(value: int | None) -> str:
        return "-" if value is None else f"{value:,}" if grouped else str(value)

    user, resource = line
    used = "-" if user.limit(resource) is None else percent(line)
    return (
        # a record begins with a digit
        used if grouped else used.replace(" ", "").replace("-", "0%"),
        printable(user.usage.user),
        namespace_name(user.usage.userns),
        resource.value,
        number(user.used(resource)),
        number(user.limit(resource)),
        number(limits.free(user, resource)),
        _held_by(top(user, resource), named, resource, grouped),
    )


def _held_by(holders: Sequence[HolderShare], named: int, resource: Resource, grouped: bool) -> str:
    between, gap = (", ", " ") if grouped else (",", ":")
    shown = [
        f"{_escaped(process(one), grouped)}{gap}{one.amount(resource):{',' if grouped else ''}}"
        for one in holders[:named]
    ]
    more = len(holders) - len(shown)
    return between.join((*shown, f"+{more:,}") if more else shown) or "-"


def _escaped(name: str, grouped: bool) -> str:
    # a comma would pass for the one between two holders
    return name if grouped else name.replace(",", "\\x2c")


def namespace_name(userns: int | None) -> str:
    """``initial``, or the inode number as ``ls -l /proc/PID/ns/user`` shows it."""
    if userns == INITIAL_USERNS:
        return "initial"
    return "-" if userns is None else str(userns)


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
