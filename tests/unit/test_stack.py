"""Which frames are the program's own, and when two stacks are one place."""

from __future__ import annotations

import pytest
from build import ATTACH, MOUNT, START, WRAPPER
from hypothesis import given
from hypothesis import strategies as st

from tracer.core.stack import Frame, Stack, StackState, is_runtime, missing, own_frames

_RUNTIME_IN_THE_MIDDLE = Frame("qsort", b"/lib/libc.so.6", 3)


def _stack(*frames: Frame) -> Stack:
    return Stack(frames, StackState.COMPLETE)


@pytest.mark.parametrize(
    ("module", "function", "expected"),
    [
        (b"/usr/lib/x86_64-linux-gnu/libc.so.6", "inotify_add_watch", True),
        (b"/lib/x86_64-linux-gnu/libc-2.31.so", "inotify_add_watch", True),
        (b"/lib/ld-musl-x86_64.so.1", "inotify_add_watch", True),
        (b"/lib64/ld-linux-x86-64.so.2", None, True),
        (b"/lib/libpthread.so.0", "start_thread", True),
        (b"/usr/bin/agent", "_start", True),
        (b"/usr/bin/agent", "main", False),
        (b"/opt/libc.so/agent", "main", False),
        (b"/usr/lib/libcrypto.so.3", "OPENSSL_init", False),
        (b"/usr/lib/libc-client.so.2007e", "mail_open", False),
        (None, None, False),
        # what a static program has in its own file
        (b"/usr/bin/agent", "inotify_add_watch", True),
        (b"/usr/bin/agent", "__libc_start_call_main", True),
        (b"/usr/bin/agent", "libc_start_main_stage2", True),
        (b"/usr/bin/agent", "clone3", True),
        (b"/usr/bin/agent", "clone_volume", False),
        # CPython and what calls C for it
        (b"/usr/lib/x86_64-linux-gnu/libffi.so.8.1.2", "ffi_call", True),
        (b"/usr/bin/python3.11", "_PyEval_EvalFrameDefault", True),
        (b"/usr/bin/python3.11 (deleted)", None, True),
        (b"/usr/bin/python3.13t", "Py_BytesMain", True),
        (b"/usr/lib/libpython3.12.so.1.0", "PyObject_Vectorcall", True),
        (b"/lib-dynload/_ctypes.cpython-311-x86_64-linux-gnu.so", None, True),
        (b"/site-packages/_cffi_backend.cpython-311-x86_64-linux-gnu.so", None, True),
        (b"/usr/bin/python-agent", "main", False),
        (b"/site-packages/watchfiles/_rust_notify.abi3.so", None, False),
        # node, V8 and libuv
        (b"/usr/bin/node", "uv_fs_event_start", True),
        (b"/usr/bin/node", "maybe_free_watcher_list.part.0", True),
        (b"/usr/lib/libnode.so.108", "node::Start(int, char**)", True),
        (b"/usr/lib/libuv.so.1.0.0", "uv_run", True),
        (b"/opt/editor/editor", "void v8::internal::Invoke(int)", True),
        (b"/opt/editor/editor", "Builtins_JSEntry", True),
        (b"/opt/editor/editor", "uv_map", False),
        (b"/usr/bin/node_exporter", "main.main", False),
        # Go
        (b"/usr/bin/agent", "runtime/internal/syscall.Syscall6", True),
        (b"/usr/bin/agent", "internal/runtime/syscall.Syscall6", True),
        (b"/usr/bin/agent", "internal/syscall/unix.Openat", True),
        (b"/usr/bin/agent", "syscall.Syscall", True),
        (b"/usr/bin/agent", "runtime.goexit", True),
        (b"/usr/bin/agent", "golang.org/x/sys/unix.InotifyAddWatch", True),
        (b"/usr/bin/agent", "k8s.io/x/vendor/golang.org/x/sys/unix.InotifyAddWatch", True),
        (b"/usr/bin/agent", "github.com/fsnotify/fsnotify.(*Watcher).Add", False),
        (b"/usr/bin/agent", "example.org/runtime.Watch", False),
        # Rust
        (b"/usr/bin/agent", "std::sys::backtrace::__rust_begin_short_backtrace", True),
        (b"/usr/bin/agent", "<std::sys::thread::unix::Thread>::new::thread_start", True),
        (b"/usr/bin/agent", "core::ops::function::FnOnce::call_once{{vtable.shim}}", True),
        (b"/usr/bin/agent", "core::watch", False),
        (b"/usr/bin/agent", "inotify::watches::Watches::add", False),
        # C++
        (b"/usr/lib/libstdc++.so.6.0.30", None, True),
        (b"/usr/bin/agent", "std::thread::_State_impl<int>::_M_run()", True),
        (b"/usr/bin/agent", "void std::__invoke_impl<void, void (*)()>()", True),
        (b"/usr/bin/agent", "store::std::add()", False),
        # code in memory without a file
        (b"[anon]", None, True),
        (b"[anon:v8]", "RegExp:[a-z]", True),
        (b"[anon]", "start_thread", False),
        (b"[anon]", "runtime.watch", False),
    ],
)
def test_the_runtime_is_told_by_module_and_function(
    module: bytes | None, function: str | None, expected: bool
) -> None:
    assert is_runtime(Frame(function, module, 0)) is expected


