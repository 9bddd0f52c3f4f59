"""Compiled programs, and the chain of functions that each must show."""

from __future__ import annotations

from pathlib import Path

from chains import NAMELESS_START, START, THREAD_START
from performance import GUESSED, Program
from workshop import SOURCES, Workshop, python_with

_WRAPPED = "inotify_add_watch watch_here middle outer"
_CPP_ADD = "inotify_add_watch watch_here middle outer store::Watcher<{0}>::add"
_GO_ADD = (
    "*syscall.Syscall6 ... golang.org/x/sys/unix.InotifyAddWatch ... "
    "github.com/fsnotify/fsnotify.(*Watcher).Add"
)
_GO = f"{_GO_ADD} main.watchHere main.inlined main.outer main.main runtime.main runtime.goexit*"


def _c(source: str, *flags: str, name: str = "", arguments: tuple[str, ...] = ()) -> Program:
    """A program of C with the common chain, to be changed by _replace()."""
    label = name or Path(source).stem

    def command(workshop: Workshop) -> list[str]:
        return [str(workshop.c(source, *flags, name=label)), *arguments]

    return Program(f"c-{label}", command, f"{_WRAPPED} main {START}")


def _stripped(workshop: Workshop) -> list[str]:
    return [str(workshop.stripped(workshop.c("plain.c")))]


def _load(workshop: Workshop, *flags: str, name: str) -> list[str]:
    library = workshop.c("library.c", "-shared", "-fPIC", *flags, name=f"lib{name}.so")
    return [str(workshop.c("loader.c", *flags, name=name)), str(library)]


def _resolver(workshop: Workshop) -> list[str]:
    library = workshop.c(
        "resolver.c", "-shared", "-fPIC", "-DLIBRARY", "-Wl,-z,lazy", name="libresolver.so"
    )
    link = ["-Wl,-z,lazy", str(library), f"-Wl,-rpath,{workshop.folder}"]
    return [str(workshop.c("resolver.c", *link))]


_SIGNAL = (
    "inotify_add_watch watch_here on_signal <signalhandlercalled> kill middle outer main " + START
)
_NO_TABLES = ("-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-omit-frame-pointer")

C_PROGRAMS = (
    _c("plain.c", "-fomit-frame-pointer"),
    _c("plain.c", "-fno-omit-frame-pointer", name="frame-pointers"),
    _c("plain.c", "-O1", name="less-optimized"),
    _c("plain.c", "-static", name="static"),
    _c("plain.c", "-static-pie", name="static-pie"),
    # without --eh-frame-hdr there is no table to search in
    _c("plain.c", "-Wl,--no-eh-frame-hdr", name="without-search-table"),
    _c("plain.c", "-fcf-protection=full", "-Wl,-z,lazy", "-Wl,-z,ibtplt", name="lazy-binding"),
    _c("plain.c", *_NO_TABLES, name="without-tables")._replace(states=GUESSED, gdb_guesses=True),
    Program(
        "c-stripped",
        _stripped,
        f"inotify_add_watch {'plain-stripped+ ' * 4}" + NAMELESS_START.format("plain-stripped"),
    ),
    _c("realigned.c"),
    _c("realigned.c", "-mstackrealign", "-mavx", name="all-realigned"),
    _c("varying.c"),
    _c("signal.c")._replace(chain=_SIGNAL),
    _c("signal.c", name="signal-stack", arguments=("alternate",))._replace(
        chain=_SIGNAL, on_two_stacks=True
    ),
    _c("thread.c")._replace(chain=f"{_WRAPPED} of_thread {THREAD_START}"),
    _c("deep.c", arguments=("40",))._replace(
        chain=f"inotify_add_watch watch_here {'deeper ' * 40} main {START}"
    ),
    Program(
        "c-loaded-library",
        lambda workshop: _load(workshop, name="loader"),
        f"inotify_add_watch watch_here middle watch_by_library outer main {START}",
    ),
    Program(
        "c-library-being-loaded",
        lambda workshop: _load(workshop, "-DAT_LOAD", name="at-load"),
        "inotify_add_watch watch_here middle at_load call_init|ld-*+ ... dlopen* outer main "
        + START,
    ),
    Program(
        "c-function-being-resolved",
        _resolver,
        "inotify_add_watch watch_here middle ?elf_ifunc_invoke _dl_fixup|ld-*+ "
        f"_dl_runtime_resolve*|ld-*+ outer main {START}",
        rounds=1,
    ),
    _c("coroutine.c")._replace(
        chain=f"{_WRAPPED} of_coroutine __start_context|libc*+",
        # no table says that the outermost frame is that
        states=frozenset({"complete", "guessed", "truncated"}),
    ),
)

