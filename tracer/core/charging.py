"""Who is charged: a user, and all who made the user namespaces that it is in."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import TypeVar

# create_user_ns() in kernel/user_namespace.c nests 33 below the initial one
_LEVELS_MAX = 34

_Key = TypeVar("_Key", bound=Hashable)


def charged(user: _Key, makers: Mapping[_Key, _Key | None]) -> Iterator[_Key]:
    """The user, then who made its namespace, and so on outward."""
    at: _Key | None = user
    for _ in range(_LEVELS_MAX):
        if at is None:
            return
        yield at
        at = makers.get(at)
