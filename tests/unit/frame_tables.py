"""Unwind tables in miniature, as assemblers and linkers write them, and programs with real ones."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tracer.stacks.elf import EM_X86_64, PT_GNU_EH_FRAME, PT_LOAD, BytesContent, ElfFile

SECTION = struct.Struct("<IIQQQQIIQQ")
SEGMENT = struct.Struct("<IIQQQQQQ")
HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
IDENTITY = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
# the file is loaded as a whole, here; .eh_frame_hdr, then .eh_frame, then the code
BASE, INDEX, ENTRIES = 0x400000, 0x1000, 0x8000
ENTRIES_AT = BASE + ENTRIES
TEXT = 0x800000

# how the prologue of every function of x86-64 begins: CFA is rsp+8, the return address is there
X86_START = b"\x0c\x07\x08" + b"\x90\x01"
PC_RELATIVE, ABSOLUTE = 0x1B, 0x00


def uleb(number: int) -> bytes:
    low = number & 0x7F
    return bytes([low]) if number < 0x80 else bytes([low | 0x80]) + uleb(number >> 7)


def sleb(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    is_last = rest == (-1 if low & 0x40 else 0)
    return bytes([low]) if is_last else bytes([low | 0x80]) + sleb(rest)


def block(content: bytes) -> bytes:
    return uleb(len(content)) + content


def cie(
    instructions: bytes = X86_START,
    *,
    version: int = 1,
    augmentation: bytes = b"zR",
    extra: bytes = bytes([PC_RELATIVE]),
    code_alignment: int = 1,
    data_alignment: int = -8,
    return_column: int = 16,
) -> bytes:
    """A CIE; `extra` is what its augmentation string says that there is."""
    body = struct.pack("<IB", 0, version) + augmentation + b"\0"
    body += b"\x08\x00" if version == 4 else b""
    body += uleb(code_alignment) + sleb(data_alignment) + uleb(return_column)
    body += block(extra) if augmentation.startswith(b"z") else b""
    return _entry(body + instructions)


def fde(
    instructions: bytes, start: int, size: int, *, at: int, cie_at: int, extra: bytes = b"\0"
) -> bytes:
    """An FDE with a CIE of encoding PC_RELATIVE; `at` and `cie_at` are offsets in .eh_frame."""
    own = ENTRIES_AT + at
    body = struct.pack("<Iii", at + 4 - cie_at & 0xFFFFFFFF, start - own - 8, size)
    return _entry(body + extra + instructions)


def _entry(body: bytes) -> bytes:
    body += bytes(-(len(body) + 4) % 8)
    return struct.pack("<I", len(body)) + body


def entries(
    *functions: tuple[int, int, bytes], common: bytes | None = None
) -> tuple[bytes, list[tuple[int, int]]]:
    """An .eh_frame of (start, size, instructions), and what its index has to say: (start, at)."""
    content = cie() if common is None else common
    index = []
    for start, size, instructions in functions:
        index.append((start, len(content)))
        content += fde(instructions, start, size, at=len(content), cie_at=0)
    return content, index


def frame_index(pairs: list[tuple[int, int]], count: int | None = None) -> bytes:
    """An .eh_frame_hdr, as linkers write it."""
    at = BASE + INDEX
    head = struct.pack("<4B", 1, PC_RELATIVE, 0x03, 0x3B) + struct.pack("<i", ENTRIES - INDEX - 4)
    head += struct.pack("<I", len(pairs) if count is None else count)
    return head + b"".join(
        struct.pack("<ii", start - at, ENTRIES_AT + entry - at) for start, entry in sorted(pairs)
    )


def program(
    frames: bytes, index: bytes | None = None, *, machine: int = EM_X86_64, room: int = 0
) -> bytes:
    """An ELF file with these sections; without an index if that is None. `room` bytes follow."""
    names = b"\0.eh_frame\0.shstrtab\0"
    names_at = ENTRIES + len(frames)
    sections_at = names_at + len(names)
    end = sections_at + 3 * SECTION.size + room
    segments = [SEGMENT.pack(PT_LOAD, 5, 0, BASE, BASE, end, end, 4096)]
    if index is not None:
        place = (INDEX, BASE + INDEX, BASE + INDEX, len(index), len(index), 4)
        segments.append(SEGMENT.pack(PT_GNU_EH_FRAME, 4, *place))
    header = HEADER.pack(
        IDENTITY, 2, machine, 1, TEXT, 64, sections_at, 0, 64, 56, len(segments), 64, 3, 2
    )
    content = (header + b"".join(segments)).ljust(INDEX, b"\0") + (index or b"")
    return (
        content.ljust(ENTRIES, b"\0")
        + frames
        + names
        + bytes(SECTION.size)
        + SECTION.pack(1, 1, 2, ENTRIES_AT, ENTRIES, len(frames), 0, 0, 8, 0)
        + SECTION.pack(11, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
        + bytes(room)
    )


def elf(content: bytes) -> ElfFile:
    return ElfFile(BytesContent(content))


def gcc(folder: Path, source: str, *flags: str) -> Path:
    """A program or library; skips the test where there is no compiler for x86-64."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is missing (Debian: gcc libc6-dev)")
    target = subprocess.run([compiler, "-dumpmachine"], capture_output=True, text=True).stdout
    if not target.startswith("x86_64"):
        pytest.skip("what gcc makes of this is known for x86-64 only")
    product = folder / f"program{len(list(folder.iterdir()))}"
    command = [compiler, "-x", "c", "-", "-O2", "-o", str(product), *flags]
    subprocess.run(command, input=source.encode(), check=True)
    return product


def address_of(path: Path, name: str) -> tuple[int, int]:
    """Start and size of a function in the symbol table of a program, as nm tells."""
    for line in subprocess.run(
        ["nm", "-S", str(path)], capture_output=True, text=True, check=True
    ).stdout.splitlines():
        fields = line.split()
        if fields[-1] == name and len(fields) == 4:
            return int(fields[0], 16), int(fields[1], 16)
    raise LookupError(name)
