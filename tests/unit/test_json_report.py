"""The report as JSON: its keys are a contract."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from build import (
    ATTACH,
    busy_report,
    ended,
    failure,
    instance,
    leak,
    limits,
    opening,
    process,
    report,
    shortage,
    target,
)
from hypothesis import given
from hypothesis import strategies as st

from tracer.core.cause import Cause
from tracer.core.report import PodRow, Report, SuppressedRow, Use
from tracer.core.stack import Stack, StackState, missing
from tracer.core.verdict import Verdict
from tracer.views.json_report import report_json

_CAUSES = {"rm_watch", "deleted", "unmounted", "oneshot", "closed", "unknown"}
_USE = {"used": 0, "limit": 0}
_REMOVED = dict.fromkeys(_CAUSES, 0)
_SUPPRESSED = SuppressedRow("attach", "known.supp:3", 2, 23, 5)

# The contract, level by level; the one element of a list stands for all of them.
_CONTRACT: dict[str, Any] = {
    "schema": "",
    "host": {"kernel": "", "mode": "", "truth": ""},
    "trace": {
        **dict.fromkeys(["seconds", "rounds", "added", "updated", "removed", "failed"]),
        **dict.fromkeys(["lost", "healed", "complete", "opened", "closed"]),
    },
    "limits": [
        {
            **{"uid": 0, "user": "", "userns": 0, "watches": _USE, "instances": _USE},
            "per_hour": {"watches": 0, "instances": 0},
            "limit_reached_in_s": {"watches": 0, "instances": 0},
            "charged_with": None,
        }
    ],
    "processes": [
        {
            **dict.fromkeys(["pid", "comm", "exe", "uid", "added", "live", "baseline", "verdict"]),
            "removed": _REMOVED,
        }
    ],
    "instances": [
        {
            **dict.fromkeys(["id", "watches", "queued", "opened_by"]),
            "holders": [dict.fromkeys(["pid", "fd", "comm"])],
        }
    ],
    "sites": [
        {
            **dict.fromkeys(["id", "kind", "verdict", "live", "added", "stack", "suppressed_by"]),
            **dict.fromkeys(["per_round", "per_hour", "uid", "userns", "limit_reached_in_s"]),
            "limit_reached_by": None,
            "removed": _REMOVED,
            "frames": [
                dict.fromkeys(
                    ["function", "file", "line", "module", "offset", "build_id", "address"]
                )
            ],
            "evidence": [dict.fromkeys(["kind", "text"])],
            "targets": [
                dict.fromkeys(
                    [
                        "path",
                        "ino",
                        "dev",
                        "pid",
                        "wd",
                        "age_s",
                        "state",
                        "fate",
                        "path_pid",
                        "resolved_by",
                    ]
                )
            ],
            "holders": [dict.fromkeys(["pid", "fd", "comm"])],
        }
    ],
    "failures": [
        {
            **dict.fromkeys(["call", "errno", "count", "pid", "comm", "explanation"]),
            **dict.fromkeys(["resource", "user", "uid", "userns", "used", "limit", "others"]),
            "holders": [dict.fromkeys(["pid", "comm", "watches", "instances"])],
        }
    ],
    "suppressed": [
        dict.fromkeys(["pattern", "written_at", "places", "watches", "instances"]),
    ],
}


def _parsed(of: Report) -> Any:
    text = report_json(of)
    assert text.isascii()
    assert text.endswith("}\n")
    return json.loads(text)


def _missing_keys(contract: Any, found: Any, at: str = "") -> list[str]:
    if isinstance(contract, dict):
        assert isinstance(found, dict), at
        missing_here = [f"{at}.{key}" for key in contract if key not in found]
        return missing_here + [
            one
            for key, inner in contract.items()
            if key in found
            for one in _missing_keys(inner, found[key], f"{at}.{key}")
        ]
    if isinstance(contract, list) and contract:
        assert found, f"{at} is empty: it shows nothing"
        return [one for item in found for one in _missing_keys(contract[0], item, f"{at}[]")]
    return []


def test_every_key_of_the_contract_is_there() -> None:
    failures = (failure(shortage=shortage()),)
    of = _parsed(dataclasses.replace(busy_report(), suppressed=(_SUPPRESSED,), failures=failures))
    # a site without frames or targets has empty lists, which show no keys
    of["sites"] = of["sites"][:1]
    of["sites"][0]["holders"] = _parsed(report([opening(Verdict.LEAK, 1)]))["sites"][0]["holders"]

    assert _missing_keys(_CONTRACT, of) == []


def test_whose_limit_is_met_may_be_another_than_who_pays() -> None:
    """GIVEN a container without limits of its own WHEN it leaks THEN the host's are told."""
    host, container = (4026531837, 0), (4026532201, 100_000)
    site = leak(per_hour=5.0, payer=container, full_payer=host, full_in_s=23.0)
    inner = limits(uid=100_000, userns=4026532201, watches=Use(7, 2**31 - 1, 5.0), maker=host)
    of = _parsed(report([site], limits=[inner, limits(watches=Use(7, 12, 5.0))]))

    (found,) = of["sites"]
    assert (found["userns"], found["uid"]) == container
    assert found["limit_reached_by"] == {"userns": 4026531837, "uid": 0}
    assert [one["charged_with"] for one in of["limits"]] == [{"userns": 4026531837, "uid": 0}, None]
    # what is no limit is never reached
    assert [one["limit_reached_in_s"]["watches"] for one in of["limits"]] == [None, 3600]


