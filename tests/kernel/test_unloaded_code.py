"""Code that takes the place of other code in a running program."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest
from chains import START, mismatch, shown
from harness import until
from observing import Stream
from performance import Performance
from workshop import tool

pytestmark = pytest.mark.usefixtures("root")
pytest_plugins = ("program_fixtures",)

Perform = Callable[..., Performance]
Traced = Callable[..., Stream]

# where it calls, frames of either size have instructions of the same length
_LIBRARY = """
#include <sys/inotify.h>

__attribute__((noipa, used)) static int PLACE(int instance, const char *path)
{
	volatile char kept[BYTES];

	kept[0] = path[0];
	return inotify_add_watch(instance, path, IN_CREATE) + kept[0];
}

int enter(int instance, const char *path)
{
	return PLACE(instance, path) + 1;
}
"""

# A library and what it watches, for each letter; a capital letter calls what is loaded.
_PROGRAM = """
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

static void *library;
static int (*enter)(int, const char *);
static volatile int returned;

static void load(const char *path)
{
	if (library)
		dlclose(library);
	library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	enter = library ? (int (*)(int, const char *))dlsym(library, "enter") : NULL;
	if (!enter)
		abort();
	printf("%p\\n", (void *)enter);
}

__attribute__((noipa)) static void call(int instance, const char *path)
{
	returned = enter(instance, path);
	printf("called\\n");
}

int main(int argc, char **argv)
{
	int instance = inotify_init1(IN_CLOEXEC);
	char order;

	setvbuf(stdout, NULL, _IONBF, 0);
	printf("ready\\n");
	while (read(0, &order, 1) == 1) {
		if (order == 'a' || order == 'b')
			load(argv[1 + order - 'a']);
		else if (order == 'A' || order == 'B')
			call(instance, argv[3 + order - 'A']);
		else if (order == 'k')
			library = NULL;
	}
	return argc;
}
"""


class Swapper:
    """A program that swaps one library for another, and what inotrace tells of it."""

    def __init__(self, performance: Performance, traced: Traced) -> None:
        self._performance = performance
        self._stream = traced("-p", performance.pid)

    def load(self, letter: str) -> int:
        """Where its function is."""
        self._order(letter)
        return int(self._performance.answers.line(), 16)

    def keep(self) -> None:
        """Do not unload what is loaded."""
        self._order("k")

    def call(self, letter: str) -> None:
        """Of the library that is loaded."""
        self._order(letter)
        assert self._performance.answers.line() == b"called"

    def told(self, number: int) -> list[Any]:
        return self._stream.watch_calls(self._performance.pid, number)

    def _order(self, letters: str) -> None:
        pipe = self._performance.process.stdin
        assert pipe is not None
        pipe.write(letters.encode())
        pipe.flush()


@pytest.fixture(params=[200, 1000], ids=["alike", "unlike"])
def swapper(
    request: pytest.FixtureRequest, tmp_path: Path, perform: Perform, traced: Traced
) -> Swapper:
    """Its two libraries have frames of the same size, or not."""
    program = _compiled(tmp_path / "swapper", _PROGRAM, "-ldl")
    first, second = (
        _compiled(
            tmp_path / f"{letter}.so",
            _LIBRARY,
            *("-shared", "-fPIC", f"-DPLACE={letter}_place", f"-DBYTES={size}"),
        )
        for letter, size in (("a", 200), ("b", request.param))
    )
    folders = [tmp_path / letter for letter in "ab"]
    for folder in folders:
        folder.mkdir()
    return Swapper(perform([str(each) for each in (program, first, second, *folders)]), traced)


def _compiled(product: Path, source: str, *flags: str) -> Path:
    command = [tool("gcc"), "-x", "c", "-", "-O2", "-o", str(product), *flags]
    subprocess.run(command, input=source.encode(), check=True)
    return product


def _chain(letter: str) -> str:
    return f"inotify_add_watch {letter}_place enter call main {START}"


def _listed(calls: list[Any]) -> str:
    """For whom a test fails."""
    return "".join(
        f"\n{_place(call)}: {call['stack']} ({call['stack_reason']}) "
        + " ".join(map(shown, call["frames"]))
        for call in calls
    )


def _is_whole(call: Any, letter: str) -> bool:
    return call["stack"] == "complete" and mismatch(call["frames"], _chain(letter)) is None


def _place(call: Any) -> str:
    """The library whose call it was, by what it watches."""
    return str(call["path"])[-1]


def _swapped(swapper: Swapper, loaded_at: int) -> None:
    if swapper.load("b") != loaded_at:
        pytest.skip("the loader put the second library elsewhere")


@pytest.mark.parametrize("known", [1, 5])
def test_a_library_in_place_of_another_soon_has_its_own_names(swapper: Swapper, known: int) -> None:
    """
    GIVEN calls from a library, known by so many calls before, once it is swapped for another
    THEN its names are those of the other as soon as inotrace has looked again, and stay so.
    """
    loaded_at = swapper.load("a")
    for _ in range(known):
        swapper.call("A")
        (call,) = swapper.told(1)
        assert _is_whole(call, "a"), _listed([call])
    _swapped(swapper, loaded_at)

    def is_known() -> bool:
        swapper.call("B")
        return _is_whole(swapper.told(1)[0], "b")

    until(is_known, "the names of the other library")
    for _ in range(5):
        swapper.call("B")
        (call,) = swapper.told(1)
        assert _is_whole(call, "b"), _listed([call])


def test_a_library_that_is_loaded_elsewhere_has_its_own_names_at_once(swapper: Swapper) -> None:
    swapper.load("a")
    swapper.call("A")
    (of_first,) = swapper.told(1)
    # what stays loaded keeps its place
    swapper.keep()
    swapper.load("b")
    swapper.call("B")
    (of_second,) = swapper.told(1)

    assert _is_whole(of_first, "a") and _is_whole(of_second, "b"), _listed([of_first, of_second])
