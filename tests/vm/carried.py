"""What a guest needs of this machine's configuration to reach the same mirror and index."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

import host

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_OF_PIP = ("index-url", "extra-index-url", "proxy", "trusted-host", "cert", "timeout", "retries")
_LOCALHOST = re.compile(r"(?<=//)(?:localhost|127\.0\.0\.1|\[::1\])(?=[:/])")
# where the machine is that a guest of QEMU runs on
_MACHINE = "10.0.2.2"
# Debian makes the bundle from its own certificates and these.
_OWN_CERTIFICATES = Path("/usr/local/share/ca-certificates")


def files() -> dict[str, bytes]:
    """Paths in the guest, and what it has there."""
    python = str(host.CHECKOUT / ".venv/bin/python")
    pip = pip_settings(_said([python, "-I", "-m", "pip", "config", "list"]))
    apt = _said(["apt-config", "dump", "Acquire::http", "Acquire::https", "Acquire::Retries"])
    found = {
        "etc/apt/apt.conf.d/80machine": seen_from_guest(apt).encode(),
        "etc/pip.conf": "".join(["[global]\n", *(f"{k} = {v}\n" for k, v in pip.items())]).encode(),
    }
    certificates = [*_OWN_CERTIFICATES.glob("*.crt"), *map(Path, filter(None, [pip.get("cert")]))]
    for certificate in certificates:
        found[str(certificate).lstrip("/")] = certificate.read_bytes()
    return found


def _said(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise host.Failed(f"{shlex.join(command)}: {error}") from error


def pip_settings(listed: str) -> dict[str, str]:
    """Those of `pip config list` that say where packages are; without folders of this machine."""
    found: dict[str, str] = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        # what is in the environment comes first, and has precedence
        section, _, key = name.rpartition(".")
        key = "timeout" if key == "default-timeout" else key
        if section in (":env:", "global", "install") and key in _OF_PIP:
            words = str(ast.literal_eval(value)).split()
            kept = [word for word in words if not word.startswith("file:")]
            if kept and key not in found:
                found[key] = seen_from_guest(" ".join(kept))
    return found


def proxies(environment: Mapping[str, str]) -> str:
    """Assignments for a shell."""
    lines = [
        f"{name}={shlex.quote(seen_from_guest(environment[name]))}\n"
        for each in _PROXIES
        for name in (each, each.upper())
        if name in environment
    ]
    return "".join(lines)


def seen_from_guest(text: str) -> str:
    """With another name for this machine where it calls itself localhost."""
    return _LOCALHOST.sub(_MACHINE, text)
