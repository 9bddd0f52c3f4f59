"""The kernel's counters beside what a walk found."""

from __future__ import annotations

from build import AGENT, FIRST, walk, walked

from tracer.core.events import Instance
from tracer.core.walk import Hidden, UserUse, Walk, WalkedInstance

_HOST, _INNER = 4026531837, 4026532999
_OTHER = Instance(0xFFFF888000002000, 7)


def _use(watches: int, instances: int, uid: int = 1000, userns: int = _HOST) -> UserUse:
    return UserUse(uid, userns, watches, 8192, instances, 128)


def _paid(one: WalkedInstance, *payers: tuple[int, int]) -> WalkedInstance:
    return one._replace(payers=payers)


def test_each_user_is_charged_for_what_was_found() -> None:
    look = walk(
        _paid(walked([1, 2], 1_003, FIRST, AGENT), (_HOST, 1000)),
        _paid(walked([1], 1_004, _OTHER), (_HOST, 7)),
        began=1_000,
        users=(_use(2, 1), _use(4, 2, uid=7)),
    )

    first, second = look.charges()
    assert first.agrees
    assert (second.watches, second.instances, second.agrees) == (1, 1, False)
    assert look.with_hidden().hidden == {(_HOST, 1000): Hidden(0, 0), (_HOST, 7): Hidden(1, 3)}


def test_who_made_a_namespace_is_charged_for_all_in_it() -> None:
    look = walk(
        _paid(walked([1, 2, 3], 1_003), (_INNER, 0), (_HOST, 1000)),
        _paid(walked([1], 1_004, _OTHER), (_HOST, 1000)),
        began=1_000,
        users=(_use(4, 2), _use(3, 1, uid=0, userns=_INNER)),
    )

    assert all(charge.agrees for charge in look.charges())


def test_nothing_is_said_of_whom_an_instance_could_not_be_read() -> None:
    look = walk(_paid(walked(None, 0), (_HOST, 1000)), began=1_000, users=(_use(23, 1),))

    assert look.charges() == []
    # that there is one is known, what it has is not
    assert look.with_hidden().hidden == {(_HOST, 1000): Hidden(0, 23)}


def test_a_filter_keeps_what_is_hidden_and_drops_who_is_not_asked_for() -> None:
    look = walk(
        _paid(walked([1], 1_003), (_HOST, 1000)),
        _paid(walked([1], 1_004, _OTHER), (_HOST, 7)),
        began=1_000,
        users=(_use(1, 1), _use(3, 1, uid=7)),
    ).with_hidden()

    kept = look.only(lambda one: one.instance == FIRST)
    assert [user.uid for user in kept.users] == [1000]
    assert kept.hidden == look.hidden


def test_who_opens_and_closes_meanwhile_does_not_stand_still() -> None:
    def look(watches: int) -> Walk:
        one = _paid(walked([1], 1_003), (_HOST, 1000))
        return walk(one, began=1_000, users=(_use(1, 1), _use(watches, 1, uid=7)))

    assert look(3).stood_still(look(4), {(_HOST, 1000)})
    assert not look(3).stood_still(look(4), {(_HOST, 1000), (_HOST, 7)})
