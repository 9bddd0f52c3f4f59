"""The wheel, installed where nothing else is: what a user of a package gets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
# Kept with the test tools, so that only the first run needs the network.
REQUIREMENTS = Path(sys.prefix) / "wheels"


def output_of(*command: str | Path, cwd: Path = CHECKOUT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def build(folder: Path) -> tuple[Path, Path]:
    output_of(sys.executable, "-m", "hatchling", "build", "-d", folder)
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return wheel, sdist


def install(venv: Path, wheel: Path) -> None:
    output_of("/usr/bin/python3", "-m", "venv", "--system-site-packages", venv)
    pip = [venv / "bin/python", "-m", "pip", "--disable-pip-version-check"]
    offline = [*pip, "install", "-q", "--no-index", "--find-links", REQUIREMENTS, wheel]
    if subprocess.run(offline, capture_output=True).returncode != 0:
        output_of(*pip, "download", "-q", "-d", REQUIREMENTS, wheel)
        output_of(*offline)


def test_wheel_and_sdist_carry_the_bpf_sources_and_the_wheel_works(tmp_path: Path) -> None:
    sources = {
        path.relative_to(CHECKOUT).as_posix()
        for path in (CHECKOUT / "bpf").rglob("*")
        if path.suffix in (".c", ".h")
    }
    assert {Path(each).suffix for each in sources} == {".c", ".h"}

    wheel, sdist = build(tmp_path / "dist")

    with zipfile.ZipFile(wheel) as archive:
        assert {f"tracer/{each}" for each in sources} <= set(archive.namelist())
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert sources | {"inotrace", "LICENSE"} <= names

    venv = tmp_path / "venv"
    install(venv, wheel)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    inotrace = venv / "bin/inotrace"
    version = wheel.name.split("-")[1]
    assert version in output_of(inotrace, "--version", cwd=elsewhere)
    if os.geteuid() == 0:
        assert re.search(r"\b23\b", output_of(inotrace, "demo", cwd=elsewhere))