_MUSL_REST = "main ..."
FOREIGN_PROGRAMS = (
    Program(
        "musl",
        lambda workshop: [str(workshop.c("plain.c", name="musl", compiler="musl-gcc"))],
        f"{_WRAPPED} {_MUSL_REST}",
        states=GUESSED,
        gdb_guesses=True,
    ),
    Program(
        "musl-static",
        lambda workshop: [
            str(workshop.c("plain.c", "-static", name="musl-static", compiler="musl-gcc"))
        ],
        f"{_WRAPPED} {_MUSL_REST}",
        states=GUESSED,
        gdb_guesses=True,
    ),
    Program(
        "32-bit",
        lambda workshop: [str(workshop.c_for_32_bit("plain.c"))],
        "...",
        states=frozenset({"complete", "guessed", "truncated", "missing"}),
        no_gdb="stacks of 32-bit programs are not promised",
    ),
)


def _objects(how: str, chain: str) -> Program:
    def command(workshop: Workshop) -> list[str]:
        return [str(workshop.c("objects.cpp", compiler="g++")), how]

    return Program(f"c++-{how}", command, chain)


_STRING = "std::*basic_string<char*>"
CPP_PROGRAMS = (
    _objects("handler", f"{_CPP_ADD.format('unsignedlong,3')} in_handler main {START}"),
    _objects(
        "destructor",
        f"{_CPP_ADD.format(_STRING + ',7')} store::Guard::~Guard in_passing in_destructor "
        f"main {START}",
    ),
    _objects(
        "thread",
        f"{_CPP_ADD.format('char,1')} std::thread::_State_impl<*>::_M_run "
        f"libstdc++*+|execute_native_thread_routine {THREAD_START}",
    ),
)


def _rust(mangling: str, *arguments: str, end: str) -> Program:
    kind = {"legacy": "T", "v0": "i32"}[mangling]
    trait = f"<places::store::Folder<{kind}>asplaces::store::Place>::watch_here"
    chain = f"inotify_add_watch {trait} places::store::middle places::outer {end}"

    def command(workshop: Workshop) -> list[str]:
        return [str(workshop.rust("places.rs", mangling)), *arguments]

    return Program("-".join(["rust", mangling, *arguments]), command, chain)


RUST_PROGRAMS = (
    _rust("legacy", end=f"places::main ... std::rt::lang_start* main {START}"),
    _rust("v0", end=f"places::main ... std::rt::lang_start* main {START}"),
    _rust("v0", "thread", end=f"... *thread_start* {THREAD_START}"),
    Program(
        "rust-watchfiles",
        lambda workshop: [
            python_with("watchfiles"),
            str(SOURCES / "by_watchfiles.py"),
            str(workshop.folders(3)),
        ],
        # releases before 1.2 are stripped
        "inotify_add_watch _rust_notify*+|*inotify::* ... "
        f"_rust_notify*+|*EventLoop*::event_loop_thread ... {THREAD_START}",
    ),
)


def _go(name: str, *flags: str, cgo: bool = False) -> Program:
    def command(workshop: Workshop) -> list[str]:
        return [str(workshop.go("fsnotify.go", *flags, name=f"fsnotify-{name}", cgo=cgo))]

    return Program(f"go-{name}", command, _GO, inlined=True)


GO_PROGRAMS = (
    _go("plain"),
    _go("stripped", "-ldflags=-s -w")._replace(no_gdb="it cannot read a table of Go's"),
    _go("pie", "-buildmode=pie"),
    _go("pie-stripped", "-buildmode=pie", "-ldflags=-s -w")._replace(
        no_gdb="it cannot read a table of Go's"
    ),
    _go("cgo", "-ldflags=-linkmode=external", cgo=True),
    Program(
        "go-calling-c",
        lambda workshop: [str(workshop.go("cgo/main.go", name="calling-c", cgo=True))],
        "inotify_add_watch watch_here middle ?_cgo_*_middle runtime.asmcgocall* ?runtime.cgocall "
        "main._Cfunc_middle main.outer main.main runtime.main runtime.goexit*",
        on_two_stacks=True,
    ),
)

NATIVE_PROGRAMS = (
    *C_PROGRAMS,
    *FOREIGN_PROGRAMS,
    *CPP_PROGRAMS,
    *RUST_PROGRAMS,
    *GO_PROGRAMS,
)
