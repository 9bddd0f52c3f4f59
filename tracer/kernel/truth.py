"""Where the kernel's own list comes from: the best way that works here."""

from __future__ import annotations

from typing import Any, Callable, Protocol

from tracer.core.walk import Walk
from tracer.errors import InotraceError
from tracer.kernel.proc_list import ProcList
from tracer.kernel.walk import KernelList


class Truth(Protocol):
    """
    What the ledger is compared with.

    `truth` is how reports call it; `refusal` says why it is not the iterator, unless it is.
    """

    truth: str
    refusal: str

    def walk(self) -> Walk: ...

    def close(self) -> None: ...


def open_truth(bpf: Any, attach: Callable[[], None]) -> Truth:
    """
    The list of the loaded program `bpf`.

    `attach` starts tracing; it is called only where the list is read through the probes. Raises
    InotraceError if there is no way to read it.
    """
    try:
        return KernelList(bpf)
    except InotraceError as refusal:
        attach()
        try:
            return ProcList(bpf, str(refusal))
        except InotraceError as error:
            raise error from refusal
