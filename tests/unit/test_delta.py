"""What differs between two kept reports, or two kept outputs of ls, and what is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from build import ANOTHER_STACK, busy_report, ended, instance, leak, process, report, site, target
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.core.delta import Change, Delta, Fate, ProcessDelta, SiteDelta, TargetDelta, delta
from tracer.core.json_fields import KeptError
from tracer.core.kept import LS_SCHEMA, REPORT_SCHEMA
from tracer.core.kept_json import kept
from tracer.core.report import Report, Unit
from tracer.core.stack import Stack, missing
from tracer.core.verdict import Verdict
from tracer.views import json_ls, json_report
from tracer.views.delta import delta_lines
from tracer.views.json_delta import delta_json

_NO_STACK = missing("the process ended before its symbols could be read")


def _document(of: Report) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json_report.report_json(of))
    return document


def _between(before: Report | dict[str, Any], after: Report | dict[str, Any]) -> Delta:
    documents = [one if isinstance(one, dict) else _document(one) for one in (before, after)]
    return delta(*map(kept, documents))


def _held(live: int, **changes: Any) -> Any:
    return site(Verdict.HELD, live, **{"id": "feed", **changes})


def _ls(*instances: tuple[list[tuple[int, str]], list[dict[str, Any]]]) -> dict[str, Any]:
    """Instances, each as its holders and its watches."""
    return {
        "schema": LS_SCHEMA,
        "complete": True,
        "sharing_known": True,
        "instances": [
            {
                "id": i,
                "holders": [{"pid": pid, "fd": 3 + j, "comm": c} for j, (pid, c) in enumerate(of)],
                "watches": len(watches),
            }
            for i, (of, watches) in enumerate(instances)
        ],
        "watches": [
            {"instance": i, **watch}
            for i, (_, watches) in enumerate(instances)
            for watch in watches
        ],
    }


def _watch(ino: int, path: str | None = None) -> dict[str, Any]:
    return {"ino": ino, "dev": "8:1", "path": path}


def _targets(found: Delta) -> list[tuple[str | None, str | None, int | None, int, int]]:
    return [(one.path, one.dev, one.ino, *one.watches) for one in found.targets]


def test_the_schemas_are_those_that_are_written() -> None:
    assert (REPORT_SCHEMA, LS_SCHEMA) == (json_report.SCHEMA, json_ls.SCHEMA)


def test_a_report_does_not_differ_from_itself() -> None:
    found = _between(busy_report(), busy_report())

    assert found.is_empty
    assert found.watches == Change(7504, 7504)
    assert found.instances == Change(1, 1)


# --- sites ---


def _only_site(before: Report, after: Report) -> SiteDelta:
    (only,) = _between(before, after).sites
    return only


def test_a_place_that_grew_and_is_judged_anew() -> None:
    found = _only_site(report([_held(2)]), report([leak(23, id="feed")]))

    assert (found.id, found.comm, found.kind) == ("feed", "agent", Unit.WATCHES)
    assert (found.live, found.fate) == (Change(2, 23), Fate.GREW)
    assert (found.verdict_before, found.verdict_after) == ("held", "leak")
    assert [frame.function for frame in found.stack.frames][1] == "attach"


def test_another_verdict_alone_is_a_difference() -> None:
    found = _only_site(report([_held(5)]), report([leak(5, id="feed")]))

    assert (found.live.by, found.fate) == (0, Fate.SAME)


def test_places_that_came_and_went_are_told_from_those_that_fell_to_nothing() -> None:
    before = report([_held(3, id="a"), _held(2, id="b")])
    after = report([site(Verdict.CLEAN, 0, id="b"), _held(7, id="c")])

    found = _between(before, after).sites

    assert [(one.id, *one.live, one.fate) for one in found] == [
        ("c", 0, 7, Fate.NEW),
        ("a", 3, 0, Fate.GONE),
        ("b", 2, 0, Fate.SHRANK),
    ]


def test_a_place_that_left_nothing_is_as_one_that_is_not_there() -> None:
    clean = report([site(Verdict.CLEAN, 0, 266)])

    assert _between(clean, report()).is_empty
    assert _between(report(), clean).is_empty


def test_places_without_frames_are_matched_by_command() -> None:
    """Their ids are of one trace alone."""
    before = report([_held(2, id="a", stack=_NO_STACK), _held(1, id="b", stack=_NO_STACK)])
    after = report([leak(5, id="c", stack=_NO_STACK), _held(4, id="d", stack=_NO_STACK, comm=b"x")])

    found = _between(before, after).sites

    assert [(one.comm, one.id, *one.live, one.fate) for one in found] == [
        ("x", "", 0, 4, Fate.NEW),
        ("agent", "", 3, 5, Fate.GREW),
    ]


def test_several_places_without_frames_have_one_verdict_each() -> None:
    several = report([leak(2, id="a", stack=_NO_STACK), _held(1, id="b", stack=_NO_STACK)])

    assert _only_site(several, report()).verdict_before == "held/leak"


def test_watches_and_instances_of_one_place_are_not_mixed() -> None:
    before, after = _document(report([_held(2)])), _document(report([_held(5)]))
    before["sites"][0]["kind"] = "watches"
    opened = copy.deepcopy(after["sites"][0])
    after["sites"].append({**opened, "kind": "instances", "live": 4, "targets": []})

    found = _between(before, after)

    assert [(one.kind, *one.live) for one in found.sites] == [
        (Unit.INSTANCES, 0, 4),
        (Unit.WATCHES, 2, 5),
    ]
    assert found.unlisted == Change(0, 0)


# --- processes ---


def _rows(found: Delta) -> list[tuple[int | None, str, Fate, int, int]]:
    return [(one.pid, one.comm, one.fate, *one.live) for one in found.processes]


def test_a_process_is_its_number_and_its_name() -> None:
    before = report(processes=[process(7, live=3), process(8, comm=b"sh", live=2)])
    after = report(processes=[process(7, live=9), process(8, comm=b"vi", live=2)])

    assert _rows(_between(before, after)) == [
        (7, "agent", Fate.GREW, 3, 9),
        (8, "vi", Fate.NEW, 0, 2),
        (8, "sh", Fate.GONE, 2, 0),
    ]


def test_more_instances_without_a_watch_more_are_a_difference() -> None:
    before = report(processes=[process(7, live=3)], instances=[instance()])
    after = report(processes=[process(7, live=3, instances=4)], instances=[instance()] * 4)

    found = _between(before, after)

    (only,) = found.processes
    assert (only.fate, only.live, only.instances) == (Fate.GREW, Change(3, 3), Change(1, 4))
    assert (found.watches, found.instances) == (Change(3, 3), Change(1, 4))


def test_more_calls_alone_are_no_difference_of_a_process() -> None:
    before, after = (report(processes=[process(7, added=n, live=3)]) for n in (3, 99))

    assert _between(before, after).is_empty


@pytest.mark.parametrize(("added", "fates"), [(30, []), (31, [Fate.GREW]), (29, [Fate.SHRANK])])
def test_those_that_have_ended_count_by_what_they_added(added: int, fates: list[Fate]) -> None:
    before = report(ended=[ended(b"sh", 23, added=30)])
    after = report(ended=[ended(b"sh", 29, added=added)])

    found: tuple[ProcessDelta, ...] = _between(before, after).processes

    assert [one.fate for one in found] == fates
    assert all(one.pid is None and one.ended == Change(23, 29) for one in found)


# --- targets ---


def test_targets_are_counted_by_path() -> None:
    again = (target(1), target(1, wd=2), target(2))
    before, after = report([_held(1)]), report([_held(3, targets=again)])

    assert _targets(_between(before, after)) == [
        ("/run/secrets/1", None, None, 1, 2),
        ("/run/secrets/2", None, None, 0, 1),
    ]


def test_targets_without_a_path_are_counted_by_inode() -> None:
    before = _ls(([(7, "vi")], [_watch(11), _watch(11), _watch(13)]))
    after = _ls(([(7, "vi")], [_watch(11), _watch(17)]))
    del after["watches"][0]["path"]

    assert _targets(_between(before, after)) == [
        (None, "8:1", 17, 0, 1),
        (None, "8:1", 11, 2, 1),
        (None, "8:1", 13, 1, 0),
    ]


def test_a_target_neither_comes_nor_goes_because_its_path_was_found() -> None:
    before = _ls(([(7, "vi")], [_watch(11), _watch(13, "/b")]))
    after = _ls(([(7, "vi")], [_watch(11, "/a"), _watch(11, "/a"), _watch(13, "/b")]))

    assert _targets(_between(before, after)) == [("/a", "8:1", 11, 1, 2)]


def test_a_path_whose_inode_is_another_is_the_same_target() -> None:
    before, after = (_ls(([(7, "vi")], [_watch(ino, "/a")])) for ino in (11, 13))

    assert _between(before, after).is_empty


def test_paths_without_inodes_are_not_taken_for_what_is_not_known() -> None:
    unknown = target(1, path=None, target=None)
    named = [target(n, target=None) for n in (1, 2)]
    before = report([_held(2, targets=(unknown, named[0]))])
    after = report([_held(2, targets=(unknown, named[1]))])

    assert [row[0] for row in _targets(_between(before, after))] == [
        "/run/secrets/2",
        "/run/secrets/1",
    ]


def test_devices_are_called_alike_in_reports_and_outputs_of_ls() -> None:
    document = _document(report([_held(1)]))
    document["sites"][0]["targets"] = [{"path": None, "dev": (8 << 20) | 1, "ino": 5}]

    assert _targets(_between(_document(report()), document)) == [(None, "8:1", 5, 0, 1)]


def test_watches_whose_targets_a_report_does_not_list_are_told() -> None:
    before = report([_held(2), _held(3, id="full")])
    after = report([_held(12_000, targets=(target(1), target(2))), _held(3, id="full")])

    found = _between(before, after)

    assert found.unlisted == Change(0, 11_998)
    assert found.targets == ()


@given(*[st.lists(st.tuples(st.integers(1, 4), st.sampled_from([None, "/a", "/b"])))] * 2)
def test_differences_of_targets_add_up_and_are_mirrored(
    first: list[tuple[int, str | None]], second: list[tuple[int, str | None]]
) -> None:
    before, after = (_ls(([(7, "vi")], [_watch(*one) for one in of])) for of in (first, second))

    there, back = _between(before, after), _between(after, before)

    assert sum(one.watches.by for one in there.targets) == len(second) - len(first)
    assert {_named(one): one.watches for one in there.targets} == {
        _named(one): Change(*reversed(one.watches)) for one in back.targets
    }


def _named(one: TargetDelta) -> tuple[str | None, int | None]:
    """An inode may have several paths, of which the later one is shown."""
    return (None, one.ino) if one.ino is not None else (one.path, None)


# --- outputs of ls ---


def test_a_shared_instance_counts_once_in_all_and_for_each_process() -> None:
    watches = [_watch(ino) for ino in range(1, 24)]
    before = _ls(([(7, "vi")], watches))
    after = _ls(([(7, "vi"), (7, "vi"), (11, "sh")], watches), ([(11, "sh")], watches[:2]))

    found = _between(before, after)

    assert (found.watches, found.instances) == (Change(23, 25), Change(1, 2))
    assert _rows(found) == [(11, "sh", Fate.NEW, 0, 25)]
    assert found.sites == () and not found.of_reports


# --- what cannot be known ---


def test_reports_say_why_their_numbers_may_be_short() -> None:
    short = report(lost=5, healed=4, complete=False, unfollowed=1)
    healed = report(lost=5, healed=5)

    found = _between(short, healed)

    assert len(found.caveats_before) == 3
    assert found.caveats_after == ()


@pytest.mark.parametrize("key", ["complete", "sharing_known"])
def test_outputs_of_ls_say_it_as_well(key: str) -> None:
    found = _between(_ls(), {**_ls(), key: False})

    assert (len(found.caveats_before), len(found.caveats_after)) == (0, 1)


# --- what is refused ---


def test_a_report_is_not_compared_with_an_output_of_ls() -> None:
    with pytest.raises(KeptError, match=r"A is inotrace.ls/1, B is inotrace.report/1"):
        _between(_ls(), report())


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ([], ["schema"], "it is a list, not an object"),
        (["schema"], "inotrace.doctor/1", "schema is 'inotrace.doctor/1', neither"),
        (["schema"], "\x1b[2J" * 99, r"schema is '\\x1b\[2J"),
        (["schema"], None, "schema is null or missing, neither"),
        (["sites"], {}, "sites is an object, not a list"),
        (["sites", 1], None, r"sites\[1\] is null or missing, not an object"),
        (["sites", 0, "live"], True, r"sites\[0\].live is true or false, not a whole number"),
        (["sites", 0, "live"], 1.5, r"sites\[0\].live is a number with a fraction, not"),
        (["sites", 0, "live"], -1, r"sites\[0\].live is out of range"),
        (["sites", 0, "live"], 1 << 64, r"sites\[0\].live is out of range"),
        (["sites", 0, "kind"], "sockets", r"sites\[0\].kind is 'sockets', none of watches, inst"),
        (["sites", 0, "comm"], "a" * 70_000, r"sites\[0\].comm has more than 65,536 characters"),
        (["sites", 0, "stack"], "whole", r"sites\[0\].stack is 'whole', none of complete"),
        (["sites", 0, "frames", 0, "module"], "\ud800", r"frames\[0\].module has surrogates"),
        (["sites", 0, "frames", 0, "build_id"], "\x1b", r"frames\[0\].build_id is not hexadec"),
        (["sites", 0, "frames"], [{"offset": 1}] * 1025, r"sites\[0\].frames are more than 1,024"),
        (["sites", 0, "targets", 2, "ino"], "5", r"sites\[0\].targets\[2\].ino is a string"),
        (["processes", 0, "pid"], "1", r"processes\[0\].pid is a string"),
        (["trace", "complete"], 1, "complete is a number, not true or false"),
        (["trace"], [], "trace is a list, not an object"),
    ],
)
def test_wrong_values_are_named_with_their_place(
    path: list[str | int], value: object, message: str
) -> None:
    with pytest.raises(KeptError, match=message):
        kept(_with(_document(busy_report()), path, value))


def _with(document: Any, path: list[str | int], value: object) -> Any:
    if not path:
        return value
    changed = copy.copy(document)
    changed[path[0]] = _with(document[path[0]], path[1:], value) if path[1:] else value
    return changed


def _places(value: object) -> Iterator[list[str | int]]:
    """The way to every value."""
    yield []
    items: Any = value.items() if isinstance(value, dict) else ()
    for key, item in enumerate(value[:3]) if isinstance(value, list) else items:
        for place in _places(item):
            yield [key, *place]


_GOOD = (
    _document(busy_report()),
    _document(report([_held(3, stack=Stack((), ANOTHER_STACK.state))], ended=[ended()])),
    _ls(([(7, "vi"), (11, "sh")], [_watch(11, "/a"), _watch(13)]), ([(7, "vi")], [_watch(11)])),
)
_any_text = st.text(st.characters(), max_size=20)
_any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_any_text, inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=500)
@given(data=st.data())
def test_any_value_in_any_place_gives_rows_or_the_one_error(data: st.DataObject) -> None:
    good = data.draw(st.sampled_from(_GOOD))
    place = data.draw(st.sampled_from(list(_places(good))))
    odd = _with(good, place, data.draw(_any_json))
    try:
        found = delta(kept(good), kept(odd))
    except KeptError as error:
        assert str(error).isprintable()
        return
    assert json.loads(delta_json(found))["schema"] == "inotrace.diff/1"
    for line in delta_lines(found, 80, full_stacks=True):
        assert line.plain.isprintable()
