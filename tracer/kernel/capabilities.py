"""What this process may do, as capabilities(7) divides what root may."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from pathlib import Path

_STATUS = Path("/proc/self/status")
_USER_NAMESPACE = Path("/proc/self/ns/user")
# PROC_USER_INIT_INO, include/linux/proc_ns.h
_FIRST_NAMESPACE = 0xEFFFFFFD
_EFFECTIVE = re.compile(r"^CapEff:\t([0-9a-f]+)$", re.MULTILINE)


class Capability(enum.IntEnum):
    """Those that inotrace has a use for: include/uapi/linux/capability.h."""

    DAC_READ_SEARCH = 2
    IPC_LOCK = 14
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    SYS_RESOURCE = 24
    SYSLOG = 34
    PERFMON = 38
    BPF = 39
    CHECKPOINT_RESTORE = 40


# What CAP_SYS_ADMIN held before the kernel divided it, and still holds.
_PARTS_OF_ADMIN = frozenset(
    {
        Capability.SYSLOG,  # ce6ada35bdf7 (in v2.6.38)
        Capability.PERFMON,  # 980737282232 (in v5.8)
        Capability.BPF,  # a17b53c4a4b5 (in v5.8)
        Capability.CHECKPOINT_RESTORE,  # 124ea650d307 (in v5.9)
    }
)

# What the kernel asks for in the first user namespace, whatever one has in another: capable()
# where it is not ns_capable().
_OF_THE_HOST = frozenset({Capability.SYSLOG, Capability.PERFMON, Capability.BPF})

# Without these nothing can be traced.
TRACING = (Capability.BPF, Capability.PERFMON)
# Without these /proc does not show what others have open.
LOOKING = (Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH)
# Without these the code of others has no names.
NAMING = (Capability.SYS_PTRACE, Capability.CHECKPOINT_RESTORE)


def effective() -> frozenset[Capability]:
    """What counts now, in this namespace; all that CAP_SYS_ADMIN stands for if that is there."""
    found = _EFFECTIVE.search(_STATUS.read_text())
    bits = int(found.group(1), 16) if found else 0
    held = frozenset(each for each in Capability if bits >> each & 1)
    if Capability.SYS_ADMIN in held:
        held |= _PARTS_OF_ADMIN
    return held if _is_in_first_namespace() else held - _OF_THE_HOST


def _is_in_first_namespace() -> bool:
    return _USER_NAMESPACE.stat().st_ino == _FIRST_NAMESPACE


def missing(wanted: Iterable[Capability]) -> tuple[Capability, ...]:
    """Those of `wanted`, in that order, that this process does not have."""
    held = effective()
    return tuple(each for each in wanted if each not in held)


def named(capabilities: Iterable[Capability]) -> str:
    """As a sentence lists them: "CAP_BPF and CAP_PERFMON"."""
    *most, last = [f"CAP_{each.name}" for each in capabilities]
    return f"{', '.join(most)} and {last}" if most else last
