"""Maps that processes write for perf: followed as they grow, and never believed blindly."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.stacks.perf_map import PerfMap, described, open_perf_map

_START = 0x7F62F1FC6000


class _File:
    """A map and what its process writes to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()
        self.map = PerfMap(os.open(path, os.O_RDONLY))

    def write(self, text: bytes) -> None:
        with open(self.path, "ab") as file:
            file.write(text)

    def name(self, address: int) -> str | None:
        found = self.map.find(address)
        return found[0] if found else None


@pytest.fixture
def file(tmp_path: Path) -> Iterator[_File]:
    made = _File(tmp_path / "perf-17.map")
    yield made
    made.map.close()


def test_a_function_is_found_from_its_first_byte_to_its_last(file: _File) -> None:
    file.write(b"%x 2c JS:^get size /srv/app.js:2:18\n" % _START)

    assert file.map.refresh()
    expected = ("JS:^get size /srv/app.js:2:18", _START, 0x2C)
    assert [file.map.find(_START + at) for at in (0, 0x2B)] == [expected] * 2
    assert [file.map.find(_START + at) for at in (-1, 0x2C, 2**64 - 1)] == [None] * 3


def test_the_map_is_followed_and_a_partial_line_waits(file: _File) -> None:
    """GIVEN a line that is half written WHEN its rest comes THEN it is read, and only once."""
    file.write(b"1000 10 first\n2000 1")
    assert file.map.refresh()
    assert (file.name(0x1000), file.name(0x2000)) == ("first", None)
    assert not file.map.refresh()

    file.write(b"7 second\n")

    assert file.map.refresh()
    assert file.map.find(0x2016) == ("second", 0x2000, 0x17)
    assert not file.map.refresh()


@pytest.mark.parametrize("longer", [False, True])
def test_a_map_written_anew_is_read_anew(file: _File, longer: bool) -> None:
    """GIVEN another file in its place, of any length WHEN refreshed THEN the old is forgotten."""
    file.write(b"1000 10 one\n2000 10 two\n")
    file.map.refresh()

    file.path.write_bytes(b"2000 10 other\n" + b"3000 10 more\n" * (7 if longer else 0))

    # before it is noticed, what the file no longer says is not shown
    assert file.name(0x1000) is None
    assert file.map.refresh()
    assert (file.name(0x1000), file.name(0x2000)) == (None, "other")


def test_the_latest_that_covers_an_address_counts(file: _File) -> None:
    file.write(b"1000 100 old\n1080 100 new\n")
    file.map.refresh()
    assert [file.name(at) for at in (0x1000, 0x107F, 0x1080, 0x117F)] == [None, None, "new", "new"]

    file.write(b"1000 1000 all\n1800 0 empty\n1800 1 inner\n")
    file.map.refresh()

    assert [file.name(at) for at in (0x1000, 0x1800, 0x1801)] == [None, "inner", None]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=40))
def test_overlaps_are_as_if_memory_was_written(functions: list[tuple[int, int]]) -> None:
    """GIVEN any functions WHEN found THEN each byte has the last one, if nothing overlapped it."""
    fd = os.memfd_create("map")
    alive: list[tuple[int, int, str]] = []
    for at, (start, size) in enumerate(functions):
        os.write(fd, b"%x %x f%d\n" % (start, size, at))
        alive = [a for a in alive if a[0] >= start + size or a[0] + a[1] <= start or not size]
        alive += [(start, size, f"f{at}")] if size else []
    read = PerfMap(fd)
    read.refresh()
    for address in range(75):
        expected = [(n, s, z) for s, z, n in alive if s <= address < s + z]
        assert [read.find(address)] == (expected or [None])
    read.close()


def test_many_functions_in_any_order(file: _File) -> None:
    """GIVEN more functions than one piece holds WHEN they come and go THEN all are found."""
    order = [at * 7919 % 10007 for at in range(10007)]
    file.write(b"".join(b"%x 10 f%d\n" % (_START + 16 * at, at) for at in order))
    file.map.refresh()
    assert all(file.name(_START + 16 * at + 5) == f"f{at}" for at in range(0, 10007, 13))

    file.write(b"%x %x big\n" % (_START + 16, 16 * 10005))
    file.map.refresh()

    assert [file.name(_START + 16 * at) for at in (0, 1, 5003, 10005, 10006)] == [
        "f0",
        "big",
        "big",
        "big",
        "f10006",
    ]


@pytest.mark.parametrize(
    "junk",
    [
        b"\n",
        b"1000\n",
        b"1000 10\n",
        b"1000 10 \n",
        b"xyz 10 a\n",
        b"1000 100000000000 a\n",
        b"10000000000000000 1 a\n",
        b"-1 10 a\n",
        b"\0\xff\n",
        b" 1000 10 a\n",
    ],
)
def test_what_is_no_line_is_skipped(file: _File, junk: bytes) -> None:
    file.write(junk + b"0x2000 0X10 name with blanks\n")
    file.map.refresh()

    assert (file.name(0x1000), file.name(0x2000)) == (None, "name with blanks")


def test_a_line_without_end_is_passed_over(file: _File) -> None:
    """GIVEN a line of 3 MiB with lines inside its rest THEN only what follows it is read."""
    file.write(b"1000 10 " + b"a" * (3 << 20) + b"\n2000 10 next\n")
    while file.map.refresh():
        pass

    assert (file.name(0x1000), file.name(0x2000)) == (None, "next")


