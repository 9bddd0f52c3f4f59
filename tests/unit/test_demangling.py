"""Names of C++ and Rust as the source has them, whatever a stranger's names do to libstdc++."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.stacks import demangling
from tracer.stacks.demangling import Demangler, demangled_rust_legacy

_FIND = b"_ZN8ProcSyms6Module9find_addrEm"
_FOUND = "ProcSyms::Module::find_addr(unsigned long)"


@pytest.fixture
def demangler() -> Iterator[Demangler]:
    made = Demangler()
    yield made
    made.close()


@pytest.fixture
def cpp(demangler: Demangler) -> Demangler:
    """One that has a libstdc++."""
    if demangler(b"_Z1av") != "a()":
        pytest.skip("no libstdc++")
    return demangler


def _child(demangler: Demangler) -> int:
    assert demangler._child is not None and demangler._child._process is not None
    return demangler._child._process.pid


# --- C++ ---


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        (_FIND, _FOUND),
        (_FIND + b".cold", f"{_FOUND} [clone .cold]"),
        (
            b"_ZNSt6vectorIiSaIiEE9push_backEOi",
            "std::vector<int, std::allocator<int> >::push_back(int&&)",
        ),
        (b"_Zgarbage", "_Zgarbage"),
        (b"_Z1a\xffv", "_Z1a\ufffdv"),
        # valid but for its length
        (b"_Z4095" + b"a" * 4095 + b"v", "_Z4095" + "a" * 4095 + "v"),
    ],
)
def test_names_of_cpp(cpp: Demangler, name: bytes, plain: str) -> None:
    assert cpp(name) == plain
    assert cpp(_FIND) == _FOUND


def test_other_names_start_no_process(demangler: Demangler) -> None:
    names = [
        b"watch_here",
        b"__Z1av",
        b"",
        b"\xff",
        b"_RNvC3foo3bar",
        b"_ZN3foo17h05af221e174051e9E",
    ]

    assert [demangler(name) for name in names] == [
        "watch_here",
        "__Z1av",
        "",
        "\ufffd",
        "foo::bar",
        "foo",
    ]
    assert demangler._child is None


def _exponential(levels: int) -> bytes:
    """A function of pair<pair<...>, pair<...>>, each level twice the one before."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    pairs = "".join(f"S_IS{digit}_S{digit}_E" for digit in digits[:levels])
    return f"_Z1fSt4pairIiiE{pairs}".encode()


@pytest.mark.parametrize("name", [_exponential(9), _exponential(30), b"_Z1f" + b"P" * 4000 + b"i"])
def test_a_name_that_explodes_costs_a_second(cpp: Demangler, name: bytes) -> None:
    """GIVEN names that become gigabytes WHEN demangled THEN the next name is none the worse."""
    before = perf_counter()
    plain = cpp(name)

    assert perf_counter() - before < 5
    assert len(plain) <= 64 << 10
    assert cpp(_FIND) == _FOUND


def test_a_process_that_dies_is_replaced_a_few_times(cpp: Demangler) -> None:
    """GIVEN a process killed at each name WHEN that was too often THEN names stay mangled."""
    plain = []
    for at in range(10):
        if cpp._child is not None:
            os.kill(_child(cpp), signal.SIGKILL)
            os.waitid(os.P_PID, _child(cpp), os.WEXITED | os.WNOWAIT)
        plain += [cpp(b"_Z1%cv" % (0x62 + at)), cpp(b"_Z1%ci" % (0x62 + at))]

    assert plain[:2] == ["_Z1bv", "b(int)"]
    assert plain[-2:] == ["_Z1kv", "_Z1ki"]
    assert cpp._child is None


