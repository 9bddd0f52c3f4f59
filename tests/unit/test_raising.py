"""To what limits may be raised: enough to help, and not more than the kernel takes."""

from __future__ import annotations

from typing import Any

import pytest

from tracer.core.raising import (
    WATCH_BYTES,
    Raise,
    Settings,
    raises,
    raises_in_namespace,
)
from tracer.core.shortage import Resource

_INT_MAX = 2**31 - 1
_GIB = 1 << 30
_WATCHES, _INSTANCES = Resource.WATCHES, Resource.INSTANCES


def _raises(settings: Settings, watches: int = 0, instances: int = 0) -> dict[str, Raise]:
    found = raises(settings, {_WATCHES: watches, _INSTANCES: instances})
    return {one.setting: one for one in found}


def _settings(**changes: Any) -> Settings:
    return Settings(8192, 128, 16384, 8 * _GIB)._replace(**changes)


def test_all_is_doubled() -> None:
    found = _raises(_settings(), watches=7_000, instances=23)

    assert {name: one.suggested for name, one in found.items()} == {
        "fs.inotify.max_user_watches": 16_384,
        "fs.inotify.max_user_instances": 256,
        "fs.inotify.max_queued_events": 32_768,
    }


@pytest.mark.parametrize(
    ("resource", "now", "used", "suggested"),
    [
        (_WATCHES, 23, 7, 46),
        # lowered when they were there
        (_WATCHES, 5, 18, 36),
        (_INSTANCES, 0, 2, 4),
        # twice of nothing is nothing
        (_INSTANCES, 0, 0, 128),
        (_WATCHES, 0, 0, 8192),
        # the kernel refuses what is no int
        (_INSTANCES, 2**30, 7, _INT_MAX),
        (_INSTANCES, _INT_MAX - 1, 7, _INT_MAX),
    ],
)
def test_twice_of_what_is_allowed_and_of_what_is_used(
    resource: Resource, now: int, used: int, suggested: int
) -> None:
    (one,) = raises_in_namespace(resource, now, used, None, 4026532201, 17)

    assert (one.now, one.used, one.suggested) == (now, used, suggested)
    assert (one.userns, one.member, one.is_ours) == (4026532201, 17, False)


def test_what_is_no_limit_is_not_raised() -> None:
    assert _raises(Settings(_INT_MAX, _INT_MAX, _INT_MAX, 8 * _GIB)) == {}
    assert list(raises_in_namespace(_INSTANCES, _INT_MAX, 7, None, 4026532201, 17)) == []


def test_watches_take_an_eighth_of_the_memory_at_most() -> None:
    eighth = _GIB // WATCH_BYTES

    def suggested(now: int, used: int = 0) -> tuple[int | None, int]:
        one = _raises(_settings(watches=now), used)["fs.inotify.max_user_watches"]
        return one.suggested, one.memory

    assert suggested(eighth - 1) == (eighth, eighth * WATCH_BYTES)
    assert suggested(eighth) == (None, eighth * WATCH_BYTES)
    # more than that is used, so that what may be set would be of no use
    assert suggested(7, used=eighth + 1) == (None, (eighth + 1) * WATCH_BYTES)


def test_in_a_namespace_its_own_settings_are_raised_and_none_of_the_hosts() -> None:
    found = _raises(_settings(watches=40, instances=_INT_MAX, userns=4026532201), watches=35)

    (one,) = found.values()
    assert (one.setting, one.suggested) == ("user.max_inotify_watches", 80)
    assert (one.userns, one.is_ours) == (4026532201, True)
