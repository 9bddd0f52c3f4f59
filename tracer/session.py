"""A trace from its first probe to its report: the one place where all parts meet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack

from tracer.core.comparison import Difference
from tracer.core.events import CallEvent, ClosedEvent, GoneEvent, Process, TallyEvent
from tracer.core.ledger import Ledger
from tracer.core.order import SLACK_NS, Traced
from tracer.core.report import Report
from tracer.core.walk import Charge, Walk, WalkedInstance
from tracer.feed import Feed
from tracer.filter import Filter as Filter
from tracer.kernel.hooks import Mode
from tracer.kernel.inodes import Inodes
from tracer.kernel.probe import Scope
from tracer.kernel.truth import Truth, open_truth
from tracer.snapshot import Snapshots
from tracer.stacks.resolver import StackResolver
from tracer.targets.aftermath import Aftermath
from tracer.targets.processes import ProcessTable

# Walks take at most a fiftieth of the time. They come on a timer, and sooner when the doorbell
# rang, after a removal that is told in no other way, and after a loss.
_WALK_EVERY_S = 2.0
_WALK_SOONEST_S = 0.05
_WALK_SHARE = 50
# For a limit that was met, while who has it all still does: at most a twentieth.
_LOOK_SHARE = 20
# An instance may be closed or changed under a walk, which cannot read it then.
_VERIFY_ATTEMPTS = 5
_SETTLE_ATTEMPTS = 3
# How long one step may take: under a flood the screen and Ctrl-C must not wait for its end.
_STEP_S = 0.1
# A call that is balanced at once is, in most programs, within this.
_MARK_S = 0.2
# What each place and process had after each round is kept.
ROUNDS_MAX = 1_000


class Session:
    """
    A ledger kept equal to the kernel. Use as a context manager; not for several threads.

    `older_s`: watches younger than this at the end are not judged. `follow` traces what is started
    under :meth:`spawning` and all its descendants, and judges what only their end freed as if it
    were live. `mode` None is the best that the kernel allows.
    """

    def __init__(
        self,
        filter_: Filter,
        stacks: StackResolver,
        *,
        older_s: float,
        follow: bool = False,
        mode: Mode | None = None,
    ) -> None:
        self._filter = filter_
        self.follows = follow
        self._processes = ProcessTable(belongings=True)
        self._ledger = Ledger(keep_freed_by_exit=self.follows)
        scope = filter_.scope()
        if follow:
            scope = Scope(pids=frozenset(), follow=True)
        self._feed = Feed(scope, stacks, self._processes, mode)
        self._walked_at = 0
        self._next_walk = 0.0
        self._uncounted: tuple[Charge, ...] = ()
        self._soonest_walk = 0.0
        self._soonest_look = 0.0
        self._lost = 0
        self._kernel: Truth | None = None
        try:
            self._inodes = Inodes(self._feed.probe.bpf)
            self._kernel = open_truth(self._feed.probe.bpf, self._feed.attach)
            self._snapshots = Snapshots(
                self._ledger,
                self._processes,
                older_s=older_s,
                mode=self._feed.probe.mode.value,
                truth=self._kernel.truth,
                state_of=self._inodes.state,
                names_of=self._inodes.names_of,
                exits_are_told=follow,
            )
            # twice: what the first walk finds, and is then updated, is not mistaken for an add
            self._take_baseline()
            self._feed.attach()
            self._reconcile(baseline=True)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with ExitStack() as closing:
            closing.callback(self._feed.close)
            if self._kernel is not None:
                closing.callback(self._kernel.close)

    def spawning(self) -> AbstractContextManager[None]:
        """Put it around the start of a command, to follow that from its first instruction on."""
        return self._feed.probe.spawning()

    def step(self) -> None:
        """Take in what happened, and compare with the kernel when it is time to."""
        if self._feed.is_rushing:
            return
        for events in self._feed.ready(within_s=_STEP_S):
            self._apply(events)
            if events:
                # an add that was refused may come after its removal
                self._ledger.forget_removals(min(events[-1].ts, self._feed.healed_until))
        if self._walk_is_due(time.monotonic()):
            self._reconcile()

    def _walk_is_due(self, now: float) -> bool:
        is_called_for = self._feed.rang_since(self._walked_at) or self._feed.lost != self._lost
        due = now >= (self._soonest_walk if is_called_for else self._next_walk)
        return due or self._look_is_due(now)

    def _look_is_due(self, now: float) -> bool:
        return now >= self._soonest_look and self._snapshots.has_new_failures

    @property
    def refusal(self) -> str:
        """Why the kernel's list is not read by the iterator; nothing if it is."""
        assert self._kernel is not None
        return self._kernel.refusal

    def _take_baseline(self) -> None:
        # without the events, if there are any yet: what they update was there before them
        assert self._kernel is not None
        walk = self._kernel.walk()
        self._ledger.reconcile(walk.only(self._scope()), baseline=True)

    def _walk(self) -> Walk:
        """
        A walk, and where instances are missing from it, one in which their users stand still.

        Only then do the counters, which are read beside the lists, tell whether these live on.
        """
        assert self._kernel is not None
        walk = self._kernel.walk()
        for _ in range(_SETTLE_ATTEMPTS):
            payers = self._ledger.payers_of_missing(walk.named(self._ledger.recognized))
            if not payers:
                break
            before, walk = walk, self._kernel.walk()
            if walk.stood_still(before, payers):
                break
        return walk

    def _reconcile(self, baseline: bool = False, exact: bool = False) -> tuple[Walk, Difference]:
        assert self._kernel is not None
        worked = time.thread_time()
        walk = self._walk()
        # a call that took effect under the walk may end a moment after it
        self._apply(self._feed.all_until(walk.ended + SLACK_NS))
        charges = walk.charges()
        self._snapshots.saw_all(walk)
        walk = walk.named(self._ledger.recognized).only(self._scope())
        # also of whom no descriptor is left: an instance of theirs may be in a socket
        payers = {(user.userns, user.uid) for user in walk.users} | self._ledger.payers()
        self._uncounted = tuple(
            charge for charge in charges if charge.payer in payers and not charge.agrees
        )
        change = self._ledger.reconcile(
            walk,
            baseline=baseline,
            exact=exact,
            cause_of=Aftermath(self._inodes.state).cause_of,
        )
        self._ledger.forget_removals(walk.began)
        self._snapshots.saw(walk)
        took = (walk.ended - walk.began) / 1e9
        self._walked_at = walk.began
        self._lost = self._feed.lost
        self._next_walk = time.monotonic() + max(_WALK_EVERY_S, _WALK_SHARE * took)
        # a busy program may ring without end: then our own work counts as well
        took = max(took, time.thread_time() - worked)
        self._soonest_walk = time.monotonic() + max(_WALK_SOONEST_S, _WALK_SHARE * took)
        self._soonest_look = time.monotonic() + max(_WALK_SOONEST_S, _LOOK_SHARE * took)
        return walk, change

    def has_descendants(self) -> bool:
        """Whether any process of the traced command is still there."""
        return self.follows and bool(self._feed.probe.scope_pids())

    @property
    def net(self) -> int:
        """How many watches and instances came and stayed, as of the last step."""
        return self._ledger.totals.net

    @property
    def rounds(self) -> int:
        """How many have begun."""
        return len(self._ledger.marks)

    def mark(self) -> int:
        """
        End a round of what is traced, if there is one, and begin the next; its number, from 1.

        It takes a moment: what a busy program adds and removes meanwhile counts for no round. What
        is there then is compared with the kernel.
        """
        self._apply(self._feed.all_until(time.monotonic_ns()))
        self._ledger.begin_mark()
        ends = time.monotonic() + _MARK_S
        while time.monotonic() < ends:
            time.sleep(_MARK_S / 10)
            self.step()
        self._reconcile(exact=True)
        self._ledger.mark(time.monotonic_ns())
        return self.rounds

    def end_round(self) -> None:
        """End the round that a mark began, if there was one."""
        if self._ledger.marks:
            self.mark()

    def live(self) -> Report:
        """How it stands; no verdicts."""
        if self._look_is_due(time.monotonic()):
            self._reconcile()
        return self._snapshots.live(self._feed.probe.counters())

    def finish(self) -> Report:
        """Reconcile until a walk finds nothing that no call had told of, and judge."""
        # to verify takes its time, in which a place that grew adds nothing any more
        asked_at = time.monotonic_ns()
        complete = False
        for _ in range(_VERIFY_ATTEMPTS):
            complete = self._agrees_with_kernel()
            # the counters are read beside the lists: a difference must last to be one
            if complete and not self._uncounted:
                break
        counters = self._feed.probe.counters()
        return self._snapshots.judged(counters, complete, asked_at, self._uncounted)

    def _agrees_with_kernel(self) -> bool:
        # that watches went without a call is no disagreement: they do
        walk, change = self._reconcile(exact=True)
        return not change.unlisted and not change.in_doubt and not walk.unread

    def _apply(self, events: Iterable[Traced]) -> None:
        for _, event, stack in events:
            if isinstance(event, CallEvent):
                self._ledger.apply(event, stack)
            elif isinstance(event, TallyEvent):
                self._ledger.apply_tally(event, stack)
            elif isinstance(event, GoneEvent):
                self._ledger.apply_gone(event, self._feed.cause_of(event))
            elif isinstance(event, ClosedEvent):
                self._ledger.apply_closed(event)
            else:
                self._ledger.apply_last(event)

    def _scope(self) -> Callable[[WalkedInstance], bool]:
        # an instance that was traced stays so, whoever holds it by now
        known = self._ledger.instances
        pids = self._feed.probe.scope_pids() if self.follows else None

        def in_scope(process: Process) -> bool:
            return process.pid in pids if pids is not None else self._matches(process)

        return lambda walked: walked.instance in known or any(
            in_scope(holder.process) for holder in walked.holders
        )

    def _matches(self, process: Process) -> bool:
        wanted = self._filter
        if not wanted.includes_pid(process.pid):
            return False
        if wanted.uid is None and not wanted.name:
            # the facts do not matter
            return True
        facts = self._processes.meet(process.pid)
        return facts is not None and wanted.includes(facts)
