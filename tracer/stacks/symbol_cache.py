"""Symbols of all files, as far as there is memory for them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Callable

from tracer.stacks.symbol_table import SymbolTable

# Of all together. Most files take less than one, node 18, the largest that is read 96.
_BYTES_MAX = 192 << 20
# What an entry takes beside its symbols, with the module that it is of.
_ENTRY_BYTES = 1 << 14


class SymbolCache:
    """Tables by whom they belong to; the least recently used make room. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables: OrderedDict[object, SymbolTable] = OrderedDict()
        self._bytes = 0

    def get(self, owner: object, read: Callable[[], tuple[SymbolTable, bool]]) -> SymbolTable:
        """
        The table of `owner`, from `read` if it is not there.

        `read` tells as well whether the table is worth keeping, being all that there is.
        """
        with self._lock:
            table = self._tables.get(owner)
            if table is not None:
                self._tables.move_to_end(owner)
                return table
            table, is_whole = read()
            if is_whole:
                self._tables[owner] = table
                self._bytes += _ENTRY_BYTES + table.memory
            while self._bytes > _BYTES_MAX:
                self._bytes -= _ENTRY_BYTES + self._tables.popitem(last=False)[1].memory
            return table
