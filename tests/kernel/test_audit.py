"""The kernel's own counters beside what is found: what they know that no list shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import Puppet, process_of, removed

from tracer.session import Filter, Session
from tracer.stacks.collector import Stacks
from tracer.views.json_report import report_object

pytestmark = pytest.mark.usefixtures("root")

# nobody else's, so that nobody else's instances come and go under the audit
_UID = 52_317


@pytest.fixture
def stranger(puppet: Puppet) -> Puppet:
    puppet.ok("become", _UID)
    return puppet


def test_counters_that_agree_are_not_spoken_of(stranger: Puppet, watchable: list[Path]) -> None:
    with Session(Filter(frozenset({stranger.pid})), Stacks(), older_s=0.0) as session:
        fd = stranger.ok("init")
        stranger.ok("add", fd, watchable[0])
        report = report_object(session.finish())

    assert report["audit"] == []
    (limits,) = report["limits"]
    assert (limits["uid"], limits["watches"]["used"], limits["instances"]["used"]) == (_UID, 1, 1)


@pytest.mark.kernels
@pytest.mark.usefixtures("counters_of_all")
def test_an_instance_in_a_socket_is_not_taken_for_closed(
    stranger: Puppet, watchable: list[Path]
) -> None:
    """GIVEN an instance in flight WHEN judged THEN it lives, and the counters are spoken of."""
    with Session(Filter(frozenset({stranger.pid})), Stacks(), older_s=0.0) as session:
        here, there = divmod(stranger.ok("socketpair"), 1000)
        fd = stranger.ok("init")
        for folder in watchable[:2]:
            stranger.ok("add", fd, folder)
        stranger.ok("send", here, fd)
        stranger.ok("close", fd)
        in_flight = report_object(session.finish())

        received = stranger.ok("receive", there)
        stranger.ok("add", received, watchable[2])
        arrived = report_object(session.finish())

        stranger.ok("close", received)
        closed = report_object(session.finish())

    (audit,) = in_flight["audit"]
    assert (audit["uid"], audit["watches"]["used"], audit["instances"]["used"]) == (_UID, 2, 1)
    assert audit["found"] == {"watches": 0, "instances": 0}
    assert "socket" in audit["explanation"]
    assert process_of(in_flight, stranger.pid)["live"] == 2
    assert in_flight["trace"]["removed_by_cause"] == removed()

    assert (arrived["audit"], arrived["trace"]["complete"]) == ([], True)
    assert process_of(arrived, stranger.pid)["live"] == 3
    assert arrived["trace"]["added"] == 3

    assert closed["trace"]["removed_by_cause"] == removed(closed=3)


def test_an_instance_that_fell_out_of_its_socket_is_closed(
    stranger: Puppet, watchable: list[Path]
) -> None:
    with Session(Filter(frozenset({stranger.pid})), Stacks(), older_s=0.0) as session:
        here, there = divmod(stranger.ok("socketpair"), 1000)
        fd = stranger.ok("init")
        stranger.ok("add", fd, watchable[0])
        stranger.ok("send", here, fd)
        stranger.ok("close", fd)
        session.finish()
        stranger.ok("close", here)
        stranger.ok("close", there)
        report = report_object(session.finish())

    assert report["audit"] == []
    assert report["trace"]["removed_by_cause"] == removed(closed=1)


@pytest.mark.usefixtures("counters_of_all")
def test_an_instance_from_before_the_trace_may_be_in_a_socket_too(
    stranger: Puppet, watchable: list[Path]
) -> None:
    fd = stranger.ok("init")
    for folder in watchable[:2]:
        stranger.ok("add", fd, folder)
    here, there = divmod(stranger.ok("socketpair"), 1000)
    with Session(Filter(frozenset({stranger.pid})), Stacks(), older_s=0.0) as session:
        stranger.ok("send", here, fd)
        stranger.ok("close", fd)
        in_flight = report_object(session.finish())
        stranger.ok("receive", there)
        arrived = report_object(session.finish())

    for report in (in_flight, arrived):
        assert process_of(report, stranger.pid)["live"] == 2
        assert report["trace"]["complete"]
    assert in_flight["audit"] and not arrived["audit"]


@pytest.mark.usefixtures("counters_of_all")
def test_two_that_could_be_the_one_in_the_socket_are_in_doubt(
    stranger: Puppet, watchable: list[Path]
) -> None:
    """GIVEN two instances with two watches WHEN one is closed, one in flight THEN inconclusive."""
    with Session(Filter(frozenset({stranger.pid})), Stacks(), older_s=0.0) as session:
        here, there = divmod(stranger.ok("socketpair"), 1000)
        for folders in (watchable[:2], watchable[2:4]):
            fd = stranger.ok("init")
            for folder in folders:
                stranger.ok("add", fd, folder)
        stranger.ok("send", here, fd)
        stranger.ok("close", fd)
        stranger.ok("close", fd - 1)
        in_doubt = session.finish()
        stranger.ok("receive", there)
        known = session.finish()

    assert not in_doubt.trace.complete and not in_doubt.conclusive
    assert known.trace.complete
    assert process_of(report_object(known), stranger.pid)["live"] == 2
