"""Users, and what the kernel lets each of them have."""

from __future__ import annotations

import os
import pwd
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tracer.core.shortage import INITIAL_USERNS
from tracer.errors import EXIT_USAGE, InotraceError

_OF_THE_HOST = tuple(
    Path("/proc/sys/fs/inotify", name) for name in ("max_user_watches", "max_user_instances")
)
# kernel/ucount.c: those of whoever reads them, while the others are the host's for all
_OF_THE_READER = tuple(
    Path("/proc/sys/user", name) for name in ("max_inotify_watches", "max_inotify_instances")
)
# (uid_t) -1 means "no user" to the kernel
_LAST_UID = 2**32 - 2


class Limits(NamedTuple):
    """How many watches and instances each user of a user namespace may have."""

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


def own_namespace() -> int | None:
    """The inode number of the user namespace that we run in; None on a kernel without them."""
    try:
        return os.stat("/proc/self/ns/user").st_ino
    except OSError:
        return None


def is_in_namespace() -> bool:
    """Whether that is another than the initial one."""
    return own_namespace() not in (None, INITIAL_USERNS)


def own_limits() -> Limits | None:
    """Those of the user namespace that we run in; None on a kernel without inotify."""
    paths = _OF_THE_READER if is_in_namespace() else _OF_THE_HOST
    try:
        return Limits(*(int(path.read_text()) for path in paths))
    except (OSError, ValueError):
        return None
