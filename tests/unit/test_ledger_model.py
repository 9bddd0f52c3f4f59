"""The ledger against a model of the kernel, in any order of events."""

from __future__ import annotations

from build import (
    AGENT,
    ANOTHER_STACK,
    OTHER,
    SECOND,
    STACK,
    add,
    init,
    last,
    rm,
    walk,
    walked,
)
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from recount import assert_counts_add_up

from tracer.core.cause import Cause
from tracer.core.events import CallEvent, Instance, LastEvent, Process
from tracer.core.ledger import Ledger
from tracer.core.order import SLACK_NS, Order, Traced
from tracer.core.stack import missing
from tracer.core.walk import Walk, WalkedInstance

_BEFORE_TRACE = Instance(group=0xFFFF888000002000, gen=0)
_STACKS = (STACK, ANOTHER_STACK, missing("no room"))


_CPUS = 3
_WORK = st.lists(
    st.tuples(
        st.sampled_from(["open", "add", "add", "add", "rm", "delete", "update", "close", "exit"]),
        st.integers(0, 22),
        st.integers(1, 7 * SLACK_NS),
    ),
    max_size=7,
)


class _Kernel:
    """Instances of some processes, one holder each; what it does it tells, but not at once."""

    def __init__(self, takes: bool) -> None:
        self.now = 1_000 * SECOND
        self.holders: dict[Instance, Process] = {}
        self.watches: dict[Instance, set[int]] = {}
        self.before: set[tuple[Instance, int]] = set()
        self.has_been_walked = False
        self.added = 0
        self.opened = 0
        self.removed_by_call: set[tuple[Instance, int]] = set()
        self.freed_by_exit: set[tuple[Instance, int]] = set()
        self.told: list[tuple[int, Traced]] = []
        self._takes = takes
        self._next_wd = 1
        self._births = 0
        self._seen: set[Instance] = set()

    def do(self, what: str, which: int, elapsed: int) -> None:
        self.now += elapsed
        keys = sorted(self.watches)
        if what == "open" or not keys:
            self._open(which)
            return
        key = keys[which % len(keys)]
        wds = sorted(self.watches[key])
        wd = wds[which % len(wds)] if wds else None
        if what == "add":
            self.watches[key].add(self._next_wd)
            self.added += 1
            self._tell(add(self._returned(which), self._next_wd, **self._who(key)), which)
            self._next_wd += 1
        elif what == "close":
            del self.watches[key]
        elif what == "exit":
            self._exit(self.holders[key], which)
        elif wd is not None and what == "update":
            if not self.has_been_walked and (key, wd) in self.before:
                # before the baseline, an update cannot be told from an add
                self.before.discard((key, wd))
                self.added += 1
            self._tell(add(self._returned(which), wd, **self._who(key)), which)
        elif wd is not None:
            self.watches[key].discard(wd)
            if what == "rm":
                self.removed_by_call.add((key, wd))
                self._tell(rm(self._returned(which), wd, **self._who(key)), which)

    def existed_before(self, key: Instance, wds: set[int]) -> None:
        self.watches[key] = set(wds)
        self.holders[key] = OTHER
        self.before = {(key, wd) for wd in wds}
        self._next_wd = max(self._next_wd, *wds) + 1

    def read(self, key: Instance) -> WalkedInstance:
        return walked(sorted(self.watches[key]), self.now, key, self.holders[key])

    def _open(self, which: int) -> None:
        # few addresses, so that they are reused
        free = [
            group
            for group in range(0x1000, 0x6000, 0x1000)
            if group not in {key.group for key in self.watches}
        ]
        if not free:
            return
        key = Instance(free[which % len(free)], self.now)
        self._births += which % 2
        self.holders[key] = AGENT._replace(birth=self._births)
        self.watches[key] = set()
        self.opened += 1
        self._tell(init(self._returned(which), **self._who(key)), which)

    def _exit(self, process: Process, which: int) -> None:
        for key in [key for key in self.watches if self.holders[key] == process]:
            wds = self.watches.pop(key)
            if wds:
                self._tell(last(self.now, sorted(wds), instance=key, process=process), which)
                self.freed_by_exit.update((key, wd) for wd in wds)
        self._births += 1

    def _who(self, key: Instance) -> dict[str, object]:
        return {"instance": key, "process": self.holders[key]}

    def _returned(self, which: int) -> int:
        """A call returns some time after it took effect."""
        return self.now + (which * 101 if self._takes else 0)

    def _tell(self, event: CallEvent | LastEvent, which: int) -> None:
        late = which * SLACK_NS // 23
        stack = _STACKS[which % len(_STACKS)]
        self.told.append((event.ts + late, Traced(event.ts, event, stack)))


