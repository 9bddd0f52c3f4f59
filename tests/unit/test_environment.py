"""Options from the environment: how they are written, and that the command line wins."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.cli import app
from tracer.cli.environment import COMMANDS_WITH, VARIABLE, defaults, with_source
from tracer.errors import EXIT_USAGE, InotraceError

# --- the text ---


@pytest.mark.parametrize(
    ("text", "run"),
    [
        ("", {}),
        (" : ,\n\t\r", {}),
        ("older=3", {"older": "3"}),
        ("older=3:settle=2", {"older": "3", "settle": "2"}),
        (
            " older=3,settle=2 mode=kprobe\nfail_on=leak:",
            {"older": "3", "settle": "2", "mode": "kprobe", "fail_on": "leak"},
        ),
        ("suppressions=/etc/known.supp", {"suppressions": "/etc/known.supp"}),
        ("suppressions='a:b, c'", {"suppressions": "a:b, c"}),
        ('suppressions="it\'s":older=3', {"suppressions": "it's", "older": "3"}),
        ("suppressions=it's", {"suppressions": "it's"}),
        ("suppressions=a=b", {"suppressions": "a=b"}),
        ("suppressions=''", {"suppressions": ""}),
        ("suppressions=:older=3", {"suppressions": "", "older": "3"}),
        ("older=3:older=5", {"older": "5"}),
        ("suppressions=\udcff", {"suppressions": "\udcff"}),
    ],
)
def test_settings_are_written_as_the_sanitizers(text: str, run: dict[str, str]) -> None:
    assert defaults(text).get("run", {}) == run


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("older", "'older' does not begin with name=value, or a quote is not closed"),
        ("=3", "'=3' does not begin with name=value, or a quote is not closed"),
        ("older=3:mode", "'mode' does not begin with name=value, or a quote is not closed"),
        ("older = 3", "'older = 3' does not begin with name=value, or a quote is not closed"),
        (
            "mode='kprobe",
            '"mode=\'kprobe" does not begin with name=value, or a quote is not closed',
        ),
        ("mode='a'b", "\"mode='a'b\" does not begin with name=value, or a quote is not closed"),
        ("x\n\x1b", "'x\\n\\x1b' does not begin with name=value, or a quote is not closed"),
        ("older=3:x=1", f"no option 'x': there are {', '.join(COMMANDS_WITH)}"),
        ("full-stacks=1", f"no option 'full-stacks': there are {', '.join(COMMANDS_WITH)}"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(text: str, what: str) -> None:
    with pytest.raises(InotraceError) as raised:
        defaults(text)

    assert str(raised.value) == f"INOTRACE_OPTIONS: {what}"
    assert raised.value.exit_code == EXIT_USAGE


@given(st.text(st.sampled_from("older=mode'\" ,:\n3"), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = defaults(text)
    except InotraceError as error:
        assert "\n" not in str(error)
    else:
        assert set(found) <= set(app._COMMANDS)


@given(
    st.dictionaries(
        st.sampled_from(list(COMMANDS_WITH)), st.text(st.characters(exclude_characters="'"))
    )
)
def test_a_value_in_quotes_is_itself(given_: dict[str, str]) -> None:
    text = ":".join(f"{name}='{value}'" for name, value in given_.items())
    found = defaults(text)

    for name, value in given_.items():
        assert [found[command][name] for command in COMMANDS_WITH[name]] == (
            [value] * len(COMMANDS_WITH[name])
        )


def test_a_command_gets_its_own_options_only() -> None:
    assert defaults("settle=2:mode=kprobe") == {
        "run": {"settle": "2", "mode": "kprobe"},
        "trace": {"mode": "kprobe"},
        "events": {"mode": "kprobe"},
        "demo": {"mode": "kprobe"},
    }


# --- the commands ---


def _options(command: str) -> dict[str, click.Parameter]:
    """By the long option, as the variable spells it."""
    found: click.Command = import_module(app._COMMANDS[command][0]).command
    return {
        option[2:].replace("-", "_"): parameter
        for parameter in found.params
        for option in parameter.opts
        if option.startswith("--")
    }


@pytest.mark.parametrize("command", app._COMMANDS)
def test_the_table_is_what_the_commands_have(command: str) -> None:
    """An option of the table's names is in the table for each command that has it, and no other."""
    options = _options(command)
    have = {name for name in COMMANDS_WITH if name in options}

    assert have == {name for name, commands in COMMANDS_WITH.items() if command in commands}
    for name in have:
        # what a default_map says of it reaches it, and a text is one value
        assert options[name].name == name
        assert options[name].nargs == 1
        assert not options[name].multiple


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command line with these options in the environment: what the command gets."""

    def run(options: str, *args: str) -> tuple[int, dict[str, Any]]:
        got: dict[str, Any] = {}

        @click.command("run")
        @click.option("--older", type=click.FloatRange(min=0), default=1.0)
        @click.option("--full-stacks", is_flag=True)
        @click.option("--fail-on", type=click.Choice(["leak", "suspect"]))
        @click.option("--other", default="default")
        def command(**values: Any) -> int:
            got.update(values)
            return 0

        monkeypatch.setenv(VARIABLE, options)
        monkeypatch.setattr(sys, "argv", ["inotrace", "run", *args])
        monkeypatch.setattr(app.CommandGroup, "get_command", lambda *_: command)
        return app.main(), got

    return run


def test_the_environment_gives_defaults(main: Any) -> None:
    code, got = main("older=3:full_stacks=1:fail_on=leak")

    assert code == 0
    assert got == {"older": 3.0, "full_stacks": True, "fail_on": "leak", "other": "default"}


def test_the_command_line_wins(main: Any) -> None:
    _, got = main("older=not-read:fail_on=leak", "--older=5", "--fail-on", "suspect")

    assert (got["older"], got["fail_on"]) == (5.0, "suspect")


@pytest.mark.parametrize("off", ["0", "false", "no"])
def test_a_flag_may_be_off(main: Any, off: str) -> None:
    assert main(f"full_stacks={off}")[1]["full_stacks"] is False


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ("older=-1", "Invalid value for '--older' in INOTRACE_OPTIONS: "),
        ("older=x", "Invalid value for '--older' in INOTRACE_OPTIONS: "),
        ("fail_on=held", "Invalid value for '--fail-on' in INOTRACE_OPTIONS: "),
        ("full_stacks=maybe", "Invalid value for '--full-stacks' in INOTRACE_OPTIONS: "),
        ("older", "inotrace: INOTRACE_OPTIONS: 'older' does not begin"),
        ("other=1", "inotrace: INOTRACE_OPTIONS: no option 'other'"),
    ],
)
def test_a_wrong_value_names_where_it_is_from(
    main: Any, capsys: pytest.CaptureFixture[str], options: str, what: str
) -> None:
    assert main(options) == (2, {})
    assert what in capsys.readouterr().err


def test_a_wrong_value_of_the_command_line_does_not(
    main: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main("older=3", "--older=x")[0] == 2
    assert "Invalid value for '--older': " in capsys.readouterr().err


def test_other_errors_stay_as_they_are() -> None:
    error = click.UsageError("no such option")

    assert with_source(error) is error
