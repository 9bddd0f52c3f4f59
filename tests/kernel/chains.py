"""
What a stack is expected to be: a chain of functions, innermost first.

A chain is a text of words, one a frame. A word is the name of a function, or `module+` for a frame
without a name in that file; `*` in it stands for anything, and `|` separates what may be instead. A
word that begins with `?` may be missing, and `...` stands for any number of frames.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any

# glibc tells these names only with debug files. Before 2.34 there was only one function.
START = "?__libc_start_call_main|libc*+ __libc_start_main* _start"
# of a stripped program
NAMELESS_START = "?__libc_start_call_main|libc*+ __libc_start_main* {0}+"
THREAD_START = "start_thread|lib*+ clone|clone3|__clone*|libc*+"


def shown(frame: Any) -> str:
    """A frame of the JSON as chains name it."""
    if frame["function"] is not None:
        return plain(frame["function"])
    return f"{(frame['module'] or '').rpartition('/')[2]}+"


def plain(name: str) -> str:
    """A function's name without blanks, the hash of Rust's symbols, and its arguments."""
    name = re.sub(r"\s+\[clone [^\]]*\]", "", name)
    name = re.sub(r"::h[0-9a-f]{16}$", "", name)
    # crates have the hash of their build in the newer of Rust's manglings
    name = re.sub(r"(?<=\w)\[[0-9a-f]{12,16}\]", "", name)
    return "".join(_without_arguments(name).split())


def _without_arguments(name: str) -> str:
    if not name.endswith((")", ") const")):
        return name
    depth = 0
    for at in range(name.rindex(")"), -1, -1):
        depth += {")": 1, "(": -1}.get(name[at], 0)
        if depth == 0:
            return name[:at]
    return name


def mismatch(frames: list[Any], chain: str) -> str | None:
    """Why frames are not the chain; None if they are."""
    seen = [shown(frame) for frame in frames]
    words = chain.split()
    best = _furthest(seen, words)
    if best is None:
        return None
    lines = [f"  #{at} {name}" for at, name in enumerate(seen)] or ["  no frames"]
    wanted = words[best[1]] if best[1] < len(words) else "the end"
    return "\n".join([f"frame {best[0]} should be {wanted} of: {chain}", *lines])


def _furthest(seen: list[str], words: list[str]) -> tuple[int, int] | None:
    """How far frames and words agree at best; None if they do to the end."""
    reached = {(0, 0)}
    best = (0, 0)
    while reached:
        best = max(best, max(reached))
        if (len(seen), len(words)) in reached:
            return None
        reached = {after for state in reached for after in _after(state, seen, words)}
    return best


def _after(state: tuple[int, int], seen: list[str], words: list[str]) -> set[tuple[int, int]]:
    frame, word = state
    if word == len(words):
        return set()
    after = set()
    if words[word] == "..." or words[word].startswith("?"):
        after.add((frame, word + 1))
    if frame < len(seen):
        if words[word] == "...":
            after.add((frame + 1, word))
        elif _is(seen[frame], words[word]):
            after.add((frame + 1, word + 1))
    return after


def _is(name: str, word: str) -> bool:
    # a name may hold what a pattern gives a meaning
    literal = word.lstrip("?").replace("[", "[[]").replace("?", "[?]")
    return any(fnmatchcase(name, each) for each in literal.split("|"))