@pytest.mark.parametrize("file", ["node:internal/fs/watchers", "<frozen importlib._bootstrap>"])
def test_scripts_of_the_interpreter_are_not_the_program(file: str) -> None:
    assert is_runtime(Frame("watch", b"[anon]", 0, file))
    assert not is_runtime(Frame("watch", b"[anon]", 0, f"/srv/{file}"))


def test_the_runtime_is_cut_off_at_both_ends_only() -> None:
    stack = _stack(WRAPPER, ATTACH, _RUNTIME_IN_THE_MIDDLE, MOUNT, START)

    assert own_frames(stack) == (ATTACH, _RUNTIME_IN_THE_MIDDLE, MOUNT)


def test_a_stack_of_nothing_else_is_kept_whole() -> None:
    assert own_frames(_stack(WRAPPER, START)) == (WRAPPER, START)
    assert own_frames(missing("no frames")) == ()


def _of(module: bytes, *functions: str | None) -> tuple[Frame, ...]:
    return tuple(Frame(function, module, 7) for function in functions)


def _own_names(*frames: Frame, state: StackState = StackState.COMPLETE) -> list[str | None]:
    return [frame.function for frame in own_frames(Stack(frames, state))]


_LIBC = b"/usr/lib/x86_64-linux-gnu/libc.so.6"
_CALLED_BY_PYTHON = (
    WRAPPER,
    *_of(b"/usr/lib/libffi.so.8.1.2", None, "ffi_call"),
    *_of(b"/lib-dynload/_ctypes.cpython-312-x86_64-linux-gnu.so", "_ctypes_callproc"),
)
_EVAL = _of(b"/usr/lib/libpython3.12.so.1.0", "_PyObject_MakeTpCall", "_PyEval_EvalFrameDefault")
_TRAMPOLINE = _of(b"/usr/lib/libpython3.12.so.1.0", "py_trampoline_evaluator")
_PYTHON_MAIN = (*_of(b"/usr/lib/libpython3.12.so.1.0", "Py_RunMain", "Py_BytesMain"), START)


def _script(*functions: str, file: str = "/srv/agent.py") -> tuple[Frame, ...]:
    return tuple(Frame(function, b"[anon]", 6, file) for function in functions)


def test_between_functions_of_a_script_the_interpreter_is_left_out() -> None:
    """GIVEN CPython's trampolines for perf THEN only what the script has is its own."""
    importing = _script("_call_with_frames_removed", file="<frozen importlib._bootstrap>")
    frames = (
        *_CALLED_BY_PYTHON,
        *(*_EVAL, *_script("watch_here"), *_TRAMPOLINE),
        *(*_EVAL, *importing, *_TRAMPOLINE),
        *(*_EVAL, *_script("<module>"), *_TRAMPOLINE),
        *_PYTHON_MAIN,
    )

    assert _own_names(*frames) == ["watch_here", "<module>"]


def test_a_library_that_a_script_calls_is_its_own() -> None:
    extension = _of(b"/site-packages/_rust_notify.so", "inotify::add")
    frames = (WRAPPER, *extension, *_EVAL, *_script("watch_here"), *_TRAMPOLINE, *_PYTHON_MAIN)

    assert _own_names(*frames) == ["inotify::add", "watch_here"]


