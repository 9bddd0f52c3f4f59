"""The Debian releases whose kernels are tried."""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

# Names of doctor's checks, and the doorbell, which doctor tries only where nothing better works.
DOORBELL = "doorbell"
_ALL = ("fentry", "kprobe", "tracepoint", "kernel's list", "removals", DOORBELL)


class Release(NamedTuple):
    """`blocks` is whether its failure is one of the whole run; `works` is what it has to have."""

    suite: str
    title: str
    blocks: bool = True
    works: tuple[str, ...] = _ALL

    def edition(self, today: date) -> str:
        """What stays the same as long as an image of it is not out of date."""
        # a point release brings another kernel; what is not released is tried as it is each week
        return f"{today:%Y-%m}" if self.blocks else "{}-{}".format(*today.isocalendar()[:2])


RELEASES = {
    release.suite: release
    for release in (
        Release("bullseye", "Debian 11"),
        Release("bookworm", "Debian 12"),
        Release("trixie", "Debian 13"),
        Release("sid", "Debian sid", blocks=False),
    )
}