def test_an_empty_report_has_every_list() -> None:
    of = _parsed(report())

    for key in ("limits", "processes", "instances", "sites", "failures", "suppressed"):
        assert of[key] == []


def test_the_schema_is_the_first_key() -> None:
    assert report_json(report()).startswith('{\n  "schema": "inotrace.report/1",\n')


def test_the_values_of_a_report() -> None:
    of = _parsed(busy_report())

    assert of["host"] == {
        "kernel": "6.1.0-25-amd64",
        "mode": "tracepoint",
        "truth": "iterator and /proc fdinfo",
    }
    assert (of["trace"]["added"], of["trace"]["removed"], of["trace"]["complete"]) == (
        294,
        266,
        True,
    )
    assert of["limits"][0]["watches"] == {"used": 7491, "limit": 8192}
    assert of["processes"][0]["removed"] == {**_REMOVED, "rm_watch": 261, "deleted": 5}
    assert of["instances"] == [
        {
            "id": "ffff888000001000.64",
            "holders": [{"pid": 1173, "fd": 3, "comm": "agent"}],
            "watches": 23,
            "queued": 5,
            "opened_by": None,
        }
    ]
    assert of["failures"][0]["errno"] == "ENOSPC"
    leaked, held, clean = of["sites"]
    assert [leaked["verdict"], held["verdict"], clean["verdict"]] == ["leak", "held", "clean"]
    assert (leaked["live"], len(leaked["targets"]), leaked["pids"]) == (23, 23, [1173])
    assert leaked["evidence"][1] == {"kind": "never_removed", "text": "none was ever removed"}
    assert leaked["targets"][0] == {
        "path": "/run/secrets/1",
        "ino": 1001,
        "dev": 2049,
        "pid": 1173,
        "wd": 1,
        "age_s": 61.5,
        "state": "verified",
        "fate": None,
        "path_pid": None,
        "resolved_by": "unresolved",
    }


def test_the_values_of_a_place_that_opens_instances() -> None:
    (row,) = _parsed(
        report(
            [
                opening(
                    Verdict.SUSPECT,
                    2,
                    5,
                    removed={Cause.CLOSED: 3},
                    per_round=(2, 0, -1),
                    per_hour=1.23456,
                    payer=(4026531837, 1000),
                    full_in_s=7_234.56,
                    suppressed_by="attach",
                )
            ]
        )
    )["sites"]

    assert {key: row[key] for key in ("kind", "verdict", "live", "added", "suppressed_by")} == {
        "kind": "instances",
        "verdict": "suspect",
        "live": 2,
        "added": 5,
        "suppressed_by": "attach",
    }
    assert row["removed"] == {**_REMOVED, "closed": 3}
    assert (row["per_round"], row["per_hour"]) == ([2, 0, -1], 1.235)
    assert (row["uid"], row["userns"], row["limit_reached_in_s"]) == (1000, 4026531837, 7234.6)
    assert row["targets"] == []
    assert row["holders"] == [
        {"pid": 1173, "fd": 3, "comm": "agent"},
        {"pid": 1173, "fd": 4, "comm": "agent"},
    ]


def test_what_a_place_has_not_is_null_or_empty() -> None:
    (row,) = _parsed(report([leak(1)]))["sites"]

    assert (row["kind"], row["per_round"], row["per_hour"], row["holders"]) == (
        "watches",
        [],
        0,
        [],
    )
    for key in ("uid", "userns", "limit_reached_in_s", "suppressed_by"):
        assert row[key] is None


def test_a_limit_that_is_reached_already_is_no_unknown_time() -> None:
    (row,) = _parsed(report([leak(1, full_in_s=0.0, payer=(1, 0))]))["sites"]

    assert (row["limit_reached_in_s"], row["uid"]) == (0, 0)


def test_the_fate_of_a_target_is_told_where_it_is_known() -> None:
    targets = (target(1, fate="pod_removed"), target(2))
    (row,) = _parsed(report([leak(2, targets=targets)]))["sites"]

    assert [one["fate"] for one in row["targets"]] == ["pod_removed", None]


@pytest.mark.parametrize("verdict", Verdict)
def test_a_process_has_a_verdict(verdict: Verdict) -> None:
    (row,) = _parsed(report(processes=[process(verdict=verdict)]))["processes"]

    assert row["verdict"] == verdict.value


def test_instances_and_rounds_of_the_trace_are_counted() -> None:
    of = _parsed(report(opened=23, closed=17, rounds=5))["trace"]

    assert (of["opened"], of["closed"], of["rounds"]) == (23, 17, 5)


