"""Files that programs run: read once for all, open no longer than they must be, and not many."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from frame_tables import TEXT, entries, frame_index, program

from tracer.stacks import modules as modules_module
from tracer.stacks.mapped_file import Location
from tracer.stacks.mappings import Mapping, read_mappings
from tracer.stacks.module import Module
from tracer.stacks.modules import Mapped, Modules
from tracer.stacks.registers import OWN
from tracer.stacks.row import OUTERMOST
from tracer.stacks.unwinder import TableRules

# a function that is not near the entry of its program
_PLACE = TEXT + 0x1000


def _descriptors() -> int:
    # the one that lists them is among them, each time
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def modules() -> Iterator[Modules]:
    made = Modules(lambda name: name.decode(errors="replace"))
    yield made
    made.close_files()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return _program(tmp_path / "agent")


def _program(path: Path, size: int = 16, machine: int = OWN.elf_machine) -> Path:
    frames, index = entries((_PLACE, size, b"\x0e\x10"))
    path.write_bytes(program(frames, frame_index(index), machine=machine))
    return path


def _location(path: Path, pid: int = 0) -> Location:
    """As of a process that has mapped the file at an address where this one has nothing."""
    status = path.stat()
    mapping = Mapping(0x1000, 0x2000, 0, status.st_dev, status.st_ino, os.fsencode(path))
    return Location(pid or os.getpid(), mapping)


def _mapped(modules: Modules, path: Path) -> Mapped:
    found = modules.mapped(_location(path))
    assert found is not None
    return found


def _module(modules: Modules, path: Path) -> Module:
    return _mapped(modules, path).module


# --- one for all ---


def test_a_file_is_one_module_for_all_who_run_it(
    modules: Modules, file: Path, tmp_path: Path
) -> None:
    """GIVEN a file with two links THEN whoever runs either has the same module."""
    link = tmp_path / "link"
    os.link(file, link)
    first = _module(modules, file)

    # the link was made before, or it would count as a change
    assert _module(modules, file) is first
    assert _module(modules, link) is first


def test_a_file_that_changed_is_another_module(modules: Modules, file: Path) -> None:
    """GIVEN a file that is written anew while it is in use THEN it is not taken for the old one."""
    old = _module(modules, file)
    _program(file, size=32)
    os.utime(file, ns=(0, 0))
    new = _module(modules, file)

    assert new is not old
    assert isinstance(new.leaving(_PLACE + 23), TableRules)


def test_what_is_out_of_reach_is_no_module_and_no_leak(modules: Modules, file: Path) -> None:
    location = _location(file)
    file.rename(file.with_name("old"))
    _program(file)
    before = _descriptors()

    assert modules.mapped(location) is None
    assert modules.mapped(_location(file, pid=2**22 + 1)) is None
    assert _descriptors() == before


def test_where_a_file_was_seen_last_it_is_read(modules: Modules, file: Path) -> None:
    """GIVEN a file of a process that has ended WHEN another has mapped it THEN it is read there."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        found = modules.mapped(_location(file, other.pid))
        assert found is not None
        other.communicate(b"\n")
    modules.close_files()
    assert found.module.leaving(_PLACE) is None
    again = _module(modules, file)

    assert again is found.module
    assert isinstance(again.leaving(_PLACE), TableRules)


