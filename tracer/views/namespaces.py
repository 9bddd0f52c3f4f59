"""How user namespaces, and users in them, are named."""

from __future__ import annotations

from tracer.core.shortage import INITIAL_USERNS


def in_namespace(userns: int | None) -> str:
    """Nothing for the initial one, which most systems have alone."""
    return "" if userns in (None, INITIAL_USERNS) else f" in user namespace {userns}"


def namespace_name(userns: int | None) -> str:
    """``initial``, or the inode number as ``ls -l /proc/PID/ns/user`` shows it."""
    if userns == INITIAL_USERNS:
        return "initial"
    return "-" if userns is None else str(userns)


def payer_object(payer: tuple[int | None, int] | None) -> dict[str, int | None] | None:
    """For JSON."""
    return None if payer is None else {"userns": payer[0], "uid": payer[1]}
