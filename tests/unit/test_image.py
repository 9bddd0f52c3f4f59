"""One program in one process: what is known of its code outlives it, and other code has no part."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tracer.core.stack import Frame
from tracer.core.wire import EXACT_PC
from tracer.stacks import image as image_module
from tracer.stacks.image import Image, ImageKey
from tracer.stacks.machine_code import LONGEST_CALL
from tracer.stacks.mappings import Mapping, Mappings
from tracer.stacks.module import Place
from tracer.stacks.modules import Modules
from tracer.stacks.registers import OWN
from tracer.stacks.row import OUTERMOST, Flag, From, Row
from tracer.stacks.unwinder import Leaving, Point

_AGENT = Mapping(0x1000, 0x3000, 0x400, 8, 23, b"/usr/bin/agent")
_LIBRARY = Mapping(0x7000, 0x8000, 0, 8, 29, b"/usr/lib/library.so")
_OTHER = _LIBRARY._replace(ino=31, name=b"/usr/lib/other.so")
_MADE = Mapping(0x9000, 0xA000, 0, 0, 0, b"[anon]")
_BY_SP = Row(From.SP, 16, From.CFA, -8)
_GUESS = Row(From.SP, 32, From.CFA, -8, flags=Flag.GUESSED)


class _Module:
    """One function, at 0x100 of it, that every frame is left in the same way from."""

    build_id = "ab23"

    def __init__(self, name: str) -> None:
        self.row: Row | None = _BY_SP
        self.found = [Place(name)]
        self.begins: set[int] = set()
        self.asked = 0

    def leaving(self, address: int) -> Leaving | None:
        self.asked += 1
        return self.row

    def places(self, address: int) -> tuple[Place, ...]:
        self.asked += 1
        return tuple(place._replace(offset=address - 0x100) for place in self.found)

    def begins_function(self, address: int) -> bool:
        return address in self.begins

    def function_at(self, address: int) -> tuple[bytes, int] | None:
        return (self.found[0].function.encode(), 0x100) if self.found else None


class _Code:
    """Stands for a ProcessCode; `next` is what is there when it looks again."""

    def __init__(self, *_: Any) -> None:
        self.mappings = Mappings([_AGENT, _LIBRARY, _MADE])
        self.modules: dict[bytes, _Module] = {
            mapping.name: _Module(mapping.name.decode()[9:].rpartition("/")[2])
            for mapping in (_AGENT, _LIBRARY, _OTHER)
        }
        self.next = self.mappings
        self.looks = self.holds = 0
        self.has_ended = False
        self.is_old = True
        self.memory = b""

    def close(self) -> None:
        self.has_ended = True

    release_files = close

    def hold_files(self) -> None:
        self.holds += 1

    def look_again(self) -> Mappings:
        self.looks += 1
        before, self.mappings = self.mappings, self.next
        return before

    def read(self, address: int, size: int) -> bytes:
        return self.memory[:size]

    def is_code(self, address: int) -> bool:
        return self.mappings.find(address) is not None

    def linked(self, address: int) -> tuple[_Module, int] | None:
        mapping = self.mappings.find(address)
        module = self.modules.get(mapping.name) if mapping is not None else None
        return (module, address - mapping.start) if mapping and module is not None else None


class _AlwaysDue:
    is_due = True

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class _Nothing:
    """A stack that was not copied."""

    def word(self, address: int) -> int | None:
        return None


@pytest.fixture
def code(monkeypatch: pytest.MonkeyPatch) -> _Code:
    made = _Code()
    monkeypatch.setattr(image_module, "ProcessCode", lambda *_: made)
    monkeypatch.setattr(image_module, "Pace", _AlwaysDue)
    monkeypatch.setattr(image_module, "open_perf_map", lambda _: None)
    return made


@pytest.fixture
def image(code: _Code) -> Image:
    return Image(ImageKey(1173, 7, 1), 0, Modules(bytes.decode))


def _name(image: Image, pc: int, is_exact: bool = False) -> str | None:
    return image.frames(pc, is_exact=is_exact)[0].function


def _leaving(image: Image, pc: int, is_exact: bool = False) -> Leaving | None:
    return image.leaving(Point(pc, is_exact, {OWN.sp: 0x100, OWN.fp: 0}), _Nothing())


def _swap(code: _Code, image: Image, *mappings: Mapping) -> None:
    """Other code takes the place of what was there, and is seen."""
    code.next = Mappings(list(mappings))
    image.look_again()


# --- names ---


def test_a_frame_has_a_name_a_file_and_a_build(image: Image) -> None:
    assert image.frames(0x1123, is_exact=True) == (
        Frame("agent", b"/usr/bin/agent", 0x23, None, None, "ab23", 0x1123),
    )


def test_a_return_address_belongs_to_the_call_before_it(image: Image) -> None:
    """GIVEN a call that ends all code of a file WHEN it returns beyond THEN it is of that file."""
    (frame,) = image.frames(0x3000, is_exact=False)

    assert (frame.function, frame.module, frame.offset) == ("agent", b"/usr/bin/agent", 0x1F00)
    assert image.frames(0x3000, is_exact=True) == (Frame(None, None, 0x3000, address=0x3000),)


def test_what_was_inlined_comes_first(code: _Code, image: Image) -> None:
    code.modules[_AGENT.name].found = [Place("inner", "a.go", 23), Place("outer", "a.go", 29)]
    frames = image.frames(0x1123, is_exact=True)

    assert [(one.function, one.file, one.line) for one in frames] == [
        ("inner", "a.go", 23),
        ("outer", "a.go", 29),
    ]


def test_without_a_name_the_place_is_where_the_file_was_linked(code: _Code, image: Image) -> None:
    code.modules[_AGENT.name].found = []

    assert image.frames(0x1123, is_exact=False) == (
        Frame(None, b"/usr/bin/agent", 0x123, None, None, "ab23", 0x1123),
    )


def test_without_its_file_the_place_is_in_the_file(code: _Code, image: Image) -> None:
    del code.modules[_AGENT.name]

    assert image.frames(0x1123, is_exact=False) == (
        Frame(None, b"/usr/bin/agent", 0x523, address=0x1123),
    )


def test_code_of_no_file_is_where_it_is(image: Image) -> None:
    assert image.frames(0x9023, is_exact=False) == (Frame(None, b"[anon]", 0x9023, address=0x9023),)


def test_names_are_kept_when_their_file_is_gone(code: _Code, image: Image) -> None:
    """GIVEN frames that were named WHEN the process has ended THEN they are named the same."""
    seen = image.frames(0x1123, is_exact=False)
    asked = code.modules[_AGENT.name].asked
    code.modules.clear()

    assert image.frames(0x1123, is_exact=False) == seen
    assert asked == 1


def test_one_place_may_be_interrupted_and_returned_to(image: Image) -> None:
    assert image.frames(0x1123, is_exact=True)[0].offset == 0x23
    assert image.frames(0x1100, is_exact=False)[0].function == "agent"
    assert image.frames(0x1100, is_exact=False) != image.frames(0x1101, is_exact=False)


def test_a_stack_is_called_from_one_place_and_returns_to_others(image: Image) -> None:
    """GIVEN a call, or a frame within a stack WHEN named THEN only the call is exact."""
    offsets = [frame.offset for frame in image.stack((0x1123, 0x3000), is_exact=True)]
    assert offsets == [0x23, 0x1F00]
    assert image.stack((0x3000,), is_exact=True)[0].module is None
    assert image.stack((0x3000,), is_exact=False)[0].offset == 0x1F00


def test_after_a_signal_frame_comes_what_was_interrupted(image: Image) -> None:
    """GIVEN a handler, and what it interrupts before its first instruction THEN that is exact."""
    row = Row(From.SP, 160, From.SP, 168, flags=Flag.SIGNAL)
    image.news({0x7100: row}, 0)
    frames = image.stack((0x1123, 0x7100, 0x1000, 0x1100), is_exact=True)

    assert [frame.address for frame in frames] == [0x1123, 0x7100, 0x1000, 0x1100]
    assert [frame.function for frame in frames] == ["agent", "library.so", "agent", "agent"]


def test_what_was_unwound_is_named_at_the_end_of_its_process(code: _Code, image: Image) -> None:
    """GIVEN frames that nobody asked for yet WHEN the process has ended THEN they have names."""
    image.note_unnamed((0x1123, 0x7123), is_exact=True)
    assert code.modules[_AGENT.name].asked == 0
    image.finish()
    code.modules.clear()

    assert [frame.function for frame in image.stack((0x1123, 0x7123), is_exact=True)] == [
        "agent",
        "library.so",
    ]


# --- code made at run time ---


@pytest.fixture
def perf_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: _Code) -> Path:
    path = tmp_path / "perf-1173.map"
    path.touch()
    monkeypatch.setattr(image_module, "open_perf_map", lambda _: os.open(path, os.O_RDONLY))
    return path


def _write(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_a_perf_map_is_followed_as_it_grows(perf_map: Path, image: Image) -> None:
    """GIVEN code without a name yet WHEN its line is written THEN it has one."""
    assert _name(image, 0x9023) is None
    _write(perf_map, "9000 40 py::watch:/srv/app.py\n")

    assert image.frames(0x9023, is_exact=False) == (
        Frame("watch", b"[anon]", 0x23, "/srv/app.py", None, None, 0x9023),
    )
    assert _name(image, 0x9123) is None
    _write(perf_map, "9100 40 later\n")
    assert _name(image, 0x9123) == "later"


def test_code_in_place_of_other_code_has_its_own_name(perf_map: Path, image: Image) -> None:
    """GIVEN functions that a JIT compiled one after the other at one place THEN each is named."""
    _write(perf_map, "9000 40 first\n")
    assert _name(image, 0x9023) == "first"
    _write(perf_map, "9000 40 second\n")
    assert _name(image, 0x9023) == "second"


def test_what_a_perf_map_told_is_kept(perf_map: Path, image: Image) -> None:
    """GIVEN a process that has ended WHEN its map is closed and gone THEN names stay."""
    _write(perf_map, "9000 40 watch\n")
    before = len(os.listdir("/proc/self/fd"))
    assert _name(image, 0x9023) == "watch"
    assert len(os.listdir("/proc/self/fd")) == before + 1
    image.finish()
    perf_map.write_text("")

    assert len(os.listdir("/proc/self/fd")) == before
    assert _name(image, 0x9023) == "watch"
    image.close()


def test_where_made_code_begins_is_known_from_the_map(perf_map: Path, image: Image) -> None:
    _write(perf_map, "9000 40 watch\n")

    assert image.function_start(0x9023) == 0x9000
    assert image.function_start(0x9123) is None
    assert image.function_start(0x1123) == 0x1100
    image.close()


# --- how frames are left ---


def test_a_row_is_looked_up_once(code: _Code, image: Image) -> None:
    assert [_leaving(image, 0x1123) for _ in range(3)] == [_BY_SP] * 3
    assert code.modules[_AGENT.name].asked == 1


def test_a_library_that_was_loaded_since_is_found(code: _Code, image: Image) -> None:
    """GIVEN an address without code WHEN the process is looked at again THEN it has some."""
    code.next = Mappings([_AGENT, _OTHER._replace(start=0x5000, end=0x6000), _LIBRARY, _MADE])
    assert _leaving(image, 0x5123) == _BY_SP
    assert _leaving(image, 0x1123) == _BY_SP

    assert code.looks == 1


def test_what_is_no_code_cannot_be_left(code: _Code, image: Image) -> None:
    assert _leaving(image, 0x5123) is None
    assert code.looks == 1


def test_a_guess_is_the_same_each_time(
    code: _Code, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN code without a table WHEN the stack has something else by now THEN as the kernel."""
    guesses = [_GUESS, _GUESS._replace(cfa_offset=48)]
    monkeypatch.setattr(image_module, "guessed", lambda *_, **__: guesses.pop(0))
    code.modules[_AGENT.name].row = None

    assert [_leaving(image, 0x1123) for _ in range(3)] == [_GUESS] * 3
    assert len(guesses) == 1


