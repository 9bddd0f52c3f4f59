"""Which cgroup a path names, and who is in it, from text of the kernel's and of strangers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.errors import EXIT_USAGE, InotraceError
from tracer.kernel.probe import ScopedCgroup
from tracer.targets import cgroups
from tracer.targets.cgroups import (
    Cgroup,
    CgroupMount,
    Membership,
    Place,
    all_below,
    find_cgroup,
    has_processes,
    memberships,
    parse_cgroup_mounts,
    parse_memberships,
    parse_place,
)

_HYBRID = b"""\
12:memory:/kubepods/burstable/pod1
11:cpu,cpuacct:/
1:name=systemd:/system.slice/kubelet.service
0::/system.slice/kubelet.service
"""
_MOUNTS = b"""\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
33 32 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
34 32 0:28 / /sys/fs/cgroup/systemd rw,nosuid shared:10 - cgroup cgroup rw,xattr,name=systemd
35 32 0:29 /../.. /run/host\\040groups rw - cgroup2 none rw,nsdelegate
36 32 0:30 /docker/23 /sys/fs/cgroup/memory ro master:7 propagate_from:2 - cgroup cgroup rw,memory
"""


# --- places ---


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (b"/", Place(0, ())),
        (b"/kubepods.slice/pod1", Place(0, (b"kubepods.slice", b"pod1"))),
        (b"//kubepods.slice/./pod1//", Place(0, (b"kubepods.slice", b"pod1"))),
        (b"/kubepods.slice/../system.slice", Place(0, (b"system.slice",))),
        (b"/../../system.slice", Place(2, (b"system.slice",))),
        (b"/a/../..", Place(1, ())),
        (b"/a:b (deleted)/\xff\x01", Place(0, (b"a:b (deleted)", b"\xff\x01"))),
    ],
)
def test_a_path_becomes_a_place(path: bytes, place: Place) -> None:
    assert parse_place(path) == place


@pytest.mark.parametrize(
    ("outer", "inner", "holds"),
    [
        (b"/", b"/", True),
        (b"/", b"/a/b", True),
        (b"/a", b"/a", True),
        (b"/a", b"/a/b", True),
        (b"/a", b"/ab", False),
        (b"/a/b", b"/a", False),
        (b"/a", b"/b/a", False),
        # we are in /x/y: /.. is /x, /../z is /x/z
        (b"/", b"/..", False),
        (b"/", b"/../z", False),
        (b"/..", b"/", True),
        (b"/..", b"/a", True),
        (b"/..", b"/../z", True),
        (b"/..", b"/../..", False),
        (b"/../z", b"/../z/a", True),
        (b"/../z", b"/a", False),
        (b"/../z", b"/z", False),
        (b"/../..", b"/../z", True),
        (b"/../../z", b"/../z", False),
    ],
)
def test_a_place_holds_what_is_below_it(outer: bytes, inner: bytes, holds: bool) -> None:
    assert parse_place(outer).holds(parse_place(inner)) is holds


# what the root of a cgroup namespace and two cgroups may be called: few names, so that they meet
_NAMES = st.lists(st.sampled_from([b"a", b"b"]), max_size=4).map(tuple)


def _seen_from(root: tuple[bytes, ...], cgroup: tuple[bytes, ...]) -> Place:
    """As kernfs_path_from_node() writes it."""
    common = len(os.path.commonprefix([root, cgroup]))
    return Place(len(root) - common, cgroup[common:])


@given(_NAMES, _NAMES, _NAMES)
def test_who_is_below_does_not_depend_on_who_looks(
    root: tuple[bytes, ...], outer: tuple[bytes, ...], inner: tuple[bytes, ...]
) -> None:
    holds = _seen_from(root, outer).holds(_seen_from(root, inner))

    assert holds is (inner[: len(outer)] == outer)


# --- /proc/PID/cgroup ---


def test_each_line_is_a_membership() -> None:
    assert list(parse_memberships(_HYBRID)) == [
        Membership(12, frozenset({b"memory"}), parse_place(b"/kubepods/burstable/pod1")),
        Membership(11, frozenset({b"cpu", b"cpuacct"}), Place(0, ())),
        Membership(1, frozenset({b"name=systemd"}), parse_place(b"/system.slice/kubelet.service")),
        Membership(0, frozenset(), parse_place(b"/system.slice/kubelet.service")),
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b":",
        b"::",
        b"0:",
        b"0::",
        b"0::relative",
        b"-1::/",
        b"0x1::/",
        b"\xc2\xb2::/",
        b"9" * 5000 + b"::/",
        b" 0::/",
    ],
)
def test_what_is_no_line_of_the_kernel_is_left_out(line: bytes) -> None:
    assert list(parse_memberships(line + b"\n7:pids:/a\n")) == [
        Membership(7, frozenset({b"pids"}), Place(0, (b"a",)))
    ]


@given(
    st.binary(max_size=300) | st.text("0123456789:/.,\n\\ -cgroup2", max_size=300).map(str.encode)
)
def test_any_bytes_are_parsed_without_an_error(text: bytes) -> None:
    list(parse_memberships(text))
    parse_cgroup_mounts(text)


def test_a_name_like_another_line_stays_a_name() -> None:
    (member,) = parse_memberships(b"0::/evil:0::/kubepods.slice\n")

    assert member.place == Place(0, (b"evil:0::", b"kubepods.slice"))


@pytest.fixture
def proc_says(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What files of /proc have in them; the others cannot be read."""
    files: dict[str, bytes] = {}
    monkeypatch.setattr(cgroups, "_content", lambda path: files.get(path, b""))
    return files


