"""Loading bpf/ with BCC and attaching it, in the best mode that the kernel allows."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, NamedTuple

from tracer.errors import InotraceError
from tracer.kernel.btf import compiler_definitions, kernel_btf
from tracer.kernel.cpus import possible_cpus
from tracer.kernel.doorbell import WORKER, Doorbell
from tracer.kernel.hooks import Hook, Mode, hooks
from tracer.kernel.kallsyms import kernel_symbols
from tracer.kernel.modes import usable

# for tests: tables of the BPF program that are small enough to fill
_EXTRA_DEFINITIONS: tuple[str, ...] = ()
_DOES_NOT_LOAD = "the BPF program does not compile or load here: --debug shows why"


class ScopedCgroup(NamedTuple):
    """
    A cgroup by its id in a hierarchy, which /proc/PID/cgroup numbers, or by its name in its parent.

    It may be removed and made again, and has another id then. `parent` is 0 if it stays.
    """

    hierarchy: int
    id: int
    parent: int
    name: bytes


@dataclass(frozen=True)
class Scope:
    """
    What the kernel side lets through.

    `pids` None is every process, otherwise the traced processes; with `follow`, their
    descendants as well. `uid` is an effective user id or None, `name` a part of a comm, `cgroup`
    stands for all below it as well.
    `stacks` are collected for adds and new instances, with `removal_stacks` for removals too.
    """

    pids: frozenset[int] | None = None
    uid: int | None = None
    name: bytes = b""
    cgroup: ScopedCgroup | None = None
    follow: bool = False
    stacks: bool = True
    removal_stacks: bool = False


class Counters(NamedTuple):
    """
    Records that the kernel side made, and what became of those that found a buffer full.

    As enum counter in bpf/common.c: `lost` are all that were refused; of `unhealed` of them nothing
    is left, the others wait in the spill or were taken from there. `unfollowed` are descendants
    that are not traced because too many are.
    """

    submitted: int
    lost: int
    unhealed: int
    unfollowed: int


def bpf_folder() -> Path:
    """Where the C is: inside the installed package, or beside it in a checkout."""
    inside = Path(__file__).parents[1] / "bpf"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "bpf"


class Probe:
    """
    The loaded and attached BPF program.

    Use as a context manager. `attach` only after the buffers are open, as
    :class:`tracer.kernel.stream.Stream` does: the kernel drops, without a word, what is sent to a
    buffer nobody opened. `mode` None is the best that works; :attr:`mode` is what it came to.
    """

    def __init__(self, scope: Scope, mode: Mode | None = None) -> None:
        self._scope = scope
        self.bpf, self.mode = _attached(scope, mode)
        self.doorbell: Doorbell | None = None
        try:
            if self.mode is Mode.TRACEPOINT and kernel_symbols().address(WORKER):
                self._hang_up_doorbell()
            for pid in scope.pids or ():
                self.add_to_scope(pid)
            if scope.cgroup is not None and scope.cgroup.parent:
                wanted = self.bpf[b"wanted_cgroup"]
                wanted[ctypes.c_int(0)] = wanted.Leaf.from_buffer_copy(
                    scope.cgroup.name.ljust(ctypes.sizeof(wanted.Leaf), b"\0")
                )
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach everything; the kernel frees the maps with the last descriptor."""
        if self.doorbell is not None:
            self.doorbell.close()
        self.bpf.cleanup()

    def attach(self) -> None:
        """Start tracing. Raises InotraceError if the kernel refuses."""
        if self._scope.follow:
            with bcc_errors("the kernel refuses to attach to forks and exits"):
                self._follow_descendants()
        self.bpf[b"gate"][ctypes.c_int(0)] = ctypes.c_uint(1)

    def _hang_up_doorbell(self) -> None:
        with bcc_errors("the kernel refuses to attach to its workers"):
            self.bpf.attach_raw_tracepoint(tp=b"workqueue_execute_start", fn_name=b"on_work_start")
        self.doorbell = Doorbell(self.bpf)

    def _follow_descendants(self) -> None:
        from bcc import BPF

        walk = self.bpf.load_func(b"on_last_walk", BPF.RAW_TRACEPOINT)
        self.bpf[b"last_chain"][ctypes.c_int(0)] = ctypes.c_int(walk.fd)
        self.bpf.attach_raw_tracepoint(tp=b"sched_process_fork", fn_name=b"on_fork")
        self.bpf.attach_raw_tracepoint(tp=b"sched_process_exit", fn_name=b"on_exit")

    @property
    def outputs(self) -> tuple[bytes, ...]:
        """The perf buffers that carry records."""
        return (b"events", b"endings") if self._scope.follow else (b"events",)

    def add_to_scope(self, pid: int) -> None:
        self.bpf[b"scope"][ctypes.c_uint(pid)] = ctypes.c_ubyte(1)

    @contextmanager
    def spawning(self) -> Iterator[None]:
        """If descendants are followed: what this thread forks meanwhile is in scope at once."""
        if not self._scope.follow:
            yield
            return
        self._name_spawner(threading.get_native_id())
        try:
            yield
        finally:
            self._name_spawner(0)

    def _name_spawner(self, tid: int) -> None:
        self.bpf[b"spawner"][ctypes.c_int(0)] = ctypes.c_uint(tid)

    def scope_pids(self) -> frozenset[int]:
        """The processes that are in scope now; those that ended have left it."""
        return frozenset(key.value for key in self.bpf[b"scope"])

    def counters(self) -> Counters:
        table = self.bpf[b"counters"]
        return Counters(*(sum(table[which]) for which in range(len(Counters._fields))))


