"""Names that belong to others are text: nothing in them reaches a terminal as a command."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path
from typing import Any, Callable

import pytest
from harness import PATIENCE_S, Inotrace, Puppet, Terminal, process_of, watch_sites

pytestmark = pytest.mark.usefixtures("root")

Start = Callable[..., Inotrace]
# of 15 bytes at most, all that a comm holds
_COMM = b"\x1b[41m[b]\n\xff\x9bc\xe2\x80"
_NAME = b"\x1b]0;owned\x07\x1b[2J[red]a\n\xff\r\x08\xe2\x80\xae"
# what the tool itself may print: lines, printable ASCII and its own three signs
_PLAIN = re.compile(rb"(?:[\n -~]|\xe2\x80\xa6|\xe2\x89\xa0)*")


@pytest.fixture
def hostile(
    start_puppet: Callable[..., Puppet], program_named: Callable[[bytes], bytes], tmp_path: Path
) -> tuple[Puppet, bytes]:
    """A process with such a program, arguments and comm, and a path for it to watch."""
    puppet = start_puppet(program_named(_NAME))
    puppet.ok("comm", _COMM)
    path = os.path.join(os.fsencode(tmp_path), b"x" + _NAME)
    os.mkdir(path)
    return puppet, path


def is_harmless(shown: bytes) -> bool:
    return _PLAIN.fullmatch(shown) is not None


def test_trace_shows_them_escaped(inotrace: Start, hostile: tuple[Puppet, bytes]) -> None:
    puppet, path = hostile
    tool = inotrace("trace", "-p", puppet.pid, "--older", "0", "--full-stacks")
    assert tool.out.line().startswith(b"TIME")
    fd = puppet.ok("init")
    puppet.ok("leak", fd, path)
    assert puppet("add", fd, path + b"/missing") < 0
    while tool.out.line().split()[-1:] != [b"1"]:
        pass
    assert tool.stop() == 0
    shown = tool.out.rest()

    assert is_harmless(shown), shown
    assert rb"\x1b[41m[b]\n\xff\x9bc" in shown


def test_events_show_them_escaped(inotrace: Start, hostile: tuple[Puppet, bytes]) -> None:
    puppet, path = hostile
    tool = inotrace("events", "-p", puppet.pid, "--stack")
    tool.out.line()
    puppet.ok("leak", puppet.ok("init"), path)
    assert tool.stop() == 0
    shown = tool.out.rest()

    assert is_harmless(shown), shown
    assert rb"\x1b[41m[b]\n\xff\x9bc" in shown
    assert rb"\x1b]0;owned\x07\x1b[2J[red]a\n\xff\r\x08" in shown


def test_ls_shows_them_escaped(inotrace: Start, hostile: tuple[Puppet, bytes]) -> None:
    puppet, path = hostile
    puppet.ok("leak", puppet.ok("init"), path)
    for options in (["--by", "process"], ["--by", "fd", "-f", "table"], ["--by", "target"]):
        tool = inotrace("ls", puppet.pid, *options)
        shown = tool.out.rest()
        assert tool.wait() == 0
        assert is_harmless(shown), shown
        # what is long is cut
        assert rb"\x1b[41m" in shown


def test_run_shows_them_escaped(
    inotrace: Start,
    program_named: Callable[[bytes], bytes],
    hostile: tuple[Puppet, bytes],
) -> None:
    _, path = hostile
    script = b"comm %b\ninit\nleak 3 %b\nexit 0\n" % (_COMM.hex().encode(), path.hex().encode())
    tool = inotrace("run", "--full-stacks", "--", program_named(_NAME + b"2"), stdin=-1)
    _, shown = tool.process.communicate(script, timeout=PATIENCE_S)

    assert tool.process.returncode == 0
    assert is_harmless(shown), shown
    assert rb"\x1b[41m[b]\n\xff\x9bc" in shown


def test_a_command_that_does_not_exist_is_named_escaped(inotrace: Start) -> None:
    tool = inotrace("run", "--", _NAME)

    assert is_harmless(tool.err.rest()), tool.err.seen
    assert tool.wait() == 1


def test_the_live_screen_shows_them_escaped(
    terminal: Callable[..., Terminal], hostile: tuple[Puppet, bytes]
) -> None:
    puppet, path = hostile
    screen = terminal("trace", "-p", puppet.pid)
    screen.until(b"\x1b[?1049h")
    puppet.ok("leak", puppet.ok("init"), path)
    screen.until(rb"\x1b[41m[b]\n\xff\x9bc")
    screen.type(b"\x03")
    shown = screen.rest()

    assert screen.wait() == 0
    # inotrace has escape sequences of its own here, but not these
    for command in (b"\x1b[41m", b"\x1b]", b"\x1b[2J[", b"\xff", b"\xe2\x80\xae", b"\x07"):
        assert command not in shown


def test_json_has_the_exact_bytes(inotrace: Start, hostile: tuple[Puppet, bytes]) -> None:
    puppet, path = hostile
    tool = inotrace("trace", "-p", puppet.pid, "-f", "json")
    tool.err.line()
    puppet.ok("leak", puppet.ok("init"), path)
    assert tool.stop() == 0
    raw = tool.out.rest()
    report = json.loads(raw)

    assert raw.isascii()
    process = process_of(report, puppet.pid)
    assert _bytes(process["comm"]) == _COMM
    assert _bytes(process["exe"]).endswith(b"/" + _NAME)
    assert _bytes(watch_sites(report)[0]["targets"][0]["path"]) == path


def _bytes(text: Any) -> bytes:
    return str(text).encode("utf-8", "surrogateescape")


# --- Ctrl-C ---


def test_an_interrupt_from_the_terminal_reaches_the_command_once(
    terminal: Callable[..., Terminal], puppet_program: Path, folders: list[Path]
) -> None:
    """GIVEN a command and inotrace on one terminal WHEN Ctrl-C is typed THEN it counts one."""
    screen = terminal("run", "--", puppet_program)
    pid = int(screen.line())

    def tell(command: str) -> bytes:
        screen.type(command.encode() + b"\n")
        # the terminal echoes what is typed, ^C too
        assert screen.line().endswith(command.encode())
        return screen.line()

    assert tell("init") == b"3"
    assert tell(f"leak 3 {os.fsencode(folders[0]).hex()}") == b"1"
    assert tell("count-interrupts") == b"0"
    for count in (1, 2, 3):
        screen.type(b"\x03")
        # it also flushes what the terminal holds: type on only after its echo
        screen.until_seen(b"^C", count)
        shown = tell(f"await-interrupts {count}")
        assert shown == b"%d" % count
    screen.type(b"exit 5\n")
    shown = screen.rest()

    assert screen.wait() == 5
    assert b"ledger = kernel" in shown and b"1 watch and 1 instance, 2 places" in shown
    assert str(pid).encode() in shown


def test_an_interrupt_sent_by_kill_is_passed_on_in_a_terminal_too(
    terminal: Callable[..., Terminal], puppet_program: Path
) -> None:
    """GIVEN a terminal WHEN inotrace alone gets SIGINT, then Ctrl-C is typed THEN two in all."""
    screen = terminal("run", "--", puppet_program)
    screen.line()

    def tell(command: str) -> bytes:
        screen.type(command.encode() + b"\n")
        assert screen.line().endswith(command.encode())
        return screen.line()

    assert tell("count-interrupts") == b"0"
    screen.process.send_signal(signal.SIGINT)
    assert tell("await-interrupts 1") == b"1"
    screen.type(b"\x03")
    screen.until_seen(b"^C", 1)
    assert tell("await-interrupts 2") == b"2"
    screen.type(b"exit 0\n")

    assert screen.wait() == 0


def test_an_interrupt_that_ends_the_command_still_gives_the_report(
    terminal: Callable[..., Terminal], puppet_program: Path, folders: list[Path]
) -> None:
    screen = terminal("run", "--", puppet_program)
    screen.line()
    screen.type(b"init\n")
    screen.until(b"3\r\n")
    screen.type(f"leak 3 {os.fsencode(folders[0]).hex()}\n".encode())
    screen.until(b"\n1\r\n")
    screen.type(b"\x03")

    assert screen.wait() == 128 + signal.SIGINT
    # not its stack: the puppet ends within a millisecond of its first call
    assert b"HELD  \x1b[0m1 watch and 1 instance, 2 places" in screen.rest()
    assert b"ledger = kernel" in screen.rest()
