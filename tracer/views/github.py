"""
The report as GitHub's workflow commands, which make annotations of it.

The commands and their escapes are those of ActionCommand.cs in github.com/actions/runner, which
reads them line by line from standard output and standard error. It also makes a file's absolute
path relative to the workspace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tracer.core.evidence import duration
from tracer.core.report import Report, SiteRow, Unit
from tracer.core.stack import Frame, own_frames
from tracer.core.verdict import Verdict
from tracer.views.sites import amounts, where_in
from tracer.views.stacks import frame_columns, place_name
from tracer.views.text import counted, printable, shortened

# GitHub keeps this many errors, and as many warnings, of a step.
_SITES_SHOWN = 10
_FRAMES_SHOWN = 8
# in terminal cells; GitHub takes titles of 255 characters, and messages of 64 KiB
_NAME_MAX = 200
_LINE_MAX = 500
_PATH_MAX = 4096
_COMMANDS = {Verdict.LEAK: "error", Verdict.SUSPECT: "warning"}
_WORDS = {Verdict.LEAK: "leaked", Verdict.SUSPECT: "suspect"}
_MADE = {Unit.WATCHES: "added", Unit.INSTANCES: "opened"}


def github_lines(report: Report) -> Iterator[str]:
    """An error for each leak, a warning for each suspect, and a notice that sums up."""
    for verdict, command in _COMMANDS.items():
        for site in report.sites_with(verdict)[:_SITES_SHOWN]:
            yield _command(command, _message(site), **_location(site), title=_title(site))
    yield _command("notice", _summary(report), title="inotrace")


def _command(name: str, message: str, **properties: str) -> str:
    given = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{name} {given}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _location(site: SiteRow) -> dict[str, str]:
    for frame in own_frames(site.stack):
        if frame.file and frame.line is not None:
            return {"file": shortened(printable(frame.file), _PATH_MAX), "line": str(frame.line)}
    return {}


def _title(site: SiteRow) -> str:
    place = shortened(place_name(site.stack), _NAME_MAX)
    return f"{amounts([site])} {_WORDS[site.verdict]}: {place}"


def _message(site: SiteRow) -> str:
    made = f"{site.added:,} {_MADE[site.unit]}" if site.added else "held"
    lines = [
        f"{made} by {where_in(site)}",
        *(printable(evidence.text) for evidence in site.evidence),
    ]
    lines += _where(site)
    lines += map(_place, own_frames(site.stack)[:_FRAMES_SHOWN])
    return "\n".join(shortened(line, _LINE_MAX) for line in lines)


def _where(site: SiteRow) -> Iterator[str]:
    named = next((target.path for target in site.targets if target.path is not None), None)
    if named is not None:
        more = f" and {site.live - 1:,} more" if site.live > 1 else ""
        yield f"on {shortened(printable(named), _NAME_MAX)}{more}"


def _place(frame: Frame) -> str:
    name, place = frame_columns(frame)
    return f"at {shortened(name, _NAME_MAX)} {shortened(place, _NAME_MAX)}".rstrip()


def _summary(report: Report) -> str:
    """The answer in one line, with how much of it has no annotation."""
    said = [_counted(report.sites_with(verdict), word) for verdict, word in _WORDS.items()]
    if report.has_unsure:
        said.append(f"{amounts(report.sites_with(Verdict.INCONCLUSIVE))} not seen being added")
    if not report.conclusive:
        said.insert(0, "inconclusive: records were lost or the ledger was not verified")
    told = "; ".join(filter(None, said)) or "no leak found"
    return f"{told} ({report.trace.added:,} added in {duration(report.trace.seconds)})"


def _counted(sites: Sequence[SiteRow], word: str) -> str:
    if not sites:
        return ""
    beyond = f", {_SITES_SHOWN} of them shown" if len(sites) > _SITES_SHOWN else ""
    return f"{amounts(sites)} {word} at {counted(len(sites), 'place')}{beyond}"
