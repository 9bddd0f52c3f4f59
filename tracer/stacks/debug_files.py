"""
Debug files that distributions install apart from the programs, found by build-id.

Where they are is in GDB's manual, "Debugging Information in Separate Files". The other way to name
them, .gnu_debuglink, tells only a file name and is not used: the build-id tells that it fits.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from tracer.stacks.elf import ElfError, ElfFile, FileContent

ROOTS = (Path("/usr/lib/debug"),)
# The build-id is a stranger's; 20 bytes from GNU ld, 8 from lld, 64 at most as in elf.py.
_BUILD_ID = re.compile(r"(?:[0-9a-f]{2}){2,64}")


def debug_file(build_id: str, roots: Iterable[Path] = ROOTS) -> Path | None:
    """Where the debug file of a build is, given as hexadecimal digits; None if it is nowhere."""
    for path in _places(build_id, roots):
        descriptor = _opened(path, build_id)
        if descriptor is not None:
            os.close(descriptor)
            return path
    return None


def open_debug_file(build_id: str, roots: Iterable[Path] = ROOTS) -> int | None:
    """The same, as a descriptor that the caller has to close."""
    for path in _places(build_id, roots):
        descriptor = _opened(path, build_id)
        if descriptor is not None:
            return descriptor
    return None


def _places(build_id: str, roots: Iterable[Path]) -> list[Path]:
    if not _BUILD_ID.fullmatch(build_id):
        return []
    return [root / ".build-id" / build_id[:2] / f"{build_id[2:]}.debug" for root in roots]


def _opened(path: Path, build_id: str) -> int | None:
    """A descriptor of it, if it is a regular file that carries this build-id itself."""
    try:
        # what is no file must not block
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    if _is_of_build(descriptor, build_id):
        return descriptor
    os.close(descriptor)
    return None


def _is_of_build(descriptor: int, build_id: str) -> bool:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return False
    try:
        return ElfFile(FileContent(descriptor)).build_id == build_id
    except ElfError:
        return False
