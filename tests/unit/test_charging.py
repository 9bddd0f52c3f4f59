"""Who is charged for what a user has."""

from __future__ import annotations

import pytest

from tracer.core.charging import charged
from tracer.core.rows import Rows, users
from tracer.core.walk import Payer
from tracer.core.wire import UserRow

_HOST, _CONTAINER, _NESTED = (4026531837, 0), (4026532201, 1000), (4026532301, 7)


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (_NESTED, [_NESTED, _CONTAINER, _HOST]),
        (_CONTAINER, [_CONTAINER, _HOST]),
        (_HOST, [_HOST]),
        # of whom nothing was read
        ((4026532401, 0), [(4026532401, 0)]),
    ],
)
def test_all_who_made_the_namespaces_are_charged_outward(user: Payer, expected: object) -> None:
    assert list(charged(user, {_NESTED: _CONTAINER, _CONTAINER: _HOST, _HOST: None})) == expected


def test_a_chain_that_goes_in_a_circle_ends() -> None:
    assert len(list(charged(_HOST, {_HOST: _NESTED, _NESTED: _HOST}))) == 34


def _row(ucounts: int, parent: int, payer: Payer) -> UserRow:
    return UserRow(ucounts, parent, 0, 2**31 - 1, 0, 2**31 - 1, uid=payer[1], userns=payer[0])


def test_who_made_a_namespace_is_known_where_nobody_holds_anything() -> None:
    """GIVEN a pass that met users and no instance WHEN read THEN each has its maker."""
    rows = Rows()
    rows.users = [_row(0x30, 0x20, _NESTED), _row(0x20, 0x10, _CONTAINER), _row(0x10, 0, _HOST)]

    assert {user.payer: user.maker for user in users(rows)} == {
        _NESTED: _CONTAINER,
        _CONTAINER: _HOST,
        _HOST: None,
    }
