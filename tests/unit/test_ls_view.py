"""One snapshot as tables and as plain records."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text
from snapshots import (
    IN_CREATE,
    IN_MODIFY,
    OTHER_DISK,
    holder,
    instance,
    shared_snapshot,
    snapshot,
    usage,
    watch,
)

from tracer.views.ls import (
    GROUPINGS,
    Home,
    Instance,
    Located,
    Queue,
    Snapshot,
    Targets,
    Usage,
    only_duplicates,
    summary,
)
from tracer.views.ls_tables import as_plain, table_lines

_POD = "5325873d-1d5a-4d6c-9d6c-0b5a3d0a7e11"
_CONTAINER = "0123456789abcdef" * 4


def _table(shown: Snapshot, by: str = "process", width: int = 80) -> list[str]:
    return [line.plain for line in table_lines(shown, by, width)]


def _grid(shown: Snapshot, by: str = "process", width: int = 80) -> list[str]:
    """What stands below the answer."""
    lines = _table(shown, by, width)
    return lines[lines.index("") + 1 :]


def _records(shown: Snapshot, by: str) -> list[list[str]]:
    return [line.split() for line in as_plain(shown, by).splitlines()]


@pytest.fixture
def shared() -> Snapshot:
    return shared_snapshot()


# --- the answer ---


def test_the_answer_comes_first(shared: Snapshot) -> None:
    assert summary(shared) == (
        "30 watches on 25 targets, 5 of them watched more than once",
        "in 3 instances of 3 processes",
        "root has 7,300 of 8,192 watches (counted)",
    )
    assert _table(shared)[:4] == [*summary(shared), ""]
    assert _table(shared, width=160)[:2] == ["   ".join(summary(shared)), ""]


@pytest.mark.parametrize(
    ("one", "line"),
    [
        (usage(instances=127), "root has 127 of 128 instances (counted)"),
        (usage(complete=False), "root has at least 7,300 of 8,192 watches (counted)"),
        (usage(source="kernel"), "root has 7,300 of 8,192 watches"),
        (usage(watches=3, watches_limit=0), "root has 3 of 0 watches (counted)"),
    ],
)
def test_the_answer_names_the_limit_that_is_nearest(one: Usage, line: str) -> None:
    others = usage(uid=1, user="daemon", watches=8192)

    assert summary(snapshot(instance(1, (holder(7),), 23), usage=(others, one)))[2:] == (line,)


def test_the_limit_is_that_of_who_is_charged() -> None:
    """GIVEN a process that became another user since, and one whose namespace has a maker."""
    theirs = usage(uid=1, user="daemon", watches=0)
    inner = usage(userns=11, watches=10, watches_limit=10)
    opened = instance(1, (holder(7, uid=1, user="daemon"),), 23, payers=((4026531837, 0),))
    inside = instance(2, (holder(11),), 23, payers=((11, 0), (4026531837, 0)))

    def limit(one: Instance) -> str:
        return summary(snapshot(one, usage=(theirs, inner, usage())))[-1]

    assert limit(opened) == "root has 7,300 of 8,192 watches (counted)"
    assert limit(inside) == "root in user namespace 11 has 10 of 10 watches (counted)"


def test_what_is_watched_more_than_once_is_told_of_those_asked_for() -> None:
    one = instance(1, (holder(7),), 23)

    assert summary(snapshot(one))[0].endswith("none of them watched more than once")
    asked = summary(snapshot(one, is_filtered=True))[0]
    assert asked.endswith("none of them watched more than once by these")


def test_no_limit_is_named_where_none_is_known() -> None:
    unknown = usage(watches_limit=None, instances_limit=None)

    assert summary(snapshot(instance(1, (holder(7),), 1), usage=(unknown,))) == (
        "1 watch on 1 target, none of them watched more than once",
        "in 1 instance of 1 process",
    )


def test_a_full_queue_is_part_of_the_answer() -> None:
    full = instance(1, (holder(7),), 1, queue=Queue(16385, exact=True, full=True))
    idle = instance(2, (holder(7),), 1, queue=Queue(3, exact=True, full=False))
    guessed = instance(3, (holder(7),), 1, queue=Queue(16385, exact=False, full=None))

    assert "1 queue full, new events are lost" in summary(snapshot(full, idle, guessed))
    assert not [part for part in summary(snapshot(idle, guessed)) if "full" in part]


@pytest.mark.parametrize("by", GROUPINGS)
def test_nothing_is_said_of_nothing(by: str) -> None:
    assert _table(snapshot(), by) == ["0 watches in 0 instances of 0 processes"]
    assert [record[0] for record in _records(snapshot(), by)][1:] == ["total"]


# --- targets ---


def test_targets_are_counted_per_process_and_instance(shared: Snapshot) -> None:
    first, second, third = shared.instances

    assert shared.targets([first]) == Targets(23, 5, 0)
    assert shared.targets([second]) == Targets(2, 0, 0)
    assert shared.targets([third]) == Targets(5, 5, 0)
    assert shared.targets([first, second]) == Targets(25, 5, 0)
    assert shared.targets(shared.instances) == Targets(25, 5, 5)


def test_inodes_of_one_number_are_told_apart_by_where_they_are() -> None:
    """GIVEN two subvolumes with an inode 256 each WHEN listed THEN they are two targets."""
    two = Instance(1, (holder(7),), (watch(1, 256, address=0x1000), watch(2, 256, address=0x2000)))

    assert snapshot(two).targets([two]) == Targets(2, 0, 0)
    assert [record[0] for record in _records(snapshot(two), "target")[1:-1]] == ["256", "256"]


def test_only_duplicates_are_left(shared: Snapshot) -> None:
    """GIVEN 5 targets of 1 and 3 WHEN only duplicates are asked for THEN 10 watches are left."""
    left = only_duplicates(shared)

    assert [(one.id, len(one.watches)) for one in left.instances] == [(1, 5), (3, 5)]
    assert left.pids == {7, 11, 13}
    assert summary(left)[0] == "10 watches on 5 targets, 5 of them watched more than once"
    assert left.duplicates and not shared.duplicates
    assert only_duplicates(snapshot(shared.instances[0])).instances == ()


# --- the table ---


def test_table_by_process(shared: Snapshot) -> None:
    assert _grid(shared, width=100) == [
        "  PID  USER  INSTANCES  WATCHES  TARGETS  REPEATED  SHARED WITH  COMMAND    EXECUTABLE",
        "    7  root          2       25       25         5  11           agent      /bin/agent",
        "   11  root          1       23       23         5  7            agent      /bin/agent",
        "   13  root          1        5        5         5               two words  -",
        "total                3       30       25         5                          "
        "each instance once",
    ]


def test_what_is_spare_goes_first(shared: Snapshot) -> None:
    """GIVEN 80 columns WHEN all does not fit THEN a whole column goes before names are cut."""
    assert _grid(shared, width=80) == [
        "  PID  USER  INSTANCES  WATCHES  REPEATED  COMMAND    EXECUTABLE",
        "    7  root          2       25         5  agent      /bin/agent",
        "   11  root          1       23         5  agent      /bin/agent",
        "   13  root          1        5         5  two words  -",
        "total                3       30         5             each instance once",
    ]


def test_table_by_fd(shared: Snapshot) -> None:
    queued = dataclasses.replace(shared.instances[0], queue=Queue(7491, exact=True, full=False))
    guessed = dataclasses.replace(shared.instances[1], queue=Queue(3, exact=False, full=None))
    full = dataclasses.replace(shared.instances[2], queue=Queue(16385, exact=True, full=True))
    shown = dataclasses.replace(shared, instances=(queued, guessed, full))

    assert _grid(shown, "fd", width=100) == [
        "  PID  FD  USER  WATCHES  REPEATED  UNREAD  QUEUE  SHARED WITH  COMMAND    EXECUTABLE",
        "    7   3  root       23         5   7,491         7:5 +1       agent      /bin/agent",
        "    7   5  root       23         5   7,491         7:3 +1       agent      /bin/agent",
        "   11   3  root       23         5   7,491         7:3 +1       agent      /bin/agent",
        "   13   3  root        5         5  16,385  full                two words  -",
        "    7   4  root        2         0      3+                      agent      /bin/agent",
        "total                 30         5                                         "
        "each instance once",
    ]
    assert [record[5:7] for record in _records(shown, "fd")[-3:-1]] == [
        ["16385", "full"],
        ["3+", "-"],
    ]


def test_table_by_user() -> None:
    shown = snapshot(
        instance(1, (holder(7), holder(13, uid=33, user="www data")), 23),
        instance(2, (holder(11),), 2, first=100),
    )

    assert _grid(shown, "user", 100) == [
        "  UID  USER      PROCESSES  INSTANCES  WATCHES  TARGETS  REPEATED  SHARED WITH",
        "    0  root              2          2       25       23         2  www data",
        "   33  www data          1          1       23       23         2  root",
        "total                    3          2       25       23         2  each instance once",
    ]
    assert _records(shown, "user")[2][:2] == ["33", r"www\x20data"]
    assert _records(shown, "user")[1][7] == r"www\x20data"


@pytest.mark.parametrize("by", ["user", "pod"])
def test_lines_that_add_up_have_no_remark(by: str) -> None:
    """GIVEN an instance of two processes of one user and one unit."""
    one = instance(1, (holder(7), holder(11)), 3)

    assert _records(snapshot(one), by)[-1][-1] == "-"


def test_table_by_pod() -> None:
    """GIVEN two processes of a pod, one of a pod that is gone, a service and one of none."""
    instances = [instance(at, (holder(pid),), at) for at, pid in enumerate((7, 11, 13, 17, 19), 1)]
    named = Home(container=_CONTAINER, pod=_POD, qos="burstable", unit="kubelet.service")
    gone = Home(pod="f" * 32, pod_exists=False)
    homes = {
        7: named._replace(pod_name="web-0", namespace="shop", pod_exists=True),
        11: named,
        13: gone,
        17: Home(unit="cron.service"),
    }
    shown = snapshot(*instances, homes=homes)

    assert _records(shown, "pod")[1:] == [
        ["1", "1", "5", "5", "4", "-", "-", "-", "-", "-"],
        ["1", "1", "4", "4", "4", "-", "-", "-", "-", "cron.service"],
        ["2", "2", "3", "2", "2", "shop/web-0", "-", "burstable", _CONTAINER, "-"],
        ["1", "1", "3", "3", "3", "f" * 32, "gone", "-", "-", "-"],
        ["total", "5", "5", "15", "5", "4", "-", "-", "-", "-", "-"],
    ]
    assert "shop/web-0" in "\n".join(_grid(shown, "pod", 80))
    # as crictl(1) shortens an id
    assert f" {_CONTAINER[:13]} " in _grid(shown, "pod", 120)[3] + " "


def test_a_pod_has_one_line_for_all_its_containers() -> None:
    """GIVEN two containers that share an instance, a process beside them, and another service."""
    instances = (
        instance(1, (holder(7), holder(11)), 23),
        instance(2, (holder(11), holder(17)), 2, first=200),
        instance(3, (holder(13),), 5, first=300),
    )
    pod = Home(pod=_POD, pod_name="web-0", namespace="default", pod_exists=True)
    homes = {
        7: pod._replace(container=_CONTAINER),
        11: pod._replace(container="f" * 64),
        13: pod._replace(qos="burstable"),
        17: Home(unit="cron.service"),
    }
    shown = snapshot(*instances, homes=homes)
    containers = f"{_CONTAINER},{'f' * 64}"

    assert _records(shown, "pod")[1:] == [
        ["3", "3", "30", "30", "0", "default/web-0", "-", "burstable", containers, "-"],
        ["1", "1", "2", "2", "0", "-", "-", "-", "-", "cron.service"],
        ["total", "4", "3", "30", "30", "0", "-", "-", "-", "-", "each", "instance", "once"],
    ]
    assert f"{_CONTAINER[:13]} +1" in _grid(shown, "pod", 160)[1]


def test_a_name_of_a_container_is_not_shortened() -> None:
    """GIVEN two containers of LXC whose names begin alike."""
    names = [f"database-server-{at}" for at in (1, 2)]
    instances = [instance(at, (holder(at),), 3) for at in (1, 2)]
    shown = snapshot(*instances, homes={at: Home(container=names[at - 1]) for at in (1, 2)})

    assert [record[8] for record in _records(shown, "pod")[1:-1]] == names
    assert [line.split()[-1] for line in _grid(shown, "pod", 100)[1:-1]] == names


def test_table_by_target_has_those_watched_twice_on_top(shared: Snapshot) -> None:
    lines = _grid(shared, "target")

    assert lines[:3] == [
        "INODE  DEVICE  WATCHES  MASK       HOLDERS      PATH",
        "  100     8:1        2  IN_CREATE  agent[7] +2",
        "  101     8:1        2  IN_CREATE  agent[7] +2",
    ]
    assert lines[6] == "  105     8:1        1  IN_CREATE  agent[7] +1"
    assert lines[-1] == "total               30                          25 targets, 5 repeated"


def test_targets_have_their_paths() -> None:
    """GIVEN a path by a name, one that only the second watch has, and one that is not found."""
    by_name, nowhere = Located(b"/srv/a\n b", "dentry"), Located(None, "unresolved")
    one = instance(1, (holder(7),), 3, located=(nowhere, nowhere, by_name))
    other = Instance(2, (holder(11),), (watch(1, 101),), located=(Located(b"/b", "handle"),))
    shown = snapshot(one, other)

    assert {record[0]: record[5:] for record in _records(shown, "target")[1:-1]} == {
        "100": ["dentry", r"/srv/a\n\x20b"],
        "101": ["handle", "/b"],
        "102": ["unresolved", "unresolved"],
    }


def test_a_target_has_all_paths_by_which_its_holders_see_it() -> None:
    inside, outside = Located(b"/a,b", "dentry"), Located(b"/pod/a,b", "handle")
    seen = (outside, inside, outside, Located(None, "unresolved"))
    shown = snapshot(
        *(
            Instance(pid, (holder(pid),), (watch(1, 101),), located=(located,))
            for pid, located in enumerate(seen, 7)
        )
    )

    (record,) = _records(shown, "target")[1:-1]
    assert record[5:] == ["handle", r"/pod/a\x2cb,/a\x2cb"]
    assert _grid(shown, "target")[1].endswith(r"/pod/a\x2cb +1")


def test_masks_of_one_target_are_joined() -> None:
    shown = snapshot(
        Instance(1, (holder(7),), (watch(1, 9, mask=IN_MODIFY),)),
        Instance(2, (holder(7, 4),), (watch(1, 9, mask=IN_CREATE), watch(2, 9, dev=OTHER_DISK))),
    )

    assert [record[:5] for record in _records(shown, "target")[1:]] == [
        ["9", "8:1", "2", "IN_MODIFY|IN_CREATE", "agent[7]"],
        ["9", "8:2", "1", "IN_CREATE", "agent[7]"],
        ["total", "-", "3", "-", "-"],
    ]


@pytest.mark.parametrize("by", GROUPINGS)
@pytest.mark.parametrize("width", [80, 160])
def test_lines_are_cut_in_the_middle_to_fit(by: str, width: int) -> None:
    """GIVEN long names of wide characters WHEN shown THEN no line is wider than the terminal."""
    wide = "山".encode() * 200
    long = holder(4194304, 1023, "山".encode() * 5, b"/" + wide + b"/agent", user="u" * 32)
    path = Located(b"/" + wide + b"/agent", "dentry")
    full = Instance(
        1,
        (long, holder(7)),
        (watch(1, 2**64 - 1, 2**32 - 1, 2**32 - 1),),
        Queue(16385, exact=True, full=True),
        (path,),
    )
    home = Home(container=_CONTAINER, pod=_POD, pod_name="p" * 253, namespace="n" * 63)
    shown = snapshot(full, homes={4194304: home, 7: Home(unit=b"\xff" * 200)})
    lines = _table(shown, by, width)

    assert max(map(cell_len, lines)) <= width
    assert by in ("user", "pod") or any(line.endswith("gent") and "…" in line for line in lines)


def test_names_are_never_markup_or_escapes() -> None:
    comm, exe = b"\x1b[2J[bold]\n", b"/tmp/[red]x[/] \xe2\x80\xae(deleted)"
    shown = snapshot(instance(1, (holder(7, comm=comm, exe=exe),), 1))

    for text in ("\n".join(_table(shown, width=160)), as_plain(shown, "process")):
        assert r"\x1b[2J[bold]\n" in text
        assert "/tmp/[red]x[/]" in text
        assert "\x1b" not in text and "\u202e" not in text


def test_only_the_header_is_bold(shared: Snapshot) -> None:
    styled = [line.plain.split() for line in table_lines(shared, "fd", 80) if _is_styled(line)]

    assert [words[0] for words in styled] == ["PID"]


def _is_styled(line: Text) -> bool:
    return bool(line.style) or any(span.style for span in line.spans)


# --- plain ---


def test_plain_is_for_awk(shared: Snapshot) -> None:
    assert as_plain(shared, "process").splitlines() == [
        "  PID  USER  INSTANCES  WATCHES  TARGETS  REPEATED  SHARED_WITH  COMMAND       EXECUTABLE",
        "    7  root          2       25       25         5  11           agent         /bin/agent",
        "   11  root          1       23       23         5  7            agent         /bin/agent",
        r"   13  root          1        5        5         5  -            two\x20words  -",
        "total  -             3       30       25         5  -            -             "
        "each instance once",
    ]


def test_plain_cuts_and_groups_nothing() -> None:
    exe = b"/opt/" + b"x" * 300
    shown = snapshot(instance(1, (holder(1173, exe=exe),), 7491))

    assert _records(shown, "fd")[1] == [
        *("1173", "3", "root", "7491", "0", "-", "-", "-", "agent"),
        exe.decode(),
    ]


names = st.binary(max_size=15)


@given(names, st.none() | names, names)
def test_plain_records_always_have_the_same_fields(
    comm: bytes, exe: bytes | None, other: bytes
) -> None:
    """GIVEN any names WHEN split at ASCII blanks THEN each record has one field per column."""
    holders = (holder(7, comm=comm, exe=exe), holder(11, comm=other))
    shown = snapshot(
        instance(1, holders, 3, located=(Located(b"/" + other, "dentry"),)),
        instance(2, (holder(13, comm=other),), 2),
        homes={7: Home(unit=comm), 11: Home(pod=_POD, pod_name=other.decode("latin-1"))},
    )

    for by, width in {"process": 9, "fd": 10, "user": 8, "target": 7, "pod": 10}.items():
        header, *records, total = as_plain(shown, by).split("\n")[:-1]
        assert len(header.split()) == width
        assert {len(list(filter(None, record.split(" ")))) for record in records} == {width}
        assert all(record.lstrip()[0].isdigit() for record in records)
        assert total.lstrip().startswith("total")


def test_many_sharers_are_a_number() -> None:
    """GIVEN an instance of 23 processes WHEN listed THEN lines do not grow with their number."""
    shown = snapshot(instance(1, tuple(holder(pid) for pid in range(100, 123)), 1))

    assert _records(shown, "process")[1][6] == "101,102,103,+19"
    assert _records(shown, "process")[-2][6] == "100,101,102,+19"
    assert _records(shown, "fd")[1][7] == "101:3,102:3,103:3,+19"
    assert _records(shown, "target")[1][4] == "agent[100],agent[101],agent[102],+20"
    assert _grid(shown, width=160)[1].split()[6:8] == ["101", "+21"]


def test_a_comma_in_a_name_separates_nothing() -> None:
    shown = snapshot(instance(1, (holder(7, comm=b"a[1],b"), holder(11)), 1))

    assert _records(shown, "target")[1][4] == r"a[1]\x2cb[7],agent[11]"


def test_others_are_listed_only_as_sharers(shared: Snapshot) -> None:
    """GIVEN only 11 is asked for WHEN it shares with 7 THEN 7 has no record of its own."""
    asked = dataclasses.replace(shared, pids=frozenset({11}), instances=shared.instances[:1])

    assert _records(asked, "process")[1][:6] == ["11", "root", "1", "23", "23", "0"]
    assert _records(asked, "process")[1][6] == "7"
    assert [record[0] for record in _records(asked, "fd")] == ["PID", "11", "total"]
    assert summary(asked)[1] == "in 1 instance of 1 process"
