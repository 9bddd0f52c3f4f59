"""What is mounted where, and for whom."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.kernel.procfs import Mount, mounts_of, parse_mounts
from tracer.targets import mounts
from tracer.targets.layer_paths import layers_in, prefixes
from tracer.targets.mounts import Mounts, MountTable, kernel_device

_HOST, _POD = 4026531832, 4026532001
_ROOT = Mount(8 << 20 | 1, b"ext4", b"/", b"/", 27)
_SECRET = Mount(50, b"tmpfs", b"/", b"/pods/secret")
_NOWHERE = 0xFFFFFFF
_USERS, _OTHER_USERS = 4026531837, 4026532900

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
        self.root_mounts: dict[int, int] = {}
        self.owners: dict[int, int] = {}
        self.headless: set[int] = set()
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
        if pid not in self.processes or pid in self.headless:
            raise FileNotFoundError
        return self.processes[pid][0]

    def root(self, pid: int) -> bytes:
        return self.processes[pid][1]

    def root_mount(self, pid: int) -> int:
        """What is said to be, or what is first in the table."""
        return self.root_mounts[pid] if pid in self.root_mounts else self.tables[pid][0].id

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
    monkeypatch.setattr(mounts, "root_mount", fake.root_mount)
    monkeypatch.setattr(mounts, "owner_of_mounts", fake.owners.get)
    monkeypatch.setattr(mounts, "user_namespace", lambda pid: _USERS)
    monkeypatch.setattr(mounts, "mounts_of", fake.mounts)
    monkeypatch.setattr(mounts, "running_pids", lambda: sorted(fake.processes))
    monkeypatch.setattr(mounts, "shows_all_processes", lambda: True)
    monkeypatch.setattr(mounts, "threads", lambda pid: fake.threads.get(pid, [pid]))
    fake.start(1, _HOST, b"/", _ROOT)
    yield fake


# --- mountinfo ---


def test_mountinfo_is_read_with_its_escapes() -> None:
    assert parse_mounts(_TABLE) == [
        Mount(21, b"proc", b"/", b"/proc", 22),
        Mount(8 << 20 | 1, b"ext4", b"/", b"/", 27),
        Mount(50, b"fuse.sshfs", b"/a b", b"/mnt/with blank\\", 31),
        Mount(51, b"tmpfs", b"/", b"/mnt/new\x0b\xffline", 32),
    ]


def test_what_an_overlay_is_made_of_is_kept_as_it_is_written() -> None:
    line = rb"40 27 0:60 / /m rw - overlay none rw,lowerdir=/a\054b:/c\040d,upperdir=/u,workdir=/w"
    (mount,) = parse_mounts(line + b"\n")
    assert layers_in(mount.options) == [b"/a,b", b"/c d", b"/u", b"/w"]
    (mount,) = parse_mounts(b"40 27 0:60 / /m rw - overlay none ro,lowerdir+=/a,datadir+=/b:c")
    assert layers_in(mount.options) == [b"/a", b"/b:c"]
    assert layers_in(rb"ro,lowerdir=/a\134:b:/c,upperdir=/d\134:e") == [b"/a:b", b"/c", rb"/d\:e"]
    assert layers_in(b"ro,lowerdir=/a:/b::/c::/d,redirect_dir=on") == [b"/a", b"/b", b"/c", b"/d"]


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
    machine.root_mounts[23] = _ROOT.id
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


# --- overlays ---

_LAYERS = b"rw,lowerdir=/disk/l/B:/disk/l/A,upperdir=/disk/up,workdir=/disk/work"
_OVERLAY = Mount(70, b"overlay", b"/", b"/merged", 40, _LAYERS)
_DISK = Mount(60, b"ext4", b"/", b"/disk", 41)
_REMOTE = Mount(61, b"fuse.sshfs", b"/", b"/disk/l", 42)


def _leads_away(machine: Machine, pid: int, point: bytes = b"/merged") -> bool:
    seen = Mounts()
    vantage = seen.vantage(pid)
    assert vantage is not None
    table, _ = seen.scene(pid, vantage)
    assert table.is_local(point) is not table.leads_away(point)
    assert table.passes_none_away(point + b"/x") is not table.leads_away(point)
    return table.leads_away(point)


@pytest.fixture
def own(machine: Machine) -> int:
    """This process, which has a namespace with nothing of interest."""
    machine.start(os.getpid(), _HOST + 1, b"/", Mount(9, b"tmpfs", b"/", b"/", 90))
    return os.getpid()


@pytest.mark.parametrize(
    "others, is_away",
    [
        ((_DISK,), False),
        ((), False),
        ((_DISK, _REMOTE), True),
        ((_REMOTE._replace(point=b"/"),), True),
        ((_REMOTE._replace(point=b"/disk/up"),), True),
        ((_REMOTE._replace(point=b"/disk/l/A/below"),), False),
    ],
)
def test_an_overlay_is_local_if_all_its_layers_are(
    machine: Machine, own: int, others: tuple[Mount, ...], is_away: bool
) -> None:
    machine.start(1, _HOST, b"/", _ROOT, _OVERLAY, *others)
    machine.owners[1] = _USERS
    assert _leads_away(machine, 1) is is_away


@pytest.mark.parametrize(
    "options",
    [
        b"",
        b"rw,lowerdir=l/A,upperdir=/disk/up,workdir=/disk/work",
        b"ro,lowerdir=/disk/../net",
        rb"ro,lowerdir=/disk/l,upperdir=/disk/a\134:b",
        b"ro,lowerdir=/proc/self/fd/5:/disk/l",
    ],
)
def test_an_overlay_of_which_not_all_layers_are_told_may_wait(
    machine: Machine, own: int, options: bytes
) -> None:
    proc = Mount(21, b"proc", b"/", b"/proc", 43)
    machine.start(1, _HOST, b"/", _ROOT, _DISK, proc, _OVERLAY._replace(options=options))
    machine.owners[1] = _USERS
    assert _leads_away(machine, 1)


def test_the_layers_of_a_container_are_looked_for_where_it_was_made(
    machine: Machine, own: int
) -> None:
    """GIVEN paths that lead elsewhere in the container, or are not even there."""
    inside = _OVERLAY._replace(point=b"/", id=50)
    machine.start(23, _POD, b"/", inside, _REMOTE._replace(id=51))
    machine.start(1, _HOST, b"/", _ROOT, _DISK, _OVERLAY)
    machine.owners.update({1: _USERS, 23: _USERS})
    assert not _leads_away(machine, 23, b"/")

    machine.start(1, _HOST, b"/", _ROOT, _DISK, _OVERLAY, _REMOTE)
    assert _leads_away(machine, 23, b"/")


def test_who_can_mount_what_he_likes_is_not_believed(machine: Machine, own: int) -> None:
    """GIVEN another user namespace, where what is a layer may have been mounted over since."""
    machine.start(23, _POD, b"/", _ROOT, _DISK, _OVERLAY)
    machine.owners[23] = _OTHER_USERS
    assert _leads_away(machine, 23)
    machine.owners[23] = _USERS
    assert not _leads_away(machine, 23)


def test_overlays_are_judged_by_overlays(machine: Machine, own: int) -> None:
    """GIVEN one over another, one over a layer of its own, and two that cannot be."""
    above = _OVERLAY._replace(dev=71, point=b"/above", options=b"ro,lowerdir=/merged/a:/merged/b")
    beside = _OVERLAY._replace(dev=72, point=b"/usr", options=b"ro,lowerdir=/ext/usr:/usr")
    one = _OVERLAY._replace(dev=73, point=b"/one", options=b"ro,lowerdir=/two/a:/two/b")
    two = _OVERLAY._replace(dev=74, point=b"/two", options=b"ro,lowerdir=/one/a:/one/b")
    machine.start(1, _HOST, b"/", _ROOT, _OVERLAY, above, beside, one, two)
    machine.owners[1] = _USERS
    for point, is_away in ((b"/above", False), (b"/usr", False), (b"/one", True), (b"/two", True)):
        assert _leads_away(machine, 1, point) is is_away

    machine.start(1, _HOST, b"/", _ROOT, _OVERLAY, above, _REMOTE)
    assert _leads_away(machine, 1, b"/above")


def test_the_overlay_that_we_run_on_is_not_in_question(machine: Machine) -> None:
    """GIVEN a container, where nothing shows its layers."""
    root = _OVERLAY._replace(point=b"/", options=b"rw,lowerdir=l/A,upperdir=u,workdir=w")
    machine.start(os.getpid(), _POD, b"/", root)
    assert not _leads_away(machine, os.getpid(), b"/")


def test_what_may_be_in_memory_is_on_overlays_only(machine: Machine, own: int) -> None:
    table = MountTable([_ROOT, _OVERLAY, _DISK, _REMOTE])
    assert table.leads_away(b"/merged") and table.may_be_in_memory(b"/merged/x")
    assert not table.may_be_in_memory(b"/disk/l")
    assert not table.may_be_in_memory(b"/disk/l/A")
    assert not MountTable([_OVERLAY]).may_be_in_memory(b"/x")


def test_a_path_passes_its_prefixes() -> None:
    assert list(prefixes(b"/")) == [b"/"]
    assert list(prefixes(b"/a/bc")) == [b"/", b"/a", b"/a/bc"]


# --- roots ---


def test_a_root_that_is_not_mounted_any_more_has_a_vantage_of_its_own(machine: Machine) -> None:
    """GIVEN the same name for both THEN neither gets the table of the other."""
    machine.start(22, _HOST, b"/")
    machine.root_mounts[22] = 99
    machine.start(23, _HOST, b"/", _ROOT)
    for order in ((22, 23), (23, 22)):
        seen = Mounts()
        vantages = {pid: seen.vantage(pid) for pid in order}
        tables = {pid: seen.scene(pid, of)[0] for pid, of in vantages.items() if of is not None}
        assert tables[22].mounts_at(b"/") == []
        assert tables[23].mounts_at(b"/") == [_ROOT]
        assert seen.is_visible(_NOWHERE, 22) is None
        assert seen.is_visible(_NOWHERE, 23) is False


def test_another_thread_tells_for_a_process_whose_first_has_ended(machine: Machine) -> None:
    machine.start(23, _POD, b"/")
    machine.start(24, _POD, b"/", _SECRET)
    machine.headless.add(23)
    machine.threads[23] = [23, 24]
    seen = Mounts()
    vantage = seen.vantage(23)
    assert vantage is not None and vantage == seen.vantage(24)
    assert seen.seer(23) == 24
    assert seen.scene(23, vantage)[0].mounts_at(b"/pods/secret/x") == [_SECRET]


def test_what_is_mounted_and_was_deleted_is_known_by_its_device(machine: Machine) -> None:
    gone = Mount(8 << 20 | 1, b"ext4", b"/conf//deleted", b"/etc/conf", 30)
    table = MountTable([_ROOT, gone, _SECRET])
    assert table.deleted_points(_ROOT.dev) == [b"/etc/conf"]
    assert table.deleted_points(_SECRET.dev) == []
