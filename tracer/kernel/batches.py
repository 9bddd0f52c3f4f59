"""Many entries of a BPF table in one system call."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator

from tracer.kernel.system_call import MAP_UPDATE_BATCH, bpf_call

# a batch must hold the fullest bucket of the kernel's table
_BATCH = 4096


class _Batch(ctypes.Structure):
    """The part of union bpf_attr that is about batches, include/uapi/linux/bpf.h (Linux 5.6)."""

    _fields_ = (
        ("in_batch", ctypes.c_uint64),
        ("out_batch", ctypes.c_uint64),
        ("keys", ctypes.c_uint64),
        ("values", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("map_fd", ctypes.c_uint32),
        ("elem_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class TableReader:
    """A hash table of the program, read in batches."""

    def __init__(self, fd: int, key_size: int, value_size: int) -> None:
        self._fd = fd
        self._key_size = key_size
        self._value_size = value_size
        self._keys = ctypes.create_string_buffer(_BATCH * key_size)
        self._values = ctypes.create_string_buffer(_BATCH * value_size)

    def items(self, command: int) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values; `command` is MAP_LOOKUP_BATCH, or that which takes them out as well."""
        # an opaque position: the kernel's batch of a hash table is a bucket number
        position = ctypes.c_uint32()
        batch = _Batch(
            out_batch=ctypes.addressof(position),
            keys=ctypes.addressof(self._keys),
            values=ctypes.addressof(self._values),
            map_fd=self._fd,
        )
        more = True
        while more:
            batch.count = _BATCH
            try:
                bpf_call(command, batch)
            except OSError as error:
                # which says that this batch is the last
                if error.errno != errno.ENOENT:
                    raise
                more = False
            keys = bytes(memoryview(self._keys)[: batch.count * self._key_size])
            values = bytes(memoryview(self._values)[: batch.count * self._value_size])
            for at in range(batch.count):
                yield (
                    keys[at * self._key_size : (at + 1) * self._key_size],
                    values[at * self._value_size : (at + 1) * self._value_size],
                )
            batch.in_batch = ctypes.addressof(position)


def put(fd: int, keys: bytes, values: bytes, number: int) -> None:
    """Put entries into the table behind `fd`, which replaces those there. Raises OSError."""
    key_buffer, value_buffer = (ctypes.create_string_buffer(each) for each in (keys, values))
    batch = _Batch(
        keys=ctypes.addressof(key_buffer),
        values=ctypes.addressof(value_buffer),
        count=number,
        map_fd=fd,
    )
    bpf_call(MAP_UPDATE_BATCH, batch)
