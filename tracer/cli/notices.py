"""What is said beside the data: on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tracer.kernel.capabilities import LOOKING, missing, named
from tracer.targets.users import is_in_namespace

if TYPE_CHECKING:
    # traces say something as well, and need no listing
    from tracer.listing import Scan


def notice(text: str) -> None:
    """Something about the trace that is no part of its data."""
    print(f"inotrace: {text}", file=sys.stderr, flush=True)


def limitations(scan: Scan) -> Iterator[str]:
    """What /proc and the kernel kept from a look as a whole."""
    if not scan.shows_all:
        yield "/proc is mounted with hidepid and hides other users: run as root to see all"
    if not scan.sharing_known:
        yield "kcmp is refused here: a shared instance counts once for each that holds it"


def remedy() -> str:
    """What to do to look into the processes of others."""
    lacking = missing(LOOKING)
    if is_in_namespace():
        # what one has in it does not count for who is outside
        root = "as root, " if lacking else ""
        return f"run {root}outside this user namespace to see all"
    if not lacking:
        return "a sandbox or security module refuses it"
    if os.geteuid() == 0:
        return f"root lacks {named(lacking)} here"
    return f"run as root to see all, or with {named(lacking)}"
