"""Which mode is taken is found by trying what the kernel allows."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from harness import Inotrace, working_modes

from tracer.errors import InotraceError
from tracer.kernel import hooks, modes, probe
from tracer.kernel.hooks import Mode
from tracer.kernel.modes import Finding, choose, find
from tracer.kernel.preflight import prepare
from tracer.kernel.probe import Probe, Scope

pytestmark = pytest.mark.usefixtures("root")

Start = Callable[..., Inotrace]


def refused(*found: Mode) -> dict[Mode, Finding]:
    """Findings as if these modes did not work, and the others did."""
    return {mode: Finding(mode not in found, "not today" * (mode in found)) for mode in Mode}


@pytest.mark.kernels
def test_each_mode_works_or_says_why_not() -> None:
    prepare(print)
    for mode in Mode:
        works, reason = find(mode)
        assert works == (reason == ""), mode


def test_a_mode_that_was_found_to_work_traces(mode: Mode) -> None:
    """What the trial says is what attaching the real programs says."""
    with Probe(Scope(), mode) as traced:
        assert traced.mode is mode


@pytest.mark.kernels
def test_modes_that_were_found_refused_do_not_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """GIVEN a trial that lies WHEN the real programs are attached THEN the kernel refuses too."""
    missing = set(Mode) - set(working_modes())
    monkeypatch.setattr(modes, "find", refused().get)

    for mode in missing:
        with pytest.raises(InotraceError):
            Probe(Scope(), mode)


@pytest.mark.parametrize(
    ("broken", "chosen"),
    [
        ((), Mode.FENTRY),
        ((Mode.FENTRY,), Mode.KPROBE),
        ((Mode.FENTRY, Mode.KPROBE), Mode.TRACEPOINT),
        ((Mode.KPROBE, Mode.TRACEPOINT), Mode.FENTRY),
    ],
)
def test_the_first_that_works_is_chosen(
    broken: tuple[Mode, ...], chosen: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modes, "find", refused(*broken).get)

    assert choose(None) is chosen


def test_no_mode_at_all_is_an_error_with_the_last_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "find", refused(*Mode).get)

    with pytest.raises(InotraceError, match="not today"):
        choose(None)


def test_a_forced_mode_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "find", refused(Mode.KPROBE).get)

    assert choose(Mode.TRACEPOINT) is Mode.TRACEPOINT
    with pytest.raises(InotraceError, match="--mode kprobe does not work here: not today"):
        choose(Mode.KPROBE)


def test_what_does_not_attach_after_all_gives_way_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """GIVEN a first mode whose trial succeeds and whose programs the kernel refuses."""
    best, *_ = working_modes()
    other = Mode.TRACEPOINT if best is not Mode.TRACEPOINT else Mode.KPROBE
    first, second = (best, other) if best is not Mode.TRACEPOINT else (other, best)
    monkeypatch.setattr(modes, "find", refused(*(set(Mode) - {first, second})).get)
    attach = probe._attach
    broken = [hook._replace(target="no_such:function") for hook in hooks.hooks(first)]
    monkeypatch.setattr(probe, "hooks", lambda mode: broken if mode is first else hooks.hooks(mode))

    def refuse_first(bpf: Any, hook: hooks.Hook, mode: Mode) -> None:
        if mode is first:
            raise OSError("refused")
        attach(bpf, hook, mode)

    monkeypatch.setattr(probe, "_attach", refuse_first)

    with Probe(Scope()) as traced:
        assert traced.mode is second
    with pytest.raises(InotraceError):
        Probe(Scope(), first)


@pytest.mark.parametrize("command", [["trace"], ["events"], ["run", "--", "true"], ["demo"]])
def test_a_mode_that_does_not_work_is_one_line(inotrace: Start, command: list[str]) -> None:
    missing = [mode for mode in Mode if not find(mode).works]
    if not missing:
        pytest.skip("every mode works on this kernel")
    name, *rest = command
    tool = inotrace(name, "--mode", missing[0].value, *rest)

    assert tool.wait() == 1
    line = tool.error()
    assert line.startswith(f"--mode {missing[0].value} does not work here: ")
    assert "--mode auto" in line


def test_the_report_says_which_mode_it_was(inotrace: Start, mode: Mode) -> None:
    tool = inotrace("trace", "-d", "0.1", "-f", "json", "--mode", mode.value)

    assert tool.report()["host"]["mode"] == mode.value
    assert tool.wait() == 0
