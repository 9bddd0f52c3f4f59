"""Which processors take part."""

from __future__ import annotations

from pathlib import Path

_ONLINE = Path("/sys/devices/system/cpu/online")
_POSSIBLE = Path("/sys/devices/system/cpu/possible")


def online_cpus() -> frozenset[int]:
    """Those that run now, by number; they may come and go."""
    return frozenset(_listed(_ONLINE.read_text()))


def possible_cpus() -> int:
    """Above the number of any that may ever come."""
    return max(_listed(_POSSIBLE.read_text())) + 1


def _listed(text: str) -> list[int]:
    """Numbers of a list such as ``0-3,5`` (cpu list format, cpusets(7))."""
    numbers: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        numbers.extend(range(int(first), int(last or first) + 1))
    return numbers
