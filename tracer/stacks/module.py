"""One file that programs run: how its frames are left, and what its functions are called."""

from __future__ import annotations

from contextlib import suppress
from io import FileIO
from typing import Callable, NamedTuple, Protocol, TypeVar

from tracer.stacks.cfi import rules_at
from tracer.stacks.debug_files import open_debug_file
from tracer.stacks.elf import Content, ElfError, ElfFile, FileContent
from tracer.stacks.frame_entry import FrameTable
from tracer.stacks.gopclntab import GoTable
from tracer.stacks.registers import OWN
from tracer.stacks.row import OUTERMOST, UNKNOWN, Flag, From, Row
from tracer.stacks.symbol_cache import SymbolCache
from tracer.stacks.symbol_table import SymbolTable
from tracer.stacks.unwinder import TableRules

_ENTRY_BYTES = 64
# Where stacks begin in code without unwind tables: the loader's, and musl's processes and threads.
_STARTS = frozenset({b"_start", b"_start_c", b"_dlstart", b"__clone", b"clone"})

_Table = TypeVar("_Table")


class Place(NamedTuple):
    """A name for an address; `offset` is bytes from the start of the function, where known."""

    function: str
    file: str | None = None
    line: int | None = None
    offset: int = 0


class Source(Content, Protocol):
    """Where the content of a module comes from."""

    @property
    def is_within_reach(self) -> bool:
        """Whether what was read just now is what there is."""


class Module:
    """
    A file, or the vDSO. What is no ELF file of this processor has neither frames nor names.

    Addresses are link-time ones. Tables are read when they are first needed, in small parts.
    """

    def __init__(
        self, source: Source, demangler: Callable[[bytes], str], symbols: SymbolCache
    ) -> None:
        self._source = source
        self._demangler = demangler
        self._symbol_cache = symbols
        self._elf: ElfFile | None = None
        self._go: GoTable | None = None
        self._looked_for_go = False
        with suppress(ElfError):
            elf = ElfFile(source)
            # now, since the file may be out of reach later
            _ = elf.build_id, elf.sections
            if elf.machine == OWN.elf_machine:
                self._elf = elf
        self._frames = self._table_of(FrameTable)

    @property
    def build_id(self) -> str | None:
        return self._elf.build_id if self._elf is not None else None

    def address_of(self, file_offset: int) -> int | None:
        """Where the byte at an offset of the file is linked to be."""
        return self._elf.address_of(file_offset) if self._elf is not None else None

    # frames

    def leaving(self, address: int) -> TableRules | Row | None:
        """How to leave the frame of the code at an address; None if no table tells."""
        row = self._go_row(address)
        if row is not None:
            return row
        with suppress(ElfError):
            fde = self._frames.find(address) if self._frames is not None else None
            if fde is not None:
                return TableRules(rules_at(fde, address), address)
        return OUTERMOST if self._is_start(address) else None

    def _go_row(self, address: int) -> Row | None:
        go = self._go_table()
        if go is None or not go.covers(address):
            return None
        if go.is_outermost(address):
            return OUTERMOST
        ra, fp = go.return_address_offset(address), go.frame_pointer_offset(address)
        beyond = go.frame_pointer_to_cfa(address)
        if beyond is not None:
            # on the stack of Go's scheduler, to call C; its caller is on the goroutine's
            return Row(From.FP, beyond, From.CFA, ra or 0, From.CFA, -beyond, Flag.OTHER_STACK)
        cfa = go.cfa_offset(address)
        if cfa is None:
            return UNKNOWN
        ra_from = From.LINK if ra is None else From.CFA
        fp_from = From.NOTHING if fp is None else From.CFA
        return Row(From.SP, cfa, ra_from, ra or 0, fp_from, fp or 0)

    def _is_start(self, address: int) -> bool:
        function = self.function_at(address)
        if function is not None:
            return function[0] in _STARTS
        # of a stripped program; what is there calls the C library and does not return
        entry = self._elf.entry if self._elf is not None else 0
        return bool(entry) and entry <= address < entry + _ENTRY_BYTES

    # names

    def places(self, address: int) -> tuple[Place, ...]:
        """
        The function at an address, after those that were inlined into it there.

        Nothing if no name is certain.
        """
        go = self._go_table()
        if go is not None and go.covers(address):
            offset = address - (go.start(address) or address)
            return tuple(Place(*frame, offset) for frame in go.frames(address))
        found = self.function_at(address)
        if found is None:
            return ()
        name, start = found
        return (Place(self._demangler(name), offset=address - start),)

    def begins_function(self, address: int) -> bool:
        """Whether a function is known to begin exactly there."""
        with suppress(ElfError):
            fde = self._frames.find(address) if self._frames is not None else None
            if fde is not None:
                return fde.start == address
        return self._symbols.begins_at(address) is not None

    def function_at(self, address: int) -> tuple[bytes, int] | None:
        """The name in the symbol table of the function at an address, and where it begins."""
        symbol = self._symbols.find(address)
        if symbol is not None:
            return symbol.name, symbol.start
        # a symbol without a size is certain if the unwind table tells where the function ends
        with suppress(ElfError):
            fde = self._frames.find(address) if self._frames is not None else None
            name = self._symbols.begins_at(fde.start) if fde is not None else None
            if fde is not None and name is not None:
                return name, fde.start
        return None

    def _table_of(self, kind: Callable[[ElfFile], _Table]) -> _Table | None:
        if self._elf is None:
            return None
        try:
            return kind(self._elf)
        except ElfError:
            return None

    def _go_table(self) -> GoTable | None:
        if not self._looked_for_go:
            self._go = self._table_of(GoTable)
            # a file out of reach only seems to have none
            self._looked_for_go = self._source.is_within_reach
        return self._go

    @property
    def _symbols(self) -> SymbolTable:
        return self._symbol_cache.get(self, self._read_symbols)

    def _read_symbols(self) -> tuple[SymbolTable, bool]:
        table = _symbols_of(self._elf)
        return table, self._source.is_within_reach


def _symbols_of(elf: ElfFile | None) -> SymbolTable:
    """The file's own, and those of its separate debug file."""
    if elf is None:
        return SymbolTable()
    descriptor = open_debug_file(elf.build_id) if elf.build_id is not None else None
    if descriptor is None:
        return SymbolTable(elf)
    with FileIO(descriptor), suppress(ElfError):
        return SymbolTable(elf, ElfFile(FileContent(descriptor)))
    return SymbolTable(elf)