def test_a_script_begins_with_its_own_functions_in_node() -> None:
    frames = (
        WRAPPER,
        *_of(b"/usr/bin/node", "uv_fs_event_start", "Builtins_CEntry_Return1"),
        *_script("watch", file="node:fs"),
        *_script("watchHere", file="/srv/n.js"),
        *_of(b"/usr/bin/node", "Builtins_InterpreterEntryTrampoline"),
        *_of(b"[anon]", None),
        *_script("(anonymous)", file="/srv/n.js"),
        *_script("processTimers", file="node:internal/timers"),
        *_of(b"/usr/bin/node", "Builtins_JSEntry", "uv_run", "node::Start(int, char**)", "main"),
        START,
    )

    assert _own_names(*frames) == ["watchHere", "(anonymous)"]


def test_where_no_function_of_the_script_is_known_only_the_c_library_is_cut_off() -> None:
    """GIVEN an interpreter alone THEN its frames are shown, but not the wrapper's as the place."""
    assert _own_names(*_CALLED_BY_PYTHON, *_EVAL, *_PYTHON_MAIN) == [
        "_ctypes_callproc",
        "_PyObject_MakeTpCall",
        "_PyEval_EvalFrameDefault",
        "Py_RunMain",
        "Py_BytesMain",
    ]


def test_code_without_a_name_stays_between_what_is_the_programs_own() -> None:
    """GIVEN a JIT compiler without a map for perf."""
    frames = (WRAPPER, *_of(b"/opt/vm", "native_watch"), *_of(b"[anon]", None), MOUNT, START)

    assert _own_names(*frames) == ["native_watch", None, "mount_volume"]


def test_go_begins_with_the_library_that_watches() -> None:
    frames = _of(
        b"/usr/bin/agent",
        "runtime/internal/syscall.Syscall6",
        "syscall.Syscall",
        "golang.org/x/sys/unix.InotifyAddWatch",
        "github.com/fsnotify/fsnotify.(*Watcher).Add",
        "main.main",
        "runtime.main",
        "runtime.goexit",
    )

    assert _own_names(*frames) == ["github.com/fsnotify/fsnotify.(*Watcher).Add", "main.main"]


@pytest.mark.parametrize(
    ("called", "own"),
    [
        ("std::rt::lang_start_internal", ["agent::main"]),
        ("agent::start", ["agent::main", "agent::start", "main"]),
    ],
)
def test_in_rust_the_main_of_c_is_none_of_the_programs(called: str, own: list[str]) -> None:
    frames = _of(b"/usr/bin/agent", "agent::main", called, "main")

    assert _own_names(WRAPPER, *frames, START) == own


def test_threads_and_their_starts_are_cut_off_in_a_static_program_too() -> None:
    frames = _of(b"/usr/bin/agent", "inotify_add_watch", "of_thread", "start_thread", "__clone3")

    assert _own_names(*frames) == ["of_thread"]


def test_a_function_that_is_named_like_a_start_is_own_where_nothing_starts() -> None:
    frames = _of(b"/usr/bin/agent", "inotify_add_watch", "start_thread", "main")

    assert _own_names(*frames, START) == ["start_thread", "main"]


@pytest.mark.parametrize(
    ("state", "own"),
    [
        (StackState.COMPLETE, [None, None]),
        (StackState.GUESSED, [None, None]),
        # there is no telling that it is the outermost
        (StackState.TRUNCATED, [None, None, "__libc_start_main", None]),
    ],
)
def test_a_start_without_a_name_is_cut_off(state: StackState, own: list[str | None]) -> None:
    stripped = _of(b"/usr/bin/tail", None)

    assert _own_names(WRAPPER, *stripped, *stripped, START, *stripped, state=state) == own


def test_the_frame_of_a_signal_stays_in_its_place() -> None:
    signal = _of(_LIBC, "<signal handler called>", "kill")

    assert _own_names(WRAPPER, ATTACH, *signal, MOUNT, START) == [
        "attach",
        "<signal handler called>",
        "kill",
        "mount_volume",
    ]


