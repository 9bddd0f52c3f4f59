"""Who has how much of which limit: the answer, the table, plain records and JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from build import plain
from rich.cells import cell_len
from test_report_view import HOSTILE

from tracer.core.raising import Settings
from tracer.core.shortage import INITIAL_USERNS, HolderShare, Resource, Shortage
from tracer.views.json_limits import as_json
from tracer.views.limits import Limits, User, remarks, summary
from tracer.views.limits_table import as_plain, table_lines
from tracer.views.ls import Usage

_INNER = 4026532201
_GIB = 1 << 30
_KUBELET = HolderShare(1173, b"kubelet", 7468, 27)
_UDEVD = HolderShare(450, b"udevd", 23, 1)


def _user(
    *holders: HolderShare, maker: Any = None, member: int | None = None, **changes: Any
) -> User:
    usage = Usage(0, "root", INITIAL_USERNS, 7491, 8192, 28, 128, "kernel", True)
    return User(dataclasses.replace(usage, **changes), holders, maker, member)


def _limits(*users: User, **changes: Any) -> Limits:
    limits = Limits(
        kernel="6.1.0-25-amd64",
        truth="iterator",
        complete=True,
        users=users,
        watches=7491,
        instances=28,
        settings=Settings(8192, 128, 16384, 8 * _GIB),
    )
    return dataclasses.replace(limits, **changes)


def _inner(*holders: HolderShare, **changes: Any) -> User:
    """A user in a namespace that root made, without limits of its own."""
    given = {"watches_limit": 2**31 - 1, "instances_limit": 2**31 - 1, **changes}
    of_root: dict[str, Any] = {"maker": (INITIAL_USERNS, 0), "member": 17, "userns": _INNER}
    return _user(*holders, **{**of_root, "watches": 7, **given})


_TABLE_80 = """\
root has 7,491 of 8,192 watches (91 %): kubelet[1173] holds 7,468 of them

USED  USER  NAMESPACE  LIMIT OF     HAS  ALLOWED  FREE  HELD BY
91 %  root  initial    watches    7,491    8,192   701  kubelet[1173] 7,468, +1
21 %  root  initial    instances     28      128   100  kubelet[1173] 27, +1

To raise a limit now, as root
  sysctl -w fs.inotify.max_user_watches=16384
    now 8,192 for each user; 16,384 take 20 MiB of kernel memory if all are used
  sysctl -w fs.inotify.max_user_instances=256
    now 128 for each user
  sysctl -w fs.inotify.max_queued_events=32768
    now 16,384 events of an instance; holds for those opened from then on
For good: in /etc/sysctl.d/60-inotify.conf, then sysctl --system
  fs.inotify.max_user_watches = 16384
  fs.inotify.max_user_instances = 256
  fs.inotify.max_queued_events = 32768
