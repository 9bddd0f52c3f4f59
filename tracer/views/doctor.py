"""What a machine allows, as a table and as JSON of schema ``inotrace.doctor/1``."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator

from rich.text import Text

from tracer import __version__
from tracer.core.diagnosis import Check, Diagnosis
from tracer.views.text import printable

SCHEMA = "inotrace.doctor/1"

_WIDTH_MAX = 80
_WORDS = {True: ("yes", "green"), False: ("no", "yellow"), None: ("?", "dim")}
_WORD_WIDTH = 3
_GAP = "  "


def doctor_lines(diagnosis: Diagnosis, width: int) -> Iterator[Text]:
    """A line for each check, more where the width is too small."""
    names = max(len(check.name) for check in diagnosis.checks)
    for check in diagnosis.checks:
        yield from _check_lines(check, names, min(width, _WIDTH_MAX))
    yield Text()
    for line in textwrap.wrap(_conclusion(diagnosis), min(width, _WIDTH_MAX)):
        yield Text(line, style="bold")


def as_json(diagnosis: Diagnosis) -> str:
    """One object of schema inotrace.doctor/1; `works` is null for what could not be tried."""
    document = {
        "schema": SCHEMA,
        "version": __version__,
        "can_trace": diagnosis.can_trace,
        "mode": diagnosis.mode,
        "checks": [check._asdict() for check in diagnosis.checks],
    }
    return json.dumps(document, ensure_ascii=True) + "\n"


def _check_lines(check: Check, names: int, width: int) -> Iterator[Text]:
    word, style = _WORDS[check.works]
    if check.works is False and check.needed:
        style = "bold red"
    text = f"{check.found}; {check.advice}" if check.advice else check.found
    indent = names + len(_GAP) + _WORD_WIDTH + len(_GAP)
    first, *rest = textwrap.wrap(printable(text), max(width - indent, 20)) or [""]
    yield Text.assemble(
        f"{check.name:<{names}}", _GAP, (f"{word:<{_WORD_WIDTH}}", style), _GAP, first
    )
    for line in rest:
        yield Text(" " * indent + line)


def _conclusion(diagnosis: Diagnosis) -> str:
    if diagnosis.can_trace:
        return f"Tracing works. --mode auto takes {diagnosis.mode}."
    broken = [check.name for check in diagnosis.checks if check.needed and check.works is False]
    return f"Tracing does not work here, for want of: {', '.join(broken or ['a mode'])}."
