"""A screen of its own on a real terminal, which it leaves to others when it has to."""

from __future__ import annotations

import os
import pty
import re
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import IO, Any

import pytest
from rich.cells import cell_len
from rich.text import Text

from tracer.cli import screen as screen_module
from tracer.cli.screen import Screen, has_screen

_ENTER, _LEAVE = "\x1b[?1049h", "\x1b[?1049l"


class _Terminal:
    """Standard output, and what is seen on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, encoding: str = "utf-8") -> None:
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        self.stream: IO[str] = open(slave, "w", encoding=encoding)  # noqa: SIM115 (see close)
        # pytest has its own, and puts it back before the test begins
        monkeypatch.setattr(screen_module, "sys", SimpleNamespace(stdout=self.stream))
        monkeypatch.setenv("TERM", "xterm-256color")
        for name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("COLUMNS", "60")
        monkeypatch.setenv("LINES", "7")

    def seen(self) -> str:
        """What came since this was last asked."""
        try:
            return os.read(self._master, 65536).decode(self.stream.encoding)
        except BlockingIOError:
            return ""

    def hang_up(self) -> None:
        os.close(self._master)
        self._master = -1

    def close(self) -> None:
        self.stream.close()
        if self._master >= 0:
            os.close(self._master)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Terminal]:
    made = _Terminal(monkeypatch)
    yield made
    made.close()


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch, terminal: _Terminal) -> list[str]:
    """What was seen when inotrace would have stopped; the tests go on."""
    seen: list[str] = []
    monkeypatch.setattr(signal, "raise_signal", lambda _: seen.append(terminal.seen()))
    return seen


def _lines(shown: str) -> list[str]:
    return re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", shown.replace("\r\r\n", "\r\n")).split("\r\n")


# --- which terminals have one ---


@pytest.mark.parametrize(
    ("term", "expected"), [("xterm", True), ("dumb", False), ("unknown", False)]
)
def test_a_dumb_terminal_has_none(
    terminal: _Terminal, monkeypatch: pytest.MonkeyPatch, term: str, expected: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    assert has_screen() is expected


def test_neither_has_a_pipe_nor_what_is_closed(
    terminal: _Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with open(os.devnull, "w") as stream:
        monkeypatch.setattr(screen_module, "sys", SimpleNamespace(stdout=stream))
        assert not has_screen()
    monkeypatch.setattr(screen_module, "sys", SimpleNamespace(stdout=None))
    assert not has_screen()


# --- drawing ---


def test_it_is_entered_once_and_left(terminal: _Terminal) -> None:
    with Screen() as screen:
        assert terminal.seen() == ""
        screen.draw([Text("one", "red"), Text("two")])
        first = terminal.seen()
        screen.draw([Text("three")])
        second = terminal.seen()
    left = terminal.seen()

    assert first.startswith(f"{_ENTER}\x1b[?25l") and _lines(first)[:2] == ["one", "two"]
    assert "\x1b[31mone" in first
    assert _ENTER not in second and _lines(second) == ["three", ""]
    assert left.endswith(f"\x1b[?25h{_LEAVE}")


def test_what_was_never_drawn_on_is_not_left(terminal: _Terminal) -> None:
    with Screen():
        pass
    assert terminal.seen() == ""


def test_what_does_not_fit_is_cut(terminal: _Terminal) -> None:
    with Screen() as screen:
        screen.draw(Text("界" * 40) for _ in range(9))
        shown = _lines(terminal.seen())

    assert len(shown) == 7
    assert set(map(cell_len, shown)) == {60}


def test_a_terminal_that_is_not_utf8_gets_escapes_that_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = _Terminal(monkeypatch, "latin-1")
    with Screen() as screen:
        screen.draw([Text("/a…b"), Text("x" * 59 + "…"), Text("é" * 60)])
        shown = _lines(terminal.seen())
    terminal.close()

    assert shown[:3] == [r"/a\u2026b", "x" * 59 + "\\", "é" * 60]


def test_a_terminal_that_is_gone_is_no_error(terminal: _Terminal) -> None:
    with Screen() as screen:
        screen.draw([Text("one")])
        assert not screen.is_gone
        terminal.hang_up()
        screen.draw([Text("two")])
        assert screen.is_gone
        screen.draw([Text("three")])


def test_in_the_background_nothing_is_drawn_until_it_is_over(
    terminal: _Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_foreground = [False]
    monkeypatch.setattr(screen_module, "_is_in_foreground", lambda: in_foreground[0])
    with Screen() as screen:
        screen.draw([Text("one")])
        screen.draw([Text("two")])
        assert terminal.seen() == ""
        in_foreground[0] = True
        screen.keep()
        shown = terminal.seen()
        screen.keep()
        assert terminal.seen() == ""

    assert shown.startswith(_ENTER) and _lines(shown)[0] == "two"


# --- stopping ---


def test_a_stop_leaves_it_and_what_was_drawn_comes_back(
    terminal: _Terminal, stops: list[str]
) -> None:
    told: list[str] = []
    with Screen(before_stop=lambda: told.append("before")) as screen:
        screen.draw([Text("one")])
        terminal.seen()
        os.kill(os.getpid(), signal.SIGTSTP)
        assert (len(stops), told) == (1, ["before"])
        screen.keep()
        again = terminal.seen()
        # it heeds the next one as well
        os.kill(os.getpid(), signal.SIGTSTP)

    assert stops == [f"\x1b[m\x1b[?25h{_LEAVE}"] * 2
    assert again.startswith(_ENTER) and _lines(again)[0] == "one"
    # in the end there is nothing more to leave
    assert terminal.seen() == ""


def test_a_stop_in_the_middle_of_a_drawing_comes_after_it(
    terminal: _Terminal, stops: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        encoding, errors = "utf-8", "strict"

        def write(self, text: str) -> None:
            if "one" in text:
                os.kill(os.getpid(), signal.SIGTSTP)
            terminal.stream.write(text)

        def __getattr__(self, name: str) -> Any:
            return getattr(terminal.stream, name)

    monkeypatch.setattr(screen_module, "sys", SimpleNamespace(stdout=Slow()))
    with Screen() as screen:
        screen.draw([Text("one")])

    (seen,) = stops
    assert seen.startswith(_ENTER) and "one" in seen and seen.endswith(_LEAVE)


def test_the_signal_is_as_before_afterwards(terminal: _Terminal) -> None:
    before = signal.getsignal(signal.SIGTSTP)
    with Screen():
        assert signal.getsignal(signal.SIGTSTP) != before
    assert signal.getsignal(signal.SIGTSTP) == before


def test_who_ignores_stops_goes_on_doing_so(terminal: _Terminal) -> None:
    before = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        with Screen():
            assert signal.getsignal(signal.SIGTSTP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTSTP, before)
