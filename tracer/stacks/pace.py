"""Work that is to be done again and again, but not all the time."""

from __future__ import annotations

import time

# A tenth of the time at most.
_SHARE = 10


class Pace:
    """Tells when it is time again, by how long the work took the last time. Use with ``with``."""

    def __init__(self) -> None:
        self._began = 0.0
        self._next = 0.0

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._next

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        now = time.monotonic()
        self._next = now + _SHARE * (now - self._began)
