"""The disk of a guest, and its kernel; made once and kept outside the checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
import time
import zipfile
from datetime import date
from pathlib import Path
from typing import NamedTuple

import host
from releases import Release

_HERE = Path(__file__).parent
_MIB = 1 << 20
# the first partition begins here
_START = _MIB
_SIGNATURE = 0x1A2B3C4D
ROOT = f"PARTUUID={_SIGNATURE:08x}-01"
_PACKAGES = ("python3-bpfcc", "gcc", "libc6-dev", "iproute2", "kmod", "mount", "util-linux")
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
# Tools of the checkout, of no use in a guest.
_NOT_IN_GUESTS = ("hatchling", "mypy", "ruff", "watchdog", "watchfiles")
# pip judges by its own Python what only older ones need.
_ONLY_FOR_OLDER_PYTHON = ("exceptiongroup", "tomli", "typing_extensions")


class Image(NamedTuple):
    disk: Path
    kernel: Path


def key(release: Release, requirements: list[str], recipe: list[bytes], today: date) -> str:
    """Another for each content that an image would have."""
    content = hashlib.sha256()
    for part in (release.suite, release.edition(today), *requirements):
        content.update(part.encode() + b"\0")
    for file in recipe:
        content.update(hashlib.sha256(file).digest())
    return content.hexdigest()[:16]


def guest_requirements(pyproject: str) -> list[str]:
    """What inotrace and its tests need from pip, in a guest."""
    listed = host.requirements(pyproject, "dependencies") + host.requirements(pyproject, "test")
    wanted = [each for each in listed if not each.startswith(_NOT_IN_GUESTS)]
    return [*wanted, *_ONLY_FOR_OLDER_PYTHON]


def prepared(release: Release, cache: Path, log: Path) -> Image:
    """The image of a release, made if it is not there. Raises Unreachable or Failed."""
    requirements = guest_requirements((host.CHECKOUT / "pyproject.toml").read_text())
    recipe = [(_HERE / name).read_bytes() for name in ("image.py", "guest-init", "kernel-hook")]
    name = f"{release.suite}-{key(release, requirements, recipe, date.today())}"
    image = Image(cache / f"{name}.img", cache / f"{name}.vmlinuz")
    if not image.disk.exists():
        with tempfile.TemporaryDirectory(dir=cache, prefix=host.UNFINISHED) as folder:
            made = _Build(release, Path(folder), log).image(requirements)
            for old in cache.glob(f"{release.suite}-*"):
                old.unlink()
            made.kernel.replace(image.kernel)
            made.disk.replace(image.disk)
    return image


class _Build:
    """The steps to one image, each told with the time it took."""

    def __init__(self, release: Release, folder: Path, log: Path) -> None:
        self._release = release
        self._folder = folder
        self._root = folder / "root"
        self._kernel = folder / "vmlinuz"
        self._log = log
        self._began = time.monotonic()

    def image(self, requirements: list[str]) -> Image:
        self._install_debian()
        self._tell("packages and kernel")
        self._install_python_packages(requirements)
        self._tell("Python packages")
        disk = self._folder / "disk"
        make_disk(disk, self._root, free=256 * _MIB)
        self._tell("disk image")
        return Image(disk, self._kernel)

    def _tell(self, step: str) -> None:
        now = time.monotonic()
        print(f"{self._release.suite}: {step}: {now - self._began:.0f} s", flush=True)
        self._began = now

    def _install_debian(self) -> None:
        mirror = host.mirror()
        host.fetching(
            [
                *("mmdebstrap", "--variant=minbase", "--mode=root"),
                f"--include={','.join(_PACKAGES)}",
                # what is not released has no end of validity that a mirror would keep to
                '--aptopt=Acquire::Check-Valid-Until "false"',
                *(f"--dpkgopt=path-exclude={left_out}" for left_out in _LEFT_OUT),
                f"--customize-hook={_HERE / 'kernel-hook'}",
                *(self._release.suite, str(self._root)),
                *([mirror] if mirror else []),
            ],
            self._log,
            KERNEL=str(self._kernel),
        )
        shutil.copy(_HERE / "guest-init", self._root / "guest-init")

    def _install_python_packages(self, requirements: list[str]) -> None:
        version = os.readlink(self._root / "usr/bin/python3").replace("python", "")
        wheels = self._folder / "wheels"
        target = f"usr/local/lib/python{version}/dist-packages"
        host.fetching(
            [
                *(str(host.CHECKOUT / ".venv/bin/python"), "-I", "-m", "pip", "--no-input"),
                *("--disable-pip-version-check", "download", "--quiet", "--only-binary=:all:"),
                *("--dest", str(wheels), "--python-version", version, *requirements),
            ],
            self._log,
        )
        # "pip install" does not heed what Python a wheel requires, if not its own
        for wheel in wheels.iterdir():
            with zipfile.ZipFile(wheel) as content:
                content.extractall(self._root / target)
        # a guest would take a minute for it at each start
        in_guest = ["chroot", str(self._root)]
        subprocess.run([*in_guest, "python3", "-m", "compileall", "-q", f"/{target}"], check=True)


def make_disk(disk: Path, root: Path, *, free: int) -> None:
    """A disk with one partition, which has what `root` has and about `free` bytes left."""
    used = sum(path.lstat().st_size + 4096 for path in root.rglob("*"))
    size = (used * 5 // 4 + free) // _MIB * _MIB
    with disk.open("wb") as file:
        file.truncate(_START + size)
    subprocess.run(
        [
            *("mkfs.ext4", "-q", "-F", "-E", f"offset={_START}", "-O", "^has_journal"),
            *("-m", "0", "-d", root, disk, f"{size >> 10}k"),
        ],
        check=True,
    )
    with disk.open("r+b") as file:
        file.seek(440)
        file.write(partition_table(size))


def partition_table(size: int) -> bytes:
    """The end of the first sector, from byte 440 on: one partition of `size` bytes."""
    linux = 0x83
    entry = struct.pack("<B3sB3sII", 0, b"\0\2\0", linux, b"\xff" * 3, _START >> 9, size >> 9)
    return struct.pack("<I2x", _SIGNATURE) + entry + bytes(48) + b"\x55\xaa"
