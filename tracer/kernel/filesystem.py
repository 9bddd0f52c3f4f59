"""What the kernel says of the filesystem and the mount that a descriptor is on."""

from __future__ import annotations

import fcntl
import re
from pathlib import Path

# include/uapi/linux/fs.h, since Linux 6.9: one byte of length, and up to 16 of UUID
_FS_IOC_GETFSUUID = 0x80111500
_UUID_BYTES = 16
_MOUNT_ID = re.compile(rb"^mnt_id:\t(\d+)$", re.MULTILINE)


def filesystem_uuid(file: int) -> bytes | None:
    """Its 16 bytes, of a file that is open to be read; None if there is none, or it is not told."""
    try:
        told = fcntl.ioctl(file, _FS_IOC_GETFSUUID, bytes(1 + _UUID_BYTES))
    except OSError:
        return None
    return told[1:] if told[0] == _UUID_BYTES else None


def mount_id(file: int) -> int:
    """The number of its mount in mountinfo, also in another namespace. Raises OSError."""
    found = _MOUNT_ID.search(Path(f"/proc/self/fdinfo/{file}").read_bytes())
    # since Linux 3.15
    return int(found[1]) if found else 0
