"""
Suppressions: what is known to leak, and not to be reported.

The file and its patterns are LeakSanitizer's, as SuppressionContext::Parse in
sanitizer_suppressions.cpp, TemplateMatch in sanitizer_common.cpp and GetSuppressionForAddr in
lsan_common.cpp of LLVM's compiler-rt read them. Two things differ. What matches nothing, or
everything, without saying so is an error here: an empty pattern, and text after a `$`. And a
pattern that ends in `$` looks at the end of a name only, as is documented there, and not whether
it is also the first place that fits: `foo$` matches `foofoo`.
"""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from tracer.core.runtime_frames import is_made_at_run_time
from tracer.core.stack import Frame, Stack, is_runtime, own_frames

SIZE_MAX = 1 << 18
SUPPRESSIONS_MAX = 1_000
PATTERN_MAX = 1_024
KIND = "leak"
# As LeakSanitizer calls what is in no file.
_UNKNOWN_MODULE = "<unknown module>"
_TEXTS_REMEMBERED = 10_000
_SHOWN_OF_LINE = 60
# Functions that nearly every program has, or every script: a pattern for one hides them all.
_COMMON_NAMES = frozenset(
    {"main", "main.main", "<module>", "<lambda>", "<anonymous>", "(anonymous)", "_start"}
)
# Of a longer name, its beginning is suggested.
_SUGGESTED_MAX = 500
# With a wildcard, a pattern that says less than this fits too many names.
_LEAST_SAID = 4


class SuppressionError(ValueError):
    """A file of suppressions that cannot be read: ``FILE:LINE: what is wrong``."""


class Suppression(NamedTuple):
    """A pattern, and the line it is on; the first line is 1."""

    pattern: str
    line: int


def parse(text: str, name: str) -> tuple[Suppression, ...]:
    """
    The suppressions of a file called `name`, in its order.

    `text` is UTF-8 decoded with surrogateescape. Raises SuppressionError at the first wrong line,
    and if there are more than SIZE_MAX characters or SUPPRESSIONS_MAX suppressions.
    """
    if len(text) > SIZE_MAX:
        raise SuppressionError(f"{name}: longer than {SIZE_MAX:,} characters")
    found: list[Suppression] = []
    # not splitlines: a form feed ends no line
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip(" \t\r")
        if line and not line.startswith("#"):
            if len(found) == SUPPRESSIONS_MAX:
                raise SuppressionError(f"{name}:{number}: more than {SUPPRESSIONS_MAX:,} of them")
            found.append(Suppression(_pattern(line, f"{name}:{number}"), number))
    return tuple(found)


def _pattern(line: str, where: str) -> str:
    kind, _, pattern = line.partition(":")
    if kind != KIND or ":" not in line:
        shown = line[:_SHOWN_OF_LINE]
        raise SuppressionError(f"{where}: {shown!r} is not of the form {KIND}:PATTERN")
    text, _, beyond = pattern[pattern.startswith("^") :].partition("$")
    if beyond:
        raise SuppressionError(f"{where}: $ is where a name ends; for one within a name, write *")
    if not text:
        raise SuppressionError(f"{where}: the pattern after '{KIND}:' is empty")
    if len(pattern) > PATTERN_MAX:
        raise SuppressionError(f"{where}: the pattern is longer than {PATTERN_MAX:,} characters")
    return pattern


class Suppressions:
    """Finds the suppression of a site; the first in the file wins."""

    def __init__(self, suppressions: Sequence[Suppression]) -> None:
        self._suppressions = tuple(suppressions)
        self._parts = [_parts(one.pattern) for one in self._suppressions]
        # sites share most of their frames
        self._first_of = lru_cache(_TEXTS_REMEMBERED)(self._find_first_of)

    def match(self, stack: Stack, paths: Sequence[bytes | None]) -> Suppression | None:
        """
        What suppresses the site of this stack, whose listed live watches are on these paths.

        Any frame suffices, by its function, its module's path or its source file. A pattern for
        paths has to match them all: of a site that leaks into several folders one may be known,
        and it must not hide the others. A path that is not known matches nothing.
        """
        found = [self._first_of(text) for text in set(_names(stack))]
        found.append(self._first_of_all(paths))
        first = min((at for at in found if at is not None), default=None)
        return None if first is None else self._suppressions[first]

    def _find_first_of(self, text: str) -> int | None:
        return next((at for at, parts in enumerate(self._parts) if _matches(parts, text)), None)

    def _first_of_all(self, paths: Sequence[bytes | None]) -> int | None:
        known = {decoded(path) for path in paths if path}
        if not known or not all(paths):
            return None
        for at, parts in enumerate(self._parts):
            if all(_matches(parts, path) for path in known):
                return at
        return None


