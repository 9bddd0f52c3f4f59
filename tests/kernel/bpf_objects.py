"""The BPF objects that a process holds, and whether they are still in the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import re
from pathlib import Path
from typing import NamedTuple

_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
# BPF_..._GET_FD_BY_ID, include/uapi/linux/bpf.h
_GET_FD_BY_ID = {"prog": 13, "map": 14, "link": 30}


class BpfObject(NamedTuple):
    kind: str
    id: int

    def is_loaded(self) -> bool:
        libc = ctypes.CDLL(None, use_errno=True)
        attributes = (ctypes.c_uint32 * 32)(self.id)
        command = ctypes.c_long(_GET_FD_BY_ID[self.kind])
        fd = libc.syscall(ctypes.c_long(_BPF), command, attributes, ctypes.c_long(128))
        if fd < 0:
            assert ctypes.get_errno() == errno.ENOENT
            return False
        os.close(fd)
        return True


def objects_of(pid: int, *kinds: str) -> set[BpfObject]:
    """Those of these kinds ("prog", "map", "link") that a process has descriptors on."""
    pattern = re.compile(rf"^({'|'.join(kinds)})_id:\s*(\d+)$", re.MULTILINE)
    return {
        BpfObject(kind, int(number))
        for entry in os.scandir(f"/proc/{pid}/fdinfo")
        for kind, number in pattern.findall(_text(entry.path))
    }


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except FileNotFoundError:
        return ""
