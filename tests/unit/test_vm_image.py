"""What an image of another kernel is made of, and when it is made again."""

from __future__ import annotations

import struct
from datetime import date

import host
import pytest
from image import guest_requirements, key, partition_table
from releases import RELEASES

_BOOKWORM, _SID = RELEASES["bookworm"], RELEASES["sid"]
_REQUIREMENTS = ["pytest>=8,<9"]
_RECIPE = [b"one", b"two"]
_MONDAY, _SUNDAY, _NEXT = date(2026, 1, 5), date(2026, 1, 11), date(2026, 1, 12)


def test_the_same_inputs_give_the_same_image() -> None:
    assert key(_BOOKWORM, _REQUIREMENTS, _RECIPE, _MONDAY) == key(
        _BOOKWORM, list(_REQUIREMENTS), list(_RECIPE), _NEXT
    )


@pytest.mark.parametrize(
    "changed",
    [
        (_SID, _REQUIREMENTS, _RECIPE),
        (_BOOKWORM, ["pytest>=9,<10"], _RECIPE),
        (_BOOKWORM, [], _RECIPE),
        (_BOOKWORM, _REQUIREMENTS, [b"one", b"three"]),
        (_BOOKWORM, _REQUIREMENTS, [b"on", b"etwo"]),
    ],
)
def test_another_input_gives_another_image(changed: tuple[object, ...]) -> None:
    unchanged = key(_BOOKWORM, _REQUIREMENTS, _RECIPE, _MONDAY)

    assert key(*changed, _MONDAY) != unchanged  # type: ignore[arg-type]


def test_what_is_not_released_is_made_again_each_week() -> None:
    first, last, after = (
        key(_SID, _REQUIREMENTS, _RECIPE, day) for day in (_MONDAY, _SUNDAY, _NEXT)
    )

    assert first == last != after


def test_only_what_is_not_released_does_not_count() -> None:
    assert [name for name, release in RELEASES.items() if not release.blocks] == ["sid"]


def test_requirements_come_from_pyproject_without_the_tools_of_the_checkout() -> None:
    found = guest_requirements((host.CHECKOUT / "pyproject.toml").read_text())

    names = {each.partition(">")[0] for each in found}
    assert {"click", "rich", "pytest", "hypothesis"} <= names
    assert not {"mypy", "ruff", "hatchling"} & names


def test_a_list_ends_where_it_ends() -> None:
    text = 'dependencies = [\n    "one>=1",\n    "two",\n]\ntest = [\n    "three",\n]\n'

    assert host.requirements(text, "dependencies") == ["one>=1", "two"]
    assert host.requirements(text, "test") == ["three"]
    assert host.requirements(text, "docs") == []


def test_the_partition_begins_after_the_first_mebibyte() -> None:
    table = partition_table(3 << 20)

    signature, _, _, kind, _, first, sectors = struct.unpack_from("<I2xB3sB3sII", table)
    assert (signature, kind, first, sectors) == (0x1A2B3C4D, 0x83, 2048, 3 * 2048)
    assert 440 + len(table) == 512 and table.endswith(b"\x55\xaa")


# --- what cannot be fetched ---


@pytest.mark.parametrize(
    "line",
    [
        "E: Failed to fetch http://mirror/Packages  Could not connect to mirror:80",
        "W: Could not resolve 'mirror'",
        "ERROR: No matching distribution found for pytest<9,>=8",
        "E: Unable to locate package mmdebstrap",
    ],
)
def test_what_is_out_of_reach_is_told_from_other_failures(line: str) -> None:
    assert host.missed(f"I: running\n  {line}\nE: it failed\n") == line


def test_any_other_failure_is_one() -> None:
    assert host.missed("mkfs.ext4: no space left on device\n") == ""