def test_the_same_function_at_another_offset_or_line_is_the_same_place() -> None:
    elsewhere = ATTACH._replace(offset=97, line=89, build_id="b1d", address=0x7F00)

    assert _stack(WRAPPER, ATTACH).identity == _stack(WRAPPER, elsewhere).identity


def test_without_a_function_the_offset_is_the_place() -> None:
    bare = ATTACH._replace(function=None)

    assert _stack(bare).identity != _stack(bare._replace(offset=97)).identity


def test_a_place_in_a_script_is_the_same_when_the_interpreter_has_become_warm() -> None:
    """GIVEN other frames of the interpreter, and functions that moved, THEN it is one place."""
    warm = _of(b"/usr/bin/node", "Builtins_CallApiCallback")
    cold = _of(b"/usr/bin/node", "Builtins_HandleApiCall", "Builtins_CEntry_Return1")
    script = _script("watchHere", "middle", file="/srv/n.js")
    moved = tuple(frame._replace(offset=97, address=0x7F00) for frame in script)

    assert _stack(WRAPPER, *cold, *script).identity == _stack(WRAPPER, *warm, *moved).identity
    assert _stack(*cold, *script).identity != _stack(*cold, script[0]).identity


def test_the_interpreter_alone_is_told_apart_by_all_its_frames() -> None:
    one = _of(b"/usr/bin/python3.11", "PyEval_EvalCode", "Py_RunMain")
    other = _of(b"/usr/bin/python3.11", "PyObject_Vectorcall", "Py_RunMain")

    assert _stack(WRAPPER, *one).identity != _stack(WRAPPER, *other).identity


def test_inlined_functions_count() -> None:
    inlined = ATTACH._replace(function="inlined", line=7)

    assert _stack(inlined, ATTACH).identity != _stack(ATTACH).identity


@pytest.mark.parametrize(
    "other",
    [
        (WRAPPER, ATTACH._replace(function="detach")),
        (WRAPPER, ATTACH._replace(module=b"/usr/bin/other")),
        (WRAPPER, ATTACH, MOUNT),
        (ATTACH, WRAPPER),
    ],
)
def test_another_function_module_depth_or_order_is_another_place(other: tuple[Frame, ...]) -> None:
    assert _stack(WRAPPER, ATTACH).identity != _stack(*other).identity


_frames = st.sampled_from([WRAPPER, ATTACH, MOUNT, START, _RUNTIME_IN_THE_MIDDLE])


@given(st.lists(_frames, max_size=11))
def test_own_frames_are_a_run_of_the_stack_with_own_ends(frames: list[Frame]) -> None:
    own = list(own_frames(_stack(*frames)))

    assert any(frames[i : i + len(own)] == own for i in range(len(frames) + 1))
    if not all(map(is_runtime, frames)):
        assert not is_runtime(own[0])
        assert not is_runtime(own[-1])
        # nothing of the program was cut off
        assert sum(map(is_runtime, frames)) - sum(map(is_runtime, own)) == len(frames) - len(own)


_any_frames = st.sampled_from(
    [WRAPPER, ATTACH, START, *_EVAL, *_of(b"[anon]", None), *_script("watch_here", "start_thread")]
)


@given(st.lists(_any_frames, min_size=1, max_size=11))
def test_some_frames_are_always_own_and_none_of_the_program_is_left_out(
    frames: list[Frame],
) -> None:
    own = own_frames(_stack(*frames))

    assert own
    assert [frame for frame in own if not is_runtime(frame)] == [
        frame for frame in frames if not is_runtime(frame)
    ]


def test_a_script_without_names_is_one_place_wherever_its_code_is() -> None:
    """GIVEN code that V8 moves and makes faster THEN the calls before and after are one place."""
    watch = Frame("uv_fs_event_start", b"/usr/bin/node", 3)
    interpreted = Frame("Builtins_InterpreterEntryTrampoline", b"/usr/bin/node", 7)
    compiled, moved = (Frame(None, b"[anon]", address) for address in (0x7F11, 0x7F77))
    start = Frame("node::Start(int, char**)", b"/usr/bin/node", 5)

    before = _stack(watch, interpreted, interpreted, compiled, start)
    assert before.identity == _stack(watch, moved, interpreted, start).identity
    assert before.identity != _stack(watch, start).identity
    assert before.identity != _stack(watch, interpreted, watch, interpreted, start).identity