@pytest.mark.parametrize(("place", "is_jit"), [(0x1123, False), (0x9023, True)])
def test_only_made_code_is_taken_for_a_jit(
    code: _Code, image: Image, monkeypatch: pytest.MonkeyPatch, place: int, is_jit: bool
) -> None:
    told: list[bool] = []
    monkeypatch.setattr(image_module, "guessed", lambda *_, is_jit: told.append(is_jit))
    code.modules[_AGENT.name].row = None

    assert _leaving(image, place) is None
    assert told == [is_jit]


@pytest.mark.parametrize(
    ("before", "begins", "leaving"),
    [
        (b"\x90" * 5, True, OUTERMOST),
        # what waits for a call to return is the frame of that call
        (b"\xe8" + bytes(4), True, None),
        # what is within a function was not put there by makecontext(3)
        (b"\x90" * 5, False, None),
    ],
    ids=["start", "call", "no start"],
)
def test_where_a_context_returns_to_without_a_call_is_the_end(
    code: _Code, image: Image, before: bytes, begins: bool, leaving: Row | None
) -> None:
    """GIVEN a return address after code without a table WHEN a function begins there THEN."""
    code.mappings = Mappings([_OTHER._replace(start=0x6000, end=0x7000), _LIBRARY])
    code.modules[_OTHER.name].row = None
    code.modules[_LIBRARY.name].begins = {0} if begins else set()
    code.memory = before.rjust(LONGEST_CALL, b"\x90")

    assert _leaving(image, 0x7000) == leaving


