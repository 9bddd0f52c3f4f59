"""Files by their handles, which need no path: open_by_handle_at(2)."""

from __future__ import annotations

import ctypes
import os
import struct

from tracer.core.walk import Inode
from tracer.kernel.fdinfo import Handle
from tracer.kernel.system_call import OPEN_BY_HANDLE_AT, system_call

# struct file_handle, include/linux/fs.h: bytes, type, and then what the filesystem makes of it
_HEAD = struct.Struct("=Ii")
_MAX_HANDLE_SZ = 128
# include/linux/exportfs.h
_FILEID_INO32_GEN = 1
# generic_encode_ino32_fh() in fs/exportfs/expfs.c, also where a filesystem has none of its own
_INO32_GEN = frozenset((b"ext2", b"ext3", b"ext4"))
# as a path only: opening a device or a pipe may do something, or wait
_FLAGS = os.O_PATH | os.O_CLOEXEC


def open_by_handle(mount: int, handle: Handle) -> int:
    """
    A descriptor of the file that can be asked about, but not be read; to be closed.

    `mount` is any file of the filesystem that was opened, not as a path only. Raises OSError:
    ESTALE if there is no such inode or no way from such a handle, EPERM without
    CAP_DAC_READ_SEARCH.
    """
    if len(handle.content) > _MAX_HANDLE_SZ or handle.kind >= 1 << 31:
        raise ValueError("not a handle of the kernel's")
    content = _HEAD.pack(len(handle.content), handle.kind) + handle.content
    return system_call(
        OPEN_BY_HANDLE_AT, mount, ctypes.create_string_buffer(content, len(content)), _FLAGS
    )


def made_handle(inode: Inode, kind: bytes) -> Handle | None:
    """
    The handle that a filesystem of this kind gives an inode; None if that is not certain.

    The generation must be known. Not of a tmpfs, which finds only what it has given a handle for
    itself: shmem_encode_fh() in mm/shmem.c.
    """
    if kind not in _INO32_GEN:
        return None
    content = struct.pack("=II", inode.ino & 0xFFFFFFFF, inode.generation)
    return Handle(_FILEID_INO32_GEN, content)
