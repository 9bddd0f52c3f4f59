"""
Frames of Go programs from their pclntab, which is there even when they are stripped.

Go's runtime itself unwinds with this table, so it is exact at each instruction. For the stack see
`resolveInternal` in go/src/runtime/traceback.go, for inlined calls go/src/runtime/symtabinl.go.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from tracer.stacks.elf import EM_X86_64, ElfError, ElfFile
from tracer.stacks.go_functions import Function, Functions
from tracer.stacks.go_moduledata import find_module

# abi.FuncFlagTopFrame and FuncFlagSPWrite (go/src/internal/abi/symtab.go), from Go 1.17 on
_TOP_FRAME, _SP_WRITE = 1, 2
_OUTERMOST = frozenset({"runtime.goexit", "runtime.mstart", "runtime.rt0_go"})
# Leave the goroutine's stack for the thread's and keep the frame pointer (asm_amd64.s).
_SWITCHES = frozenset({"runtime.asmcgocall", "runtime.systemstack"})
# Writes sp, but is laid out so that it can be unwound all the time (traceback.go).
_CALLBACK = "runtime.cgocallback"
# abi.PCDATA_InlTreeIndex and FUNCDATA_InlTree, from Go 1.16 on
_INLINED_INDEX, _INLINED_TREE = 2, 3
# FUNCDATA_InlTree of Go 1.12 to 1.15; earlier records seem to have no data at all
_INLINED_TREE_112 = 4
_INLINED_DEPTH_MAX = 128
_NO_DATA = 0xFFFFFFFF
# runtime.call1073741824 has one of a gigabyte; more does not fit 32 bits with a sign
_FRAME_BYTES_MAX = 0x7FFF0000
_POINTER = struct.Struct("<Q")
_WORD_BYTES = 8


class GoFrame(NamedTuple):
    """A function as Go's runtime names it, and the line that it was at where that is certain."""

    function: str
    file: str | None
    line: int | None


