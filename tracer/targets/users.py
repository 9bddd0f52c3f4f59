"""Users, and what the kernel lets each of them have."""

from __future__ import annotations

import pwd
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tracer.errors import EXIT_USAGE, InotraceError

_SYSCTL = Path("/proc/sys/fs/inotify")
# (uid_t) -1 means "no user" to the kernel
_LAST_UID = 2**32 - 2


class Limits(NamedTuple):
    """How many watches and instances each user of this user namespace may have."""

    watches: int
    instances: int


@cache
def user_name(uid: int) -> str:
    """The name of a user, or the number as text if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def user_id(text: str) -> int:
    """
    The uid for a name or a number.

    Raises InotraceError (EXIT_USAGE) if there is no such user.
    """
    if text.isascii() and text.isdecimal() and int(text) <= _LAST_UID:
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise InotraceError(
            f"no user called {text}: give a name that `getent passwd` lists, or a number",
            exit_code=EXIT_USAGE,
        ) from None


def sysctl_limits() -> Limits | None:
    """The limits of the user namespace we run in; None on a kernel without inotify."""
    try:
        return Limits(
            int((_SYSCTL / "max_user_watches").read_text()),
            int((_SYSCTL / "max_user_instances").read_text()),
        )
    except (OSError, ValueError):
        return None
