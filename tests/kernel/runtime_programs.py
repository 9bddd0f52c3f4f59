"""Programs that run in an interpreter or come as they are, and the chain each must show."""

from __future__ import annotations

import sys

from chains import NAMELESS_START, START, THREAD_START
from performance import GUESSED, Program, waiting
from workshop import SOURCES, Workshop, python_with, python_with_trampolines, tool

_CTYPES = "inotify_add_watch libffi*+|ffi_call_unix64 libffi*+|ffi_call_int ffi_call ..."
_EVAL = "_PyEval_EvalFrameDefault"
_PYTHON_MAIN = f"Py_RunMain ?pymain_main Py_BytesMain ?main {START}"
_TRAMPOLINE = "{0} py_trampoline_evaluator|*python*+"


def _node(name: str, *options: str, functions: str) -> Program:
    def command(_: Workshop) -> list[str]:
        return [tool("node"), *options, str(SOURCES / "watch.js")]

    # Debian's is stripped, and most of it is in a library
    chain = (
        "inotify_add_watch uv_fs_event_start node::*FSEventWrap::Start|libnode*+ ... "
        f"{functions} ... v8::Function::Call ... node::* ... uv_run ... node::Start ?main|node*+ "
        "?__libc_start_call_main|libc*+ __libc_start_main* _start|node*+"
    )
    # what is made at run time has no tables to unwind by
    return Program(f"node-{name}", command, chain, GUESSED, repeats=False)


def _by_ctypes(name: str, python: str, *options: str, functions: str = _EVAL) -> Program:
    def command(_: Workshop) -> list[str]:
        interpreter = python or python_with_trampolines()
        return [tool(interpreter), *options, str(SOURCES / "by_ctypes.py")]

    chain = f"{_CTYPES} {functions} ... {_PYTHON_MAIN}"
    return Program(f"python-{name}", command, chain, repeats=False)


def _by_watchdog(workshop: Workshop) -> list[str]:
    python = python_with("watchdog")
    return [python, str(SOURCES / "by_watchdog.py"), str(workshop.folders(3))]


def _tail(workshop: Workshop) -> list[str]:
    return waiting(tool("tail"), "-f", *workshop.files(3))


def _inotifywait(workshop: Workshop) -> list[str]:
    return waiting(tool("inotifywait"), "--quiet", "--monitor", *workshop.files(3))


RUNTIME_PROGRAMS = (
    # an interpreted function is only data to the interpreter's frame
    _node("interpreted", functions="Builtins_InterpreterEntryTrampoline|libnode*+"),
    _node(
        "perf-map",
        "--perf-basic-prof",
        "--interpreted-frames-native-stack",
        functions="... watchHere outer",
    ),
    _node(
        "compiled",
        "--perf-basic-prof",
        "--always-sparkplug",
        functions="... watchHere outer",
    ),
    _by_ctypes("of-the-system", "/usr/bin/python3"),
    _by_ctypes("of-the-tests", sys.executable),
    _by_ctypes(
        "perf-map",
        "",
        *("-X", "perf"),
        functions=" ... ".join(
            f"{_EVAL} {_TRAMPOLINE.format(name)}" for name in ("watch_here", "outer", "<module>")
        ),
    ),
    Program(
        "python-watchdog",
        _by_watchdog,
        f"{_CTYPES} {_EVAL} ... {_EVAL} ... {THREAD_START}",
        repeats=False,
    ),
    Program(
        "tail",
        _tail,
        f"inotify_add_watch tail+ {NAMELESS_START.format('tail')}",
        rounds=1,
        calls=3,
    ),
    Program(
        "inotifywait",
        _inotifywait,
        "inotify_add_watch inotifytools_watch_files|libinotifytools*+ inotifywait+ "
        + NAMELESS_START.format("inotifywait"),
        rounds=1,
        calls=3,
    ),
)
