"""What the kernel writes into fdinfo, and telling shared instances from equal ones."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.kernel.fdinfo import (
    FdWatch,
    HeldFd,
    can_compare_files,
    compare_files,
    device_name,
    group_shared,
    inotify_fds,
    parse_watches,
    read_watches,
)
from tracer.kernel.procfs import (
    holds_no_files,
    read_process,
    running_pids,
    thread_group,
    user_namespace,
)

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_NAME, _PR_GET_NAME = 15, 16
_IN_CREATE = 0x100

_HEADER = b"pos:\t0\nflags:\t02000000\nmnt_id:\t17\nino:\t1039\n"
_LINE = (
    b"inotify wd:%x ino:%x sdev:%x mask:%x ignored_mask:0 "
    b"fhandle-bytes:8 fhandle-type:1 f_handle:e8f7030000000000\n"
)

watches = st.builds(
    FdWatch,
    wd=st.integers(1, 2**31 - 1),
    ino=st.integers(0, 2**64 - 1),
    dev=st.integers(0, 2**32 - 1),
    mask=st.integers(0, 2**32 - 1),
)


@pytest.fixture
def instance() -> Iterator[int]:
    fd = _libc.inotify_init1(os.O_CLOEXEC)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    yield fd
    os.close(fd)


# --- parsing ---


def test_every_number_is_hexadecimal() -> None:
    text = _HEADER + b"inotify wd:10 ino:3f7e8 sdev:fe00011 mask:3c6 ignored_mask:0 \n"

    assert parse_watches(text) == (FdWatch(16, 0x3F7E8, 0xFE00011, 0x3C6),)


@given(st.lists(watches))
def test_what_the_kernel_prints_is_what_we_read(made: list[FdWatch]) -> None:
    text = _HEADER + b"".join(_LINE % watch for watch in made)

    assert parse_watches(text) == tuple(made)


@given(st.binary(), watches)
def test_hostile_lines_change_nothing(junk: bytes, watch: FdWatch) -> None:
    """GIVEN other lines, even ones that quote a watch WHEN parsed THEN only whole lines count."""
    line = _LINE % watch
    other = b" " + junk.replace(b"\n", b" ") + line
    text = _HEADER + other + line + b"tfd: 5 events: 19 data: 5\n" + other + line[:20]

    assert parse_watches(text) == (watch,)


@given(st.binary())
def test_anything_can_be_parsed(junk: bytes) -> None:
    assert all(watch.ino >= 0 for watch in parse_watches(junk))


def test_device_name_is_that_of_mountinfo() -> None:
    assert device_name(8 << 20 | 1) == "8:1"
    assert device_name(0xFE00011) == "254:17"
    assert FdWatch(1, 2, 27, 0).device == "0:27"


# --- our own descriptors ---


def test_own_instance_is_found_and_read(instance: int, tmp_path: Path) -> None:
    assert instance in inotify_fds(os.getpid())
    assert read_watches(os.getpid(), instance) == ()

    wd = _libc.inotify_add_watch(instance, os.fsencode(tmp_path), _IN_CREATE)

    assert [
        (watch.wd, watch.ino, watch.mask & _IN_CREATE)
        for watch in read_watches(os.getpid(), instance) or ()
    ] == [(wd, os.stat(tmp_path).st_ino, _IN_CREATE)]


def test_other_descriptors_are_not_instances(instance: int) -> None:
    """GIVEN a closed descriptor and a file WHEN read THEN None, not "no watches"."""
    with open(os.devnull) as file:
        assert file.fileno() not in inotify_fds(os.getpid())
        assert read_watches(os.getpid(), file.fileno()) is None
        closed = file.fileno()
    assert read_watches(os.getpid(), closed) is None


def test_a_process_that_ended() -> None:
    pid = _ended_process()

    with pytest.raises(ProcessLookupError):
        inotify_fds(pid)
    assert read_watches(pid, 0) is None
    assert read_process(pid) is None
    assert thread_group(pid) is None
    assert user_namespace(pid) is None
    assert holds_no_files(pid)
    assert pid not in running_pids()


def test_a_zombie_has_facts_but_no_files() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    try:
        facts = read_process(child)
        assert facts is not None
        assert (facts.exe, facts.cmdline) == (None, ())
        assert holds_no_files(child)
    finally:
        os.waitpid(child, 0)


# --- sharing ---


@pytest.mark.skipif(not can_compare_files(), reason="the kernel refuses kcmp")
def test_a_duplicate_is_the_same_file_and_an_equal_instance_is_not(instance: int) -> None:
    pid = os.getpid()
    twin, equal = os.dup(instance), _libc.inotify_init1(os.O_CLOEXEC)
    held = [HeldFd(pid, fd) for fd in (instance, equal, twin)]
    try:
        assert compare_files(held[0], held[2]) == 0
        assert compare_files(held[0], held[1]) == -compare_files(held[1], held[0]) != 0
        assert sorted(map(len, group_shared(held))) == [1, 2]
    finally:
        os.close(twin)
        os.close(equal)


def test_comparing_what_is_gone_tells_why(instance: int) -> None:
    with pytest.raises(OSError) as caught:
        compare_files(HeldFd(_ended_process(), 0), HeldFd(os.getpid(), instance))
    assert caught.value.errno in (errno.ESRCH, errno.EPERM, errno.ENOSYS)


@given(st.lists(st.integers(0, 7)), st.data())
def test_grouping_is_exact_and_survives_the_vanished(files: list[int], data: st.DataObject) -> None:
    """GIVEN descriptors of 8 files, some vanished WHEN grouped THEN the rest are exact."""
    held = [HeldFd(1000 + at, 3) for at in range(len(files))]
    file_of = dict(zip(held, files))
    gone = data.draw(st.sets(st.sampled_from(held))) if held else set()

    def compare(one: HeldFd, other: HeldFd) -> int:
        if one in gone or other in gone:
            raise ProcessLookupError(errno.ESRCH, "gone")
        return (file_of[one] > file_of[other]) - (file_of[one] < file_of[other])

    groups = group_shared(held, compare)

    assert sorted(one for group in groups for one in group) == held
    present = [set(group) - gone for group in groups]
    assert sorted(map(sorted, filter(None, present))) == sorted(
        sorted(one for one in held if file_of[one] == file and one not in gone)
        for file in {file_of[one] for one in held if one not in gone}
    )


def test_a_holder_that_vanishes_while_grouping_leaves_its_group() -> None:
    """GIVEN 1 and 2 share, 1 vanishes WHEN 3 shares too THEN 2 and 3 are still together."""
    first, second, third = (HeldFd(pid, 3) for pid in (1, 2, 3))

    def compare(one: HeldFd, other: HeldFd) -> int:
        if third in (one, other) and first in (one, other):
            raise ProcessLookupError(errno.ESRCH, "gone")
        return 0

    assert group_shared([first, second, third], compare) == [(first,), (second, third)]


# --- processes ---


@pytest.mark.parametrize("name", [b"a) R 1 (b", b"\x1b[1m[bold]\n", b"\xff\xfe", b"", b")"])
def test_any_name_is_read_exactly(name: bytes) -> None:
    before = ctypes.create_string_buffer(16)
    _libc.prctl(_PR_GET_NAME, before)
    _libc.prctl(_PR_SET_NAME, name)
    try:
        facts = read_process(os.getpid())
    finally:
        _libc.prctl(_PR_SET_NAME, before)

    assert facts is not None
    assert facts.comm == name
    assert facts.uid == os.geteuid()
    assert facts.exe == os.readlink(b"/proc/self/exe")
    assert b"\0".join((*facts.cmdline, b"")) == Path("/proc/self/cmdline").read_bytes()
    assert 0 < facts.birth_ticks <= _ticks_since_boot()


def test_a_thread_belongs_to_its_process() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert thread.native_id is not None
        assert thread_group(thread.native_id) == os.getpid()
        assert thread_group(os.getpid()) == os.getpid()
        assert os.getpid() in running_pids()
        assert thread.native_id not in running_pids()
    finally:
        done.set()
        thread.join()


def _ended_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def _ticks_since_boot() -> float:
    with open("/proc/uptime") as file:
        return float(file.read().split()[0]) * os.sysconf("SC_CLK_TCK") + 1
