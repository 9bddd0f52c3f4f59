"""
Values out of JSON that anyone may have written: of the right type and in bounds, or a KeptError.

A key that is missing is taken for null.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Callable, TypeVar

Fields = Mapping[str, Any]
_Row = TypeVar("_Row")
_Words = TypeVar("_Words", bound=enum.Enum)

# what the kernel and JSON readers elsewhere hold in one word
_NUMBER_MAX = (1 << 64) - 1
# The longest path is 4,096 bytes, and names of C++ are not much longer.
_TEXT_MAX = 1 << 16
_TYPES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number with a fraction",
    bool: "true or false",
    type(None): "null or missing",
}


class KeptError(Exception):
    """The JSON is not what it has to be; the message says where: ``sites[3].live is a string``."""


def type_name(value: object) -> str:
    """What a value of JSON is called."""
    return _TYPES.get(type(value), "no JSON")


def fields(of: Fields, key: str) -> Fields:
    """An object. Raises KeptError."""
    value = of.get(key)
    if not isinstance(value, dict):
        raise _wrong(key, value, "an object")
    return value


def rows(of: Fields, key: str, read: Callable[[Fields], _Row]) -> list[_Row]:
    """What `read` makes of each object in a list. Raises KeptError, as `read` may."""
    items = of.get(key)
    if not isinstance(items, list):
        raise _wrong(key, items, "a list")
    found = []
    for i, item in enumerate(items):
        if not isinstance(item, dict):
            raise _wrong(f"{key}[{i}]", item, "an object")
        try:
            found.append(read(item))
        except KeptError as error:
            raise KeptError(f"{key}[{i}].{error}") from None
    return found


def number(of: Fields, key: str) -> int:
    """A whole number from 0 to 2^64 - 1. Raises KeptError."""
    value = of.get(key)
    if type(value) is not int:
        raise _wrong(key, value, "a whole number")
    if not 0 <= value <= _NUMBER_MAX:
        raise KeptError(f"{key} is out of range")
    return value


def number_or_none(of: Fields, key: str) -> int | None:
    """The same, or null. Raises KeptError."""
    return None if of.get(key) is None else number(of, key)


def text(of: Fields, key: str) -> str:
    """A string, which may hold lone surrogates. Raises KeptError."""
    value = of.get(key)
    if not isinstance(value, str):
        raise _wrong(key, value, "a string")
    if len(value) > _TEXT_MAX:
        raise KeptError(f"{key} has more than {_TEXT_MAX:,} characters")
    return value


def text_or_none(of: Fields, key: str) -> str | None:
    """The same, or null. Raises KeptError."""
    return None if of.get(key) is None else text(of, key)


def raw_or_none(of: Fields, key: str) -> bytes | None:
    """The bytes that a string with `surrogateescape` stands for, or None. Raises KeptError."""
    value = text_or_none(of, key)
    try:
        return None if value is None else value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise KeptError(f"{key} has surrogates that stand for no byte") from None


def choice(of: Fields, key: str, words: type[_Words], default: _Words | None = None) -> _Words:
    """One of the words of an enum; null is the default, if there is one. Raises KeptError."""
    if default is not None and of.get(key) is None:
        return default
    word = text(of, key)
    try:
        return words(word)
    except ValueError:
        known = ", ".join(one.value for one in words)
        raise KeptError(f"{key} is {word[:40]!a}, none of {known}") from None


def flag(of: Fields, key: str) -> bool:
    """True or false. Raises KeptError."""
    value = of.get(key)
    if not isinstance(value, bool):
        raise _wrong(key, value, "true or false")
    return value


def _wrong(where: str, value: object, wanted: str) -> KeptError:
    return KeptError(f"{where} is {type_name(value)}, not {wanted}")