def test_what_was_suppressed_tells_by_what() -> None:
    assert _parsed(report(suppressed=[_SUPPRESSED]))["suppressed"] == [
        {
            "pattern": "attach",
            "written_at": "known.supp:3",
            "places": 2,
            "watches": 23,
            "instances": 5,
        }
    ]


def test_causes_are_all_there_and_spelled_as_promised() -> None:
    of = _parsed(report([leak(removed={cause: i for i, cause in enumerate(Cause)})]))

    assert of["sites"][0]["removed"].keys() == _CAUSES
    assert sorted(of["sites"][0]["removed"].values()) == [0, 1, 2, 3, 4, 5]


def test_stacks_say_how_much_of_them_is_known() -> None:
    whole, gone = _parsed(report([leak(), leak(stack=missing("no frames"))]))["sites"]

    assert (whole["stack"], whole["stack_reason"], len(whole["frames"])) == ("complete", None, 4)
    assert (gone["stack"], gone["stack_reason"], gone["frames"]) == ("missing", "no frames", [])


@pytest.mark.parametrize("state", [StackState.GUESSED, StackState.TRUNCATED])
def test_stacks_say_why_they_are_not_certain_or_not_whole(state: StackState) -> None:
    (row,) = _parsed(report([leak(stack=Stack((ATTACH,), state, "no tables"))]))["sites"]

    assert (row["stack"], row["stack_reason"]) == (state.value, "no tables")


def test_the_values_of_a_frame() -> None:
    frame = ATTACH._replace(build_id="93ac61ec" * 5, address=0x7F1234567890)
    (row,) = _parsed(report([leak(stack=Stack((frame,), StackState.COMPLETE))]))["sites"]

    assert row["frames"] == [
        {
            "function": "attach",
            "file": "secrets.c",
            "line": 88,
            "module": "/usr/bin/agent",
            "offset": 41,
            "build_id": "93ac61ec" * 5,
            "address": 0x7F1234567890,
        }
    ]


def test_ended_processes_are_summed_up_in_a_process_without_a_pid() -> None:
    of = _parsed(
        report(
            processes=[process()],
            ended=[ended(removed={Cause.RM_WATCH: 30}, baseline=2)],
            failures=[failure(pid=None)],
        )
    )

    whole, rest = of["processes"]
    assert whole.keys() == rest.keys()
    assert (whole["pid"], whole["processes"]) == (1173, 1)
    assert rest == {
        "pid": None,
        "comm": "sh",
        "exe": None,
        "uid": None,
        "added": 30,
        "updated": 2,
        "failed": 3,
        "removed": {**_REMOVED, "rm_watch": 30},
        "live": 0,
        "baseline": 2,
        "instances": 0,
        "leaked": 0,
        "container": None,
        "pod": None,
        "unit": None,
        "verdict": "clean",
        "processes": 23,
    }
    assert of["failures"][0]["pid"] is None


def test_what_is_not_known_is_null() -> None:
    of = _parsed(
        report([leak(targets=(target(path=None, target=None),))], [process(exe=None, uid=None)])
    )

    row = of["sites"][0]["targets"][0]
    assert (row["path"], row["ino"], row["dev"]) == (None, None, None)
    assert (of["processes"][0]["exe"], of["processes"][0]["uid"]) == (None, None)


@given(st.binary(max_size=97), st.binary(max_size=15))
def test_bytes_survive_json(path: bytes, comm: bytes) -> None:
    of = _parsed(
        report(
            [leak(comm=comm, targets=(target(path=path),))],
            [process(comm=comm, exe=path)],
            instances=[instance()],
        )
    )

    def raw(text: str) -> bytes:
        return text.encode("utf-8", "surrogateescape")

    assert raw(of["sites"][0]["comm"]) == raw(of["processes"][0]["comm"]) == comm
    assert raw(of["sites"][0]["targets"][0]["path"]) == raw(of["processes"][0]["exe"]) == path


def test_verdicts_are_spelled_as_promised() -> None:
    assert [verdict.value for verdict in Verdict] == [
        "leak",
        "suspect",
        "inconclusive",
        "young",
        "held",
        "clean",
    ]


def test_the_pod_of_a_process_is_told_with_its_name() -> None:
    uid, container = "5325873d-0b1c-4b6e-9d5c-0123456789ab", "ab" * 32
    rows = [
        process(1, pod=uid, container=container, unit="\udcff.scope"),
        process(2, unit="a.service"),
    ]
    pods = (PodRow(uid, "default", "web-0", False),)
    of = _parsed(dataclasses.replace(report(processes=rows), pods=pods))

    assert [(row["container"], row["unit"]) for row in of["processes"]] == [
        (container, "\udcff.scope"),
        (None, "a.service"),
    ]
    assert [row["pod"] for row in of["processes"]] == [
        {"uid": uid, "namespace": "default", "name": "web-0", "exists": False},
        None,
    ]
    assert of["pods"] == [of["processes"][0]["pod"]]
