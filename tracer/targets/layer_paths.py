"""The paths in the options of an overlay, and what they pass."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tracer.kernel.procfs import unescaped

_LAYER = re.compile(rb"((?:[^:\\]|\\.)+)", re.DOTALL)
_PROTECTED = re.compile(rb"\\(.)", re.DOTALL)


def layers_in(options: bytes) -> list[bytes]:
    """The layers as who mounted it wrote them, from the last field of its line in mountinfo."""
    layers: list[bytes] = []
    for name, value in options_in(options):
        if name == b"lowerdir":
            layers += lower_layers(value)
        elif name in (b"lowerdir+", b"datadir+", b"upperdir", b"workdir"):
            layers.append(value)
    return layers


def options_in(options: bytes) -> Iterator[tuple[bytes, bytes]]:
    """
    The names and values in the last field of a line in mountinfo.

    That they are split before escapes are undone, leaves commas in paths as they are.
    """
    for option in options.split(b","):
        name, _, value = option.partition(b"=")
        yield name, unescaped(value)


def lower_layers(value: bytes) -> list[bytes]:
    """Those that one lowerdir names; two colons are before what is only data."""
    return list(map(unprotected, _LAYER.findall(value)))


def unprotected(path: bytes) -> bytes:
    """Without the backslashes that are before what separates nothing."""
    return _PROTECTED.sub(rb"\1", path)


def prefixes(path: bytes) -> Iterator[bytes]:
    """The folders that a path without links and dots goes over, the root first, and itself."""
    yield b"/"
    end = path.find(b"/", 1)
    while end > 0:
        yield path[:end]
        end = path.find(b"/", end + 1)
    if path != b"/":
        yield path
