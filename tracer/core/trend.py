"""Whether a number grows that is looked at now and then."""

from __future__ import annotations

_SEEN_MAX = 64
_LEAST_APART_NS = 1_000_000_000
_LEAST_NS = 20_000_000_000
_HOUR_NS = 3600e9


class Trend:
    """
    The pace of a number, by its lowest in each third of the time: what comes and goes does not
    count, nor what came once. It keeps few looks however long they go on; times are nanoseconds.
    """

    __slots__ = ("_apart", "_seen")

    def __init__(self) -> None:
        self._apart = _LEAST_APART_NS
        self._seen: list[tuple[int, int]] = []

    def note(self, ts: int, number: int) -> None:
        """The number is so much now."""
        if self._seen and ts - self._seen[-1][0] < self._apart:
            # a fall in between counts
            at, known = self._seen[-1]
            self._seen[-1] = at, min(known, number)
            return
        self._seen.append((ts, number))
        if len(self._seen) > _SEEN_MAX:
            self._seen = [min(pair, key=_number) for pair in zip(self._seen[::2], self._seen[1::2])]
            self._apart *= 2

    @property
    def per_hour(self) -> float:
        """How fast it grows; 0 if it does not, or if that cannot be told yet."""
        third = len(self._seen) // 3
        if third < 2 or self._seen[-1][0] - self._seen[0][0] < _LEAST_NS:
            return 0.0
        first, before, late = (
            min(self._seen[at : at + third], key=_number)
            for at in range(len(self._seen) % 3, len(self._seen), third)
        )
        if not first[1] < before[1] < late[1]:
            return 0.0
        return (late[1] - before[1]) * _HOUR_NS / (late[0] - before[0])


def _number(seen: tuple[int, int]) -> int:
    return seen[1]
