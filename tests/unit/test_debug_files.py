"""Debug files are found by build-id, and only believed if they carry it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tracer.stacks.debug_files import debug_file, open_debug_file
from tracer.stacks.elf import ElfFile, FileContent
from tracer.stacks.symbol_table import SymbolTable

pytestmark = pytest.mark.skipif(not shutil.which("gcc"), reason="no compiler")

_ID = "cc" * 19 + "01"
_OTHER_ID = "cc" * 19 + "02"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "debug/.build-id/cc").mkdir(parents=True)
    return tmp_path / "debug"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A library whose function only its debug file names, which is not installed."""
    source, path = tmp_path / "watch.c", tmp_path / "watch.so"
    source.write_text("__attribute__((noinline, used)) static int place(int a) { return a + 1; }\n")
    flags = ["-shared", "-nostdlib", "-O1", f"-Wl,--build-id=0x{_ID}"]
    subprocess.run(["gcc", *flags, "-o", path, source], check=True)
    subprocess.run(["objcopy", "--only-keep-debug", path, tmp_path / "watch.debug"], check=True)
    subprocess.run(["strip", path], check=True)
    return path


def _place(root: Path, build_id: str) -> Path:
    return root / f".build-id/cc/{build_id[2:]}.debug"


def test_a_debug_file_names_what_the_program_does_not(library: Path, root: Path) -> None:
    debug = shutil.copy(library.with_suffix(".debug"), _place(root, _ID))
    listing = subprocess.run(["nm", debug], check=True, capture_output=True, text=True).stdout
    address = next(int(line[:16], 16) for line in listing.splitlines() if line.endswith(" place"))

    assert debug_file(_ID, [root / "none", root]) == debug
    found = open_debug_file(_ID, [root])
    assert found is not None and not os.get_inheritable(found)
    with library.open("rb") as file:
        files = [ElfFile(FileContent(file.fileno())), ElfFile(FileContent(found))]
        assert files[0].build_id == _ID
        assert SymbolTable(files[0]).find(address) is None
        symbol = SymbolTable(*files).find(address)
    os.close(found)
    assert symbol is not None and symbol.name == b"place"


def test_a_file_of_another_build_is_none(library: Path, root: Path) -> None:
    shutil.copy(library.with_suffix(".debug"), _place(root, _OTHER_ID))

    assert debug_file(_OTHER_ID, [root]) is None
    assert open_debug_file(_OTHER_ID, [root]) is None
    assert debug_file(_ID, [root]) is None


@pytest.mark.parametrize(
    "build_id",
    ["", "cc", "cc1", "../../../etc/passwd", "cc/../" + "cc" * 8, "CC" * 20, "cc" * 65, "cc01\n"],
)
def test_what_is_no_build_id_leads_to_no_file(root: Path, build_id: str) -> None:
    (root / ".build-id/cc/1.debug").touch()

    assert debug_file(build_id, [root]) is None


def test_what_is_no_program_is_none(root: Path) -> None:
    """GIVEN a directory, a fifo, a text or nothing under the name THEN it is neither nor blocks."""
    place = _place(root, _ID)
    for make in (
        place.mkdir,
        lambda: os.mkfifo(place),
        lambda: place.write_text("text"),
        place.touch,
    ):
        make()
        assert debug_file(_ID, [root]) is None
        place.rmdir() if place.is_dir() else place.unlink()
    place.symlink_to("nothing")
    assert debug_file(_ID, [root]) is None


def test_a_failed_search_keeps_no_descriptor(root: Path) -> None:
    _place(root, _ID).write_text("text")
    before = os.listdir("/proc/self/fd")
    for _ in range(17):
        debug_file(_ID, [root])

    assert os.listdir("/proc/self/fd") == before
