"""From a ledger fed by hand to judged rows, with what /proc would tell made up."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import pytest
from build import (
    AGENT,
    ANOTHER_STACK,
    ATTACH,
    ENOSPC,
    FIRST,
    OTHER,
    SECOND,
    STACK,
    WRAPPER,
    add,
    closed,
    failed,
    init,
    kernel_watch,
    last,
    limits,
    rm,
    walk,
    walked,
    watch_rows,
)

from tracer import judging as judging_module
from tracer.core.cause import Cause
from tracer.core.events import CallEvent, Instance, Op, Process
from tracer.core.evidence import Evidence
from tracer.core.ledger import Ledger
from tracer.core.report import SiteRow, Unit, Use, UserLimits
from tracer.core.stack import Stack, StackState
from tracer.core.verdict import Verdict
from tracer.core.walk import HolderFd, Inode, Queue, Target, WalkedInstance
from tracer.judging import Judging
from tracer.kernel.inodes import InodeState
from tracer.kernel.procfs import ProcessFacts
from tracer.targets.fate import Fate, Fates
from tracer.targets.mounts import Mounts
from tracer.targets.path import Paths
from tracer.targets.pods import Pod, Pods
from tracer.targets.processes import ProcessTable

_THIRD_STACK = Stack((WRAPPER, ATTACH), StackState.COMPLETE)
_ROOT = (4026531837, 0)


class _Table(ProcessTable):
    """Nothing is known of any process, but who is an orphan."""

    def __init__(self, orphans: Collection[Process]) -> None:
        super().__init__()
        self._orphans = orphans

    def get(self, process: Process) -> ProcessFacts | None:
        return None

    def is_orphan(self, process: Process) -> bool:
        return process in self._orphans


class _Paths(Paths):
    def state(self, process: Process, path: bytes | None, target: Target | None) -> str:
        return "unverified"


class _Fates(Fates):
    """Everything is there, but for these paths."""

    def __init__(self, fates: Mapping[bytes, Fate]) -> None:
        super().__init__(lambda _: InodeState.UNKNOWN)
        self.paths = _Paths(Mounts())
        self._fates = fates
        self.holders: list[Process] = []

    def of(
        self,
        adder: Process,
        path: bytes | None,
        inode: Inode | None,
        holders: Iterable[Process] = (),
    ) -> Fate:
        self.holders += holders
        return self._fates.get(path or b"", Fate.THERE)


class _Judged(NamedTuple):
    judging: Judging
    rows: tuple[SiteRow, ...]

    @property
    def only(self) -> SiteRow:
        (row,) = self.rows
        return row


def _judged(
    ledger: Ledger,
    ended: float = 100,
    older_s: float = 0,
    fates: Mapping[bytes, Fate] | None = None,
    orphans: Collection[Process] = (),
    limits: Iterable[UserLimits] = (),
    exits_are_told: bool = True,
    pods: Pods | None = None,
) -> _Judged:
    judging = Judging(
        ledger,
        _Table(orphans),
        _Fates(fates or {}),
        older_s=older_s,
        ended=int(ended * SECOND),
        exits_are_told=exits_are_told,
        pods=pods,
    )
    return _Judged(judging, judging.rows(limits))


def _fed(*events: CallEvent, ledger: Ledger | None = None, stack: Stack = STACK) -> Ledger:
    ledger = ledger or Ledger()
    for event in events:
        ledger.apply(event, stack)
    return ledger


_STEADY = tuple(range(0, 100, 4))


def _adds(
    times: Iterable[float],
    process: Process = AGENT,
    instance: Instance = FIRST,
    first: int = 1,
) -> list[CallEvent]:
    """One watch at each of these times (s)."""
    return [
        add(int(at * SECOND) + 1, wd, process=process, instance=instance)
        for wd, at in enumerate(times, first)
    ]


def _another(number: int, opened_at: float = 0) -> Instance:
    return Instance(FIRST.group + (number << 8), int(opened_at * SECOND) + 1)


def _kinds(row: SiteRow) -> list[str]:
    return [one.kind for one in row.evidence]


def _text(row: SiteRow, kind: str) -> str:
    return next(one.text for one in row.evidence if one.kind == kind)


# --- processes and places ---


def test_each_process_has_its_verdict_and_what_it_leaks() -> None:
    """GIVEN one place in two processes WHEN one grows THEN the other holds, and the place leaks."""
    ledger = _fed(*_adds(_STEADY), *_adds((0, 1, 2), OTHER, _another(1)))
    judged = _judged(ledger)

    assert judged.only.verdict is Verdict.LEAK
    assert (judged.only.live, judged.only.added) == (28, 28)
    assert judged.only.pids == (AGENT.pid, OTHER.pid)
    assert judged.judging.verdicts == {AGENT: Verdict.LEAK, OTHER: Verdict.HELD}
    assert judged.judging.leaked == {AGENT: 25}


def test_a_process_has_the_worst_verdict_of_its_places() -> None:
    ledger = _fed(*_adds((0, 1, 2)))
    _fed(*_adds(_STEADY, first=31), ledger=ledger, stack=ANOTHER_STACK)
    _fed(*_adds((0, 1, 2), first=71), ledger=ledger, stack=_THIRD_STACK)

    assert _judged(ledger).judging.verdicts == {AGENT: Verdict.LEAK}


def test_what_needs_action_comes_first_and_then_by_its_cost() -> None:
    """GIVEN places of all classes WHEN ranked THEN by class, what is live, and what was added."""
    ledger = Ledger()
    ledger.reconcile(walk(began=1))
    for at, (times, stack) in enumerate(
        [
            ((0, 1, 2), STACK),
            ((0, 30, 60), ANOTHER_STACK),
            (_STEADY, _THIRD_STACK),
            (_STEADY[:19], Stack((ATTACH,), StackState.COMPLETE)),
        ]
    ):
        _fed(*_adds(times, first=1 + 100 * at), ledger=ledger, stack=stack)
    gone = Stack((WRAPPER,), StackState.COMPLETE)
    _fed(add(SECOND, 901), rm(2 * SECOND, 901), ledger=ledger, stack=gone)
    unseen = _another(1)
    seen = walked(ledger.instances[FIRST].watches, 100 * SECOND)
    ledger.reconcile(walk(walked([1, 2], 100 * SECOND, unseen, OTHER), seen, began=99 * SECOND))

    rows = _judged(ledger, ended=101, older_s=1).rows
    assert [(row.verdict, row.live) for row in rows] == [
        (Verdict.LEAK, 25),
        (Verdict.SUSPECT, 19),
        (Verdict.SUSPECT, 3),
        (Verdict.INCONCLUSIVE, 2),
        (Verdict.HELD, 3),
        (Verdict.CLEAN, 0),
    ]
    assert len({row.id for row in rows}) == len(rows)
    assert rows[3].pids == (OTHER.pid,)
    assert rows[5].removed == {Cause.RM_WATCH: 1}


def test_what_is_young_is_not_judged() -> None:
    judged = _judged(_fed(*_adds(_STEADY)), older_s=100)

    assert judged.only.verdict is Verdict.YOUNG
    assert judged.judging.verdicts == {AGENT: Verdict.YOUNG}
    assert judged.judging.leaked == {}


def test_nobody_has_suppressed_anything_yet() -> None:
    assert {row.suppressed_by for row in _judged(_fed(*_adds(_STEADY))).rows} == {None}


def test_a_place_says_how_it_grows() -> None:
    row = _judged(_fed(*_adds(_STEADY))).only

    assert row.evidence == (
        Evidence("grows_to_end", "grew in each of 4 parts of 1 min 40 s, up to the end"),
        Evidence("never_removed", "none was ever removed"),
    )
    assert row.per_hour == pytest.approx(25 * 36)
    assert (row.unit, row.comm, row.per_round) == (Unit.WATCHES, b"agent", ())


# --- limits ---


def _users(used: int, limit: int, uid: int = 0) -> UserLimits:
    return limits(uid=uid, watches=Use(used, limit), instances=Use(3, 128))


def _leaking(payer: int | None, instance: Instance, stack: Stack, ledger: Ledger) -> None:
    """900 an hour."""
    changes = {} if payer is None else {"ino": _ROOT[0], "dev": payer}
    opened = init(1, instance=instance, **changes)
    ledger.apply(opened, Stack((ATTACH,), StackState.COMPLETE))
    _fed(*_adds(_STEADY, instance=instance), ledger=ledger, stack=stack)


def test_the_limit_is_reached_at_the_pace_of_all_that_grows() -> None:
    """GIVEN two leaks of a user, one of another WHEN a limit is near THEN two together meet it."""
    ledger = Ledger()
    _leaking(0, FIRST, STACK, ledger)
    _leaking(0, _another(1), ANOTHER_STACK, ledger)
    _leaking(1000, _another(2), _THIRD_STACK, ledger)
    rows = _judged(ledger, limits=[_users(1_000, 2_800), _users(0, 900, 1000)]).rows
    by_stack = {row.stack: row for row in rows}

    assert by_stack[STACK].payer == _ROOT
    assert by_stack[STACK].full_in_s == pytest.approx(3600)
    assert by_stack[ANOTHER_STACK].full_in_s == pytest.approx(3600)
    assert by_stack[_THIRD_STACK].payer == (_ROOT[0], 1000)
    assert by_stack[_THIRD_STACK].full_in_s == pytest.approx(3600)
    assert rows[-1].unit is Unit.INSTANCES
    assert rows[-1].full_in_s is None


def test_a_user_that_has_no_more_has_no_time_left() -> None:
    ledger = Ledger()
    _leaking(0, FIRST, STACK, ledger)

    assert _judged(ledger, limits=[_users(3_000, 2_800)]).rows[0].full_in_s == 0


@pytest.mark.parametrize("payer", [None, 23])
def test_without_a_user_or_its_limit_nothing_is_foretold(payer: int | None) -> None:
    ledger = Ledger()
    _leaking(payer, FIRST, STACK, ledger)
    row = _judged(ledger, limits=[_users(0, 900)]).rows[0]

    assert row.per_hour > 0
    assert row.full_in_s is None


def test_what_does_not_grow_never_meets_a_limit() -> None:
    ledger = Ledger()
    ledger.apply(init(1, ino=_ROOT[0], dev=0), ANOTHER_STACK)
    _fed(*_adds((0, 1, 2)), ledger=ledger)

    assert {row.full_in_s for row in _judged(ledger, limits=[_users(0, 3)]).rows} == {None}


# --- rounds ---


def _mark(ledger: Ledger, at: float) -> None:
    ledger.begin_mark()
    ledger.mark(int(at * SECOND))


def _in_rounds(nets: Sequence[int], process: Process = AGENT) -> Ledger:
    """Each takes 10 s and removes one more than it adds in vain."""
    ledger, wd = Ledger(), 0
    _mark(ledger, 0)
    for number, net in enumerate(nets):
        begin = number * 10 * SECOND
        for at in range(1, net + 2):
            wd += 1
            ledger.apply(add(begin + at, wd, process=process), STACK)
        ledger.apply(rm(begin + net + 3, wd, process=process), STACK)
        _mark(ledger, (number + 1) * 10)
    return ledger


def test_what_each_round_left_is_told_and_judged() -> None:
    row = _judged(_in_rounds([7, 3, 3, 3])).only

    assert row.per_round == (7, 3, 3, 3)
    assert row.verdict is Verdict.LEAK
    assert row.evidence[0] == ("grows_each_round", "+7 in the first round, then +3 in each of 3")
    assert row.per_hour == pytest.approx(9 * 120)


@pytest.mark.parametrize(
    ("nets", "verdict"), [((0, 3, 3), Verdict.SUSPECT), ((0, 3, 3, 3), Verdict.LEAK)]
)
def test_three_rounds_beside_the_first_make_a_leak(nets: tuple[int, ...], verdict: Verdict) -> None:
    row = _judged(_in_rounds(nets)).only

    assert (row.verdict, row.per_round) == (verdict, nets)


def test_rounds_in_which_nothing_stays_are_flat_however_many_there_are() -> None:
    row = _judged(_in_rounds([23, 0, 0, 0])).only

    assert (row.verdict, row.per_round) == (Verdict.HELD, (23, 0, 0, 0))
    assert row.evidence[0].kind == "flat_in_rounds"


def test_a_place_that_comes_in_a_late_round_had_none_before() -> None:
    ledger = _in_rounds([1, 1])
    _fed(add(20 * SECOND + 1, 97), ledger=ledger, stack=ANOTHER_STACK)
    _mark(ledger, 30)
    rows = {row.stack: row for row in _judged(ledger).rows}

    assert rows[ANOTHER_STACK].per_round == (0, 0, 1)
    assert rows[STACK].per_round == (1, 1, 0)


# --- exits ---


def _ends(ledger: Ledger, at: float, process: Process, instance: Instance, wds: list[int]) -> None:
    ts = int(at * SECOND)
    ledger.apply_last(last(ts, wds, process=process, instance=instance))
    ledger.apply_closed(closed(ts + 1, instance, process))


def test_what_only_the_exit_freed_is_judged_as_it_stood() -> None:
    """GIVEN steady growth until the process ended WHEN judged long after THEN it is a leak."""
    ledger = _fed(*_adds(_STEADY), ledger=Ledger(keep_freed_by_exit=True))
    _ends(ledger, 100, AGENT, FIRST, list(range(1, 26)))
    judged = _judged(ledger, ended=10_000)

    assert judged.only.verdict is Verdict.LEAK
    assert judged.only.live == 25
    assert judged.judging.leaked == {AGENT: 25}
    assert _text(judged.only, "freed_only_by_exit") == (
        "all were freed only by the exit of the process"
    )
    assert {target.fate for target in judged.only.targets} == {Fate.UNKNOWN.value}


def test_processes_that_end_and_free_theirs_are_not_outlived() -> None:
    """
    GIVEN three services, each replaced when it ends, under `run`, and orphans by design
    WHEN judged while three live
    THEN those that ended count for what they lived, and nothing is growth
    """
    ledger = Ledger(keep_freed_by_exit=True)
    for number in range(33):
        process, instance = Process(5_000 + number, 1), _another(number, number * 3)
        _fed(*_adds((number * 3,), process, instance), ledger=ledger)
        if number < 30:
            _ends(ledger, number * 3 + 10, process, instance, [1])
    row = _judged(ledger, orphans=[Process(5_000 + number, 1) for number in range(33)]).only

    assert (row.verdict, row.live) == (Verdict.HELD, 33)
    assert "outlived" not in _kinds(row)
    assert _text(row, "freed_only_by_exit").startswith("30 of 33 were")


def test_more_and_more_orphans_are_a_leak_and_services_a_suspect() -> None:
    ledger = Ledger()
    for number in range(20):
        instance = _another(number, number * 5)
        _fed(*_adds((number * 5,), Process(5_000 + number, 1), instance), ledger=ledger)
    orphans = [Process(5_000 + number, 1) for number in range(10)]

    leak = _judged(ledger, orphans=orphans).only
    assert leak.verdict is Verdict.LEAK
    assert _text(leak, "orphaned").startswith("10 of 20 processes are orphans")
    assert "more_processes" in _kinds(leak)
    assert _judged(ledger, orphans=orphans[1:]).only.verdict is Verdict.SUSPECT


def test_what_a_closed_instance_took_along_was_closed_on_purpose() -> None:
    ledger = _fed(init(1), *_adds((0, 1, 2)))
    ledger.apply_closed(closed(5 * SECOND))
    rows = {row.unit: row for row in _judged(ledger, exits_are_told=True).rows}

    assert rows[Unit.WATCHES].verdict is Verdict.CLEAN
    assert _kinds(rows[Unit.WATCHES]) == ["balanced", "closed_on_purpose"]
    assert _kinds(_judged(ledger, exits_are_told=False).rows[0]) == ["balanced"]


# --- instances ---


def _opened(times: Iterable[float], ledger: Ledger, process: Process = AGENT) -> list[Instance]:
    instances = []
    for number, at in enumerate(times, 1):
        instance = _another(number, at)
        ts = int(at * SECOND) + 1
        ledger.apply(init(ts, fd=3 + number, instance=instance, process=process), ANOTHER_STACK)
        instances.append(instance)
    return instances


def test_places_that_open_instances_leak_too() -> None:
    """GIVEN an instance per call, of which adding a watch failed WHEN judged THEN all is told."""
    ledger = Ledger()
    for instance in _opened(_STEADY, ledger):
        ledger.apply(failed(Op.ADD, 99 * SECOND, ENOSPC, instance=instance), STACK)
    judged = _judged(ledger)

    assert judged.only.unit is Unit.INSTANCES
    assert judged.only.verdict is Verdict.LEAK
    assert (judged.only.live, judged.only.targets) == (25, ())
    assert [holder.fd for holder in judged.only.holders] == list(range(4, 29))
    assert _text(judged.only, "without_watch") == (
        "25 have no watch, on 25 of them inotify_add_watch failed"
    )
    assert judged.judging.verdicts == {AGENT: Verdict.LEAK}
    assert judged.judging.leaked == {}


def test_an_instance_is_no_replacement_of_a_watch() -> None:
    """GIVEN watches from before the trace, all still there WHEN instances leak THEN they do."""
    ledger = Ledger()
    ledger.reconcile(walk(walked([1, 2], 2), began=1))
    _opened(_STEADY, ledger)
    row = _judged(ledger).only

    assert row.verdict is Verdict.LEAK
    assert "as_at_baseline" not in _kinds(row)


def test_who_replaces_the_watches_it_had_is_suspect_until_it_has_more() -> None:
    """GIVEN 25 from before WHEN each is removed and another added THEN that may be all."""
    ledger = Ledger()
    ledger.reconcile(walk(walked(range(1, 26), 2), began=1))
    for old, event in enumerate(_adds(_STEADY, first=101), 1):
        _fed(event, rm(event.ts + 1, old), ledger=ledger)
    row = _judged(ledger).only

    assert row.verdict is Verdict.SUSPECT
    assert _kinds(row)[:2] == ["grows_to_end", "as_at_baseline"]
    more = _judged(_fed(add(99 * SECOND, 200), ledger=ledger)).only
    assert more.verdict is Verdict.LEAK
    assert "as_at_baseline" not in _kinds(more)


def test_who_replaces_all_at_once_holds_as_many() -> None:
    ledger = Ledger()
    ledger.reconcile(walk(walked(range(1, 26), 2), began=1))
    for old, event in enumerate(_adds([50] * 25, first=101), 1):
        _fed(event, rm(event.ts + 1, old), ledger=ledger)
    row = _judged(ledger).only

    assert row.verdict is Verdict.HELD
    assert _kinds(row)[:2] == ["plateau", "as_at_baseline"]


def test_what_comes_while_a_process_starts_up_says_nothing() -> None:
    """GIVEN 23 within less than 100 ms WHEN judged at once THEN it was too short."""
    ledger = _fed(*_adds(at / 250 for at in range(23)))
    short, longer = _judged(ledger, ended=0.0999).only, _judged(ledger, ended=0.11).only

    assert (short.verdict, _kinds(short)[0]) == (Verdict.HELD, "short")
    assert (longer.verdict, _kinds(longer)[0]) == (Verdict.LEAK, "grows_to_end")


def test_four_that_are_left_are_suspect_and_five_a_leak() -> None:
    four, five = (_judged(_fed(*_adds(range(0, 100, step)))).only for step in (25, 20))

    assert (four.verdict, four.live) == (Verdict.SUSPECT, 4)
    assert (five.verdict, five.live) == (Verdict.LEAK, 5)


# --- findings ---


class _Pods(Pods):
    """Only the last of all has a name."""

    def named(self, uid: str) -> Pod:
        return Pod(uid, "default", "web-0", False) if "f" in uid else Pod(uid, None, None, False)


def test_pods_that_were_removed_are_told_by_one_with_a_name() -> None:
    uids = [f"{digit * 8}-0b1c-4b6e-9d5c-0123456789ab".replace("b", "a") for digit in "12f"]
    paths = [f"/var/lib/kubelet/pods/{uid}/volumes/{at}".encode() for uid in uids for at in "ab"]
    events = [add(at + 1, at, path=path) for at, path in enumerate(paths, 1)]
    gone = dict.fromkeys(paths, Fate.POD_REMOVED)

    def told(fates: Mapping[bytes, Fate]) -> str:
        row = _judged(_fed(*events), fates=fates, pods=_Pods()).only
        return _text(row, "target_gone").partition(": ")[2]

    assert told(gone) == "6 in pods that were removed (default/web-0 and 2 more)"
    assert told({paths[0]: Fate.POD_REMOVED}) == f"1 in pods that were removed ({uids[0]})"
    assert told({paths[0]: Fate.DELETED}) == "1 deleted"


def test_targets_that_are_gone_are_told_by_reason() -> None:
    fates = {
        b"/run/secrets/1": Fate.POD_REMOVED,
        b"/run/secrets/2": Fate.DELETED,
        b"/run/secrets/3": Fate.DELETED,
        b"/run/secrets/4": Fate.MOVED,
        b"/run/secrets/5": Fate.UNKNOWN,
    }
    row = _judged(_fed(*_adds([0] * 6)), fates=fates).only

    assert row.verdict is Verdict.LEAK
    assert _text(row, "target_gone") == (
        "3 of 6 targets are gone: 2 deleted, 1 in pods that were removed"
    )
    assert [target.fate for target in row.targets] == [
        "pod_removed",
        "deleted",
        "deleted",
        "moved",
        "unknown",
        "there",
    ]


def test_every_way_to_be_gone_has_a_reason() -> None:
    assert {fate for fate in Fate if fate.is_gone} == set(judging_module._REASONS)


@pytest.mark.parametrize(("number", "verdict"), [(2, Verdict.HELD), (3, Verdict.LEAK)])
def test_a_path_that_is_gone_is_a_target_that_is_gone(number: int, verdict: Verdict) -> None:
    fates = {b"/run/secrets/%d" % wd: Fate.PATH_GONE for wd in range(1, number + 1)}
    row = _judged(_fed(*_adds([0] * 4)), fates=fates).only

    assert row.verdict is verdict
    assert _text(row, "target_gone") == (
        f"{number} of 4 targets are gone: {number} nowhere to be found by their path"
    )


def test_what_is_gone_for_one_process_is_not_the_guilt_of_another() -> None:
    """GIVEN a place in three processes WHEN targets are gone THEN each is judged by its own."""
    third = Process(4_001, 13)
    ledger = _fed(
        *_adds([0] * 6),
        *_adds([0] * 6, OTHER, _another(1), first=11),
        *_adds([0] * 7, third, _another(2), first=21),
    )
    gone = (1, 2, 3, 11, 12, 21, 22, 23)
    judged = _judged(ledger, fates={b"/run/secrets/%d" % wd: Fate.DELETED for wd in gone})

    assert judged.judging.verdicts == {
        AGENT: Verdict.LEAK,
        OTHER: Verdict.HELD,
        third: Verdict.SUSPECT,
    }
    assert judged.judging.leaked == {AGENT: 6}
    assert judged.only.verdict is Verdict.LEAK
    assert _text(judged.only, "target_gone") == "8 of 19 targets are gone: 8 deleted"


def test_young_watches_are_shown_but_not_found_out_about() -> None:
    fates = {b"/run/secrets/%d" % wd: Fate.DELETED for wd in (4, 5, 6)}
    ledger = _fed(*_adds((0, 1, 2, 97, 98, 99)))
    row = _judged(ledger, older_s=5, fates=fates).only

    assert row.verdict is Verdict.HELD
    assert "target_gone" not in _kinds(row)
    assert [target.fate for target in row.targets][3:] == ["deleted"] * 3


def test_what_only_the_exit_freed_is_not_found_out_about() -> None:
    """GIVEN it may have been deleted since WHEN three of the others are gone THEN of three."""
    fates = {b"/run/secrets/%d" % wd: Fate.DELETED for wd in (1, 2, 3)}
    ledger = Ledger(keep_freed_by_exit=True)
    _fed(*_adds([0] * 3), *_adds([0] * 23, OTHER, _another(1)), ledger=ledger)
    _ends(ledger, 50, OTHER, _another(1), list(range(1, 24)))
    row = _judged(ledger, fates=fates).only

    assert row.verdict is Verdict.LEAK
    assert _text(row, "target_gone") == "3 of 3 targets are gone: 3 deleted"
    assert _text(row, "freed_only_by_exit").startswith("23 of 26 were")


def test_the_oldest_of_very_many_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging_module, "_TARGETS_MAX", 4)
    fates = {b"/run/secrets/%d" % wd: Fate.DELETED for wd in range(1, 24)}
    row = _judged(_fed(*_adds([0] * 23)), fates=fates).only

    assert row.live == 23
    assert [target.wd for target in row.targets] == [1, 2, 3, 4]
    assert _text(row, "target_gone") == "4 of 4 targets are gone: 4 deleted"


def _looked_at(ledger: Ledger, instances: Mapping[Instance, Sequence[int]]) -> None:
    """A walk finds that these instances watch these inodes, by descriptors from 1 on."""
    found = [
        WalkedInstance(
            instance,
            (HolderFd(AGENT, 3),),
            Queue(0),
            100 * SECOND,
            watch_rows({wd: kernel_watch(target) for wd, target in enumerate(targets, 1)}),
        )
        for instance, targets in instances.items()
    ]
    ledger.reconcile(walk(*found, began=99 * SECOND))


def test_the_same_target_again_is_told_where_the_first_is_still_watched() -> None:
    """GIVEN an instance for each of four calls WHEN three watch what one watches THEN told."""
    ledger = Ledger()
    instances = [_another(number) for number in range(1, 5)]
    for instance in instances:
        _fed(*_adds((0,), instance=instance), ledger=ledger)
    unknown = _judged(ledger).only
    _looked_at(ledger, dict.fromkeys(instances, (7,)))
    row = _judged(ledger).only

    assert "watched_again" not in _kinds(unknown)
    assert row.verdict is Verdict.HELD
    assert _text(row, "watched_again") == (
        "3 are on a target that was watched already; one is watched 4 times"
    )


def test_the_same_target_in_other_processes_is_no_repetition() -> None:
    ledger = Ledger()
    instances = [_another(number) for number in range(1, 5)]
    for number, instance in enumerate(instances):
        _fed(*_adds((0,), Process(5_000 + number, 1), instance), ledger=ledger)
    _looked_at(ledger, dict.fromkeys(instances, (7,)))

    assert "watched_again" not in _kinds(_judged(ledger).only)


def _unread(*queues: tuple[float, int], limit: int | None = None) -> Ledger:
    """Three watches; what walks found in the queue at these times (s)."""
    ledger = _fed(*_adds((0, 1, 2)))
    for at, queued in queues:
        ts = int(at * SECOND)
        found = walked([1, 2, 3], ts + 1, queued=queued, queue_limit=limit)
        ledger.reconcile(walk(found, began=ts))
    return ledger


@pytest.mark.parametrize(
    ("queues", "is_unread"),
    [
        # three more than the one before, nothing read for 10 s
        (((90, 1), (91, 2), (92, 5), (93, 7)), True),
        (((90.1, 1), (91, 2), (92, 5), (93, 7)), False),
        # two more than the one before
        (((80, 1), (91, 1), (92, 5), (93, 7)), False),
        # nothing came for 10 s
        (((70, 1), (75, 2), (80, 5), (89, 7)), False),
        (((70, 1), (75, 2), (80, 5), (90.1, 7)), True),
        # somebody reads
        (((70, 1), (75, 2), (80, 5), (85, 6), (92, 3)), False),
        (((70, 1), (75, 2), (80, 5), (85, 6), (92, 0)), False),
        (((70, 5), (75, 3), (80, 4), (85, 5), (91, 6)), True),
        (((70, 0), (80, 0), (85, 0)), False),
    ],
)
def test_a_queue_that_nobody_reads_is_a_leak(
    queues: tuple[tuple[float, int], ...], is_unread: bool
) -> None:
    row = _judged(_unread(*queues)).only

    assert (row.verdict is Verdict.LEAK) is is_unread
    assert ("unread" in _kinds(row)) is is_unread
    if is_unread:
        waiting = queues[-1][1]
        assert _text(row, "unread") == (
            f"nobody reads what 3 report: {waiting} events wait, and more come"
        )


@pytest.mark.parametrize(("since", "is_unread"), [(60, True), (91, False)])
def test_a_full_queue_need_not_rise_to_be_one_that_nobody_reads(
    since: float, is_unread: bool
) -> None:
    row = _judged(_unread((since, 8), (95, 8), limit=7)).only

    assert ("unread" in _kinds(row)) is is_unread
    if is_unread:
        assert _text(row, "unread") == (
            "nobody reads what 3 report: 8 events wait, and new ones are lost"
        )


def test_one_queue_of_many_watches_is_no_leak_though_none_was_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GIVEN another process has the oldest WHEN one of ten is unread THEN it is one of ten."""
    monkeypatch.setattr(judging_module, "_TARGETS_MAX", 9)
    read, unread = _another(1), _another(2)
    ledger = _fed(*_adds([0] * 9), *_adds([1] * 9, OTHER, read), *_adds([1], OTHER, unread))
    for at, queued in ((80, 1), (81, 2), (82, 3), (93, 4)):
        ts = at * SECOND
        looks = (
            walked(range(1, 10), ts + 1),
            walked(range(1, 10), ts + 1, read, OTHER),
            walked([1], ts + 1, unread, OTHER, queued=queued),
        )
        ledger.reconcile(walk(*looks, began=ts))
    judged = _judged(ledger)

    assert _text(judged.only, "unread").startswith("nobody reads what 1 report")
    assert judged.judging.verdicts == {AGENT: Verdict.HELD, OTHER: Verdict.HELD}


def test_findings_are_of_who_is_asked_for_all_holders() -> None:
    """GIVEN another process that holds the instance WHEN fates are asked THEN it is named."""
    ledger = _fed(*_adds((0,)))
    ledger.reconcile(walk(walked([1], 2 * SECOND, process=OTHER), began=2 * SECOND))
    fates = _Fates({})
    judging = Judging(ledger, _Table(()), fates, older_s=0, ended=100 * SECOND, exits_are_told=True)
    judging.rows(())

    assert fates.holders == [OTHER]