def _names(stack: Stack) -> Iterator[str]:
    for frame in stack.frames:
        yield from filter(None, (frame.function, _module(frame), frame.file))


def _module(frame: Frame) -> str:
    return _UNKNOWN_MODULE if frame.module is None else decoded(frame.module)


def decoded(raw: bytes) -> str:
    """Bytes of a path, as they are compared with a pattern."""
    return raw.decode("utf-8", "surrogateescape")


def _parts(pattern: str) -> tuple[str, ...]:
    """What a name is made of, with anything between: the first begins it, and the last ends it."""
    starts = pattern.startswith("^")
    body, ends, _ = pattern[starts:].partition("$")
    anchored = ("" if starts else "*") + body + ("" if ends else "*")
    return tuple(anchored.split("*"))


def _matches(parts: tuple[str, ...], text: str) -> bool:
    """In one pass: what fits leftmost leaves the most for the parts after it."""
    head, tail = parts[0], parts[-1]
    if len(parts) == 1:
        return text == head
    at, end = len(head), len(text) - len(tail)
    if at > end or not (text.startswith(head) and text.endswith(tail)):
        return False
    for part in parts[1:-1]:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def suggestion(stack: Stack, paths: Sequence[bytes | None]) -> str | None:
    """
    The line of a file that suppresses this site, and as few others as the format allows.

    It is for the program's function that added the watches; where that has no name, or one that
    many programs have, for its module, or for the source file if it is in none; and without a
    frame of the program for the folder of the paths. None if nothing tells the site from others.
    The line holds what can be printed, and no more: it needs no escapes.

    The format has no escapes, no offsets, and no way to ask for two things at once. So `*` stands
    for itself, for a `$` and for what cannot be printed, such as bytes that are not UTF-8; and
    the sites of one function are not told apart, nor those of a module that has no names.
    """
    for text, is_whole in _candidates(stack, paths):
        pattern = _exact(text, is_whole)
        if pattern is not None:
            return f"{KIND}:{pattern}"
    return None


def _candidates(stack: Stack, paths: Sequence[bytes | None]) -> Iterator[tuple[str, bool]]:
    """What may tell a site from others, best first, and whether it is a whole name."""
    first = own_frames(stack)[:1]
    if first and not is_runtime(first[0]):
        for name in _names_of_its_own(first[0]):
            yield name, True
    known = {decoded(path) for path in paths if path}
    if len(known) == 1 and all(paths):
        yield known.pop(), True
    elif known and all(paths):
        yield os.path.commonprefix(list(known)).rpartition("/")[0] + "/", False


def _names_of_its_own(frame: Frame) -> Iterator[str]:
    if frame.function and frame.function not in _COMMON_NAMES:
        yield frame.function
    if frame.module and not is_made_at_run_time(frame.module):
        yield decoded(frame.module)
    if frame.file:
        yield frame.file


def _exact(text: str, is_whole: bool) -> str | None:
    """A pattern for this text, None if it would be for too many others as well."""
    cut = text[:_SUGGESTED_MAX]
    end = "$" if is_whole and cut == text else "*"
    said = "".join(one if one.isprintable() and one not in "*$" else "*" for one in cut)
    pattern = re.sub(r"\*+", "*", f"^{said}{end}")
    literal = len(pattern.strip("^$").replace("*", ""))
    return None if "*" in pattern and literal < _LEAST_SAID else pattern