class GoTable:
    """
    The pclntab of one program. Raises ElfError if the file has none that makes sense.

    All addresses are those of the file, before it is relocated; for a caller's frame take the
    return address - 1. Nothing else is raised: what is broken is not known. Go 1.12 and later are
    read; before 1.16 lines are known only for functions without inlined calls. Before 1.18 the
    table has addresses, so a PIE whose linker left those to relocations is not covered.
    """

    def __init__(self, elf: ElfFile) -> None:
        module = find_module(elf)
        self._elf = elf
        self._table = module.table
        self._layout = module.header.layout
        self._trees = module.inlined
        self._functions = Functions(module)
        self._is_x86 = elf.machine == EM_X86_64

    def covers(self, address: int) -> bool:
        """Whether there is an instruction of a Go function; C's, padding and gaps are not."""
        return self._sp_delta(address) is not None

    def cfa_offset(self, address: int) -> int | None:
        """
        Bytes from sp to the CFA, the caller's sp after the call; None if not known.

        It is not known either where sp is of another stack: see `frame_pointer_to_cfa`.
        """
        delta = self._sp_delta(address)
        if delta is None or self._writes_sp(address):
            return None
        return delta + _WORD_BYTES if self._is_x86 else delta

    def return_address_offset(self, address: int) -> int | None:
        """
        Bytes from the CFA to the return address; None if that is in a register, or not known.

        On x86-64 the call pushed it. On aarch64 a frame has it in its lowest word, and what has no
        frame leaves it in x30 (cmd/internal/obj/arm64/obj7.go); that is not tested.
        """
        delta = self._sp_delta(address)
        if self._is_x86:
            return None if delta is None else -_WORD_BYTES
        return -delta if delta else None

    def frame_pointer_offset(self, address: int) -> int | None:
        """
        Bytes from the CFA to where the caller's rbp or x29 is; None if that is still in it.

        On x86-64 what has a frame has it below the return address (cmd/internal/obj/x86/obj6.go).
        In 93,000 functions of eight programs all did but rt0_go and mcall, which have no caller on
        their stack. On aarch64 it is below the frame, in what is the next one's highest word.
        """
        if self.frame_pointer_to_cfa(address):
            return -2 * _WORD_BYTES
        delta = self._sp_delta(address)
        if not delta:
            return None
        return -2 * _WORD_BYTES if self._is_x86 else -delta - _WORD_BYTES

    def frame_pointer_to_cfa(self, address: int) -> int | None:
        """
        Bytes from rbp to the CFA where the function has left the stack that it was called on.

        So C is called, and rbp alone leads back to the goroutine. Before Go 1.21 such functions
        have no frame, and it leads to the CFA of their caller, whose frame is then passed over.
        """
        function = self._function(address)
        if function is None or not self._is_x86 or not self.covers(address):
            return None
        return 2 * _WORD_BYTES if self._name(function) in _SWITCHES else None

    def is_outermost(self, address: int) -> bool:
        """Whether the stack ends with this function: it was not called."""
        function = self._function(address)
        if function is None or not self.covers(address):
            return False
        return bool(function.flags & _TOP_FRAME) or self._name(function) in _OUTERMOST

    def start(self, address: int) -> int | None:
        """The first address of the function there, into which others may be inlined."""
        function = self._function(address)
        return function.start if function is not None else None

    def frames(self, address: int) -> tuple[GoFrame, ...]:
        """
        The function there after those inlined into it, the innermost first; none if not covered.

        If the inlined calls cannot be read, the line would be that of another function: then there
        is the function alone.
        """
        function = self._function(address)
        if function is None or not self.covers(address):
            return ()
        try:
            return tuple(self._expanded(function, address - function.start))
        except ElfError:
            name = self._name(function)
            return (GoFrame(name, None, None),) if name else ()

    def _function(self, address: int) -> Function | None:
        try:
            return self._functions.find(address)
        except ElfError:
            return None

    def _name(self, function: Function) -> str | None:
        try:
            return self._functions.name(function.name)
        except ElfError:
            return None

    def _value(self, table: int, at: int) -> int | None:
        values = self._functions.values(table)
        return None if values is None else values.at(at)

    def _sp_delta(self, address: int) -> int | None:
        """Bytes that the function has taken from the stack; C has no such table."""
        function = self._function(address)
        if function is None:
            return None
        try:
            delta = self._value(function.sp, address - function.start)
        except ElfError:
            return None
        return delta if delta is not None and 0 <= delta <= _FRAME_BYTES_MAX else None

    def _writes_sp(self, address: int) -> bool:
        function = self._function(address)
        if function is None:
            return False
        name = self._name(function)
        if name in _SWITCHES:
            return True
        return bool(function.flags & _SP_WRITE) and name != _CALLBACK

    def _expanded(self, function: Function, at: int) -> Iterator[GoFrame]:
        """The place of a call is that in the function which was inlined around it."""
        for name, parent in self._inlined(function, at):
            yield GoFrame(name, *self._place(function, at))
            at = parent
        yield GoFrame(self._functions.name(function.name), *self._place(function, at))

    def _inlined(self, function: Function, at: int) -> Iterator[tuple[str, int]]:
        """Names of inlined functions, and where their calls are; raises ElfError if broken."""
        layout = self._layout.inlined
        tree = self._tree(function)
        if layout is None or not tree:
            return
        indices = self._table.number(function.data_at + 4 * _INLINED_INDEX)
        for _ in range(_INLINED_DEPTH_MAX):
            index = self._value(indices, at)
            if index is None or index < 0:
                return
            name, at = layout.unpack(self._read(tree + index * layout.size, layout.size))
            if not at < function.end - function.start:
                raise ElfError("an inlined call outside of its function")
            yield self._functions.name(name), at
        raise ElfError("inlined calls without an end")

    def _tree(self, function: Function) -> int:
        """The address of the function's inlined calls, 0 if it has none."""
        if function.value_tables <= _INLINED_INDEX or function.data_tables <= _INLINED_TREE:
            return 0
        data_at = function.data_at + 4 * function.value_tables
        if self._layout.is_relative:
            offset = self._table.number(data_at + 4 * _INLINED_TREE)
            return 0 if offset == _NO_DATA else self._trees + offset
        # pointers until Go 1.17, aligned as such
        data_at += -(self._table.address + data_at) % _POINTER.size
        pointer = self._table.read(data_at + _POINTER.size * _INLINED_TREE, _POINTER.size)
        return int(_POINTER.unpack(pointer)[0])

    def _read(self, address: int, size: int) -> bytes:
        offset = self._elf.offset_of(address)
        if offset is None:
            raise ElfError(f"{address:#x} is not in the file")
        return self._elf.read(offset, size)

    def _place(self, function: Function, at: int) -> tuple[str | None, int | None]:
        line = self._value(function.line, at)
        file = self._value(function.file, at)
        if line is None or line <= 0 or file is None or file < self._first_file:
            return None, None
        if self._layout.inlined is None and not 0 < function.data_tables <= _INLINED_TREE_112:
            return None, None
        path = self._functions.file(function, file)
        return (None, None) if path is None else (path, line)

    @property
    def _first_file(self) -> int:
        """The list of Go 1.2 begins with its length."""
        return 1 if self._layout.inlined is None else 0
