"""One boot of an image: sources in, results out."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import host
import image

_RESULTS_BYTES = 64 << 20
_EXIT = re.compile(r"^inotrace-guest: exit code (\d+)\r?$", re.MULTILINE)
_QEMU = (
    # it ends with us, however we do
    *("setpriv", "--pdeathsig=KILL", "qemu-system-x86_64"),
    # QEMU 7.2 with a thread for each processor corrupts the guest while probes are attached,
    # and its CMPXCHG16B spoils flags
    *("-accel", "tcg,thread=single", "-cpu", "max,cx16=off"),
    *("-machine", "q35", "-smp", "2", "-m", "1536", "-nodefaults", "-no-user-config"),
    *("-display", "none", "-no-reboot"),
)
_KERNEL_ARGUMENTS = (
    f"console=ttyS0 quiet panic=-1 root={image.ROOT} rootfstype=ext4 rw rootwait "
    "mitigations=off nokaslr nowatchdog tsc=reliable no_timer_check "
    # what goes on after an oops proves nothing; a warning is read from dmesg
    "oops=panic"
)


def exit_code(said: str) -> int | None:
    """How the tests ended, as the guest says last; None if it never came that far."""
    found = _EXIT.findall(said)
    return int(found[-1]) if found else None


def run(made: image.Image, arguments: list[str], results: Path, timeout_s: float) -> int | None:
    """
    Boot, run pytest with `arguments`, bring back what it leaves; its exit code, None if none came.

    While it lasts, `results`/output grows.
    """
    with tempfile.TemporaryDirectory(dir=made.disk.parent, prefix=host.UNFINISHED) as name:
        folder = Path(name)
        pack(folder / "sources", {"pytest-arguments": shlex.join(arguments).encode()})
        code = boot(made, folder, results, timeout_s)
        if code is not None:
            subprocess.run(["tar", "-xf", folder / "results", "-C", results], check=True)
    return code


def boot(
    made: image.Image,
    folder: Path,
    results: Path,
    timeout_s: float,
    init: str = "/guest-init",
    devices: tuple[str, ...] = (),
) -> int | None:
    """One boot with `folder`/sources as a disk; what the guest says goes into `results`."""
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    with (folder / "results").open("wb") as file:
        file.truncate(_RESULTS_BYTES)
    command = [
        *_QEMU,
        *devices,
        *("-kernel", str(made.kernel), "-append", f"{_KERNEL_ARGUMENTS} init={init}"),
        *("-serial", f"file:{results / 'console'}", "-serial", f"file:{results / 'output'}"),
        *_disk("root", made.disk, "snapshot=on"),
        *_disk("sources", folder / "sources", "readonly=on"),
        *_disk("results", folder / "results", "cache=unsafe"),
    ]
    with (results / "qemu").open("wb") as log:
        try:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=timeout_s,
                # where it keeps what a guest writes on its root
                env={**os.environ, "TMPDIR": str(folder)},
            )
        except subprocess.TimeoutExpired:
            log.write(f"ended by a time-out after {timeout_s:.0f} s\n".encode())
    output = results / "output"
    return exit_code(output.read_text(errors="replace")) if output.exists() else None


def _disk(name: str, file: Path, option: str) -> list[str]:
    drive = f"file={file},format=raw,if=none,id={name},{option}"
    return ["-drive", drive, "-device", f"nvme,serial={name},drive={name}"]


def pack(archive: Path, others: dict[str, bytes], below: str = "") -> None:
    """The checkout as it is, what is not committed included, and `others` beside it."""
    listed = subprocess.run(
        [
            *("git", "-c", f"safe.directory={host.CHECKOUT}", "-C", host.CHECKOUT),
            *("ls-files", "-z", "--cached", "--others", "--exclude-standard"),
        ],
        check=True,
        capture_output=True,
    ).stdout
    with tarfile.open(archive, "w") as tar:
        for name in map(os.fsdecode, listed.split(b"\0")):
            if name and (host.CHECKOUT / name).is_file():
                tar.add(host.CHECKOUT / name, below + name)
        for name, content in others.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
