"""The labels and the sources of the corpus belong together."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from labels import CORPUS, LEAK, LEAKS, NO_LEAKS, Label

_SOURCES = {path.stem: path.read_text() for path in Path(__file__).parent.glob("*.c")}
_SITE = re.compile(r"^SITE \w+ (\w+)\(", re.MULTILINE)
# sched.h: TASK_COMM_LEN, with its end
_NAME_BYTES_MAX = 15
_BUILT = [label for label in CORPUS if not label.command]


def _sites(label: Label) -> set[str]:
    """The functions marked in a source; those of one_of_many come out of a macro."""
    source = _SOURCES[label.name]
    if label.name != "one_of_many":
        return set(_SITE.findall(source))
    return {f"many_watch_{feature}" for feature in re.findall(r"EACH\((\w+)\)", source)}


def test_each_source_has_a_label() -> None:
    assert sorted(_SOURCES) == sorted(label.name for label in _BUILT)


@pytest.mark.parametrize("label", _BUILT, ids=lambda label: label.name)
def test_a_label_names_functions_of_its_source(label: Label) -> None:
    assert set(label.sites) <= _sites(label)
    assert set(label.live) <= set(label.sites) and set(label.evidence) <= set(label.sites)


@pytest.mark.parametrize("label", _BUILT, ids=lambda label: label.name)
def test_a_label_names_the_bug_that_its_source_tells(label: Label) -> None:
    assert all(bug in _SOURCES[label.name] for bug in re.findall(r"\w+#\d+", label.bug))


def test_a_function_is_in_one_program_only() -> None:
    """GIVEN that tests find a place by its function THEN no two places share one."""
    functions = Counter(function for label in _BUILT for function in _sites(label))

    assert set(functions.values()) == {1}


def test_no_name_is_cut_off() -> None:
    assert [label.name for label in CORPUS if len(label.name) > _NAME_BYTES_MAX] == []


def test_each_leak_has_a_place_that_leaks() -> None:
    assert all(LEAK in label.sites.values() for label in LEAKS)
    assert not any("leak" in allowed for label in NO_LEAKS for allowed in label.sites.values())
