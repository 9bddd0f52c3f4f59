"""Lists of processors."""

from __future__ import annotations

import os

import pytest

from tracer.kernel import cpus


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0\n", {0}), ("0-1\n", {0, 1}), ("0,2-4,7\n", {0, 2, 3, 4, 7})],
)
def test_a_list_names_each_processor(text: str, numbers: set[int]) -> None:
    assert set(cpus._listed(text)) == numbers


def test_the_processors_of_this_machine_are_those_one_may_use() -> None:
    assert os.sched_getaffinity(0) <= cpus.online_cpus()
    assert max(cpus.online_cpus()) < cpus.possible_cpus()
