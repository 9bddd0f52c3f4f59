"""Which code is no program's own: the C library's, and that of languages and their runtimes."""

from __future__ import annotations

import enum
import re


class Part(enum.Enum):
    """What code that is not a program's own does in it."""

    # the C library and what it is called through: never the place where something is done
    C_LIBRARY = "C library"
    # of the process or a thread; a program may have functions of such names that start nothing
    START = "start"
    # of a language; where it hides who called it, it still tells more than the C library
    LANGUAGE = "language"


# By the file's name, as distributions call it.
_MODULES = (
    # glibc, musl and their dynamic loaders; before 2.34 the file was libc-2.33.so
    (re.compile(rb"libc\.so|libc-\d|libc\.musl|ld-linux|ld-musl|ld-\d|libpthread"), Part.C_LIBRARY),
    # calls C for ctypes and whoever else learns the arguments' types at run time
    (re.compile(rb"libffi[-.\d]"), Part.C_LIBRARY),
    # starts the threads of C++
    (re.compile(rb"libstdc\+\+|libc\+\+"), Part.LANGUAGE),
    # CPython, as a program and as a library, and its ways to call C
    (
        re.compile(rb"(?:lib)?python[\d.]*[dmtu]*(?:-dbg)?(?:\.so.*)?(?: \(deleted\))?$"),
        Part.LANGUAGE,
    ),
    (re.compile(rb"_(?:ctypes|cffi).*\.so"), Part.LANGUAGE),
    # node with V8 and libuv, which are one file or three
    (re.compile(rb"(?:node|nodejs|lib(?:node|uv)\.so.*)(?: \(deleted\))?$"), Part.LANGUAGE),
)

# By the function's name, where it is in the program's own file.
_FUNCTIONS = (
    # static programs
    (re.compile(r"(?:(?:__)?inotify_(?:add_watch|rm_watch|init1?)|syscall)$"), Part.C_LIBRARY),
    (re.compile(r"(?:_start(?:_c)?|_*libc_start_\w+|start_thread|(?:__)?clone3?)$"), Part.START),
    # Go's runtime and its wrappers of system calls
    (re.compile(r"(?:runtime|syscall|internal/runtime|internal/syscall)[./]"), Part.LANGUAGE),
    (re.compile(r"(?:.*/vendor/)?golang\.org/x/sys/unix\."), Part.LANGUAGE),
    # what calls main and the functions of threads, in Rust and in C++, whose templates' names
    # begin with what they return
    (re.compile(r"(?:\w+ )?<?std::"), Part.LANGUAGE),
    (re.compile(r"<?(?:core::ops::function|core::panic|alloc::boxed)::"), Part.LANGUAGE),
    # programs that have node and V8 inside, as those made with Electron
    (re.compile(r"(?:\w+ )?(?:node|v8)::|Builtins_"), Part.LANGUAGE),
)

# V8's own, as it tells them to perf.
_MADE_BY_V8 = re.compile(r"(?:Builtin|BytecodeHandler|Handler|RegExp|Stub):")
# Scripts that are a part of node, and of CPython's import system.
_SCRIPTS_OF_INTERPRETERS = re.compile("node:|<frozen ")


def part_of(function: str | None, module: bytes | None, file: str | None) -> Part | None:
    """What a frame's code is; None for a program's own."""
    if is_made_at_run_time(module):
        return _part_of_made(function, file)
    name = (module or b"").rpartition(b"/")[2]
    for names, part in _MODULES:
        if names.match(name):
            return part
    for functions, part in _FUNCTIONS:
        if functions.match(function or ""):
            return part
    return None


def _part_of_made(function: str | None, file: str | None) -> Part | None:
    # its address says nothing, and is not the same for long
    if function is None or _MADE_BY_V8.match(function):
        return Part.LANGUAGE
    return Part.LANGUAGE if _SCRIPTS_OF_INTERPRETERS.match(file or "") else None


def is_made_at_run_time(module: bytes | None) -> bool:
    """Whether code is in memory that is no file's, as a JIT compiler's is."""
    return module is not None and module.startswith(b"[anon")


def runs_script(function: str | None, module: bytes | None) -> bool:
    """Whether it is a script's code of which no name is known, or V8's that runs it."""
    if function is None:
        return is_made_at_run_time(module)
    return function.startswith("Builtins_")


def is_main_around_rust(function: str | None, called: str | None) -> bool:
    """Whether it is the main of C that Rust's compiler makes to call the program's."""
    return function == "main" and (called or "").startswith("std::rt::lang_start")