def test_a_process_that_does_not_answer_is_given_up(
    cpp: Demangler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN it is stopped WHEN asked THEN the name stays mangled, and no answer comes late."""
    monkeypatch.setattr(demangling, "_PATIENCE_S", 0.01)
    pid = _child(cpp)
    os.kill(pid, signal.SIGSTOP)

    assert cpp(b"_Z1bv") == "_Z1bv"
    assert not os.path.exists(f"/proc/{pid}")
    monkeypatch.undo()
    assert cpp(b"_Z1cv") == "c()"


def test_the_process_has_no_privileges_and_is_out_of_the_terminal(cpp: Demangler) -> None:
    status = Path(f"/proc/{_child(cpp)}/status").read_text()

    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    assert os.getsid(_child(cpp)) == _child(cpp)


def test_closing_ends_the_process(cpp: Demangler) -> None:
    pid = _child(cpp)
    cpp.close()
    cpp.close()

    assert not os.path.exists(f"/proc/{pid}")
    assert (cpp(b"_Z1bv"), cpp(b"_Z1av")) == ("_Z1bv", "a()")


def test_the_process_does_not_outlive_its_parent() -> None:
    """GIVEN inotrace is killed WHEN its end of the pipe closes THEN the process ends."""
    code = (
        "import sys, os; from tracer.stacks.demangling import Demangler; d = Demangler(); "
        "d(b'_Z1av'); print(d._child._process.pid if d._child else 0, flush=True); input()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(demangling.__file__).parents[2],
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    if not child:
        parent.communicate()
        pytest.skip("no libstdc++")
    watched = os.pidfd_open(child)
    parent.kill()
    parent.communicate()

    # readable once it has ended
    waiting = select.poll()
    waiting.register(watched)
    assert waiting.poll(10_000)
    os.close(watched)


def test_without_libstdcpp_names_stay_mangled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demangling, "_CHILD", "class it: serve = exit")
    made = Demangler()

    assert [made(b"_Z1%cv" % (0x61 + at)) for at in range(6)] == [f"_Z1{c}v" for c in "abcdef"]
    made.close()


def test_threads_get_the_names_they_asked_for(cpp: Demangler) -> None:
    wrong: list[str] = []

    def ask(kind: str) -> None:
        for at in range(100):
            plain = cpp(f"_Z{len(str(at)) + 1}a{at}{kind}".encode())
            if plain != f"a{at}({'int' if kind == 'i' else 'long'})":
                wrong.append(plain)

    threads = [threading.Thread(target=ask, args=(kind,)) for kind in "il"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong


@given(name=st.binary(max_size=60).map(lambda rest: b"_Z" + rest))
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_name_is_answered(cpp: Demangler, name: bytes) -> None:
    assert cpp(name)
    assert cpp._demangled_cpp(_FIND) == _FOUND


# --- Rust's older mangling ---


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("_ZN3foo17h05af221e174051e9E", "foo"),
        ("_ZN4test1a2bc17h05af221e174051e9E", "test::a::bc"),
        ("_ZN13_$LT$test$GT$17h05af221e174051e9E", "<test>"),
        ("_ZN28_$u7b$$u7b$closure$u7d$$u7d$17h05af221e174051e9E", "{{closure}}"),
        (
            "_ZN71_$LT$Test$u20$$u2b$$u20$$u27$static$u20$as$u20$foo..Bar$LT$Test$GT$$GT$3bar"
            "17h930b740aa94f1d3aE",
            "<Test + 'static as foo::Bar<Test>>::bar",
        ),
        (
            "_ZN38_$LT$core..option..Option$LT$T$GT$$GT$6unwrap17haf7cb8d5824ee659E",
            "<core::option::Option<T>>::unwrap",
        ),
        ("_ZN8$RF$test4foob17h05af221e174051e9E", "&test::foob"),
        ("_ZN9backtrace3foo17hbb467fcdaea5d79bE.llvm.A5310EB9", "backtrace::foo"),
        ("_ZN9backtrace3foo17hbb467fcdaea5d79bE.cold", "backtrace::foo.cold"),
        ("_ZN6$u1b$x17h05af221e174051e9E", "$u1b$x"),
        ("_ZN7$XYZ$ab17h05af221e174051e9E", "$XYZ$ab"),
    ],
)
def test_rust_names_lose_their_hash(name: str, plain: str) -> None:
    assert demangled_rust_legacy(name.encode()) == plain


@pytest.mark.parametrize(
    "name",
    [
        "_ZN3foo3barE",
        "_ZN3foo3barEv",
        "_ZN17h05af221e174051e9E",
        "_ZN3foo17h05af221e174051e9Ev",
        "_ZN3foo17h05AF221E174051E9E",
        "_ZN3foo5h05afE",
        "_ZN3foo16hffaf221e174051eE",
        "_ZN3foo17hg5af221e174051e9E",
        "_ZN9foo17h05af221e174051e9E",
        "_ZN03foo17h05af221e174051e9E",
        "_ZNfoo17h05af221e174051e9E",
        "_ZNK3foo17h05af221e174051e9E",
        "_ZN9999foo17h05af221e174051e9E",
    ],
)
def test_names_of_cpp_are_left_alone(name: str) -> None:
    assert demangled_rust_legacy(name.encode()) is None


@given(st.binary(max_size=60))
def test_any_bytes_are_rust_or_not(content: bytes) -> None:
    for name in (content, b"_ZN" + content + b"17h05af221e174051e9E"):
        plain = demangled_rust_legacy(name)
        assert plain is None or isinstance(plain, str)
