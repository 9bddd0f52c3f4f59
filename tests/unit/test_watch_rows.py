"""What a walk found, kept as the rows it came in."""

from __future__ import annotations

from build import kernel_watch, watch_rows
from hypothesis import given
from hypothesis import strategies as st

from tracer.core.walk import WatchRows

_WDS = st.lists(st.integers(1, 2**31 - 1), max_size=40, unique=True)


def _rows(wds: list[int], portion: int) -> WatchRows:
    return watch_rows({wd: kernel_watch(wd) for wd in wds}, portion)


@given(_WDS, st.integers(1, 11))
def test_rows_give_back_what_they_were_made_of(wds: list[int], portion: int) -> None:
    rows = _rows(wds, portion)

    assert list(rows) == [(wd, kernel_watch(wd)) for wd in wds]
    assert len(rows) == len(wds)


@given(_WDS, st.data(), st.integers(1, 11))
def test_comparing_is_the_difference_of_two_sets(
    wds: list[int], data: st.DataObject, portion: int
) -> None:
    both = data.draw(st.sets(st.sampled_from(wds))) if wds else set()
    known = both | data.draw(st.sets(st.integers(1, 2**31 - 1), max_size=7))

    gone, unlisted = _rows(wds, portion).compare(dict.fromkeys(known))

    assert (gone, unlisted) == (known - set(wds), set(wds) - known)


@given(_WDS, st.data(), st.integers(1, 11))
def test_only_what_is_asked_for_is_decoded(
    wds: list[int], data: st.DataObject, portion: int
) -> None:
    wanted = data.draw(st.sets(st.sampled_from(wds))) if wds else set()

    found = dict(_rows(wds, portion).only(wanted | {0}))

    assert found == {wd: kernel_watch(wd) for wd in wanted}
