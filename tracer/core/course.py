"""How the number of something went over time, in bounded memory."""

from __future__ import annotations

from array import array

# A window is 2**SHIFT ns: about a millisecond at first, twice as long whenever too many are kept.
_FINEST_SHIFT = 20
# 64 windows are 8 for each of the 8 parts that a verdict looks at, see growth.py.
_WINDOWS_MAX = 64


class Course:
    """
    The lowest and the last number of each window of time in which it changed.

    A million of these do not fit anywhere, a hundred thousand do: 1.6 KB each when full.
    """

    __slots__ = ("_end", "_last", "_lasts", "_low", "_lows", "_shift", "_windows", "peak")

    def __init__(self) -> None:
        self._shift = _FINEST_SHIFT
        self._windows = array("q")
        self._lows = array("q")
        self._lasts = array("q")
        # of the last window, whose entries in the arrays wait until another begins
        self._end = 0
        self._low = 0
        self._last = 0
        self.peak = 0

    @property
    def begin(self) -> int | None:
        """A time (ns) at or shortly before the first change; None if there was none."""
        return self._windows[0] << self._shift if self._windows else None

    def note(self, ts: int, number: int) -> None:
        """From `ts` (ns) on it is `number`; what comes late counts as if it came now."""
        if ts >= self._end:
            self._begin_window(ts)
        self._last = number
        if number < self._low:
            self._low = number
        elif number > self.peak:
            self.peak = number

    def _begin_window(self, ts: int) -> None:
        self._keep_last()
        if len(self._windows) == _WINDOWS_MAX:
            self._coarsen()
        window = ts >> self._shift
        if not self._windows or window > self._windows[-1]:
            # it begins as the window before it ended
            self._low = self._last
            for values, value in (
                (self._windows, window),
                (self._lows, self._low),
                (self._lasts, self._last),
            ):
                values.append(value)
        self._end = (window + 1) << self._shift

    def _keep_last(self) -> None:
        if self._windows:
            self._lows[-1] = self._low
            self._lasts[-1] = self._last

    def floors(self, begin: int, end: int, parts: int) -> list[int]:
        """
        The number below which it never fell again, at the edges of so many equal parts of time.

        One more than there are parts. The last is also not above what came after `end`.
        """
        self._keep_last()
        span = max(end - begin, 1)
        edges = [begin + span * part // parts for part in range(1, parts)]
        lows = self._lows_between(begin, [*edges, end + 1])
        floors = [lows.pop()]
        for low in reversed(lows):
            floors.append(min(low, floors[-1]))
        return floors[::-1]

    def _lows_between(self, begin: int, edges: list[int]) -> list[int]:
        """The lowest number from `begin` up to the first edge, between each two, after the last."""
        number = at = 0
        # a window in which it begins belongs to what comes
        while at < len(self._windows) and (self._windows[at] + 1) << self._shift <= begin:
            number = self._lasts[at]
            at += 1
        lows = []
        for edge in edges:
            low = number
            while at < len(self._windows) and self._windows[at] << self._shift < edge:
                low = min(low, self._lows[at])
                number = self._lasts[at]
                at += 1
            lows.append(low)
        return [*lows, min([number, *self._lows[at:]])]

    def _coarsen(self) -> None:
        while len(self._windows) > _WINDOWS_MAX * 3 // 4:
            self._shift += 1
            windows, lows, lasts = array("q"), array("q"), array("q")
            for window, low, last in zip(self._windows, self._lows, self._lasts):
                if windows and windows[-1] == window >> 1:
                    lows[-1] = min(lows[-1], low)
                    lasts[-1] = last
                else:
                    windows.append(window >> 1)
                    lows.append(low)
                    lasts.append(last)
            self._windows, self._lows, self._lasts = windows, lows, lasts
        self._low = self._lows[-1]
