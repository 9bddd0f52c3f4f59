"""What an image of another kernel is made of, and when it is made again."""

from __future__ import annotations

import fcntl
import struct
from datetime import date
from pathlib import Path

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


def test_a_release_is_made_again_each_month_for_the_kernel_of_its_point_releases() -> None:
    days = (date(2026, 1, 1), date(2026, 1, 31), date(2026, 2, 1), date(2027, 1, 1))
    first, last, *others = (key(_BOOKWORM, _REQUIREMENTS, _RECIPE, day) for day in days)

    assert first == last
    assert len({first, *others}) == 3


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
        "E: Failed to fetch http://mirror/Packages  503  Service Unavailable [IP: 192.0.2.1 80]",
        "WARNING: Retrying (Retry(total=4)) after connection broken by 'ReadTimeoutError(1)': /x/",
    ],
)
def test_what_is_out_of_reach_is_told_from_other_failures(line: str) -> None:
    assert host.missed(f"I: running\n  {line}\nE: it failed\n") == line


@pytest.mark.parametrize(
    "line",
    [
        "mkfs.ext4: no space left on device",
        "ERROR: No matching distribution found for pytest<9,>=8",
        "E: Unable to locate package mmdebstrap",
        "E: Failed to fetch http://mirror/x_1_amd64.deb  404  Not Found [IP: 192.0.2.1 80]",
    ],
)
def test_any_other_failure_is_one(line: str) -> None:
    assert host.missed(f"{line}\n") == ""


def test_a_wrong_name_is_a_failure_unless_the_network_was_missing_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    wrong = ["sh", "-c", "echo 'E: Unable to locate package x'; exit 100"]
    with pytest.raises(host.Failed):
        host.fetching(wrong, log)

    began = log.stat().st_size
    host.fetching(["echo", "W: Failed to fetch http://mirror/InRelease  Could not resolve"], log)
    with pytest.raises(host.Failed):
        host.fetching(wrong, log)
    with pytest.raises(host.Unreachable, match="Could not resolve"):
        host.fetching(wrong, log, since=began)


def test_what_the_update_could_not_fetch_explains_the_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apt = tmp_path / "apt-get"
    apt.write_text(
        "#!/bin/sh\n"
        '[ "$2" != update ] || { echo "W: Failed to fetch http://mirror/InRelease"; exit 0; }\n'
        'echo "E: Unable to locate package git"; exit 100\n'
    )
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(host, "_PACKAGES", {"no-such-tool": "git"})
    monkeypatch.setattr(host.platform, "machine", lambda: "x86_64")

    with pytest.raises(host.Unreachable, match="InRelease"):
        host.install_tools(tmp_path / "log")


# --- the cache ---


def test_what_an_earlier_run_left_half_done_is_removed(tmp_path: Path) -> None:
    for name in (f"{host.UNFINISHED}x/root", "results"):
        (tmp_path / name).mkdir(parents=True)
    with host.exclusively(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {"lock", "results"}


def test_one_run_at_a_time_uses_the_cache(tmp_path: Path) -> None:
    def is_free() -> bool:
        with (tmp_path / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    with host.exclusively(tmp_path):
        assert not is_free()
    assert is_free()