@contextmanager
def bcc_errors(message: str) -> Iterator[None]:
    """Turn what BCC raises into one line, with its own output kept as the detail."""
    with _captured_output() as output:
        try:
            yield
        except InotraceError as error:
            error.detail = error.detail or output.text()
            raise
        # BCC raises plain Exception for most failures
        except Exception as error:
            raise InotraceError(message, detail=f"{error}\n{output.text()}") from error


def _attached(scope: Scope, forced: Mode | None) -> tuple[Any, Mode]:
    """In the first mode that attaches: what was tried for nothing may still be refused."""
    refusal: InotraceError | None = None
    for mode in usable(forced):
        try:
            return _attached_in(mode, scope), mode
        except InotraceError as error:
            refusal = error
    assert refusal is not None
    raise refusal


def _attached_in(mode: Mode, scope: Scope) -> Any:
    bpf = _load(scope, mode)
    try:
        with bcc_errors(f"the kernel refuses to attach to the inotify calls ({mode.value})"):
            for hook in _existing(bpf, mode):
                _attach(bpf, hook, mode)
    except BaseException:
        bpf.cleanup()
        raise
    return bpf


def _existing(bpf: Any, mode: Mode) -> Iterator[Hook]:
    """What is needed, and of the rest what this kernel has."""
    with kernel_btf() as btf:
        has: dict[Mode, Callable[[str], bool]] = {
            Mode.FENTRY: btf.has_function,
            Mode.KPROBE: kernel_symbols().__contains__,
            Mode.TRACEPOINT: lambda target: bool(bpf.tracepoint_exists(*target.split(":"))),
        }
        yield from (hook for hook in hooks(mode) if hook.needed or has[mode](hook.target))


def _attach(bpf: Any, hook: Hook, mode: Mode) -> None:
    function, target = hook.function.encode(), hook.target.encode()
    if mode is Mode.TRACEPOINT:
        bpf.attach_tracepoint(tp=target, fn_name=function)
    elif mode is Mode.KPROBE:
        attach = bpf.attach_kretprobe if hook.at_return else bpf.attach_kprobe
        attach(event=target, fn_name=function)
    elif hook.at_return:
        bpf.attach_kretfunc(fn_name=_loaded_as(bpf, function, b"kretfunc__", target))
    else:
        bpf.attach_kfunc(fn_name=_loaded_as(bpf, function, b"kfunc__", target))


def _loaded_as(bpf: Any, function: bytes, kind: bytes, target: bytes) -> bytes:
    """
    Load a function under the name that tells BCC what to attach it to, and return that name.

    BCC would need a function of that name, compiled for each target anew.
    """
    from bcc import BPF, lib

    module, load = bpf.module, lib.bcc_func_load
    has_modules = lib.bpf_function_start(module, b"names_have_modules")
    name = kind + (b"vmlinux__" if has_modules else b"") + target
    code = lib.bpf_function_start(module, function), lib.bpf_function_size(module, function)
    licence = lib.bpf_module_license(module), lib.bpf_module_kern_version(module)
    arguments = (module, BPF.TRACING, name, *code, *licence, 0, None, 0, None, -1)
    # older BCC know fewer
    fd = load(*arguments[: len(load.argtypes)])
    if fd < 0:
        raise InotraceError(f"the kernel refuses the program for {target.decode()}")
    bpf.funcs[name] = BPF.Function(bpf, name, fd)
    return name


