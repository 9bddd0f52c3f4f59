"""
Where the fields of kernel structs lie, read from the running kernel's BTF.

Read through libbpf, which BCC brings along, because it follows every BTF format the
kernel may use: https://docs.kernel.org/bpf/btf.html
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from tracer.errors import InotraceError

# Every (struct, field) that the C in bpf/ names as OFF_STRUCT_FIELD. A tuple lists the names
# that a field had over time, newest first.
FIELDS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "task_struct": (
        ("files",),
        ("tgid",),
        ("pid",),
        ("group_leader",),
        ("start_boottime", "real_start_time"),  # renamed by cf25e24db61c (in v5.5)
        ("self_exec_id",),
        ("comm",),
        ("signal",),
        ("cred",),
        ("stack",),
        ("pid_links",),
        ("mm",),
        ("cgroups",),
    ),
    "mm_struct": (("start_stack",),),
    "proc_inode": (("pid",), ("vfs_inode",)),
    "pid": (("tasks",),),
    "cred": (("euid",), ("ucounts",)),
    "signal_struct": (("live",),),
    "files_struct": (("fdt",),),
    "fdtable": (("max_fds",), ("open_fds",), ("fd",)),
    "file": (("f_op",), ("f_inode",), ("private_data",)),
    "fsnotify_group": (
        ("marks_list",),
        ("inotify_data",),
        ("q_len",),
        ("max_events",),
        ("notification_list",),
    ),
    "inotify_group_private_data": (("ucounts",),),
    "fsnotify_mark": (("g_list",), ("group",), ("flags",), ("mask",), ("connector",)),
    "fsnotify_mark_connector": (("obj",),),
    "inode": (
        ("i_ino",),
        ("i_sb",),
        ("i_fsnotify_marks",),
        ("i_generation",),
        ("i_nlink",),
        ("i_dentry",),
    ),
    "super_block": (("s_dev",), ("s_root",)),
    "dentry": (
        ("d_alias", "d_u"),  # the first of a union with a name
        ("d_hash",),
        ("d_inode",),
        ("d_name",),
        ("d_parent",),
    ),
    "hlist_bl_node": (("pprev",),),
    "qstr": (("len",), ("name",)),
    "inotify_inode_mark": (("wd",),),
    "ucounts": (("ns",), ("uid",), ("ucount",)),
    "user_namespace": (("ucount_max",), ("ucounts",), ("ns",)),
    "ns_common": (("inum",),),
    "work_struct": (("func",),),
    "css_set": (("dfl_cgrp",), ("cgrp_links",)),
    "cgrp_cset_link": (("cgrp",), ("cgrp_link",)),
    "cgroup": (("self",), ("kn",), ("root",)),
    "cgroup_subsys_state": (("parent",), ("cgroup",)),
    "cgroup_root": (("hierarchy_id",),),
    "kernfs_node": (("id",), ("name",)),
}
# Only with CONFIG_CGROUPS.
_OF_CGROUPS = ("css_set", "cgrp_cset_link", "cgroup", "cgroup_subsys_state", "cgroup_root")
# Missing in some kernels: 0 there, which is no offset of theirs elsewhere.
OPTIONAL = frozenset(
    {
        ("cred", "ucounts"),  # since 905ae01c4ae2 (in v5.14)
        ("task_struct", "cgroups"),
        *((struct_name, names[0]) for struct_name in _OF_CGROUPS for names in FIELDS[struct_name]),
    }
)
ENUMERATORS: Mapping[str, tuple[str, ...]] = {
    "ucount_type": ("UCOUNT_INOTIFY_INSTANCES", "UCOUNT_INOTIFY_WATCHES"),
}

# BPF helpers that older kernels lack; bpf/ does without.
HELPERS = ("BPF_FUNC_get_current_task_btf", "BPF_FUNC_task_pt_regs")

_LIBRARIES = ("libbpf.so.1", "libbpf.so.0")

_KIND_POINTER, _KIND_ARRAY, _KIND_STRUCT, _KIND_UNION, _KIND_ENUM = 2, 3, 4, 5, 6
_KIND_FUNCTION = 12
# typedef, volatile, const, restrict, type tag: each only names another type
_KIND_ALIASES = frozenset({8, 9, 10, 11, 18})
_TYPE = struct.Struct("=III")
_ARRAY = struct.Struct("=III")
_MEMBER = struct.Struct("=III")
_ENUMERATOR = struct.Struct("=Ii")


class Btf:
    """The kernel's own type information; close it through :func:`kernel_btf`."""

    def __init__(self, library: ctypes.CDLL, handle: int) -> None:
        self._library = library
        self._handle = handle

    def offset_of(self, struct_name: str, *names: str) -> int:
        """
        Bytes from the start of `struct_name` to the first of `names` that it has.

        Raises KeyError if the struct or every name is unknown to this kernel.
        """
        type_id = self._find(struct_name, _KIND_STRUCT)
        for name in names:
            for member, bits, _ in self._members(type_id):
                if member == name:
                    return bits // 8
        raise KeyError(f"struct {struct_name}.{names[0]}")

    def is_void_pointer(self, struct_name: str, name: str) -> bool:
        """Whether a member is a ``void *``. Raises KeyError if it is unknown."""
        type_id = self._find(struct_name, _KIND_STRUCT)
        for member, _, member_type in self._members(type_id):
            if member == name:
                _, info, pointee = self._type(self._address(member_type))
                return (info >> 24) & 0x1F == _KIND_POINTER and pointee == 0
        raise KeyError(f"struct {struct_name}.{name}")

    def element_size(self, struct_name: str, name: str) -> int:
        """Bytes of one element of a member that is an array. Raises KeyError if it is none."""
        type_id = self._find(struct_name, _KIND_STRUCT)
        for member, _, member_type in self._members(type_id):
            address = self._address(member_type)
            _, info, _ = self._type(address)
            if member == name and (info >> 24) & 0x1F == _KIND_ARRAY:
                _, _, count = _ARRAY.unpack(ctypes.string_at(address + _TYPE.size, _ARRAY.size))
                size: int = self._library.btf__resolve_size(self._handle, member_type)
                return size // int(count)
        raise KeyError(f"array {struct_name}.{name}")

    def enumerator(self, enum_name: str, name: str) -> int:
        """The value of one name of an enum. Raises KeyError if it is unknown."""
        address = self._address(self._find(enum_name, _KIND_ENUM))
        _, info, _ = self._type(address)
        for i in range(info & 0xFFFF):
            name_offset, value = _ENUMERATOR.unpack(
                ctypes.string_at(address + _TYPE.size + i * _ENUMERATOR.size, _ENUMERATOR.size)
            )
            if self._name(name_offset) == name:
                return int(value)
        raise KeyError(f"enum {enum_name} {name}")

    def size_of(self, struct_name: str) -> int:
        """Bytes of a struct. Raises KeyError if it is unknown."""
        type_id = self._find(struct_name, _KIND_STRUCT)
        return int(self._library.btf__resolve_size(self._handle, type_id))

    def function_id(self, name: str) -> int:
        """The type id of a kernel function. Raises KeyError if it is unknown."""
        return self._find(name, _KIND_FUNCTION)

    def has_function(self, name: str) -> bool:
        with suppress(KeyError):
            return self.function_id(name) > 0
        return False

    def _members(self, type_id: int, base_bits: int = 0) -> Iterator[tuple[str, int, int]]:
        """Named members, their offset in bits and type; those of anonymous members included."""
        address = self._address(type_id)
        _, info, aliased = self._type(address)
        kind = (info >> 24) & 0x1F
        if kind in _KIND_ALIASES:
            yield from self._members(aliased, base_bits)
        if kind not in (_KIND_STRUCT, _KIND_UNION):
            return
        has_bitfields = bool(info >> 31)
        for i in range(info & 0xFFFF):
            name_offset, member_type, offset = _MEMBER.unpack(
                ctypes.string_at(address + _TYPE.size + i * _MEMBER.size, _MEMBER.size)
            )
            bits = base_bits + (offset & 0xFFFFFF if has_bitfields else offset)
            name = self._name(name_offset)
            if name:
                yield name, bits, member_type
            else:
                yield from self._members(member_type, bits)

    def _find(self, name: str, kind: int) -> int:
        type_id: int = self._library.btf__find_by_name_kind(self._handle, name.encode(), kind)
        if type_id < 0:
            raise KeyError(name)
        return type_id

    def _address(self, type_id: int) -> int:
        return int(self._library.btf__type_by_id(self._handle, type_id))

    def _type(self, address: int) -> tuple[int, int, int]:
        name, info, size = _TYPE.unpack(ctypes.string_at(address, _TYPE.size))
        return name, info, size

    def _name(self, offset: int) -> str:
        name: bytes | None = self._library.btf__name_by_offset(self._handle, offset)
        return name.decode() if name else ""