def test_only_so_many_are_remembered(
    modules: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN room for three WHEN five are in use THEN those not asked for longest are forgotten."""
    monkeypatch.setattr(modules_module, "_MODULES_MAX", 3)
    files = [_program(tmp_path / str(number)) for number in range(5)]
    first = [_module(modules, each) for each in files[:3]]
    assert _module(modules, files[0]) is first[0]
    for each in files[3:]:
        _module(modules, each)

    assert _module(modules, files[0]) is first[0]
    assert _module(modules, files[1]) is not first[1]
    # those who still use it can
    assert isinstance(first[1].leaving(_PLACE), TableRules)


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02\x01\x01" * 20])
def test_what_is_no_program_has_nothing(modules: Modules, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "agent"
    path.write_bytes(content)
    module = _module(modules, path)

    assert module.leaving(_PLACE) is None
    assert (module.places(_PLACE), module.build_id, module.address_of(0)) == ((), None, None)


def test_a_program_of_another_processor_has_nothing(modules: Modules, tmp_path: Path) -> None:
    module = _module(modules, _program(tmp_path / "agent", machine=8))

    assert module.leaving(_PLACE) is None
    assert module.address_of(0) is None


def test_the_start_of_a_program_is_the_outermost_frame(modules: Modules, tmp_path: Path) -> None:
    """GIVEN a stripped program without a table for its entry THEN its stack ends there."""
    module = _module(modules, _program(tmp_path / "agent"))

    assert module.leaving(TEXT + 8) == OUTERMOST
    assert module.leaving(TEXT + 0x100) is None


# --- open files ---


def test_what_nobody_holds_is_open_until_files_are_closed(modules: Modules, file: Path) -> None:
    before = _descriptors()
    module = _module(modules, file)
    assert _descriptors() == before + 1
    modules.close_files()
    assert _descriptors() == before

    assert isinstance(module.leaving(_PLACE), TableRules)
    assert _descriptors() == before + 1


def test_what_is_opened_again_is_closed_again(modules: Modules, file: Path) -> None:
    """GIVEN a file that is read between one round and the next THEN each round closes it."""
    before = _descriptors()
    module = _module(modules, file)
    for _ in range(5):
        modules.close_files()
        assert _descriptors() == before
        module.leaving(_PLACE)
        assert _descriptors() == before + 1


def test_what_is_held_stays_open_until_all_release_it(modules: Modules, file: Path) -> None:
    """GIVEN a file that two hold WHEN its process has ended THEN it is read until both let go."""
    before = _descriptors()
    found = _mapped(modules, file)
    modules.hold([found.file])
    modules.hold([found.file])
    file.unlink()
    modules.close_files()
    modules.release([found.file])
    modules.close_files()

    assert _descriptors() == before + 1
    assert isinstance(found.module.leaving(_PLACE), TableRules)
    modules.release([found.file])
    modules.close_files()
    assert _descriptors() == before
    assert found.module.leaving(_PLACE) is None


def test_what_is_held_before_it_is_closed_is_opened(modules: Modules, file: Path) -> None:
    found = _mapped(modules, file)
    modules.close_files()
    before = _descriptors()
    modules.hold([found.file])
    modules.close_files()

    assert _descriptors() == before + 1
    modules.release([found.file])


def test_only_so_many_are_held_open(
    modules: Modules, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GIVEN room for three WHEN seven are held THEN the others are opened when they are read."""
    monkeypatch.setattr(modules_module, "_OPEN_MAX", 3)
    before = _descriptors()
    found = [_mapped(modules, _program(tmp_path / str(number))) for number in range(7)]
    modules.hold(each.file for each in found)
    modules.close_files()
    assert _descriptors() == before + 3

    assert all(isinstance(each.module.leaving(_PLACE), TableRules) for each in found)
    modules.close_files()
    assert _descriptors() == before + 3
    modules.release(each.file for each in found)
    modules.close_files()
    assert _descriptors() == before


# --- symbols ---


def test_symbols_are_kept_while_files_are_closed(modules: Modules) -> None:
    """GIVEN a program whose symbols were read WHEN its file is gone THEN it has names."""
    if OWN.elf_machine != 62:
        pytest.skip("only what the tests' interpreter is, which is linked for this processor")
    interpreter = Path(os.path.realpath(sys.executable))
    found = _mapped(modules, interpreter)
    module = found.module
    entry = next(address for address in range(1 << 12, 1 << 26, 1 << 12) if module.places(address))
    places = module.places(entry)
    modules.close_files()
    found.file.location = _location(interpreter, pid=2**22 + 1)

    assert module.places(entry) == places


def test_what_was_asked_for_out_of_reach_is_not_remembered(modules: Modules, file: Path) -> None:
    """GIVEN a module without its file THEN it knows nothing; and it does once it is back."""
    found = _mapped(modules, file)
    modules.close_files()
    where, found.file.location = found.file.location, _location(file, pid=2**22 + 1)
    assert found.module.leaving(_PLACE + 3) is None
    assert found.module.places(_PLACE + 3) == ()
    found.file.location = where

    assert isinstance(found.module.leaving(_PLACE + 3), TableRules)


# --- what is only in memory ---


def test_what_is_in_memory_is_one_module_for_all(modules: Modules, file: Path) -> None:
    content = file.read_bytes()
    first = modules.in_memory(content)

    assert first is not None
    assert modules.in_memory(bytes(content)) is first
    assert isinstance(first.leaving(_PLACE), TableRules)
    assert modules.in_memory(b"") is None


def test_programs_cannot_make_up_any_number_of_them(
    modules: Modules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules_module, "_IN_MEMORY_MAX", 3)
    found = [modules.in_memory(b"%d" % number) for number in range(100)]

    assert all(each is not None and each.leaving(_PLACE) is None for each in found)
    assert modules.in_memory(b"99") is found[99]
    assert modules.in_memory(b"0") is not found[0]


def test_a_file_is_known_without_its_process_while_it_is_open(modules: Modules, file: Path) -> None:
    """GIVEN a process that ended WHEN another has the same file open THEN that serves for both."""
    found = _mapped(modules, file)
    modules.hold([found.file])
    mapping = _location(file).mapping
    assert modules.known(mapping) is found
    assert modules.known(mapping._replace(ino=mapping.ino + 1)) is None

    modules.release([found.file])
    modules.close_files()
    assert modules.known(mapping) is None


def test_our_own_c_library_is_held_until_all_is_closed(modules: Modules) -> None:
    before = _descriptors()
    modules.hold_own()
    modules.close_files()
    (library,) = (
        mapping
        for mapping in read_mappings(os.getpid()).all
        if os.path.basename(mapping.name).startswith((b"libc.so", b"libc-", b"libc.musl"))
    )
    assert modules.known(library) is not None

    modules.close()
    assert _descriptors() == before
