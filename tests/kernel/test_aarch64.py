"""The BPF program of a processor that is not at hand: it compiles, and one passes the verifier."""

from __future__ import annotations

import ctypes
import platform
from typing import Any

import pytest

from tracer.kernel import probe
from tracer.kernel.hooks import Mode

pytestmark = [
    pytest.mark.usefixtures("root"),
    pytest.mark.skipif(platform.machine() == "aarch64", reason="that is this processor's own"),
]


@pytest.mark.parametrize("mode", list(Mode), ids=lambda mode: mode.value)
def test_the_program_for_aarch64_compiles(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """GIVEN BCC told to compile for aarch64 WHEN done THEN other registers are read, as allowed."""
    own = _code(mode)
    monkeypatch.setenv("ARCH", "arm64")
    foreign = _code(mode)

    assert own.keys() == foreign.keys()
    assert own["on_call"] != foreign["on_call"]


def _code(mode: Mode) -> dict[str, bytes]:
    from bcc import lib

    bpf: Any = probe._load(probe.Scope(follow=True), mode)
    try:
        names = [
            lib.bpf_function_name(bpf.module, at) for at in range(lib.bpf_num_functions(bpf.module))
        ]
        return {
            name.decode(): ctypes.string_at(
                lib.bpf_function_start(bpf.module, name), lib.bpf_function_size(bpf.module, name)
            )
            for name in names
        }
    finally:
        bpf.cleanup()