def load_walk(inodes: bool) -> Any:
    """
    Only the walk over open files, with `inodes` what tells of those, and nothing that traces.

    Raises InotraceError if it does not compile or load.
    """
    names = ["common.c", "rows.c", "walk.c"]
    return _compiled([*names, "inode.c"] if inodes else names, ())


def _load(scope: Scope, mode: Mode) -> Any:
    names = ["common.c", "entry.c", "unwind.c", "spill.c", "rows.c", "ask.c", "calls.c"]
    if mode is not Mode.TRACEPOINT:
        names.append("removals.c")
    names += [f"{mode.value}.c", "walk.c", "inode.c"]
    if scope.follow:
        names.append("descendants.c")
    bpf = _compiled(names, [*_tunables(scope), *_mode_definitions(mode)])
    if mode is Mode.TRACEPOINT:
        with bcc_errors(_DOES_NOT_LOAD):
            bpf.load_func(b"on_call", bpf.TRACEPOINT)
    return bpf


def _compiled(names: Sequence[str], definitions: Iterable[str]) -> Any:
    folder = bpf_folder()
    os.environ["BCC_KERNEL_SOURCE"] = str(folder)
    from bcc import BPF, lib

    class Program(BPF):  # type: ignore[misc]
        def detach_kprobe_event(self, ev_name: bytes) -> None:
            """
            Close it: BCC would go on to look for it in tracefs, where perf's probes never are.

            It fails if that may not be read, or is not mounted.
            """
            held = self.kprobe_fds[ev_name]
            if not isinstance(held, dict):
                # BCC before 0.19 has one function for each event
                lib.bpf_close_perf_event_fd(held)
                self._del_kprobe_fd(ev_name)
                return
            for function, fd in list(held.items()):
                lib.bpf_close_perf_event_fd(fd)
                self._del_kprobe_fd(ev_name, function)

    # nobody reads the debug information that BCC asks for, and it takes a sixth of the time
    options = ["-g0", "-w", f"-I{folder}"]
    options += [*compiler_definitions(), *definitions, *_EXTRA_DEFINITIONS]
    with bcc_errors(_DOES_NOT_LOAD):
        return Program(text=_joined(folder, names).encode(), cflags=options)


def _mode_definitions(mode: Mode) -> list[str]:
    worker = kernel_symbols().address(WORKER)
    if mode is Mode.TRACEPOINT and worker:
        return [f"-D{WORKER.upper()}={worker:#x}ULL"]
    return []


def _tunables(scope: Scope) -> list[str]:
    tunables = [
        f"-DSCOPED={int(scope.pids is not None)}",
        f"-DSTACKS={int(scope.stacks)}",
        f"-DRM_STACKS={int(scope.removal_stacks)}",
        f"-DCPUS={possible_cpus()}",
    ]
    if not scope.stacks:
        tunables += ["-DUNWIND_ROWS=128", "-DKEPT_COPIES=128"]
    if scope.uid is not None:
        tunables.append(f"-DFILTER_UID={scope.uid}")
    if scope.cgroup is not None:
        tunables += [
            f"-DFILTER_HIERARCHY={scope.cgroup.hierarchy}",
            f"-DFILTER_CGROUP={scope.cgroup.id}ULL",
            f"-DFILTER_CGROUP_PARENT={scope.cgroup.parent}ULL",
        ]
    if scope.name:
        tunables.append(f"-DFILTER_NAME={{{','.join(map(str, scope.name))}}}")
    return tunables


def _joined(folder: Path, names: Iterable[str]) -> str:
    return "".join(f'#line 1 "{name}"\n{(folder / name).read_text()}' for name in names)


class _Output:
    """What was written to stdout and stderr by C code, which sys.stdout cannot redirect."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def text(self) -> str:
        self._file.seek(0)
        return str(self._file.read().decode(errors="replace"))


@contextmanager
def _captured_output() -> Iterator[_Output]:
    with tempfile.TemporaryFile() as file:
        for stream in (sys.stdout, sys.stderr):
            # None if it is closed
            with suppress(AttributeError, OSError, ValueError):
                stream.flush()
        # a command that is started later gets what it would get without us
        kept = [(target, os.dup(target), os.get_inheritable(target)) for target in (1, 2)]
        for target, _, _ in kept:
            os.dup2(file.fileno(), target)
        try:
            yield _Output(file)
        finally:
            for target, copy, is_inherited in kept:
                os.dup2(copy, target, is_inherited)
                os.close(copy)
