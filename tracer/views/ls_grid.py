"""Rows of cells, as a table for eyes and as plain records for awk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Union

from rich.cells import cell_len
from rich.text import Text

from tracer.views.columns import GAP, LEAST, Column, aligned

_NAMES_SHOWN = 3


class Several(NamedTuple):
    """
    A cell of several names: the first few, and how many there are.

    With all of them the output would grow with the square of the holders. `short` is what a table
    has in place of the first.
    """

    names: tuple[str, ...]
    every: int
    short: str | None = None


class Unread(NamedTuple):
    """A number that may be only the least it can be."""

    number: int
    exact: bool


Cell = Union[int, str, Several, Unread]
Row = tuple[Cell, ...]


class Heading(NamedTuple):
    """
    Where there is no room, `elastic` columns are cut in the middle of their texts, and before they
    have only `least` cells, `spare` ones are left out, those with the highest number first.
    """

    name: str
    right: bool = False
    elastic: bool = False
    spare: int = 0
    least: int = LEAST


@dataclass(frozen=True)
class Grid:
    """In the total row text is prose."""

    columns: tuple[Heading, ...]
    rows: Sequence[Row]
    total: Row


def several(names: Iterable[str], every: int) -> Several:
    """Of these names, `every` in all, the first few."""
    # a comma in one would pass for the one between two
    shown = (name.replace(",", "\\x2c") for name in islice(names, _NAMES_SHOWN))
    return Several(tuple(shown), every)


def grid_lines(grid: Grid, width: int) -> Iterator[Text]:
    """Columns in which there is something, as far as they have room."""
    rows = [[_table_cell(cell) for cell in row] for row in (*grid.rows, grid.total)]
    least = {
        at: _least(column, [row[at] for row in rows])
        for at, column in enumerate(grid.columns)
        if any(row[at] for row in rows)
    }
    used = _fitting(least, grid.columns, width)
    columns = [grid.columns[at] for at in used]
    yield from aligned(
        [[row[at] for at in used] for row in rows],
        [Column(right=column.right, shrink=column.elastic) for column in columns],
        width,
        header=[column.name for column in columns],
    )


def grid_records(grid: Grid) -> str:
    """Every column, nothing cut, a cell never with a blank in it."""
    names = [column.name.replace(" ", "_") for column in grid.columns]
    rows = [[_plain_cell(cell) for cell in row] for row in grid.rows]
    lines = [names, *rows, [str(cell) or "-" for cell in grid.total]]
    widths = [max(map(cell_len, cells)) for cells in zip(*lines)]
    return "".join(f"{_padded(line, widths, grid.columns)}\n" for line in lines)


def _least(column: Heading, cells: Iterable[str]) -> int:
    widest = max(map(cell_len, (column.name, *cells)))
    return min(widest, column.least) if column.elastic else widest


def _fitting(least: Mapping[int, int], columns: Sequence[Heading], width: int) -> list[int]:
    used = dict(least)
    while sum(used.values()) + GAP * (len(used) - 1) > width:
        most_spare = max(used, key=lambda at: columns[at].spare)
        if not columns[most_spare].spare:
            break
        del used[most_spare]
    return list(used)


def _padded(line: Sequence[str], widths: Sequence[int], columns: Sequence[Heading]) -> str:
    blanks = [" " * (width - cell_len(cell)) for cell, width in zip(line, widths)]
    cells = [
        blank + cell if column.right else cell + blank
        for cell, blank, column in zip(line, blanks, columns)
    ]
    return (" " * GAP).join(cells).rstrip(" ")


def _table_cell(cell: Cell) -> str:
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, Unread):
        return f"{cell.number:,}{'' if cell.exact else '+'}"
    if not cell.names:
        return ""
    first = cell.names[0] if cell.short is None else cell.short
    return first if cell.every == 1 else f"{first} +{cell.every - 1}"


def _plain_cell(cell: Cell) -> str:
    if isinstance(cell, Several):
        more = cell.every - len(cell.names)
        cell = ",".join((*cell.names, f"+{more}") if more else cell.names)
    if isinstance(cell, Unread):
        # awk takes 7+ for the number 7
        cell = f"{cell.number}{'' if cell.exact else '+'}"
    return str(cell).replace(" ", "\\x20") or "-"
