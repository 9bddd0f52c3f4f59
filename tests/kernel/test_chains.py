"""The language in which tests say what a stack should be."""

from __future__ import annotations

import pytest
from chains import mismatch, plain


def _frames(*names: str) -> list[dict[str, str | None]]:
    """`/file+` is a frame without a name."""
    return [
        {"function": None, "module": name[:-1]}
        if name.endswith("+")
        else {"function": name, "module": "/usr/bin/program"}
        for name in names
    ]


@pytest.mark.parametrize(
    "chain",
    [
        "add outer main libc.so.6+",
        "add ... libc.so.6+",
        "... main libc*+",
        "add outer|inner main ?missing libc.so.6+",
        "add ?outer ?main libc.so.6+ ?_start",
        "add out* ...",
    ],
)
def test_a_stack_that_is_the_chain(chain: str) -> None:
    assert mismatch(_frames("add", "outer", "main", "/usr/lib/libc.so.6+"), chain) is None


@pytest.mark.parametrize(
    ("chain", "at", "word"),
    [
        ("add main libc.so.6+", 1, "main"),
        ("add outer main", 3, "the end"),
        ("add outer main libc.so.6+ _start", 4, "_start"),
        ("add outer main libc.so.6", 3, "libc.so.6"),
        ("add ... inner ...", 4, "inner"),
        ("out* ...", 0, "out*"),
    ],
)
def test_a_stack_that_is_not_says_where(chain: str, at: int, word: str) -> None:
    told = mismatch(_frames("add", "outer", "main", "/usr/lib/libc.so.6+"), chain)

    assert told is not None
    assert told.startswith(f"frame {at} should be {word} of: ")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("outer", "outer"),
        ("store::Watcher<char, 1>::add(std::vector<char> const&)", "store::Watcher<char,1>::add"),
        (
            "node::(anonymous namespace)::Wrap::Start(int)",
            "node::(anonymousnamespace)::Wrap::Start",
        ),
        ("fail() [clone .cold]", "fail"),
        ("main.(*Watcher).Add", "main.(*Watcher).Add"),
        ("places::outer::h6e0c0626e2a9a66a", "places::outer"),
        ("places[ca5a7f208ff1ba00]::outer", "places::outer"),
        ("store::Guard::size() const", "store::Guard::size"),
    ],
)
def test_a_name_without_what_differs_between_tools(name: str, expected: str) -> None:
    assert plain(name) == expected
