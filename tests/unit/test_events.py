"""Names of what the kernel numbers."""

from __future__ import annotations

import ctypes
import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.core.events import (
    CALL_NAMES,
    Op,
    errno_name,
    explanation,
    init_flag_names,
    mask_names,
)


@pytest.mark.parametrize(
    ("mask", "names"),
    [
        (0, ()),
        (0x2, ("IN_MODIFY",)),
        (0x300, ("IN_CREATE", "IN_DELETE")),
        (0xFFF, ("IN_ALL_EVENTS",)),
        (0x81000FFF, ("IN_ALL_EVENTS", "IN_ONLYDIR", "IN_ONESHOT")),
        (0xFFE, mask_names(0xFFF & ~0x1)),
        (0x1002, ("IN_MODIFY", "0x1000")),
        (0x08000000, ("0x8000000",)),
    ],
)
def test_mask_names(mask: int, names: tuple[str, ...]) -> None:
    assert mask_names(mask) == names


def test_all_but_one_event_is_not_called_all() -> None:
    names = mask_names(0xFFE)

    assert "IN_ALL_EVENTS" not in names
    assert len(names) == 11


@given(st.integers(0, 2**32 - 1))
def test_no_bit_is_named_twice_or_left_out(mask: int) -> None:
    values = {name: 0xFFF if name == "IN_ALL_EVENTS" else _bit(name) for name in mask_names(mask)}

    assert sum(values.values()) == mask


def _bit(name: str) -> int:
    if name.startswith("0x"):
        return int(name, 16)
    return next(1 << bit for bit in range(32) if mask_names(1 << bit) == (name,))


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (0, ()),
        (0o2000000, ("IN_CLOEXEC",)),
        (0o2004000, ("IN_NONBLOCK", "IN_CLOEXEC")),
        (0o2000001, ("IN_CLOEXEC", "0x1")),
    ],
)
def test_init_flag_names(flags: int, names: tuple[str, ...]) -> None:
    assert init_flag_names(flags) == names


def test_the_flags_of_init_are_accepted_by_the_kernel() -> None:
    """GIVEN the bits that have a name WHEN inotify_init1 gets them THEN it knows them all."""
    libc = ctypes.CDLL(None, use_errno=True)
    named = sum(1 << bit for bit in range(32) if not init_flag_names(1 << bit)[0].startswith("0x"))

    fd = libc.inotify_init1(named)

    assert fd >= 0 or ctypes.get_errno() == errno.EMFILE
    if fd >= 0:
        libc.close(fd)


@pytest.mark.parametrize(
    ("number", "name"), [(28, "ENOSPC"), (-28, "ENOSPC"), (24, "EMFILE"), (4095, "errno 4095")]
)
def test_errno_name(number: int, name: str) -> None:
    assert errno_name(number) == name


def test_every_call_has_a_name() -> None:
    assert CALL_NAMES.keys() == {Op.INIT, Op.ADD, Op.RM}


@pytest.mark.parametrize(
    ("op", "number", "begin"),
    [
        (Op.ADD, errno.ENOSPC, "the user has all the watches"),
        (Op.ADD, errno.ENOTDIR, "a part of the path is no directory, or IN_ONLYDIR"),
        (Op.RM, errno.EBADF, "the descriptor is not open"),
        (Op.RM, errno.EINVAL, "no such watch"),
        (Op.INIT, errno.EINVAL, "a flag that is neither"),
        (Op.ADD, errno.EINVAL, "no event in the mask"),
        (Op.ADD, errno.ENOENT, "the path did not exist"),
        (Op.ADD, errno.EACCES, "the process may not read the path"),
        (Op.ADD, errno.EEXIST, "already watched"),
        (Op.ADD, errno.ENOMEM, "the kernel had no memory"),
        (Op.ADD, errno.EPERM, "a security module or a sandbox"),
        (Op.ADD, errno.ENAMETOOLONG, "the path or a name in it is too long"),
        (Op.ADD, errno.ELOOP, "too many symbolic links"),
        (Op.RM, errno.ENOSPC, ""),
    ],
)
def test_what_an_errno_means_depends_on_the_call(op: Op, number: int, begin: str) -> None:
    text = explanation(op, number)

    assert text.startswith(begin)
    assert bool(text) is bool(begin)
