"""One snapshot as JSON."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from snapshots import holder, instance, shared_snapshot, snapshot

from tracer.core.kept_json import kept
from tracer.views.json_ls import as_json
from tracer.views.ls import Home, Located, Queue, Snapshot, only_duplicates

names = st.binary(max_size=15)


def _document(shown: Snapshot) -> Any:
    text = as_json(shown)
    assert text.isascii() and text.count("\n") == 1
    return json.loads(text)


def test_json_has_each_watch_once() -> None:
    document = _document(shared_snapshot())

    assert document["schema"] == "inotrace.ls/1"
    assert document["host"] == {"kernel": "6.1.0-25-amd64", "truth": "fdinfo"}
    assert (document["complete"], document["duplicates_only"]) == (True, False)
    assert [len(one["holders"]) for one in document["instances"]] == [3, 1, 1]
    assert sum(one["watches"] for one in document["instances"]) == len(document["watches"]) == 30
    assert document["watches"][0] == {
        "pid": 7,
        "fd": 3,
        "instance": 1,
        "wd": 23,
        "ino": 122,
        "dev": "8:1",
        "mask": ["IN_CREATE"],
        "path": None,
        "path_pid": None,
        "resolved_by": "unresolved",
    }
    assert document["limits"] == [
        {
            "uid": 0,
            "user": "root",
            "userns": 4026531837,
            "watches": {"used": 7300, "limit": 8192},
            "instances": {"used": 31, "limit": 128},
            "source": "counted",
            "complete": True,
        }
    ]


def test_targets_are_counted_for_all_and_for_each() -> None:
    document = _document(shared_snapshot())

    assert document["targets"] == {"unique": 25, "repeated": 5, "repeated_by_itself": 5}
    assert {one["pid"]: one["targets"] for one in document["processes"]} == {
        7: {"unique": 25, "repeated": 5, "repeated_by_itself": 0},
        11: {"unique": 23, "repeated": 5, "repeated_by_itself": 0},
        13: {"unique": 5, "repeated": 5, "repeated_by_itself": 0},
    }
    assert [one["targets"]["unique"] for one in document["instances"]] == [23, 2, 5]
    assert [one["watches"] for one in document["processes"]] == [25, 23, 5]


def test_only_duplicates_say_so() -> None:
    document = _document(only_duplicates(shared_snapshot()))

    assert document["duplicates_only"] is True
    assert len(document["watches"]) == 10


def test_queues_and_paths() -> None:
    """GIVEN two watches of which one was looked up WHEN shown THEN the other is unresolved."""
    found = (Located(b"/srv/\xff", "handle"),)
    full = instance(1, (holder(7),), 2, queue=Queue(16385, True, True), located=found)
    guessed = instance(2, (holder(7),), 0, queue=Queue(3, False, None))
    unknown = instance(3, (holder(7),), 0)

    document = _document(snapshot(full, guessed, unknown))

    assert [
        (one["queued"], one["queued_at_least"], one["full"]) for one in document["instances"]
    ] == [(16385, False, True), (3, True, None), (None, False, None)]
    assert [(one["path"], one["resolved_by"]) for one in document["watches"]] == [
        ("/srv/\udcff", "handle"),
        (None, "unresolved"),
    ]


def test_pods_of_processes() -> None:
    home = Home(
        cgroup=b"/kubepods/\xff",
        container="ab",
        runtime="containerd",
        pod="5325873d",
        pod_name="web-0",
        namespace="shop",
        pod_exists=True,
        qos="burstable",
    )
    shown = snapshot(
        instance(1, (holder(7), holder(11)), 2), homes={7: home, 11: Home(unit="cron.service")}
    )

    first, second = _document(shown)["processes"]

    assert first["cgroup"] == "/kubepods/\udcff"
    assert (first["container"], first["runtime"]) == ("ab", "containerd")
    assert first["pod"] == {
        "uid": "5325873d",
        "namespace": "shop",
        "name": "web-0",
        "exists": True,
        "qos": "burstable",
    }
    assert (second["pod"], second["unit"]) == (None, "cron.service")


def test_it_can_be_read_again() -> None:
    """GIVEN what a later version may compare WHEN read THEN processes and watches are as shown."""
    read = kept(_document(shared_snapshot()))

    assert (read.watches, read.instances) == (30, 3)


@given(names, st.none() | names)
def test_json_names_are_exact(comm: bytes, exe: bytes | None) -> None:
    document = _document(snapshot(instance(1, (holder(7, comm=comm, exe=exe),), 0)))

    for shown in (*document["instances"][0]["holders"], *document["processes"]):
        assert (shown["pid"], shown["user"]) == (7, "root")
        assert shown["comm"].encode("utf-8", "surrogateescape") == comm
        name = shown["exe"]
        assert (None if name is None else name.encode("utf-8", "surrogateescape")) == exe
