"""Go programs that are built for tests, and what Go's own tools say about them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tracer.stacks.elf import BytesContent, ElfFile
from tracer.stacks.gopclntab import GoTable

_SOURCE = """
package main

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

type watcher struct{ added int }

func (w *watcher) add(call func()) { through(call); w.added++ }
func through(call func())          { call() }

//go:noinline
func outer(call func()) { (&watcher{}).add(call) }

func report() {
	pcs := make([]uintptr, 32)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	for more := true; more; {
		var frame runtime.Frame
		frame, more = frames.Next()
		fmt.Printf("%x %s %s %d\\n", frame.PC, frame.Function, frame.File, frame.Line)
	}
	maps, _ := os.ReadFile("/proc/self/maps")
	os.Stdout.Write(maps)
}

func wait() { syscall.Syscall(syscall.SYS_PAUSE, 0, 0, 0) }

func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) > 1 {
		outer(wait)
	}
	outer(report)
}
"""
_WITH_C = """import "fmt"
// int twice(int number) { return 2 * number; }
import "C"

func init() { fmt.Fprint(nowhere{}, C.twice(21)) }

type nowhere struct{}

func (nowhere) Write(content []byte) (int, error) { return len(content), nil }
"""
_FLAGS = {
    "plain": [],
    "pie": ["-buildmode=pie"],
    "c": [],
    "external-pie": ["-buildmode=pie", "-ldflags=-linkmode=external"],
}
# Names of places, not of functions.
_PLACES = {"runtime.text", "runtime.etext", "go.buildid"}


class Symbol(NamedTuple):
    """What `go tool nm` says of a function."""

    address: int
    size: int
    name: str


class Programs:
    """Builds each variant of one program once."""

    def __init__(self, directory: Path) -> None:
        _go()
        self._directory = directory
        self._built: dict[str, Path] = {}
        self._environment = {
            **os.environ,
            "GO111MODULE": "off",
            "GOFLAGS": "",
            "GOCACHE": os.fspath(directory / "cache"),
        }

    def get(self, variant: str) -> Path:
        """The program; skips the test if what builds it is missing."""
        if variant not in self._built:
            self._built[variant] = self._build(*variant.split("+"))
        return self._built[variant]

    def table(self, variant: str) -> GoTable:
        return GoTable(ElfFile(BytesContent(self.get(variant).read_bytes())))

    def symbols(self, variant: str) -> list[Symbol]:
        """All functions, C's too, in the order of their addresses."""
        listing = self.tool("nm", "-size", "-sort", "address", os.fspath(self.get(variant)))
        rows = re.findall(r"^ *([0-9a-f]+) +(\d+) [Tt] (.*)$", listing, re.MULTILINE)
        return [
            Symbol(int(address, 16), int(size), name.replace(".abi0", ""))
            for address, size, name in rows
            if name not in _PLACES and not name.startswith("go:")
        ]

    def tool(self, name: str, *arguments: str, stdin: str = "") -> str:
        return self._run([_go(), "tool", name, *arguments], stdin)

    def _build(self, flags: str, *stripped: str) -> Path:
        if stripped:
            path = self._directory / f"{flags}-stripped"
            shutil.copy(self.get(flags), path)
            subprocess.run(["strip", path], check=True)
            return path
        if flags in ("c", "external-pie") and shutil.which("gcc") is None:
            pytest.skip("no gcc, which Go links C with")
        source = self._directory / f"src-{flags}"
        source.mkdir()
        (source / "main.go").write_text(_SOURCE)
        if flags == "c":
            (source / "c.go").write_text(f"package main\n\n{_WITH_C}")
        path = self._directory / flags
        self._run([_go(), "build", *_FLAGS[flags], "-o", os.fspath(path), "."], "", source)
        return path

    def _run(self, command: list[str], stdin: str, directory: Path | None = None) -> str:
        done = subprocess.run(
            command,
            env=self._environment,
            cwd=directory,
            input=stdin,
            text=True,
            check=True,
            stdout=subprocess.PIPE,
        )
        return done.stdout


def _go() -> str:
    go = shutil.which("go")
    if go is None:
        pytest.skip("no Go compiler")
    return go