"""


def test_the_whole_table() -> None:
    lines = plain(table_lines(_limits(_user(_KUBELET, _UDEVD)), 80))

    assert "\n".join(lines) + "\n" == _TABLE_80


def test_more_holders_are_named_where_there_is_room() -> None:
    text = "\n".join(plain(table_lines(_limits(_user(_KUBELET, _UDEVD)), 160)))

    assert "kubelet[1173] 7,468, udevd[450] 23\n" in text


@pytest.mark.parametrize(
    ("holder", "others", "shown"),
    [
        (HolderShare(1173, b"kubelet", 7_468, 27), 0, "kubelet[1173] 7,468"),
        (HolderShare(45_678, b"python3", 60_000, 27), 22, "py…on3[45678] 60,000"),
        (HolderShare(45_678, b"python3", 6, 27), 2, "python3[45678] 6, +2"),
        # the name alone is cut
        (HolderShare(4_194_304, b"NetworkManager", 160_000, 1), 22, "N…r[4194304] 160,000"),
        (HolderShare(1234567, b"ev\x1b]0;owned\x07", 2, 27), 0, r"ev\x…\x07[1234567] 2"),
        (HolderShare(1234567, b"ev\x1b]0;owned\x07", 2, 27), 23, r"ev\x…\x07[1234567] 2"),
    ],
)
def test_at_80_columns_a_pid_and_what_it_holds_are_whole(
    holder: HolderShare, others: int, shown: str
) -> None:
    """GIVEN little room WHEN it is named who holds most THEN its number is not what is cut."""
    user = _user(
        holder,
        *(HolderShare(17 + at, b"udevd", 1, 1) for at in range(others)),
        watches=160_000,
        watches_limit=192_536,
    )
    lines = plain(table_lines(_limits(user, watches=160_000), 80))
    (row,) = [line for line in lines if "  watches  " in line]

    assert row.endswith(f"  {shown}")
    assert len(row) <= 80


def test_a_long_name_of_a_user_is_cut_before_who_holds_it() -> None:
    user = _user(_KUBELET, _UDEVD, user="systemd-network-resolve-something")
    lines = plain(table_lines(_limits(user), 80))
    (row,) = [line for line in lines if "  watches  " in line]

    assert row.endswith("  k…et[1173] 7,468")
    assert "  syste…ething  initial  " in row


def test_plain_records_begin_with_a_digit_and_all_else_with_a_hash() -> None:
    limits = _limits(_user(_KUBELET, _UDEVD), _inner())
    answer, header, *rest = as_plain(limits).splitlines()

    assert answer == "# root has 7,491 of 8,192 watches (91 %): kubelet[1173] holds 7,468 of them"
    records = [line.split() for line in rest[:4]]
    assert records[0] == (
        [
            "91%",
            "root",
            "initial",
            "watches",
            "7491",
            "8192",
            "701",
            "kubelet[1173]:7468,udevd[450]:23",
        ]
    )
    assert {len(record) for record in records} == {len(header.split())}
    assert ["0%", "root", str(_INNER), "watches", "7", "-", "701", "-"] in records
    assert all(line.startswith("# ") for line in rest[4:])
    assert "# sysctl -w fs.inotify.max_user_watches=16384" in rest


@pytest.mark.parametrize(
    ("users", "answers"),
    [
        ((), ["nobody has an inotify instance"]),
        ((_user(),), ["root has 7,491 of 8,192 watches (91 %)"]),
        (
            (_user(HolderShare(1, b"a", 7491, 28), instances=128),),
            [
                "root has 128 of 128 instances (100 %): a[1] holds 28 of them",
                "root has 7,491 of 8,192 watches (91 %): a[1] holds all of them",
            ],
        ),
        (
            (_user(source="counted", complete=False),),
            ["root has at least 7,491 of 8,192 watches (91 %), counted"],
        ),
        ((_user(watches=8191, watches_limit=8192),), ["root has 8,191 of 8,192 watches (99 %)"]),
        (
            (_user(watches_limit=None, instances_limit=None, userns=_INNER),),
            [f"root has 7,491 watches in user namespace {_INNER}"],
        ),
        ((_user(watches_limit=0),), ["root has 7,491 of 0 watches (100 %)"]),
        (
            (_user(HolderShare(1, b"a", 1, 1), watches=1, watches_limit=1),),
            ["root has 1 of 1 watches (100 %): a[1] holds it"],
        ),
    ],
)
def test_the_answer(users: tuple[User, ...], answers: list[str]) -> None:
    assert list(summary(_limits(*users))) == answers


_CONT = HolderShare(17567, b"cont", 1, 1)


def _container(*holders: HolderShare, **changes: Any) -> User:
    """A user in a namespace of root's, with one watch on one instance."""
    return _inner(*holders, **{"uid": 100_000, "user": "100000", "instances": 1, **changes})


def _only_container(container: User, root: User) -> Limits:
    return _limits(root, container, asked=frozenset({container.key}))


def test_of_one_in_a_namespace_the_answer_is_the_limit_that_is_met_first() -> None:
    """GIVEN a container without limits WHEN its maker is near to one THEN that is the answer."""
    limits = _only_container(_container(_CONT, watches=1), _user(watches=123, instances=24))

    assert summary(limits) == (
        f"100000 has 1 instance in user namespace {_INNER}: cont[17567] holds it; "
        "root is charged, too, and has 24 of 128 (18 %)",
    )
    # it is not told twice
    assert list(remarks(limits)) == []
    rows = [line.split() for line in plain(table_lines(limits, 80))]
    assert [row[3] for row in rows if row[1:2] == ["100000"]] == ["instances", "watches"]


def test_one_who_has_none_of_what_its_maker_has_no_more_of_would_be_charged() -> None:
    container = _container(watches=0, instances=0)
    limits = _only_container(container, _user(watches=123, instances=128))

    assert summary(limits) == (
        f"100000 has 0 instances in user namespace {_INNER}; "
        "root would be charged, too, and has 128 of 128 (100 %)",
    )
    answer, *_ = table_lines(limits, 200)
    assert [str(span.style) for span in answer.spans] == ["bold red"]