# --- what the kernel is given ---


def test_rows_are_given_once_but_for_the_one_that_was_missed(image: Image) -> None:
    """GIVEN rows that the kernel has WHEN it misses one THEN it had to forget that one."""
    rows = {0x1123: _BY_SP, 0x1223: _GUESS, 0x1323 | EXACT_PC: OUTERMOST}
    assert image.news(rows, 0x1123) == rows
    assert image.news(rows, 0x1223) == {0x1223: _GUESS}
    assert image.news({**rows, 0x1423: _BY_SP}, 0x1423) == {0x1423: _BY_SP}
    assert image.news({0x1123: _BY_SP}, 0x9999) == {}


def test_what_a_signal_interrupted_is_known_from_the_row(code: _Code, image: Image) -> None:
    """GIVEN what handlers return to, which no table names THEN it is called as in gdb."""
    row = Row(From.SP, 160, From.SP, 168, flags=Flag.SIGNAL)
    code.modules[_LIBRARY.name].found = []
    assert not image.returns_from_signal(0x7010)
    image.news({0x7010: row, 0x7020: _BY_SP}, 0x7010)

    assert image.returns_from_signal(0x7010) and not image.returns_from_signal(0x7020)
    assert _name(image, 0x7010, is_exact=True) == "<signal handler called>"
    assert _name(image, 0x7020) is None
    # a name that there is is better
    code.modules[_AGENT.name].found = [Place("__restore_rt")]
    image.news({0x1110 | EXACT_PC: row}, 0)
    assert _name(image, 0x1110, is_exact=True) == "__restore_rt"