def test_only_the_place_in_the_same_hierarchy_counts(proc_says: dict[str, bytes]) -> None:
    proc_says["/proc/23/cgroup"] = _HYBRID
    pods = Place(0, (b"kubepods",))

    assert Cgroup(12, 5, pods).includes(23)
    assert not Cgroup(11, 5, pods).includes(23)
    assert not Cgroup(0, 5, pods).includes(23)
    assert Cgroup(0, 5, Place(0, (b"system.slice",))).includes(23)


def test_a_process_that_is_gone_is_nowhere() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()

    assert not Cgroup(0, 1, Place(0, ())).includes(process.pid)


def test_the_kernel_side_knows_one_by_its_name_too_if_it_has_a_parent() -> None:
    pod = Place(0, (b"kubepods", b"pod1"))

    assert Cgroup(0, 5, pod, parent=3).scoped() == ScopedCgroup(0, 5, 3, b"pod1")
    assert Cgroup(0, 5, pod).scoped() == ScopedCgroup(0, 5, 0, b"")
    assert Cgroup(0, 1, Place(0, ()), parent=3).scoped() == ScopedCgroup(0, 1, 0, b"")


# --- mounts, and what a path is ---


def test_cgroup_mounts_are_listed_version_2_first() -> None:
    assert parse_cgroup_mounts(_MOUNTS) == (
        CgroupMount(35, True, Place(2, ()), b"/run/host groups", frozenset({b"rw", b"nsdelegate"})),
        CgroupMount(
            33,
            False,
            Place(0, ()),
            b"/sys/fs/cgroup/cpu,cpuacct",
            frozenset({b"rw", b"cpu", b"cpuacct"}),
        ),
        CgroupMount(
            34,
            False,
            Place(0, ()),
            b"/sys/fs/cgroup/systemd",
            frozenset({b"rw", b"xattr", b"name=systemd"}),
        ),
        CgroupMount(
            36,
            False,
            Place(0, (b"docker", b"23")),
            b"/sys/fs/cgroup/memory",
            frozenset({b"rw", b"memory"}),
        ),
    )


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" - ",
        b" - cgroup2 none rw",
        b"1 2 0:3 / /at rw cgroup2 none rw",
        b"1 2 0:3 / - cgroup2 none rw",
        b"1 2 0:3 / /at rw - cgroup2 none",
        b"x 2 0:3 / /at rw - cgroup2 none rw",
        b"1" * 5000 + b" 2 0:3 / /at rw - cgroup2 none rw",
        b"1 2 0:3 / /at\\040-\\040cgroup2 rw - tmpfs none rw",
    ],
)
def test_what_is_no_cgroup_mount_is_left_out(line: bytes) -> None:
    assert parse_cgroup_mounts(line) == ()