def test_the_number_of_functions_is_bounded(file: _File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.stacks.perf_map._FUNCTIONS_MAX", 7)
    monkeypatch.setattr("tracer.stacks.perf_map._REFRESH_LINES", 5)
    monkeypatch.setattr("tracer.stacks.perf_map._CHUNK_BYTES", 32)
    file.write(b"".join(b"%x 10 f\n" % (0x1000 * at) for at in range(1, 11)))

    assert [file.map.refresh() for _ in range(3)] == [True, True, False]
    assert [file.name(0x1000 * at) is not None for at in range(1, 11)] == [True] * 7 + [False] * 3
    # what makes room for itself is taken
    file.write(b"1000 7000 g\n9000 10 h\n")
    file.map.refresh()
    assert (file.name(0x7FFF), file.name(0x9000)) == ("g", "h")


@given(st.binary(max_size=600))
def test_any_bytes_can_be_read(content: bytes) -> None:
    fd = os.memfd_create("map")
    os.write(fd, b"1000 10 a\n" + content)
    read = PerfMap(fd)
    assert read.refresh()
    found = read.find(0x1008)
    assert found is None or found[1] <= 0x1008 < found[1] + found[2]
    read.close()


def test_a_descriptor_that_cannot_be_read_has_no_functions() -> None:
    reader, writer = os.pipe()
    read = PerfMap(reader)
    os.close(writer)

    assert not read.refresh()
    assert read.find(0) is None
    read.close()


def test_a_map_that_is_closed_or_forgotten_keeps_no_descriptor(file: _File) -> None:
    file.write(b"1000 10 a\n")
    file.map.refresh()
    file.map.close()
    file.map.close()
    assert (file.name(0x1000), file.map.refresh()) == (None, False)

    before = os.listdir("/proc/self/fd")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        PerfMap(os.open(file.path, os.O_RDONLY))
    assert os.listdir("/proc/self/fd") == before


# --- whose map it is ---


@pytest.fixture
def own_map() -> Iterator[Path]:
    path = Path(f"/tmp/perf-{os.getpid()}.map")
    if path.is_symlink() or path.exists():
        pytest.skip("this process has a map")
    yield path
    path.unlink()


def test_a_process_own_map_is_opened(own_map: Path) -> None:
    own_map.write_bytes(b"1000 10 mine\n")
    fd = open_perf_map(os.getpid())
    assert fd is not None
    try:
        assert os.pread(fd, 99, 0) == b"1000 10 mine\n"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_a_link_or_a_fifo_is_not_opened(own_map: Path, tmp_path: Path) -> None:
    """GIVEN no regular file under the map's name WHEN opened THEN neither followed nor awaited."""
    target = tmp_path / "other.map"
    target.write_bytes(b"1000 10 other\n")
    own_map.symlink_to(target)
    assert open_perf_map(os.getpid()) is None

    own_map.unlink()
    os.mkfifo(own_map)
    assert open_perf_map(os.getpid()) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_map_of_another_user_is_not_believed(own_map: Path) -> None:
    own_map.write_bytes(b"1000 10 forged\n")
    os.chown(own_map, 65534, 65534)

    assert open_perf_map(os.getpid()) is None


def test_a_process_that_has_ended_or_wrote_none() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert open_perf_map(process.pid) is None
    assert open_perf_map(process.pid) is None


# --- what names say ---


@pytest.mark.parametrize(
    ("name", "function", "file", "line"),
    [
        ("py::watch:/srv/app.py", "watch", "/srv/app.py", None),
        (
            "py::K.main.<locals>.<lambda>:/srv/a:b.py",
            "K.main.<locals>.<lambda>",
            "/srv/a:b.py",
            None,
        ),
        ("py::_load:<frozen importlib._bootstrap>", "_load", "<frozen importlib._bootstrap>", None),
        ("JS:~watch /srv/app.js:12:5", "watch", "/srv/app.js", 12),
        ("JS:*get size /srv/my app.js:2:18", "get size", "/srv/my app.js", 2),
        ("JS:^ /srv/app.js:4:81", "(anonymous)", "/srv/app.js", 4),
        ("JS:+A file:///srv/app.mjs:2:1", "A", "/srv/app.mjs", 2),
        ("JS:^append node:internal/linkedlist:30:16", "append", "node:internal/linkedlist", 30),
        ("LazyCompile:~fn app.js:1:2", "fn", "app.js", 1),
        ("JS:~f evalmachine.<anonymous>:1:2", "f", "evalmachine.<anonymous>", 1),
        ("Builtin:ArrayMap", "Builtin:ArrayMap", None, None),
        ("JS:~watch", "JS:~watch", None, None),
        ("py::watch", "py::watch", None, None),
        ("LLC:java.util.HashMap::get", "LLC:java.util.HashMap::get", None, None),
        ("", "", None, None),
    ],
)
def test_names_of_python_and_v8_tell_a_file(
    name: str, function: str, file: str | None, line: int | None
) -> None:
    assert described(name) == (function, file, line)


@given(st.text(max_size=99).map(lambda text: f"JS:*{text}:1:2") | st.text(max_size=99))
def test_any_name_is_described(name: str) -> None:
    function, file, line = described(name)

    assert function or not name
    assert line is None or file is None or file in name
