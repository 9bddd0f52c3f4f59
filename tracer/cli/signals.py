"""Ending a trace on a signal, at a moment that suits."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# include/uapi/asm-generic/siginfo.h; the terminal's own signals have it, those of kill(2) do not
_SI_KERNEL = 0x80


class Stop:
    """Whether an ending signal came, and which."""

    def __init__(self) -> None:
        self.number: int | None = None

    @property
    def requested(self) -> bool:
        return self.number is not None

    def leave_if_requested(self) -> None:
        """End inotrace with the exit code that a shell gives for the signal."""
        if self.number is not None:
            raise click.exceptions.Exit(128 + self.number)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """
    The first SIGINT, SIGTERM or SIGHUP only asks to stop; a second one ends at once.

    Put it around all that an end must not leave half done, files too.
    """
    stop = Stop()

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.number = number

    before = {number: signal.signal(number, handle) for number in _heeded()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class MarkSignals:
    """SIGUSR1, which asks for a mark. Use as a context manager."""

    def __init__(self) -> None:
        self._came = False

    def __enter__(self) -> MarkSignals:
        self._before = signal.signal(signal.SIGUSR1, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGUSR1, self._before)

    def take(self) -> bool:
        """Whether any came since this was last asked."""
        came, self._came = self._came, False
        return came

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._came = True


class HeldSignals:
    """
    Takes ending signals one by one, and tells who sent them, instead of handling them.

    Use as a context manager, begun before any thread: a thread without it would handle them.
    """

    def __init__(self) -> None:
        self._numbers = _heeded()

    def __enter__(self) -> HeldSignals:
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)
        return self

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def next(self, within_s: float) -> signal.struct_siginfo | None:
        """The next signal; None if there was none in that time."""
        sent = signal.sigtimedwait(self._numbers, within_s)
        # after a stop and a continue, Python hands out one that was never filled in
        return sent if sent is not None and sent.si_signo in self._numbers else None

    def let_go(self) -> None:
        """Forget what came so far; what comes from now on is handled."""
        while self.next(within_s=0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)


def typed_interrupt(sent: signal.struct_siginfo) -> bool:
    """Whether it is Ctrl-C, which the terminal sends to all programs in its foreground."""
    return sent.si_signo == signal.SIGINT and sent.si_code == _SI_KERNEL


def _heeded() -> list[signal.Signals]:
    # what was ignored when inotrace began, as by nohup, stays so
    return [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]
