"""What is mounted where, and for whom."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.kernel.procfs import Mount, mounts_of, parse_mounts
from tracer.targets import mounts
from tracer.targets.mounts import Mounts, MountTable, kernel_device

_HOST, _POD = 4026531832, 4026532001
_ROOT = Mount(8 << 20 | 1, b"ext4", b"/", b"/")
_SECRET = Mount(50, b"tmpfs", b"/", b"/pods/secret")
_NOWHERE = 0xFFFFFFF

_TABLE = rb"""22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 8:1 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw
31 27 0:50 /a\040b /mnt/with\040blank\134 rw - fuse.sshfs host:/x\040- rw,user_id=0
32 27 0:51 / /mnt/new""" + (
    b"\x0b\xffline rw - tmpfs tmpfs rw\nno mount at all\n33 27 0:52 / /x rw\n\n"
)


class Machine:
    """Processes in mount namespaces, which counts how often a table is read."""

    def __init__(self) -> None:
        self.processes: dict[int, tuple[int, bytes]] = {}
        self.tables: dict[int, list[Mount]] = {}
        self.refused: set[int] = set()
        self.threads: dict[int, list[int]] = {}
        self.readings = 0

    def start(self, pid: int, namespace: int, root: bytes, *table: Mount) -> None:
        self.processes[pid] = namespace, root
        self.tables[pid] = list(table)

    def namespace(self, pid: int) -> int:
        if pid in self.refused:
            raise PermissionError
        if pid not in self.processes:
            raise FileNotFoundError
        return self.processes[pid][0]

    def root(self, pid: int) -> bytes:
        return self.processes[pid][1]

    def mounts(self, pid: int) -> list[Mount]:
        self.readings += 1
        if pid not in self.tables:
            raise FileNotFoundError
        return self.tables[pid]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    fake = Machine()
    monkeypatch.setattr(mounts, "mount_namespace", fake.namespace)
    monkeypatch.setattr(mounts, "root_folder", fake.root)
    monkeypatch.setattr(mounts, "mounts_of", fake.mounts)
    monkeypatch.setattr(mounts, "running_pids", lambda: sorted(fake.processes))
    monkeypatch.setattr(mounts, "shows_all_processes", lambda: True)
    monkeypatch.setattr(mounts, "threads", lambda pid: fake.threads.get(pid, [pid]))
    fake.start(1, _HOST, b"/", _ROOT)
    yield fake


# --- mountinfo ---


def test_mountinfo_is_read_with_its_escapes() -> None:
    assert parse_mounts(_TABLE) == [
        Mount(21, b"proc", b"/", b"/proc"),
        Mount(8 << 20 | 1, b"ext4", b"/", b"/"),
        Mount(50, b"fuse.sshfs", b"/a b", b"/mnt/with blank\\"),
        Mount(51, b"tmpfs", b"/", b"/mnt/new\x0b\xffline"),
    ]


@given(st.binary(max_size=300))
def test_no_bytes_are_too_much_for_the_parser(table: bytes) -> None:
    parse_mounts(table)
    parse_mounts(b"1 2 3:4 / " + table + b" rw - " + table + b" x\n")


def test_the_root_of_this_process_is_a_mount() -> None:
    assert any(mount.point == b"/" for mount in mounts_of(os.getpid()))


# --- a table ---


def test_the_nearest_mount_is_the_one_that_a_path_is_on() -> None:
    table = MountTable([_ROOT, _SECRET])

    assert table.mounts_at(b"/pods/secret/token") == [_SECRET]
    assert table.mounts_at(b"/pods/secret") == [_SECRET]
    assert table.mounts_at(b"/pods/secrets") == [_ROOT]
    assert table.mounts_at(b"/") == [_ROOT]
    assert MountTable([_SECRET]).mounts_at(b"/pods") == []


@pytest.mark.parametrize(
    "kind", [b"nfs4", b"nfs", b"cifs", b"fuse.sshfs", b"fuseblk", b"9p", b"autofs", b"lustre", b"?"]
)
def test_what_may_wait_for_others_is_not_local(kind: bytes) -> None:
    table = MountTable([_ROOT, Mount(60, kind, b"/", b"/net")])

    assert table.leads_away(b"/net")
    assert not table.is_local(b"/net/file")
    assert not table.leads_away(b"/net/file")
    assert table.is_local(b"/network")


def test_what_a_local_mount_is_stacked_on_counts_too() -> None:
    """GIVEN a table that does not say which is on top THEN neither is trusted."""
    remote = Mount(60, b"nfs4", b"/", b"/net")
    assert MountTable([_ROOT, remote, _SECRET._replace(point=b"/net")]).leads_away(b"/net")


# --- all of them ---


def test_one_that_only_another_namespace_has_is_mounted_but_not_visible(machine: Machine) -> None:
    machine.start(23, _POD, b"/", _SECRET)
    seen = Mounts()

    assert seen.is_mounted(_SECRET.dev, 1)
    assert seen.is_visible(_SECRET.dev, 1) is False
    assert seen.is_visible(_SECRET.dev, 23) is True
    assert seen.kind(_SECRET.dev) == b"tmpfs"


def test_one_in_no_table_is_not_mounted(machine: Machine) -> None:
    machine.start(23, _POD, b"/", _SECRET)
    seen = Mounts()

    assert not seen.is_mounted(_NOWHERE, 1)
    assert seen.is_visible(_NOWHERE, 1) is False
    assert seen.are_all_known()


def test_each_namespace_is_read_once(machine: Machine) -> None:
    for pid in range(100, 123):
        machine.start(pid, _HOST if pid % 2 else _POD, b"/", _ROOT)
    seen = Mounts()
    for dev in range(1_000):
        seen.is_mounted(dev, 101)
        seen.is_visible(dev, 101)

    assert machine.readings == 2


def test_what_a_changed_root_is_on_is_in_the_table_of_who_has_none(machine: Machine) -> None:
    """GIVEN a table without it, as proc(5) says WHEN another process has the root of all."""
    machine.start(23, _HOST, b"/jail", Mount(51, b"proc", b"/", b"/proc"))
    seen = Mounts()

    assert seen.is_visible(_ROOT.dev, 23) is True
    vantage = seen.vantage(23)
    assert vantage is not None
    table, above = seen.scene(23, vantage)
    assert (table.mounts_at(above + b"/etc"), above) == ([_ROOT], b"/jail")


def test_what_a_changed_root_is_on_is_unknown_if_nobody_shows_it(machine: Machine) -> None:
    machine.start(23, _POD, b"/jail", Mount(51, b"proc", b"/", b"/proc"))
    seen = Mounts()

    assert seen.is_visible(_NOWHERE, 23) is None
    assert seen.is_mounted(_NOWHERE, 23)


def test_of_a_process_that_ended_nothing_is_visible(machine: Machine) -> None:
    assert Mounts().is_visible(_ROOT.dev, 23) is None
    assert not Mounts().is_mounted(_NOWHERE, 23)


def test_a_thread_in_another_namespace_sees_for_its_process(machine: Machine) -> None:
    machine.start(24, _POD, b"/", _SECRET)
    machine.threads[1] = [1, 24]

    assert Mounts().is_visible(_SECRET.dev, 1) is True


def test_the_table_of_who_refuses_us_is_read(machine: Machine) -> None:
    """GIVEN a namespace whose name we may not know THEN what is in its table is mounted."""
    machine.start(23, _POD, b"/", _SECRET)
    machine.refused.add(23)

    assert Mounts().is_mounted(_SECRET.dev, 1)
    assert not Mounts().is_mounted(_NOWHERE, 1)
    assert Mounts().is_visible(_SECRET.dev, 23) is None


def test_nothing_is_unmounted_for_sure_while_processes_are_hidden(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "shows_all_processes", lambda: False)
    assert Mounts().is_mounted(_NOWHERE, 1)


def test_a_namespace_that_no_process_is_in_is_noticed(machine: Machine) -> None:
    """GIVEN one that a bind mount keeps WHEN no process is in it THEN not all is known."""
    kept = Mount(4, b"nsfs", b"mnt:[%d]" % _POD, b"/run/ns/pod")
    machine.start(1, _HOST, b"/", _ROOT, kept)
    assert not Mounts().are_all_known()

    machine.start(23, _POD, b"/", _SECRET)
    assert Mounts().are_all_known()


def test_what_the_kernel_mounts_for_itself_counts_as_mounted() -> None:
    ends = os.pipe()
    memory = os.memfd_create("test")
    try:
        for fd in (*ends, memory):
            dev = kernel_device(os.fstat(fd))
            assert Mounts().is_internal(dev)
            assert Mounts().is_mounted(dev, os.getpid())
    finally:
        for fd in (*ends, memory):
            os.close(fd)


def test_files_on_disk_are_not_the_kernels_own() -> None:
    assert not Mounts().is_internal(kernel_device(os.stat("/")))