def _load_libbpf() -> ctypes.CDLL:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        _vmlinux_btf(library).restype = ctypes.c_void_p
        library.btf__type_by_id.restype = ctypes.c_void_p
        library.btf__type_by_id.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        library.btf__find_by_name_kind.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint]
        library.btf__name_by_offset.restype = ctypes.c_char_p
        library.btf__name_by_offset.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        library.btf__resolve_size.restype = ctypes.c_longlong
        library.btf__resolve_size.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        library.btf__free.argtypes = [ctypes.c_void_p]
        return library
    raise InotraceError("libbpf is missing: install the distribution's libbpf package")


def _vmlinux_btf(library: ctypes.CDLL) -> Any:
    # libbpf before 0.5 has it under the older name only
    with suppress(AttributeError):
        return library.btf__load_vmlinux_btf
    return library.libbpf_find_kernel_btf


@contextmanager
def kernel_btf() -> Iterator[Btf]:
    """The running kernel's BTF. Raises InotraceError if it has none or libbpf is missing."""
    library = _load_libbpf()
    handle = _vmlinux_btf(library)()
    # libbpf before 1.0 returned an error as a small negative pointer
    if not handle or (ctypes.c_long(handle).value < 0 and handle > 2**64 - 4096):
        raise InotraceError(
            "this kernel has no type information (BTF): "
            "use one built with CONFIG_DEBUG_INFO_BTF, as distributions' kernels since 2020 are"
        )
    try:
        yield Btf(library, handle)
    finally:
        library.btf__free(handle)