def test_a_limit_that_many_share_is_told_once_by_whose_it_is() -> None:
    """GIVEN containers of a user who has no more WHEN all are shown THEN that user is told."""
    containers = [_container(_CONT, userns=_INNER + at) for at in range(7)]
    limits = _limits(*containers, _user(watches=123, instances=128))

    assert summary(limits) == ("root has 128 of 128 instances (100 %)",)


@pytest.mark.parametrize(("watches", "style"), [(6553, ""), (6554, "yellow"), (8192, "bold red")])
def test_from_80_percent_on_it_warns(watches: int, style: str) -> None:
    answer, *_ = table_lines(_limits(_user(watches=watches)), 80)

    assert {str(span.style) for span in answer.spans} == ({style} if style else set())


def test_a_total_above_the_limit_is_explained_by_several_users() -> None:
    others = _user(uid=1000, user="ann", watches=3000)
    limits = _limits(_user(), others, watches=10_491)

    assert list(remarks(limits)) == [
        "10,491 watches are in use, more than the 8,192 allowed: that is for each user by itself, "
        "and 2 users have some."
    ]


def test_more_than_allowed_means_that_the_limit_was_lowered() -> None:
    (remark,) = remarks(_limits(_user(watches=9000), watches=9000))

    assert "root has more watches than allowed: the limit was lowered" in remark


def test_in_a_namespace_too_the_limit_may_have_been_lowered() -> None:
    """GIVEN one of a namespace with more than allowed WHEN asked for THEN the reason is told."""
    inner = _inner(watches=18, watches_limit=5, instances=2, instances_limit=0)
    limits = _limits(_user(), inner, asked=frozenset({inner.key}))
    watches, instances, _ = remarks(limits)

    assert watches.startswith(f"root in user namespace {_INNER} has more watches than allowed: the")
    assert instances.startswith(f"root in user namespace {_INNER} has more instances than allowed")
    assert [one.suggested for one in limits.raises[-2:]] == [36, 4]


def test_what_is_free_in_a_namespace_is_what_all_who_are_charged_leave() -> None:
    inner, outer = _inner(), _user()
    limits = _limits(outer, inner)

    assert limits.free(inner, Resource.WATCHES) == 8192 - 7491
    assert limits.nearest(inner, Resource.WATCHES) is outer
    assert list(remarks(limits)) == [
        f"What root in user namespace {_INNER} has is charged to whoever made the namespace, too. "
        "Nearest is that of root: 7,491 of 8,192 watches."
    ]


def test_a_namespaces_own_limit_may_be_the_nearest_and_is_raised_in_it() -> None:
    inner = _inner(watches=21, watches_limit=23)
    limits = _limits(_user(watches=30), inner)

    assert limits.free(inner, Resource.WATCHES) == 2
    assert "Nearest is its own: 21 of 23 watches." in next(remarks(limits))
    text = "\n".join(plain(table_lines(limits, 100)))
    assert "  nsenter -t 17 -U sysctl -w user.max_inotify_watches=46\n" in text
    assert "user.max" not in text[text.index("For good") :]


def test_a_namespace_is_raised_once_whoever_of_its_users_is_in_it() -> None:
    """GIVEN users of a namespace WHEN only one has a root there THEN one command is for all."""
    limits = _limits(
        _user(),
        dataclasses.replace(_inner(watches=21, watches_limit=23), member=None),
        _inner(uid=1, watches=7, watches_limit=23),
    )
    own = [one for one in limits.raises if one.userns is not None]

    assert [(one.setting, one.suggested, one.member) for one in own] == [
        ("user.max_inotify_watches", 46, 17)
    ]


def test_where_nobody_is_root_a_namespaces_limit_has_no_command() -> None:
    inner = dataclasses.replace(_inner(watches=21, watches_limit=23), member=None)
    text = "\n".join(plain(table_lines(_limits(_user(), inner), 200)))

    assert "nsenter" not in text
    assert (
        f"    user.max_inotify_watches is now 23 for each user in user namespace {_INNER}, "
        "where nobody is root to set it to 46\n"
    ) in text


_INSIDE = Settings(40, 2**31 - 1, 16384, 8 * _GIB, userns=_INNER)


def _inside() -> Limits:
    """As seen from within a namespace."""
    user = _user(_CONT, userns=_INNER, watches=35, watches_limit=40, instances=1, source="counted")
    user = dataclasses.replace(user, usage=dataclasses.replace(user.usage, instances_limit=None))
    return _limits(user, settings=_INSIDE, complete=False, watches=35, instances=1)