class _LedgerMachine(RuleBasedStateMachine):
    """
    The ledger follows a kernel whose events come late and out of order.

    `takes`: whether calls return later than they take effect, as they do. A walk in between
    makes up its own mind, so that the number of adds is not exact then, but what is live is.
    """

    takes = False

    @initialize(before=st.sets(st.integers(1, 23), min_size=1, max_size=5), work=_WORK)
    def begin(self, before: set[int], work: list[tuple[str, int, int]]) -> None:
        self.kernel = _Kernel(self.takes)
        self.kernel.existed_before(_BEFORE_TRACE, before)
        self.ledger = Ledger(keep_freed_by_exit=True)
        self.order = Order()
        self.walk_and_reconcile(work)

    @rule(work=_WORK)
    def work(self, work: list[tuple[str, int, int]]) -> None:
        for what, which, elapsed in work:
            self.kernel.do(what, which, elapsed)

    @rule()
    def step(self) -> None:
        self._drain(self.kernel.now)
        events = self.order.until(self.kernel.now - SLACK_NS)
        self._apply(events)
        if events:
            self.ledger.forget_removals(events[-1].ts)

    @rule(work=_WORK)
    def walk_and_reconcile(self, work: list[tuple[str, int, int]]) -> None:
        """A walk during which things go on, as Feed.all_until and Session.reconcile do it."""
        kernel = self.kernel
        began = kernel.now
        pending = sorted(kernel.watches)
        read: dict[Instance, WalkedInstance] = {}

        def read_next() -> None:
            if pending and (key := pending.pop(0)) in kernel.watches:
                kernel.now += 1
                read[key] = kernel.read(key)

        for what, which, elapsed in work:
            kernel.do(what, which, elapsed)
            if which % 3:
                read_next()
        while pending:
            read_next()
        # what was closed after it was read is no longer there when the rows are read again
        read = {key: one for key, one in read.items() if key in kernel.watches}
        ended = kernel.now
        kernel.now += 2 * SLACK_NS
        self._drain(kernel.now)
        self._apply(self.order.until(ended))
        if not kernel.has_been_walked:
            # what was removed before the baseline was never in the ledger
            kernel.removed_by_call -= kernel.before
            kernel.has_been_walked = True
        self.ledger.reconcile(Walk(began, ended, read, ()))
        if not self.takes:
            self._check_after(kernel)
        self.ledger.forget_removals(began)

    @rule(number=st.integers(0, 5))
    def fold(self, number: int) -> None:
        """Also what still runs: who calls again starts anew."""
        if hasattr(self, "ledger"):
            self.ledger.fold(self.ledger.idle()[:number])

    @rule(work=_WORK)
    def mark(self, work: list[tuple[str, int, int]]) -> None:
        """A round ends while things go on."""
        if hasattr(self, "ledger"):
            self.ledger.begin_mark()
            self.work(work)
            self.step()
            self.ledger.mark(self.kernel.now)

    @invariant()
    def counts_add_up(self) -> None:
        if hasattr(self, "ledger"):
            assert_counts_add_up(self.ledger)

    def teardown(self) -> None:
        if not hasattr(self, "ledger"):
            return
        kernel = self.kernel
        kernel.now += SECOND
        self.walk_and_reconcile([])
        expected = {(key, wd) for key, wds in kernel.watches.items() for wd in wds}
        assert self._listed() == expected
        look = walk(*map(kernel.read, kernel.watches), began=kernel.now)
        assert not self.ledger.difference(look)
        kept = {(account.instance, watch.wd) for account, watch in self.ledger.freed_by_exit}
        assert kept <= kernel.freed_by_exit
        assert_counts_add_up(self.ledger)
        if not self.takes:
            assert kept == kernel.freed_by_exit - kernel.before
            totals = self.ledger.totals
            assert totals.added == kernel.added
            assert totals.opened == kernel.opened
            assert totals.removed[Cause.RM_WATCH] == len(kernel.removed_by_call)

    def _listed(self) -> set[tuple[Instance, int]]:
        accounts = self.ledger.instances.items()
        return {(key, wd) for key, account in accounts for wd in account.watches}

    def _check_after(self, kernel: _Kernel) -> None:
        """What went implicitly during the walk may still be listed, nothing else is wrong."""
        listed = self._listed()
        assert {(key, wd) for key, wds in kernel.watches.items() for wd in wds} <= listed
        assert not listed & kernel.removed_by_call

    def _drain(self, now: int) -> None:
        arrived = [traced for at, traced in self.kernel.told if at <= now]
        self.kernel.told = [(at, traced) for at, traced in self.kernel.told if at > now]
        for cpu in range(_CPUS):
            self.order.add(traced for i, traced in enumerate(arrived) if i % _CPUS == cpu)

    def _apply(self, events: list[Traced]) -> None:
        for _, event, stack in events:
            if isinstance(event, LastEvent):
                self.ledger.apply_last(event)
            else:
                self.ledger.apply(event, stack)


class _SlowCallsMachine(_LedgerMachine):
    takes = True


TestAgainstTheModel = _LedgerMachine.TestCase
TestAgainstTheModel.settings = settings(max_examples=149, stateful_step_count=23)
TestAgainstTheModelWithSlowCalls = _SlowCallsMachine.TestCase
TestAgainstTheModelWithSlowCalls.settings = TestAgainstTheModel.settings