# --- code that is replaced ---


def test_code_in_place_of_other_code_is_named_and_left_anew(code: _Code, image: Image) -> None:
    """GIVEN a library that another took the place of WHEN that is seen THEN nothing is left."""
    assert _name(image, 0x7123) == "library.so"
    assert _leaving(image, 0x7123) == _BY_SP
    image.news({0x7123: _BY_SP}, 0)
    code.modules[_OTHER.name].row = OUTERMOST
    _swap(code, image, _AGENT, _OTHER, _MADE)

    assert image.generation == 1
    assert _name(image, 0x7123) == "other.so"
    assert _leaving(image, 0x7123) == OUTERMOST


def test_a_frame_that_only_has_a_name_is_named_anew(code: _Code, image: Image) -> None:
    """GIVEN the end of a walk whose copy was lost WHEN other code takes its place THEN."""
    assert _name(image, 0x7123) == "library.so"
    _swap(code, image, _AGENT, _OTHER, _MADE)

    assert _name(image, 0x7123) == "other.so"


def test_calls_from_before_code_was_replaced_are_known(code: _Code, image: Image) -> None:
    image.news({0x7123: _BY_SP}, 0)
    before = time.monotonic_ns()
    assert not image.was_replaced([0x1123, 0x7123], before)
    _swap(code, image, _AGENT, _OTHER, _MADE)

    assert image.was_replaced([0x1123, 0x7123], before)
    assert not image.was_replaced([0x1123], before)
    assert not image.was_replaced([0x7123], time.monotonic_ns())


