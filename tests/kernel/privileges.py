"""
With how little inotrace works: found by dropping one capability at a time.

    sudo .venv/bin/python tests/kernel/privileges.py [MODE]...

For each mode inotrace is started with the CANDIDATES, as a user who is not root and may lock next
to no memory, to trace a process of root. What it then cannot do without one of them is printed. It
needs no compiler but BCC's, so it runs wherever inotrace does.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, NamedTuple

if __name__ == "__main__":
    # not behind, where an installed copy may be
    sys.path[:0] = [str(Path(__file__).parents[2])]

from tracer.kernel.capabilities import Capability
from tracer.kernel.hooks import Mode

NOBODY = 65534
ROOT = 0
# nothing else can be missed: CAP_SYS_ADMIN only holds what others hold as well
CANDIDATES = tuple(each for each in Capability if each is not Capability.SYS_ADMIN)
# what systems give a process that asks for nothing
_MEMLOCK_BYTES = 64 << 10
# one compilation in an emulated machine takes half a minute
_PATIENCE_S = 240.0
_TELLS_ALL = bool(os.environ.get("PRIVILEGES_DEBUG"))

# include/uapi/linux/prctl.h, include/uapi/linux/capability.h
_PR_SET_KEEPCAPS, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 8, 24, 47, 2
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)

# four watches, of which one is removed, and one's folder is deleted
_WORKLOAD = """
import ctypes, os, sys, tempfile
libc = ctypes.CDLL(None)
with tempfile.TemporaryDirectory() as base:
    folders = [os.path.join(base, str(at)).encode() for at in range(4)]
    for folder in folders:
        os.mkdir(folder)
    print("ready", flush=True)
    sys.stdin.readline()
    fd = libc.inotify_init1(0)
    wds = [libc.inotify_add_watch(fd, folder, 0x100) for folder in folders]
    libc.inotify_rm_watch(fd, wds[0])
    os.rmdir(folders[1])
    print("done", flush=True)
    sys.stdin.readline()
"""


class Outcome(NamedTuple):
    """
    What one run came to.

    `error` is the line it ended with, else "". `truth` is where the kernel's list came from;
    `names` whether the stacks have names of the program's functions, `paths` whether the watches
    have theirs, and `causes` whether it was seen why the watches went.
    """

    error: str
    truth: str = ""
    names: bool = False
    paths: bool = False
    causes: bool = False

    def losses(self) -> list[str]:
        if self.error:
            return [f"does not work: {self.error}"]
        lost = [name for name in ("names", "paths", "causes") if not getattr(self, name)]
        return lost if self.truth == "iterator" else [f"list from {self.truth}", *lost]


def limited(capabilities: frozenset[Capability], uid: int) -> Callable[[], None]:
    """What to do between fork and exec so that a program has no more than that."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (_MEMLOCK_BYTES, _MEMLOCK_BYTES))
        for number in range(64):
            if number not in capabilities:
                _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
        if uid != ROOT:
            _libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        _set_capabilities(capabilities)
        for each in capabilities if uid != ROOT else ():
            # refused for what the one who starts it does not have either
            _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, int(each), 0, 0)

    return limit


def _set_capabilities(capabilities: frozenset[Capability]) -> None:
    bits = sum(1 << each for each in capabilities) & _permitted()
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    data = (ctypes.c_uint32 * 6)(low, low, low, high, high, high)
    if _libc.capset(header, data):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _permitted() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapPrm:"):
            return int(line.split()[1], 16)
    return 0


@contextmanager
def _workload() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _WORKLOAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.communicate()


def _go(workload: subprocess.Popen[str]) -> None:
    assert workload.stdin is not None and workload.stdout is not None
    workload.stdin.write("\n")
    workload.stdin.flush()
    workload.stdout.readline()


