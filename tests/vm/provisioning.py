"""
Runs the provisioning of the Vagrantfile in a bare Debian with systemd, then the demo.

Exit codes: 0 the demo found its leak, 1 something failed, 77 there is no network.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import carried
import guest
import host
import image

EXIT_FAILED, EXIT_SKIPPED = 1, 77
_HERE = Path(__file__).parent
_SUITE = "bookworm"
_PACKAGES = ("systemd-sysv", "udev", "sudo", "iproute2", "linux-image-cloud-amd64")
# for all that provisioning installs
_FREE_BYTES = 3 << 30
_NETWORK = "[Match]\nType=ether\n[Network]\nDHCP=ipv4\n"
# of QEMU's own network
_NAME_SERVER = "nameserver 10.0.2.3\n"
_DEVICES = (
    *("-netdev", "user,id=net,ipv6=off"),
    *("-device", "virtio-net-pci,netdev=net,romfile="),
)
# What in-vagrant says before the demo.
_PROVISIONED = re.compile(r"^in-vagrant: provisioned\b", re.MULTILINE)
_PROOF = re.compile(r"\bLEAK +23 watches\b.*\bwatch_pod_secret\b", re.DOTALL)


def provisioning(vagrantfile: str) -> str:
    """The shell script inside. Raises Failed if there is not just one."""
    found = re.findall(r"inline: <<~(\w+)\n(.*?)^ *\1$", vagrantfile, re.MULTILINE | re.DOTALL)
    if len(found) != 1:
        raise host.Failed(f"the Vagrantfile has {len(found)} scripts, not one")
    return str(found[0][1])


def prepared(cache: Path, log: Path) -> image.Image:
    """The image of a bare Debian, made if it is not there. Raises Unreachable or Failed."""
    recipe = [(_HERE / name).read_bytes() for name in ("image.py", "guest.service", __file__)]
    name = f"vagrant-{hashlib.sha256(b''.join(recipe)).hexdigest()[:16]}"
    made = image.Image(cache / f"{name}.img", cache / f"{name}.vmlinuz")
    if not made.disk.exists():
        with tempfile.TemporaryDirectory(dir=cache, prefix=host.UNFINISHED) as folder:
            root, disk = Path(folder, "root"), Path(folder, "disk")
            _install_debian(root, log)
            image.make_disk(disk, root, free=_FREE_BYTES)
            # what is there serves until there is another
            for old in cache.glob("vagrant-*"):
                old.unlink()
            shutil.copy(next(root.glob("boot/vmlinuz-*")), made.kernel)
            disk.replace(made.disk)
    return made


def _install_debian(root: Path, log: Path) -> None:
    mirror = host.mirror()
    host.fetching(
        [
            *("mmdebstrap", "--variant=minbase", "--mode=root"),
            f"--include={','.join(_PACKAGES)}",
            *(_SUITE, str(root), *([mirror] if mirror else [])),
        ],
        log,
    )
    shutil.copy(_HERE / "guest.service", root / "etc/systemd/system")
    (root / "etc/systemd/network/guest.network").write_text(_NETWORK)
    (root / "etc/resolv.conf").write_text(_NAME_SERVER)
    (root / "etc/hostname").write_text(f"{_SUITE}\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {_SUITE}\n")
    (root / "etc/sudoers.d/vagrant").write_text("vagrant ALL=(ALL) NOPASSWD: ALL\n")
    for command in (
        ("useradd", "--create-home", "--shell=/bin/bash", "vagrant"),
        ("systemctl", "enable", "systemd-networkd", "guest"),
    ):
        subprocess.run(["chroot", str(root), *command], check=True, capture_output=True)


def _tried(made: image.Image, script: str, results: Path, timeout_s: float) -> int:
    others = {f"guest/host/{path}": content for path, content in carried.files().items()}
    others["guest/provision"] = script.encode()
    others["guest/environment"] = carried.proxies(os.environ).encode()
    with tempfile.TemporaryDirectory(dir=made.disk.parent, prefix=host.UNFINISHED) as name:
        guest.pack(Path(name, "sources"), others, below="vagrant/")
        code = guest.boot(made, Path(name), results, timeout_s, "/sbin/init", _DEVICES)
    output = results / "output"
    return judged(code, output.read_text(errors="replace") if output.exists() else "", output)


def judged(code: int | None, said: str, output: Path) -> int:
    if code == 0 and _PROOF.search(said.replace("\r", "")):
        print("vagrant: passed")
        return 0
    missed = host.missed(said) if code and not _PROVISIONED.search(said) else ""
    if missed:
        print(f"vagrant: SKIPPED, NOT TESTED: {missed}")
        return EXIT_SKIPPED
    reason = f"ended with {code}" if code is not None else "gave no result"
    print(f"vagrant: FAILED: the guest {reason}, see {output}")
    return EXIT_FAILED


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="tests/vm/vagrant",
        description="Runs the provisioning of the Vagrantfile in a bare Debian, then the demo.",
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=host.cache() / "results" / "vagrant",
        help="folder for the output and the console of the guest (%(default)s)",
    )
    parser.add_argument("--timeout", type=float, default=40, metavar="MINUTES", help="%(default)s")
    options = parser.parse_args(arguments)
    cache = host.cache()
    with host.exclusively(cache):
        return _outcome(cache, options.results.resolve(), 60 * options.timeout)


def _outcome(cache: Path, results: Path, timeout_s: float) -> int:
    log = cache / "vagrant.log"
    log.unlink(missing_ok=True)
    began = time.monotonic()
    try:
        script = provisioning((host.CHECKOUT / "Vagrantfile").read_text())
        host.install_tools(log)
        made = prepared(cache, log)
        print(f"vagrant: bare image: {time.monotonic() - began:.0f} s", flush=True)
        began = time.monotonic()
        print(f"vagrant: guest started, its output is in {results}/output", flush=True)
        code = _tried(made, script, results, timeout_s)
        print(f"vagrant: guest: {time.monotonic() - began:.0f} s")
    except host.Unreachable as error:
        print(f"vagrant: SKIPPED, NOT TESTED: {error}")
        return EXIT_SKIPPED
    except host.Failed as error:
        print(f"vagrant: FAILED: {error}")
        return EXIT_FAILED
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
