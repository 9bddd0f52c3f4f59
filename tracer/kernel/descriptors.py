"""How many descriptors a process has of those that it may have."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

# proc(5), /proc/PID/limits: the soft limit comes first
_OPEN_FILES = re.compile(r"^Max open files +([0-9]+|unlimited)", re.MULTILINE)


class Descriptors(NamedTuple):
    """Those in use, and RLIMIT_NOFILE as it holds now."""

    used: int
    limit: int


def descriptors_of(pid: int) -> Descriptors | None:
    """None if the process is gone, may not be looked into, or has no limit."""
    try:
        limit = _OPEN_FILES.search(Path(f"/proc/{pid}/limits").read_text("ascii"))
        used = _number_of_entries(f"/proc/{pid}/fd")
    except (OSError, UnicodeDecodeError):
        return None
    if limit is None or limit[1] == "unlimited":
        return None
    return Descriptors(used, int(limit[1]))


def _number_of_entries(folder: str) -> int:
    # Linux 6.2 and later has it as the size (f1f1f2569901, "proc: report open files as size")
    return os.stat(folder).st_size or len(os.listdir(folder))
