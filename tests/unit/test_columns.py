"""Columns line up, and fit where they may shrink."""

from __future__ import annotations

from build import cells, plain, widest
from hypothesis import given
from hypothesis import strategies as st

from tracer.views.columns import Column, aligned

_RIGHT, _LEFT, _SHRINKS = Column(right=True), Column(), Column(shrink=True)


def _lines(rows: list[tuple[str, ...]], columns: tuple[Column, ...], width: int = 80) -> list[str]:
    return plain(aligned(rows, columns, width))


def test_numbers_are_right_and_names_left() -> None:
    rows = [("23", "agent", "x"), ("1,173", "a", "y")]

    assert plain(
        aligned(rows, (_RIGHT, _LEFT, _LEFT), 80, header=("PID", "COMMAND", ""), indent=2)
    ) == [
        "    PID  COMMAND",
        "     23  agent    x",
        "  1,173  a        y",
    ]


def test_a_wide_character_counts_for_two() -> None:
    assert _lines([("山山", "x"), ("abcd", "y"), ("é", "z")], (_LEFT, _LEFT)) == [
        "山山  x",
        "abcd  y",
        "é     z",
    ]


def test_the_widest_column_that_may_shrink_gives_first() -> None:
    rows = [("/a/very/long/path/to/some/file", "a-rather-long-name", "not-shortened")]

    (line,) = _lines(rows, (_SHRINKS, _SHRINKS, _LEFT), 50)

    path, name, fixed = line.split("  ")
    assert (cells(line), fixed) == (50, "not-shortened")
    assert (cells(path), cells(name)) == (16, 17)


def test_a_column_is_not_shrunk_to_nothing() -> None:
    assert _lines([("0123456789abcdef", "fixed")], (_SHRINKS, _LEFT), 5) == ["012…cdef  fixed"]


def test_what_fits_is_not_touched() -> None:
    assert _lines([("0123456789", "x")], (_SHRINKS, _LEFT), 13) == ["0123456789  x"]


def test_nothing_gives_no_lines_at_any_width() -> None:
    for width in (0, 1, 80):
        assert _lines([], (_SHRINKS, _LEFT), width) == []


def test_a_header_alone_is_a_line() -> None:
    assert plain(aligned([], (_RIGHT, _LEFT), 80, header=("PID", "COMMAND"))) == ["PID  COMMAND"]


_texts = st.text(st.sampled_from("ab/.…山é한"), max_size=97)


@given(
    rows=st.lists(st.tuples(_texts, _texts, _texts), min_size=1, max_size=7),
    width=st.integers(30, 160),
    indent=st.integers(0, 2),
)
def test_rows_fit_if_all_their_columns_may_shrink(
    rows: list[tuple[str, str, str]], width: int, indent: int
) -> None:
    columns = (_SHRINKS, Column(shrink=True, right=True), _SHRINKS)
    lines = list(aligned(rows, columns, width, indent=indent))

    assert len(lines) == len(rows)
    assert widest(lines) <= width
