"""Work during which nothing is collected."""

from __future__ import annotations

import gc

import pytest

from tracer import collector


def test_it_is_as_before_afterwards_also_after_an_error() -> None:
    assert gc.isenabled()
    with pytest.raises(ValueError, match="amid"), collector.paused():
        assert not gc.isenabled()
        raise ValueError("amid the work")
    assert gc.isenabled()


def test_who_did_not_collect_before_does_not_afterwards() -> None:
    gc.disable()
    try:
        with collector.paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
