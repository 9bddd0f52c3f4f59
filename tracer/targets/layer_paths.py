"""The paths in the options of an overlay, and what they pass."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tracer.kernel.procfs import unescaped

_LAYER = re.compile(rb"((?:[^:\\]|\\.)+)", re.DOTALL)
_PROTECTED = re.compile(rb"\\(.)", re.DOTALL)


def layers_in(options: bytes) -> list[bytes]:
    """
    The layers as who mounted it wrote them, from the last field of its line in mountinfo.

    That names of options are split before escapes are undone, leaves commas in paths as they are.
    """
    layers: list[bytes] = []
    for option in options.split(b","):
        name, _, value = option.partition(b"=")
        if name == b"lowerdir":
            # a backslash is before a colon that separates nothing; two are before what is only data
            paths = _LAYER.findall(unescaped(value))
            layers += (_PROTECTED.sub(rb"\1", path) for path in paths)
        elif name in (b"lowerdir+", b"datadir+", b"upperdir", b"workdir"):
            layers.append(unescaped(value))
    return layers


def prefixes(path: bytes) -> Iterator[bytes]:
    """The folders that a path without links and dots goes over, the root first, and itself."""
    yield b"/"
    end = path.find(b"/", 1)
    while end > 0:
        yield path[:end]
        end = path.find(b"/", end + 1)
    if path != b"/":
        yield path
