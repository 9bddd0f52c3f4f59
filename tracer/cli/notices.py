"""What is said beside the data: on standard error."""

from __future__ import annotations

import sys


def notice(text: str) -> None:
    """Something about the trace that is no part of its data."""
    print(f"inotrace: {text}", file=sys.stderr, flush=True)
