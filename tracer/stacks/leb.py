"""Numbers as DWARF and .eh_frame write them: DWARF 5, 7.6."""

from __future__ import annotations

from tracer.stacks.elf import ElfError

# A number of 64 bits takes ten bytes; assemblers may pad it.
_LEB_BYTES_MAX = 16


class Cursor:
    """
    Reads on from `at` in `content`, up to `end`.

    Every method raises ElfError if what it is to read goes beyond.
    """

    def __init__(self, content: bytes, at: int = 0, end: int | None = None) -> None:
        self._content = content
        self.at = at
        self.end = len(content) if end is None else min(end, len(content))

    @property
    def at_end(self) -> bool:
        return self.at >= self.end

    def take(self, size: int) -> bytes:
        if size < 0 or self.at + size > self.end:
            raise ElfError("it ends within a number or block")
        begin = self.at
        self.at += size
        return self._content[begin : self.at]

    def byte(self) -> int:
        if self.at >= self.end:
            raise ElfError("it ends within a number or block")
        self.at += 1
        return self._content[self.at - 1]

    def integer(self, size: int, is_signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=is_signed)

    def uleb(self) -> int:
        return self._leb()[0]

    def sleb(self) -> int:
        value, bits, last = self._leb()
        return value - (1 << bits) if last & 0x40 else value

    def block(self) -> bytes:
        """A length, and so many bytes."""
        return self.take(self.uleb())

    def string(self) -> bytes:
        """Up to a NUL, which is passed over."""
        end = self._content.find(b"\0", self.at, self.end)
        if end < 0:
            raise ElfError("a string without end")
        found = self._content[self.at : end]
        self.at = end + 1
        return found

    def _leb(self) -> tuple[int, int, int]:
        value = bits = 0
        for _ in range(_LEB_BYTES_MAX):
            byte = self.byte()
            value |= (byte & 0x7F) << bits
            bits += 7
            if byte < 0x80:
                return value, bits, byte
        raise ElfError("a number without end")