def test_within_a_namespace_only_its_own_settings_are_raised() -> None:
    """GIVEN a root who is the host's too WHEN advised THEN nothing of the host's is to be set."""
    text = "\n".join(plain(table_lines(_inside(), 200)))

    assert "  sysctl -w user.max_inotify_watches=80\n" in text
    assert "fs.inotify" not in text and "nsenter" not in text and "For good" not in text
    document = json.loads(as_json(_inside()))
    assert [one["command"] for one in document["raise"]] == [
        "sysctl -w user.max_inotify_watches=80"
    ]
    assert document["settings"]["userns"] == _INNER
    assert document["drop_in"]["lines"] == []


def test_within_a_namespace_it_is_said_that_there_are_limits_outside() -> None:
    assert list(remarks(_inside())) == [
        f"This is user namespace {_INNER}: whoever made it is charged for what is used in it, too, "
        "and may have less left, which cannot be seen from here."
    ]


def test_where_more_is_used_than_memory_allows_it_is_said() -> None:
    settings = Settings(7, 128, 16384, _GIB)
    text = "\n".join(plain(table_lines(_limits(_user(watches=200_000), settings=settings), 200)))

    assert (
        "    fs.inotify.max_user_watches is now 7 for each user: "
        "the 200,000 that are used take 244 MiB, find who needs it\n"
    ) in text


def test_nobody_is_asked_for_more_memory_than_an_eighth() -> None:
    """GIVEN a limit that may take it already WHEN asked THEN no larger one is suggested."""
    settings = Settings(1 << 20, 128, 16384, 8 * _GIB)
    limits = _limits(_user(), settings=settings)
    document = json.loads(as_json(limits))

    (watches, *_) = document["raise"]
    assert (watches["suggested"], watches["command"]) == (None, None)
    assert not [line for line in document["drop_in"]["lines"] if "max_user_watches" in line]
    assert "find who needs it" in "\n".join(plain(table_lines(limits, 200)))


def test_without_proc_sys_nothing_is_suggested() -> None:
    text = "\n".join(plain(table_lines(_limits(_user(), settings=Settings(*[None] * 4)), 80)))

    assert "sysctl" not in text


def test_processes_near_their_own_limit_are_named() -> None:
    near = Shortage(Resource.DESCRIPTORS, 1000, 1024, holders=(_KUBELET,))
    limits = _limits(_user(), descriptors=(near,))

    assert list(remarks(limits)) == [
        "kubelet[1173] has 1,000 of 1,024 file descriptors (RLIMIT_NOFILE), and each instance "
        "takes one."
    ]


def test_only_users_asked_for_are_shown_but_all_are_reckoned_with() -> None:
    inner, outer = _inner(uid=1000, user="ann"), _user()
    limits = _limits(outer, inner, asked=frozenset({inner.key}))
    (shown,) = json.loads(as_json(limits))["limits"]

    assert (shown["uid"], shown["watches"]["free"]) == (1000, 701)
    assert shown["watches"]["nearest"] == {"userns": INITIAL_USERNS, "uid": 0}


def test_a_hostile_name_stays_a_name() -> None:
    limits = _limits(_user(HolderShare(5, HOSTILE, 7, 1)))

    for line in (*plain(table_lines(limits, 80)), *as_plain(limits).splitlines()):
        assert line.isprintable()
        assert cell_len(line) == len(line)
    (user,) = json.loads(as_json(limits))["limits"]
    assert user["holders"][0]["comm"].encode("utf-8", "surrogateescape") == HOSTILE
    blank = _limits(_user(HolderShare(5, b"a b,c", 7, 1)))
    assert r"a\x20b\x2cc[5]:7" in as_plain(blank)


def test_json_has_every_key() -> None:
    document = json.loads(as_json(_limits(_user(_KUBELET))))

    assert document["schema"] == "inotrace.limits/1"
    (user,) = document["limits"]
    assert user["watches"] == {
        "used": 7491,
        "limit": 8192,
        "free": 701,
        "share": round(7491 / 8192, 4),
        "nearest": {"userns": INITIAL_USERNS, "uid": 0},
    }
    assert user["holders"] == [{"pid": 1173, "comm": "kubelet", "watches": 7468, "instances": 27}]
    assert document["in_use"] == {"watches": 7491, "instances": 28}
    assert [one["setting"] for one in document["raise"]] == [
        "fs.inotify.max_user_watches",
        "fs.inotify.max_user_instances",
        "fs.inotify.max_queued_events",
    ]
