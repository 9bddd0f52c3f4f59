"""Text that programs under trace chose themselves must stay text."""

from __future__ import annotations

import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from tracer.views.text import counted, decoded, printable, shortened, text_console

_ESCAPE = re.compile(r"\\(?:([\\ntr])|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
_LETTERS = {"\\": "\\", "n": "\n", "t": "\t", "r": "\r"}


def _restored(shown: str) -> str:
    """What `printable` was given; raises if a backslash begins no escape."""

    def one(match: re.Match[str]) -> str:
        letter, byte, *code = match.groups()
        if letter:
            return _LETTERS[letter]
        if byte:
            number = int(byte, 16)
            return chr(number if number < 0x80 else 0xDC00 + number)
        return chr(int(code[0] or code[1], 16))

    assert "\\" not in _ESCAPE.sub("", shown)
    return _ESCAPE.sub(one, shown)


@given(st.binary())
def test_decoded_keeps_every_byte_through_json(raw: bytes) -> None:
    carried = json.dumps(decoded(raw), ensure_ascii=True)

    assert carried.isascii()
    assert json.loads(carried).encode("utf-8", "surrogateescape") == raw


@given(st.one_of(st.binary(), st.text(st.characters())))
def test_printable_emits_nothing_that_controls_a_terminal(raw: bytes | str) -> None:
    shown = printable(raw)

    categories = {unicodedata.category(character) for character in shown}
    assert categories.isdisjoint({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
    assert shown.splitlines() in ([], [shown])


@given(st.binary())
def test_printable_of_bytes_can_be_read_back(raw: bytes) -> None:
    assert _restored(printable(raw)).encode("utf-8", "surrogateescape") == raw


@given(st.text(st.characters()))
def test_printable_of_text_can_be_read_back(text: str) -> None:
    assert _restored(printable(text)) == text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"kubelet", "kubelet"),
        (b"two words", "two words"),
        (b"[bold]x[/]", "[bold]x[/]"),
        (b"a\nb\tc\rd", r"a\nb\tc\rd"),
        (b"\x1b[31mred\x07\x7f", r"\x1b[31mred\x07\x7f"),
        (b"caf\xc3\xa9 \xe5\xb1\xb1", "café 山"),
        (b"caf\xe9", r"caf\xe9"),
        (rb"caf\xe9", r"caf\\xe9"),
        (b"\x80", r"\x80"),
        ("\x80".encode(), r"\u0080"),
        ("‮gpj.exe".encode(), r"\u202egpj.exe"),
        ("a\u2028b\u200bc".encode(), r"a\u2028b\u200bc"),
        ("\U000e0041".encode(), r"\U000e0041"),
        ("", ""),
    ],
)
def test_printable_examples(raw: bytes | str, shown: str) -> None:
    assert printable(raw) == shown


@given(st.text(st.characters(categories=["L", "N", "P"])), st.integers(0, 40))
def test_shortened_fits(text: str, width: int) -> None:
    short = shortened(text, width)

    assert cell_len(short) <= width
    assert short == text or cell_len(text) > width


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        ("/usr/bin/python3", 16, "/usr/bin/python3"),
        ("/usr/bin/python3", 15, "/usr/bi…python3"),
        ("/usr/bin/python3", 4, "/…n3"),
        ("/usr/bin/python3", 2, "/u"),
        ("/usr/bin/python3", 0, ""),
        ("/山山山山山/x", 9, "/山…山/x"),
    ],
)
def test_shortened_keeps_both_ends(text: str, width: int, short: str) -> None:
    assert shortened(text, width) == short


def test_counted() -> None:
    assert counted(1, "watch", "watches") == "1 watch"
    assert counted(2000, "watch", "watches") == "2,000 watches"
    assert counted(0, "instance") == "0 instances"


def test_text_console_neither_colours_nor_interprets() -> None:
    console = text_console(23)

    console.print(Text("bold", style="bold"), "[red]1[/red] :smile:")

    assert console.file.getvalue() == "bold [red]1[/red] \n:smile:\n"  # type: ignore[attr-defined]
