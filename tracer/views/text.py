"""
Text that is safe to print, and the console it is printed on.

Paths, command names and command lines belong to the traced programs: they may hold escape
sequences, newlines, invalid UTF-8 or rich's markup, and are never interpreted.
"""

from __future__ import annotations

import io
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator
from typing import IO, Any, Callable

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

# control, format (bidi overrides, zero width), surrogate, private use, unassigned, and the
# separators that break lines
_UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_LEAST_WIDTH = 30
_SHORT_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}


def decoded(raw: bytes) -> str:
    """
    Byte-exact text for JSON: UTF-8, every invalid byte NN as the lone surrogate U+DCNN.

    ``text.encode("utf-8", "surrogateescape")`` gives the bytes back.
    """
    return raw.decode("utf-8", "surrogateescape")


def printable(raw: bytes | str) -> str:
    r"""
    Text for a terminal: what would move the cursor, change colour or hide is shown escaped.

    Bytes that are not UTF-8 become ``\xNN``; a backslash is doubled, so that no name can pass
    for the escape of another.
    """
    text = decoded(raw) if isinstance(raw, bytes) else raw
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join(map(_printable_character, text))


def shortened(text: str, width: int) -> str:
    """
    Cut in the middle, where paths tell least; both ends remain.

    `width` is in terminal cells, of which a Chinese character fills two.
    """
    if cell_len(text) <= width:
        return text
    if width < 3:
        return _beginning(text, width)
    head = _beginning(text, (width - 1) // 2)
    tail = _beginning(text[::-1], width - 1 - cell_len(head))
    return f"{head}…{tail[::-1]}"


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """``1 watch``, ``2,000 watches``."""
    word = singular if number == 1 else plural or f"{singular}s"
    return f"{number:,} {word}"


def wrapped(sentence: str, width: int, indent: int = 0, style: str = "yellow") -> Iterator[Text]:
    """The sentence on lines that fit, also where there is little room."""
    for line in textwrap.wrap(sentence, max(width - indent, _LEAST_WIDTH)):
        yield Text(" " * indent).append(line, style)


def text_console(width: int) -> Console:
    """A console that writes into memory, uncoloured, for tests and for files."""
    return Console(
        file=io.StringIO(),
        width=width,
        color_system=None,
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )


def rendered(
    lines: Callable[[int], Iterable[Text]],
    stream: IO[str] | None,
    width: int | None = None,
) -> str:
    """
    The text of `lines`, which are asked for with the width to fit, coloured if `stream` is.

    Without a stream the text is plain. `width` overrides the stream's own.
    """
    target = Console(file=stream) if stream is not None else None
    colors: Any = target.color_system if target is not None else None
    console = Console(
        file=io.StringIO(),
        width=width or (target.width if target is not None else None),
        force_terminal=target.is_terminal if target is not None else False,
        color_system=colors,
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
        soft_wrap=True,
    )
    for line in lines(console.width):
        console.print(line)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def _beginning(text: str, width: int) -> str:
    if text.isascii():
        return text[:width]
    used = 0
    for at, character in enumerate(text):
        used += cell_len(character)
        if used > width:
            return text[:at]
    return text


def _printable_character(character: str) -> str:
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    if unicodedata.category(character) not in _UNSAFE_CATEGORIES:
        return character
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    # from U+0080 on, \x would pass for an invalid byte
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
