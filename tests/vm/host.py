"""What the machine has to have, and its own configuration of where packages come from."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
# How folders are called that nobody needs after the run.
UNFINISHED = "unfinished-"
_PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "mkfs.ext4": "e2fsprogs",
    "git": "git",
}
# Of apt, pip and what they call: that a server was out of reach, not that it lacks something.
_UNREACHABLE = re.compile(
    r"^.*(?:Failed to fetch(?!.* 4\d\d  ?\w)|Could not (?:resolve|connect)|Unable to connect"
    r"|Temporary failure|Network is unreachable|No route to host|connection broken by"
    r"|Failed to establish a new connection"
    r"|Connection (?:failed|refused|timed out|reset by peer)).*$",
    re.MULTILINE,
)


class Unreachable(Exception):
    """Something that is needed cannot be fetched; says what."""


class Failed(Exception):
    """Anything else that went wrong; says what."""


def cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "inotrace", "vm")


@contextmanager
def exclusively(folder: Path) -> Iterator[None]:
    """One run at a time uses the cache; what an earlier one left half done is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for the end of another run, which uses {folder}", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(left)
        yield


def requirements(pyproject: str, name: str) -> list[str]:
    """The lines of one list in pyproject.toml, as the launcher reads them."""
    listed = re.search(rf"^{name} = \[\n(.*?)^\]$", pyproject, re.MULTILINE | re.DOTALL)
    return re.findall(r'"(.*)",$', listed[1], re.MULTILINE) if listed else []


def fetching(
    command: list[str], log: Path, *, since: int | None = None, **environment: str
) -> None:
    """
    Run what needs the network. Raises Unreachable or Failed; `log` has all it said.

    If it fails, what `log` has from `since` on tells why; by default, what the command said.
    """
    with log.open("ab") as output:
        began = output.tell() if since is None else since
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment},
        )
    if done.returncode:
        said = log.read_bytes()[began:].decode(errors="replace")
        reason = missed(said)
        if reason:
            raise Unreachable(reason)
        raise Failed(f"{command[0]} failed with {done.returncode}, see {log}")


def missed(said: str) -> str:
    """The line that tells what could not be fetched, or ""."""
    found = _UNREACHABLE.search(said)
    return found[0].strip() if found else ""


def install_tools(log: Path) -> None:
    """Install what is missing from the distribution. Raises Unreachable or Failed."""
    if platform.machine() != "x86_64":
        raise Unreachable(f"the images are for x86-64, this machine is {platform.machine()}")
    packages = [package for tool, package in _PACKAGES.items() if shutil.which(tool) is None]
    if not packages:
        return
    if shutil.which("apt-get") is None:
        raise Unreachable(f"without apt-get, these cannot be installed: {' '.join(packages)}")
    print(f"installing {' '.join(packages)}", flush=True)
    began = log.stat().st_size if log.exists() else 0
    fetching(["apt-get", "-q", "update"], log)
    install = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=120", "install"]
    fetching(
        [*install, "--no-install-recommends", *packages],
        log,
        # without a network the update only warns, and then packages are unknown
        since=began,
        DEBIAN_FRONTEND="noninteractive",
    )


def mirror() -> str | None:
    """Where this machine takes Debian's packages from; None if it is no Debian."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
    ).stdout
    return next((uri for uri in listed.split() if uri.rstrip("/").endswith("/debian")), None)
