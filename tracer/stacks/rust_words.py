"""
The words of Rust's mangling "v0": numbers, identifiers and constants; rust_v0.py has the sentences.

The format is that of the rustc book, "v0 Symbol Format".
"""

from __future__ import annotations

import re
from typing import Callable

BASIC_TYPES = {
    "a": "i8",
    "b": "bool",
    "c": "char",
    "d": "f64",
    "e": "str",
    "f": "f32",
    "h": "u8",
    "i": "isize",
    "j": "usize",
    "l": "i32",
    "m": "u32",
    "n": "i128",
    "o": "u128",
    "p": "_",
    "s": "i16",
    "t": "u16",
    "u": "()",
    "v": "...",
    "x": "i64",
    "y": "u64",
    "z": "!",
}

_NUMBER_MAX = (1 << 64) - 1
_BASE_62 = re.compile(r"([0-9a-zA-Z]*)_")
_DIGITS_62 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_VALUES_62 = {digit: value for value, digit in enumerate(_DIGITS_62)}
_IDENTIFIER = re.compile(r"(u?)(0|[1-9][0-9]{0,5})_?")
_HEX = re.compile(r"([0-9a-f]*)_")
_ESCAPES = {"\t": r"\t", "\r": r"\r", "\n": r"\n", "\0": r"\0", "\\": r"\\"}


class Invalid(Exception):
    """Not of the format, or beyond a limit."""


class Mangled:
    """A place in a mangled name; each method reads one word there or raises Invalid."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0

    def rest(self) -> str:
        return self._text[self.at :]

    def peek(self) -> str:
        return self._text[self.at : self.at + 1]

    def next(self) -> str:
        character = self.peek()
        if not character:
            raise Invalid
        self.at += 1
        return character

    def eat(self, character: str) -> bool:
        if self.peek() != character:
            return False
        self.at += 1
        return True

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        found = pattern.match(self._text, self.at)
        if not found:
            raise Invalid
        self.at = found.end()
        return found

    def base_62(self) -> int:
        digits = self._match(_BASE_62)[1]
        value = 0
        for digit in digits:
            value = value * 62 + _VALUES_62[digit]
            if value >= _NUMBER_MAX:
                raise Invalid
        return value + 1 if digits else 0

    def optional_base_62(self, tag: str) -> int:
        """One more than the number behind the tag; 0 without a tag."""
        return self.base_62() + 1 if self.eat(tag) else 0

    def disambiguator(self) -> int:
        return self.optional_base_62("s")

    def identifier(self) -> str:
        is_punycode, size = self._match(_IDENTIFIER).groups()
        end = self.at + int(size)
        name = self._text[self.at : end]
        if end > len(self._text):
            raise Invalid
        self.at = end
        return _from_punycode(name) if is_punycode else name

    def unsigned(self) -> str:
        digits = self._match(_HEX)[1].lstrip("0")
        return str(int(digits or "0", 16)) if len(digits) <= 16 else f"0x{digits}"

    def signed(self) -> str:
        return f"{'-' if self.eat('n') else ''}{self.unsigned()}"

    def truth(self) -> str:
        digits = self._match(_HEX)[1]
        if digits not in ("0", "1"):
            raise Invalid
        return "true" if digits == "1" else "false"

    def character(self) -> str:
        digits = self._match(_HEX)[1].lstrip("0")
        value = int(digits or "0", 16) if len(digits) <= 8 else _NUMBER_MAX
        if not _is_scalar(value):
            raise Invalid
        return f"'{_escaped(chr(value), quote=chr(39))}'"

    def string(self) -> str:
        """The bytes of a string constant are given as pairs of digits."""
        try:
            text = bytes.fromhex(self._match(_HEX)[1]).decode()
        except ValueError:
            raise Invalid from None
        return '"' + "".join(_escaped(character, quote='"') for character in text) + '"'


# by the tag of their type
SIMPLE_CONSTANTS: dict[str, Callable[[Mangled], str]] = {
    **dict.fromkeys("htmyoj", Mangled.unsigned),
    **dict.fromkeys("aslxni", Mangled.signed),
    "b": Mangled.truth,
    "c": Mangled.character,
}


def _is_scalar(value: int) -> bool:
    return value < 0xD800 or 0xDFFF < value <= 0x10FFFF


def _escaped(character: str, quote: str) -> str:
    """As Rust writes it into a literal: char::escape_debug."""
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character == quote:
        return f"\\{quote}"
    return character if character.isprintable() else f"\\u{{{ord(character):x}}}"


def _from_punycode(name: str) -> str:
    """RFC 3492, with an underscore for its hyphen."""
    plain, _, insertions = name.rpartition("_")
    if not insertions:
        raise Invalid
    try:
        decoded = f"{plain}-{insertions}".encode("ascii").decode("punycode")
    except (ValueError, OverflowError):
        decoded = ""
    if decoded and all(_is_scalar(ord(character)) for character in decoded):
        return decoded
    return f"punycode{{{plain}{'-' if plain else ''}{insertions}}}"
