"""Aligned columns that shrink where they may and never wrap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

from tracer.views.text import shortened

GAP = 2
# A column is not cut shorter.
LEAST = 8


class Column(NamedTuple):
    """`right` aligns numbers; a column that may `shrink` is cut in the middle of its texts."""

    right: bool = False
    shrink: bool = False
    style: str = ""


def aligned(
    rows: Sequence[Sequence[str]],
    columns: Sequence[Column],
    width: int,
    *,
    header: Sequence[str] | None = None,
    indent: int = 0,
) -> Iterator[Text]:
    """One line a row, at most `width` cells wide if the columns that may shrink allow it."""
    heads = [header] if header is not None else []
    widths = [max(map(cell_len, texts)) for texts in zip(*heads, *rows)] or [0] * len(columns)
    _shrink(widths, columns, width - indent - GAP * (len(columns) - 1))
    if header is not None:
        yield _line(header, columns, widths, indent, bold=True)
    for row in rows:
        yield _line(row, columns, widths, indent)


def natural_width(rows: Sequence[Sequence[str]]) -> int:
    """How wide a table of these rows is if nothing is cut."""
    widths = [max(map(cell_len, texts)) for texts in zip(*rows)]
    return sum(widths) + GAP * (len(widths) - 1)


def _shrink(widths: list[int], columns: Sequence[Column], room: int) -> None:
    """Take what is missing from the widest column that may shrink, again and again."""
    candidates = [i for i, column in enumerate(columns) if column.shrink]
    while sum(widths) > room and candidates:
        widest = max(candidates, key=lambda i: widths[i])
        if widths[widest] <= LEAST:
            return
        widths[widest] -= 1


def _line(
    texts: Sequence[str],
    columns: Sequence[Column],
    widths: Sequence[int],
    indent: int,
    bold: bool = False,
) -> Text:
    line = Text(" " * indent)
    for i, (text, column, width) in enumerate(zip(texts, columns, widths)):
        text = shortened(text, width)
        padding = " " * (width - cell_len(text))
        last = i == len(columns) - 1
        cell = padding + text if column.right else text if last else text + padding
        line.append(cell, "bold" if bold else column.style)
        if not last:
            line.append(" " * GAP)
    line.rstrip()
    return line
