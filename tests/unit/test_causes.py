"""From the kernel's return addresses to the cause of a removal, and how its symbols are read."""

from __future__ import annotations

import pytest

from tracer.core.cause import Cause
from tracer.kernel.causes import Causes
from tracer.kernel.kallsyms import KernelSymbols

_TEXT = b"""\
ffffffff81000000 t inotify_handle_inode_event.cold
ffffffff81000040 T fsnotify_sb_delete
ffffffff81000100 t fsnotify_sb_delete_later
ffffffff81000200 T fsnotify_destroy_group
ffffffff81000300 T fsnotify_destroy_marks
ffffffff81000400 T __fsnotify_inode_delete
ffffffff81000500 T inotify_handle_inode_event
ffffffff81000600 t inotify_release
ffffffff81000700 T __ia32_sys_inotify_rm_watch
ffffffff81000700 t __do_sys_inotify_rm_watch
ffffffff81000800 T inotify_ignored_and_remove_idr
"""
_SYMBOLS = KernelSymbols(_TEXT)
_BASE = 0xFFFFFFFF81000000
(
    _COLD,
    _SB_DELETE,
    _UNKNOWN,
    _GROUP,
    _MARKS,
    _INODE,
    _HANDLE,
    _RELEASE,
    _RM,
) = (_BASE + offset for offset in (0x20, 0x60, 0x120, 0x220, 0x320, 0x420, 0x520, 0x620, 0x720))
_HOOK = _BASE + 0x805


@pytest.mark.parametrize(
    ("trace", "cause"),
    [
        ([_HOOK, _MARKS, _INODE], Cause.DELETED),
        ([_HOOK, _MARKS], Cause.DELETED),
        ([_HOOK, _MARKS, _INODE, _SB_DELETE], Cause.UNMOUNTED),
        ([_HOOK, _HANDLE], Cause.ONESHOT),
        ([_HOOK, _COLD], Cause.ONESHOT),
        # an event that a deletion or an unmount sends fires it first
        ([_HOOK, _HANDLE, _INODE, _SB_DELETE], Cause.ONESHOT),
        ([_HOOK, _GROUP, _RELEASE], Cause.CLOSED),
        ([_HOOK, _RELEASE], Cause.CLOSED),
        ([_HOOK, _RM], Cause.RM_WATCH),
        ([_HOOK, _UNKNOWN], Cause.UNKNOWN),
        ([_HOOK], Cause.UNKNOWN),
        ([], Cause.UNKNOWN),
    ],
)
def test_the_functions_at_work_tell_the_cause(trace: list[int], cause: Cause) -> None:
    assert Causes(_SYMBOLS).cause(trace) is cause


def test_a_return_address_right_behind_a_function_is_still_its_own() -> None:
    """A function whose last instruction is a call returns to where the next one begins."""
    causes = Causes(_SYMBOLS)

    assert causes.cause([_BASE + 0x600]) is Cause.ONESHOT
    assert causes.cause([_BASE + 0x500]) is Cause.DELETED


@pytest.mark.parametrize("lines", [[], _TEXT.splitlines(keepends=True)])
def test_hidden_symbols_leave_the_cause_unknown(lines: list[bytes]) -> None:
    hidden = KernelSymbols(b"".join(b"0" * 16 + line[16:] for line in lines))

    assert Causes(hidden).cause([_MARKS, 0, 1]) is Cause.UNKNOWN


# --- symbols ---


def test_an_address_is_of_the_whole_name() -> None:
    assert _SYMBOLS.address("fsnotify_sb_delete") == _BASE + 0x40
    assert _SYMBOLS.address("sb_delete") == 0
    assert _SYMBOLS.address("fsnotify_sb_delete_late") == 0


def test_a_symbol_is_known_or_not() -> None:
    assert "inotify_release" in _SYMBOLS
    assert "inotify_releas" not in _SYMBOLS
    # a part that the compiler split off is no function to attach to
    assert "inotify_handle_inode_event.col" not in _SYMBOLS


def test_a_function_ends_where_the_next_address_begins() -> None:
    assert _SYMBOLS.ranges("__ia32_sys_inotify_rm_watch") == [range(_BASE + 0x700, _BASE + 0x800)]
    assert _SYMBOLS.ranges("inotify_handle_inode_event") == [
        range(_BASE + 0x500, _BASE + 0x600),
        range(_BASE, _BASE + 0x40),
    ]


def test_the_last_function_has_an_end_too() -> None:
    (code,) = _SYMBOLS.ranges("inotify_ignored_and_remove_idr")

    assert code.start == _BASE + 0x800
    assert 0 < len(code) <= 65536