def test_it_is_looked_at_again_when_that_is_old(code: _Code, image: Image) -> None:
    code.is_old = False
    image.look_again_if_old()
    assert code.looks == 0

    code.is_old = True
    image.look_again_if_old()
    # nothing was replaced
    assert (code.looks, image.generation) == (1, 0)


def test_rows_of_code_that_is_gone_are_told_once(code: _Code, image: Image) -> None:
    image.news({0x1123: _BY_SP, 0x7123: _BY_SP, 0x7223 | EXACT_PC: _BY_SP}, 0)
    assert image.take_stale() == set()
    _swap(code, image, _AGENT, _OTHER, _MADE)

    assert image.take_stale() == {0x7123, 0x7223 | EXACT_PC}
    assert image.take_stale() == set()
    # and are given again when they are met again
    rows = {0x1123: _BY_SP, 0x7123: OUTERMOST}
    assert image.news(rows, 0) == {0x7123: OUTERMOST}


def test_guesses_about_code_that_is_gone_are_made_anew(
    code: _Code, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    guesses = [_GUESS, _GUESS._replace(cfa_offset=48)]
    monkeypatch.setattr(image_module, "guessed", lambda *_, **__: guesses.pop(0))
    code.modules[_LIBRARY.name].row = code.modules[_OTHER.name].row = None
    first = _leaving(image, 0x7123)
    assert first is not None and isinstance(first, Row)
    image.news({0x7123: first}, 0)
    _swap(code, image, _AGENT, _OTHER, _MADE)

    assert _leaving(image, 0x7123) == _GUESS._replace(cfa_offset=48)


@pytest.mark.parametrize(
    "after",
    [
        [_AGENT, _LIBRARY, _MADE._replace(end=0xC000)],
        [_AGENT, _LIBRARY, _MADE._replace(start=0x8800)],
        [_AGENT, _LIBRARY._replace(end=0x7800), _MADE],
        [
            _AGENT._replace(end=0x2000),
            _AGENT._replace(start=0x2000, offset=0x1400),
            _LIBRARY,
            _MADE,
        ],
    ],
    ids=["grown", "grown down", "shrunk", "split"],
)
def test_code_that_stays_where_it_was_is_not_gone(
    code: _Code, image: Image, after: list[Mapping]
) -> None:
    """GIVEN a heap of code that grows, or a file's mapping in parts THEN rows in it are good."""
    image.news({0x1123: _BY_SP, 0x7123: _BY_SP, 0x9123: _BY_SP}, 0)
    _swap(code, image, *sorted(after))

    assert (image.take_stale(), image.generation) == (set(), 0)


def test_code_whose_file_was_deleted_is_not_gone(code: _Code, image: Image) -> None:
    """GIVEN a library that is upgraded WHEN the old one stays mapped THEN rows in it are good."""
    image.news({0x7123: _BY_SP}, 0)
    _swap(code, image, _AGENT, _LIBRARY._replace(name=_LIBRARY.name + b" (deleted)"), _MADE)

    assert (image.take_stale(), image.generation) == (set(), 0)


@pytest.mark.parametrize(
    "after",
    [
        [_AGENT, _MADE],
        [_AGENT, _LIBRARY._replace(offset=0x1000), _MADE],
        [_AGENT, _LIBRARY._replace(dev=9), _MADE],
        [_AGENT, _OTHER, _MADE],
        [_AGENT, _LIBRARY._replace(ino=0, name=b"[anon]"), _MADE],
    ],
    ids=["unloaded", "other part", "other device", "other file", "made"],
)
def test_what_is_not_the_same_byte_of_the_same_file_is_gone(
    code: _Code, image: Image, after: list[Mapping]
) -> None:
    image.news({0x1123: _BY_SP, 0x7123: _BY_SP, 0x9123: _BY_SP}, 0)
    _swap(code, image, *after)

    assert (image.take_stale(), image.generation) == ({0x7123}, 1)


# --- bounds ---


@pytest.mark.parametrize("limit", ["_LEAVINGS_MAX", "_NAMES_MAX", "_PCS_MAX", "_STACKS_MAX"])
def test_only_so_much_is_remembered(
    image: Image, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """GIVEN a program that calls from everywhere THEN what is kept of it has a limit."""
    monkeypatch.setattr(image_module, limit, 23)
    for pc in range(0x1100, 0x1400):
        assert _leaving(image, pc) == _BY_SP
        assert _name(image, pc) == "agent"
        assert image.news({pc: _BY_SP}, 0) == {pc: _BY_SP}
        image.note_unnamed((pc,), is_exact=False)

    kept = {
        "_LEAVINGS_MAX": len(image._leavings),
        "_NAMES_MAX": len(image._names),
        "_PCS_MAX": len(image._given),
        "_STACKS_MAX": len(image._unnamed),
    }
    assert kept[limit] <= 24


# --- real ones ---


class _Real:
    """Makes images of processes that there are, and gives back what they opened."""

    def __init__(self) -> None:
        self._modules = Modules(bytes.decode)
        self._images: list[Image] = []

    def image(self, pid: int = 0, birth: int = 0, stack: int = 0) -> Image:
        """Of this process, but for what is given."""
        key = ImageKey(pid or os.getpid(), birth or _birth(), 1)
        self._images.append(Image(key, stack, self._modules))
        return self._images[-1]

    def close(self) -> None:
        while self._images:
            self._images.pop().close()
        self._modules.close_files()


@pytest.fixture
def real() -> Iterator[_Real]:
    made = _Real()
    yield made
    made.close()


def _birth() -> int:
    return int(_stat()[19]) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))


