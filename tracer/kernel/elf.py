"""
Function symbols of one ELF file, read by BCC's library, separate debug files included.

BCC's own cache of a process's symbols is not used: made for a process that has just ended, it
later closes a descriptor it never opened, which can be any of ours.
"""

from __future__ import annotations

import ctypes
from array import array
from bisect import bisect_right
from functools import cache, lru_cache
from typing import Any

_SYMBOL_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p
)
_SEGMENT_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p
)
# elf.h: STT_FUNC and STT_GNU_IFUNC, as the mask that bcc_symbol_option takes
_FUNCTIONS = 1 << 2 | 1 << 10
# a file with more is cut, so that none can swell inotrace
_SYMBOLS_MAX = 1_000_000
_STOP = -1


class SymbolTable:
    """
    The functions of the file at `path`, sorted; empty if it is no ELF file or has no symbols.

    Reading takes about 1 us a symbol.
    """

    def __init__(self, path: bytes) -> None:
        self._segments = _executable_segments(path)
        starts, sizes, names = _functions(path) if self._segments else ([], [], [])
        order = sorted(range(len(starts)), key=lambda i: (starts[i], sizes[i]))
        self._starts = array("Q", (starts[i] for i in order))
        self._sizes = array("Q", (sizes[i] for i in order))
        self._names = [names[i] for i in order]

    def find(self, file_offset: int) -> tuple[str, int] | None:
        """The function at this offset of the file and the bytes since its start, or None."""
        address = self._address(file_offset)
        if address is None:
            return None
        at = bisect_right(self._starts, address) - 1
        # aliases and empty symbols may lie between the function and the address
        while at >= 0:
            offset = address - self._starts[at]
            if offset < self._sizes[at]:
                return demangled(self._names[at]), offset
            if self._sizes[at]:
                return None
            at -= 1
        return None

    def _address(self, file_offset: int) -> int | None:
        for address, size, offset in self._segments:
            if offset <= file_offset < offset + size:
                return file_offset - offset + address
        return None


def _executable_segments(path: bytes) -> list[tuple[int, int, int]]:
    """(address, size, file offset) of the segments that hold code."""
    segments: list[tuple[int, int, int]] = []

    def on_segment(address: int, size: int, offset: int, _: object) -> int:
        segments.append((address, size, offset))
        return 0

    _libbcc().bcc_elf_foreach_load_section(path, _SEGMENT_CALLBACK(on_segment), None)
    return segments


def _functions(path: bytes) -> tuple[list[int], list[int], list[bytes]]:
    from bcc.libbcc import bcc_symbol_option

    starts: list[int] = []
    sizes: list[int] = []
    names: list[bytes] = []

    def on_symbol(name: bytes, start: int, size: int, _: object) -> int:
        starts.append(start)
        sizes.append(size)
        names.append(name)
        return 0 if len(names) < _SYMBOLS_MAX else _STOP

    option = bcc_symbol_option(1, 0, 0, _FUNCTIONS)
    _libbcc().bcc_elf_foreach_sym(path, _SYMBOL_CALLBACK(on_symbol), ctypes.byref(option), None)
    return starts, sizes, names


@lru_cache(maxsize=4096)
def demangled(name: bytes) -> str:
    """The name as written in the source, where C++ or Rust mangled it."""
    text = name.decode(errors="replace")
    if not name.startswith((b"_Z", b"__Z")):
        return text
    status = ctypes.c_int()
    plain = _cxa_demangle()(name, None, None, ctypes.byref(status))
    if not plain:
        return text
    try:
        return ctypes.string_at(plain).decode(errors="replace")
    finally:
        _libc().free(ctypes.c_void_p(plain))


@cache
def _libbcc() -> Any:
    from bcc import lib

    lib.bcc_elf_foreach_sym.argtypes = [
        ctypes.c_char_p,
        _SYMBOL_CALLBACK,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    lib.bcc_elf_foreach_load_section.argtypes = [
        ctypes.c_char_p,
        _SEGMENT_CALLBACK,
        ctypes.c_void_p,
    ]
    return lib


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


@cache
def _cxa_demangle() -> Any:
    # libbcc is linked against it, so it is there
    demangle = ctypes.CDLL("libstdc++.so.6").__cxa_demangle
    demangle.restype = ctypes.c_void_p
    demangle.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    return demangle
