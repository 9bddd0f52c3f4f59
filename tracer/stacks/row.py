"""How to leave a frame, in the few words that the walk in the kernel understands."""

from __future__ import annotations

import enum
from typing import NamedTuple

from tracer.core.wire import UNWIND_ROW

_OFFSET_MAX = (1 << 31) - 1


class From(enum.IntEnum):
    """What an offset is measured from, as in bpf/wire.h."""

    NOTHING = 0
    SP = 1
    FP = 2
    CFA = 3
    LINK = 4
    REGISTERS = 5
    UNKNOWN = 6


class Flag(enum.IntFlag):
    """As in bpf/wire.h."""

    NONE = 0
    CFA_IN_MEMORY = 1
    SIGNAL = 2
    GUESSED = 4
    OTHER_STACK = 8


class Row(NamedTuple):
    """
    Where the canonical frame address (CFA), the return address and the caller's frame pointer are.

    Offsets are bytes. A CFA from NOTHING: the frame has no caller; from REGISTERS: it takes more
    than a row can say; from UNKNOWN: nothing tells. A frame pointer from NOTHING: it is still in
    its register.
    """

    cfa_from: From
    cfa_offset: int = 0
    ra_from: From = From.NOTHING
    ra_offset: int = 0
    fp_from: From = From.NOTHING
    fp_offset: int = 0
    flags: Flag = Flag.NONE

    def packed(self) -> bytes:
        """A struct unwind_row of bpf/wire.h."""
        return UNWIND_ROW.pack(
            self.cfa_offset,
            self.ra_offset,
            self.fp_offset,
            self.cfa_from,
            self.ra_from,
            self.fp_from,
            self.flags,
        )


OUTERMOST = Row(From.NOTHING)
NEEDS_REGISTERS = Row(From.REGISTERS)
UNKNOWN = Row(From.UNKNOWN)


def fits(*offsets: int) -> bool:
    """Whether a row has room for them."""
    return all(-_OFFSET_MAX <= offset <= _OFFSET_MAX for offset in offsets)