@pytest.mark.parametrize(
    ("path", "folders"),
    [
        (b"/docker/23/x", [b"/sys/fs/cgroup/memory/x"]),
        (b"/docker/23", [b"/sys/fs/cgroup/memory"]),
        (b"docker/23/x", []),
    ],
)
def test_what_proc_shows_is_looked_for_where_it_is_mounted(
    path: bytes, folders: list[bytes]
) -> None:
    whole = (b"/sys/fs/cgroup/cpu,cpuacct", b"/sys/fs/cgroup/systemd")

    found = list(cgroups._shown_as(path, parse_cgroup_mounts(_MOUNTS)))

    assert [folder for folder in found if not folder.startswith(whole)] == folders


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CgroupMount:
    """The whole of a hierarchy in which our namespace begins at /slice/pod, and we are in own."""
    for way in ("slice/pod/own", "slice/other/own", "slice/pod/other", "a/b"):
        (tmp_path / way).mkdir(parents=True)
        procs = [23, os.getpid()] if way == "slice/pod/own" else [23]
        (tmp_path / way / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in procs))
    own = Membership(0, frozenset(), parse_place(b"/own"))
    monkeypatch.setattr(cgroups, "_own_membership", lambda mount: own)
    return CgroupMount(1, True, Place(2, ()), os.fsencode(tmp_path), frozenset())


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        (b"/", b"/slice/pod"),
        (b"/own", b"/slice/pod/own"),
        (b"/..", b"/slice"),
        (b"/../other/own", b"/slice/other/own"),
        (b"/../../a", b"/a"),
        (b"/../..", b""),
    ],
)
def test_what_is_above_our_namespace_is_found_by_where_we_are(
    path: bytes, folder: bytes, host: CgroupMount
) -> None:
    assert list(cgroups._shown_as(path, [host])) == [host.point + folder]


def test_a_mount_in_which_we_are_not_leads_nowhere(
    host: CgroupMount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)

    assert list(cgroups._shown_as(b"/", [host])) == []


@pytest.mark.parametrize("mount", parse_cgroup_mounts(_MOUNTS), ids=lambda mount: str(mount.id))
def test_the_hierarchy_of_a_mount_is_told_by_its_labels(
    mount: CgroupMount, proc_says: dict[str, bytes]
) -> None:
    proc_says["/proc/self/cgroup"] = _HYBRID

    own = cgroups._own_membership(mount)

    assert own is not None
    assert own.hierarchy == {33: 11, 34: 1, 35: 0, 36: 12}[mount.id]


def test_a_hierarchy_that_is_gone_has_no_number(proc_says: dict[str, bytes]) -> None:
    proc_says["/proc/self/cgroup"] = b"3:cpu,cpuset:/\n2:name=other:/\n"

    assert {cgroups._own_membership(mount) for mount in parse_cgroup_mounts(_MOUNTS)} == {None}


@pytest.mark.parametrize("path", ["", "nowhere", "/no/where\n", "/a\0b", "\udcff"])
def test_what_does_not_exist_is_told_in_one_line(
    path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cgroups, "parse_cgroup_mounts", _parsed_mounts)

    with pytest.raises(InotraceError) as error:
        find_cgroup(path)

    assert error.value.exit_code == EXIT_USAGE
    assert str(error.value) == (
        f"there is no cgroup {path!r}: give a folder below /run/host groups, "
        "or a path as /proc/PID/cgroup shows it"
    )


def test_a_folder_that_is_no_cgroup_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cgroups, "parse_cgroup_mounts", _parsed_mounts)

    with pytest.raises(InotraceError, match="is no cgroup: give a folder below ") as error:
        find_cgroup(str(tmp_path))

    assert error.value.exit_code == EXIT_USAGE


def test_that_none_is_mounted_is_told(proc_says: dict[str, bytes]) -> None:
    with pytest.raises(InotraceError, match="mount -t cgroup2 none /sys/fs/cgroup") as error:
        find_cgroup("/")

    assert error.value.exit_code == EXIT_USAGE


def _parsed_mounts(_: bytes) -> tuple[CgroupMount, ...]:
    return parse_cgroup_mounts(_MOUNTS)


# --- what is below ---


def test_all_that_is_below_is_found_and_no_files(tmp_path: Path) -> None:
    for folder in ("a/b/c", "a/d", "e"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "a" / "cgroup.procs").touch()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    top = os.fsencode(tmp_path)
    found = [os.fsdecode(each[len(top) :]) for each in all_below([top, top + b"/none"])]

    assert sorted(found) == ["/a", "/a/b", "/a/b/c", "/a/d", "/e"]
    assert [each.count("/") for each in found] == [1, 1, 2, 2, 3]


def test_processes_below_a_cgroup_are_its_own(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    for folder in (tmp_path, below.parent, below):
        (folder / "cgroup.procs").touch()
    assert not has_processes(os.fsencode(tmp_path))
    (below / "cgroup.procs").write_text("23\n")
    assert has_processes(os.fsencode(tmp_path))
    assert not has_processes(os.fsencode(tmp_path / "none"))


def test_a_process_that_has_ended_is_in_no_cgroup() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert list(memberships(ended.pid)) == []
    assert list(memberships(os.getpid()))
