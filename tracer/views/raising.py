"""How to raise a limit: commands and a file, to be read and never run."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from tracer.core.raising import DROP_IN, QUEUE_SYSCTL, Raise
from tracer.views.limits import Limits
from tracer.views.namespaces import in_namespace
from tracer.views.text import wrapped

_INDENT = 2


def how_to_raise(limits: Limits, width: int) -> Iterator[Text]:
    """Now and for good."""
    if not limits.raises:
        return
    yield Text("To raise a limit now, as root", "bold")
    for one in limits.raises:
        text = command(one)
        if text is not None:
            yield Text(f"{'':{_INDENT}}{text}")
        yield from wrapped(_note(one), width, indent=2 * _INDENT, style="dim")
    lasting = drop_in(limits)
    if lasting:
        yield Text(f"For good: in {DROP_IN}, then sysctl --system", "bold")
        yield from (Text(f"{'':{_INDENT}}{line}") for line in lasting)


def command(one: Raise) -> str | None:
    """None if it had better not be raised, or nobody can do so in the namespace."""
    if one.suggested is None:
        return None
    setting = f"sysctl -w {one.setting}={one.suggested}"
    if one.userns is None or one.is_ours:
        return setting
    return f"nsenter -t {one.member} -U {setting}" if one.member is not None else None


def drop_in(limits: Limits) -> tuple[str, ...]:
    """The lines of a file that keeps the settings."""
    return tuple(
        f"{one.setting} = {one.suggested}"
        for one in limits.raises
        if one.userns is None and one.suggested is not None
    )


def _note(one: Raise) -> str:
    now = f"now {one.now:,}{_each(one)}"
    if one.suggested is None:
        return f"{one.setting} is {now}: {_too_much(one)}, find who needs it"
    if command(one) is None:
        return f"{one.setting} is {now}, where nobody is root to set it to {one.suggested}"
    if one.memory:
        return f"{now}; {one.suggested:,} take {_size(one.memory)} of kernel memory if all are used"
    return now


def _too_much(one: Raise) -> str:
    if one.used > one.now:
        return f"the {one.used:,} that are used take {_size(one.memory)}"
    return f"all of it takes {_size(one.memory)}"


def _each(one: Raise) -> str:
    if one.setting == QUEUE_SYSCTL:
        return " events of an instance; holds for those opened from then on"
    return f" for each user{in_namespace(one.userns)}"


def _size(size: int) -> str:
    if size >= 10 << 30:
        return f"{size / (1 << 30):,.0f} GiB"
    return f"{size / (1 << 20):,.0f} MiB" if size >= 1 << 20 else f"{max(size >> 10, 1)} KiB"
