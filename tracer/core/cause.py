"""What ends a watch."""

from __future__ import annotations

import enum


class Cause(str, enum.Enum):
    """What ended a watch."""

    RM_WATCH = "rm_watch"
    DELETED = "deleted"
    UNMOUNTED = "unmounted"
    ONESHOT = "oneshot"
    CLOSED = "closed"
    UNKNOWN = "unknown"

    # Enum hashes in Python, and a removal counts its cause three times
    __hash__ = str.__hash__
