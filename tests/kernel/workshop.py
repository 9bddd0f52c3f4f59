"""Builds the programs of programs/ once a session, with the compilers that are there."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Callable, NoReturn

import pytest

SOURCES = Path(__file__).with_name("programs")

# What to install where a program of this name is missing.
_DEBIAN_PACKAGES = {
    "g++": "g++",
    "gcc": "gcc libc6-dev",
    "gdb": "gdb",
    "go": "golang-go",
    "inotifywait": "inotify-tools",
    "musl-gcc": "musl-tools",
    "node": "nodejs",
    "rustc": "rustc",
    "strip": "binutils",
    "tail": "coreutils",
    "unshare": "util-linux",
}
_KNOWS_PERF = "import sysconfig; 1 / sysconfig.get_config_var('PY_HAVE_PERF_TRAMPOLINE')"
_GO_PATH = Path("/usr/share/gocode")
_FSNOTIFY = _GO_PATH / "src/github.com/fsnotify/fsnotify"


def unavailable(reason: str) -> NoReturn:
    """Skip the test; a failure where INOTRACE_REQUIRE_PROGRAMS=1 says that all must be there."""
    if os.environ.get("INOTRACE_REQUIRE_PROGRAMS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def tool(name: str) -> str:
    """Where a program is."""
    found = shutil.which(name)
    if found is None:
        unavailable(f"{name} is missing (Debian: {_DEBIAN_PACKAGES[name]})")
    return found


class Workshop:
    """What it makes lies in one folder, and is made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def c(self, source: str, *flags: str, name: str = "", compiler: str = "gcc") -> Path:
        """A program or library of programs/`source`, by default named like that."""
        program = self.folder / (name or Path(source).stem)
        command = [tool(compiler), "-O2", "-pthread", SOURCES / source, "-o", program, *flags]
        return self._made(program, lambda: _run(*command))

    def stripped(self, program: Path) -> Path:
        """A copy without its own symbols."""
        copy = program.with_name(f"{program.name}-stripped")
        return self._made(copy, lambda: _run(tool("strip"), "-o", copy, program))

    def c_for_32_bit(self, source: str) -> Path:
        """A program of programs/`source` for the 32-bit architecture next to this one."""
        probe = [tool("gcc"), "-m32", "-x", "c", "-o", os.devnull, "-"]
        done = subprocess.run(probe, input=b"int main(void) { return 0; }", capture_output=True)
        if done.returncode:
            unavailable("gcc -m32 does not work (Debian: gcc-multilib)")
        return self.c(source, "-m32", name=f"{Path(source).stem}-32")

    def rust(self, source: str, mangling: str) -> Path:
        """A program of programs/`source`; `mangling` is "legacy" or "v0"."""
        program = self.folder / f"{Path(source).stem}-{mangling}"
        options = ["--edition=2021", "-O", "-C", f"symbol-mangling-version={mangling}"]
        command = [tool("rustc"), "-Z", "unstable-options", *options, "-o", program]
        # newer releases have one of the two manglings only among what is not yet stable
        unlocked = {"RUSTC_BOOTSTRAP": "1"}
        return self._made(program, lambda: _run(*command, SOURCES / source, **unlocked))

    def go(self, source: str, *flags: str, name: str = "", cgo: bool = False) -> Path:
        """A program of programs/`source` with Debian's packages."""
        go = tool("go")
        if not _FSNOTIFY.is_dir():
            unavailable("fsnotify is missing (Debian: golang-github-fsnotify-fsnotify-dev)")
        if cgo:
            tool("gcc")
        program = self.folder / (name or Path(source).stem)
        settings = {
            "GO111MODULE": "off",
            "GOPATH": str(_GO_PATH),
            "GOCACHE": str(self.folder / "go-cache"),
            "CGO_ENABLED": str(int(cgo)),
        }
        command = [go, "build", *flags, "-o", program, SOURCES / source]
        return self._made(program, lambda: _run(*command, **settings))

    def folders(self, number: int) -> Path:
        """A folder with so many folders in it."""
        parent = self.folder / f"folders-{number}"
        for at in range(number):
            (parent / str(at)).mkdir(parents=True, exist_ok=True)
        return parent

    def files(self, number: int) -> list[Path]:
        """So many empty files."""
        made = [self.folder / f"file-{at}" for at in range(number)]
        for each in made:
            each.touch()
        return made

    def _made(self, product: Path, make: Callable[[], None]) -> Path:
        if not product.exists():
            make()
        return product


def _run(*command: object, **settings: str) -> None:
    done = subprocess.run(
        list(map(str, command)),
        env={**os.environ, **settings},
        cwd="/",
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}:\n{done.stderr}", pytrace=False)


def python_with(module: str) -> str:
    """The interpreter that runs the tests, if it has a module from PyPI."""
    probe = [sys.executable, "-c", f"import {module}"]
    if subprocess.run(probe, capture_output=True, cwd="/").returncode:
        unavailable(f"{module} is missing (tests/run installs it from PyPI)")
    return sys.executable


def python_with_trampolines() -> str:
    """A CPython that tells its functions to perf: 3.12 or later, where it was built so."""
    for python in _pythons():
        probe = [python, "-c", _KNOWS_PERF]
        if subprocess.run(probe, capture_output=True, cwd="/").returncode == 0:
            return python
    unavailable("no CPython 3.12 or later that knows -X perf")


def _pythons() -> list[str]:
    names = [f"python3.{minor}" for minor in range(12, 20)]
    found = [shutil.which(name) for name in names]
    root = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    of_pyenv = glob.glob(f"{root}/versions/3.1[2-9]*/bin/python3.1[2-9]")
    return [python for python in found if python is not None] + sorted(of_pyenv)