def _stat() -> list[str]:
    """From the third field on."""
    return Path("/proc/self/stat").read_text().rpartition(")")[2].split()


def test_a_running_process_is_known(real: _Real) -> None:
    """GIVEN this process WHEN asked for where a function of libc is THEN that is its name."""
    own = real.image(stack=int(_stat()[25]))
    function = ctypes.CDLL(None).inotify_add_watch
    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    (frame,) = own.frames(address, is_exact=True)

    assert own.is_known and not own.has_ended
    assert (frame.function, frame.offset) == ("inotify_add_watch", 0)
    assert own.function_start(address + 1) == address
    assert own.is_code(address) and len(own.read(address, 16)) == 16


@pytest.mark.parametrize("other", [{"birth": 23}, {"pid": 2**22 + 1}, {"stack": 0x7000}])
def test_a_program_that_is_gone_is_not_known(real: _Real, other: dict[str, int]) -> None:
    """GIVEN a pid that was reused, one without a process, or another program THEN nothing is."""
    image = real.image(**other)

    assert not image.is_known
    assert image.frames(0x401000, is_exact=True) == (Frame(None, None, 0x401000, address=0x401000),)


@pytest.mark.parametrize("other", [{"birth": 23}, {"stack": 0x7000}])
def test_a_program_that_is_gone_stays_unknown(real: _Real, other: dict[str, int]) -> None:
    """GIVEN a program in the place of the one meant WHEN looked at again THEN it is not that."""
    image = real.image(**other)
    _leaving(image, 0x401000)
    image.look_again()

    assert not image.is_known


def test_an_image_that_is_closed_has_given_all_back(real: _Real) -> None:
    before = len(os.listdir("/proc/self/fd"))
    image = real.image()
    # its memory and the program, then its other files
    assert len(os.listdir("/proc/self/fd")) == before + 2
    image.hold_files()
    assert len(os.listdir("/proc/self/fd")) > before + 2
    image.finish()
    real.close()

    assert len(os.listdir("/proc/self/fd")) == before