def outcome(mode: Mode, capabilities: frozenset[Capability], uid: int = NOBODY) -> Outcome:
    """Trace a process of root in `mode`, with these capabilities and no others."""
    with _workload() as workload:
        command = [sys.executable, __file__, "--unchecked", "--debug", "trace"]
        tool = subprocess.Popen(
            [*command, "--mode", mode.value, "-p", str(workload.pid), "-f", "json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            preexec_fn=limited(capabilities, uid),
        )
        assert tool.stderr is not None
        said = []
        for line in tool.stderr:
            said.append(line)
            if "Ctrl-C" in line:
                _go(workload)
                tool.send_signal(signal.SIGINT)
                break
        try:
            out, err = tool.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            tool.kill()
            out, err = tool.communicate()
            err += "timeout\n"
    told = "".join(said) + err
    if tool.returncode:
        if _TELLS_ALL:
            print(told, file=sys.stderr, flush=True)
        return Outcome(_error_in(told) or f"exit code {tool.returncode}")
    return _outcome_of(json.loads(out), mode, told)


def _error_in(told: str) -> str:
    """What it ended with, which --debug explains below."""
    lines = [line for line in told.splitlines() if line.startswith("inotrace: ")]
    return "" if not lines or "Ctrl-C" in lines[-1] else lines[-1][len("inotrace: ") :]


def _outcome_of(report: Any, mode: Mode, said: str) -> Outcome:
    trace, sites = report["trace"], report["sites"]
    if (trace["added"], trace["removed"], trace["complete"]) != (4, 2, True):
        return Outcome(f"wrong report: {trace} {said}")
    functions = {frame["function"] for site in sites for frame in site["frames"]}
    paths = [target["path"] for site in sites for target in site["targets"]]
    causes = trace["removed_by_cause"]
    return Outcome(
        "",
        report["host"]["truth"],
        # of the program itself, which is Python: the C library is inotrace's own as well
        names=any((function or "").startswith(("Py", "_Py")) for function in functions),
        paths=bool(paths) and all(str(path).startswith("/") for path in paths),
        # with tracepoints it depends on what has become of the inode meanwhile
        causes=mode is Mode.TRACEPOINT or (causes["rm_watch"], causes["deleted"]) == (1, 1),
    )


def _find(mode: Mode, among: frozenset[Capability]) -> frozenset[Capability]:
    """Drop each of `among` in turn; those without which nothing works."""
    needed = set()
    for each in sorted(among):
        found = outcome(mode, among - {each})
        _tell(mode, f"without {each.name}", found)
        if found.error:
            needed.add(each)
    return frozenset(needed)


def _search(mode: Mode, among: frozenset[Capability]) -> frozenset[Capability]:
    found = outcome(mode, among)
    _tell(mode, "with all that follow", found)
    if found.error:
        return among
    needed = _find(mode, among)
    names = " ".join(sorted(each.name for each in needed))
    _tell(mode, f"with {names} only", outcome(mode, needed))
    return needed


def _tell(mode: Mode, what: str, found: Outcome) -> None:
    print(f"{mode.value:<11} {what:<44} {', '.join(found.losses()) or 'everything'}", flush=True)


def _run_unchecked(arguments: list[str]) -> int:
    """inotrace as if it did not look first which capabilities it has."""
    from tracer.cli import app
    from tracer.kernel import preflight

    with suppress(AttributeError):
        preflight.need_privileges = lambda *_: None
    sys.argv = ["inotrace", *arguments]
    return app.main()


def main() -> None:
    first, *others = map(Mode, sys.argv[1:] or [mode.value for mode in reversed(Mode)])
    needed = _search(first, frozenset(CANDIDATES))
    # what names, paths and lists need is the same in all modes
    for mode in others:
        _search(mode, needed | {Capability.SYSLOG})
    less = needed - {Capability.DAC_READ_SEARCH}
    _tell(first, "as uid 0 without DAC_READ_SEARCH", outcome(first, less, ROOT))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--unchecked"]:
        sys.exit(_run_unchecked(sys.argv[2:]))
    main()
