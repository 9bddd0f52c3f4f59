"""What a machine allows, as `inotrace doctor` tells it."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """
    One thing that was tried.

    `works` is None if it could not be tried. `found` says what was found, or why it does not
    work; `advice` what to do, if there is something. Without one that is `needed`, nothing can
    be traced.
    """

    name: str
    works: bool | None
    found: str
    advice: str = ""
    needed: bool = False


class Diagnosis(NamedTuple):
    """`mode` is the one that `--mode auto` takes, None if no mode works."""

    checks: tuple[Check, ...]
    mode: str | None

    @property
    def can_trace(self) -> bool:
        return self.mode is not None and all(check.works for check in self.checks if check.needed)