def compiler_definitions() -> list[str]:
    """
    The ``-DOFF_STRUCT_FIELD=bytes`` and ``-DENUMERATOR=value`` options for bpf/.

    Raises InotraceError if this kernel lacks a struct or field.
    """
    try:
        with kernel_btf() as btf:
            return [
                *_offsets(btf),
                *_enumerators(btf),
                *_helpers(btf),
                _connector(btf),
                # 4 on Linux 5.10, 8 on 6.1 and later
                f"-DCOUNTER_BYTES={btf.element_size('ucounts', 'ucount')}",
                f"-DLIMIT_BYTES={btf.element_size('user_namespace', 'ucount_max')}",
                f"-DSIZE_PT_REGS={btf.size_of('pt_regs')}",
            ]
    except KeyError as missing:
        raise InotraceError(
            f"this kernel's type information lacks {missing.args[0]}: "
            "inotrace needs Linux 5.8 or later; please report the kernel's version"
        ) from missing


def _offsets(btf: Btf) -> Iterable[str]:
    for struct_name, fields in FIELDS.items():
        for names in fields:
            macro = f"OFF_{struct_name}_{names[0]}".upper()
            try:
                offset = btf.offset_of(struct_name, *names)
            except KeyError:
                if (struct_name, names[0]) not in OPTIONAL:
                    raise
                offset = 0
            yield f"-D{macro}={offset}"


def _connector(btf: Btf) -> str:
    """
    What to subtract from ``fsnotify_mark_connector.obj`` to get the inode.

    The inode's own list head until 6.9; the object itself since 07a3b8d0bf72 (in v6.10), when it
    became a pointer to void.
    """
    points_at_object = btf.is_void_pointer("fsnotify_mark_connector", "obj")
    offset = 0 if points_at_object else btf.offset_of("inode", "i_fsnotify_marks")
    return f"-DCONNECTOR_POINTS_INTO_INODE={offset}"


def _helpers(btf: Btf) -> Iterable[str]:
    for name in HELPERS:
        with suppress(KeyError):
            yield f"-D{name.upper()}={btf.enumerator('bpf_func_id', name)}"


def _enumerators(btf: Btf) -> Iterable[str]:
    for enum_name, names in ENUMERATORS.items():
        for name in names:
            yield f"-D{name}={btf.enumerator(enum_name, name)}"
