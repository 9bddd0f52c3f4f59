"""The file of suppressions, what its patterns match, and what is suggested for one."""

from __future__ import annotations

import re
import time

import pytest
from build import ATTACH, MOUNT, STACK, START, WRAPPER
from hypothesis import given
from hypothesis import strategies as st

from tracer.core import suppressions as module
from tracer.core.stack import Frame, Stack, StackState, missing
from tracer.core.suppressions import (
    Suppression,
    SuppressionError,
    Suppressions,
    parse,
    suggestion,
)

_LOST = missing("no room")
_PYTHON = Frame("_PyEval_EvalFrameDefault", b"/usr/bin/python3.11", 9)


def _stack(*frames: Frame) -> Stack:
    return Stack(frames, StackState.COMPLETE)


def _named(function: str | None) -> Stack:
    return _stack(ATTACH._replace(function=function, module=b"/m", file=None))


def _matches(pattern: str, text: str) -> bool:
    return Suppressions([Suppression(pattern, 1)]).match(_named(text), ()) is not None


def _file(text: str) -> Suppressions:
    return Suppressions(parse(text, "known.supp"))


# --- the file ---


def test_a_file_has_patterns_comments_and_blank_lines() -> None:
    text = "# the agent\n\nleak:attach\r\n \t leak:^a b$ \t\n  # none\nleak:*.js\n\nleak: #a"

    assert parse(text, "known.supp") == (
        Suppression("attach", 3),
        Suppression("^a b$", 4),
        Suppression("*.js", 6),
        # as LeakSanitizer reads it: what follows the colon is the pattern
        Suppression(" #a", 8),
    )


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", " \t\r\n"])
def test_a_file_may_suppress_nothing(text: str) -> None:
    assert parse(text, "known.supp") == ()
    assert _file(text).match(STACK, [b"/a"]) is None


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("attach", "'attach' is not of the form leak:PATTERN"),
        ("leak", "'leak' is not of the form leak:PATTERN"),
        ("race:attach", "'race:attach' is not of the form leak:PATTERN"),
        ("LEAK:attach", "'LEAK:attach' is not of the form leak:PATTERN"),
        ("leak :attach", "'leak :attach' is not of the form leak:PATTERN"),
        ("\ud8ff\x1b[31m", r"'\ud8ff\x1b[31m' is not of the form leak:PATTERN"),
        ("leak:", "the pattern after 'leak:' is empty"),
        ("leak:^", "the pattern after 'leak:' is empty"),
        ("leak:$", "the pattern after 'leak:' is empty"),
        ("leak:^$", "the pattern after 'leak:' is empty"),
        ("leak:a$b", "$ is where a name ends; for one within a name, write *"),
        ("leak:$jquery", "$ is where a name ends; for one within a name, write *"),
        ("leak:" + "a" * 1025, "the pattern is longer than 1,024 characters"),
    ],
)
def test_a_wrong_line_is_told_with_its_place(line: str, what: str) -> None:
    with pytest.raises(SuppressionError) as raised:
        parse(f"# one\nleak:right\n{line}\n", "known.supp")

    assert str(raised.value) == f"known.supp:3: {what}"


def test_a_file_has_a_size() -> None:
    with pytest.raises(SuppressionError, match=r"^known\.supp: longer than 262,144 characters$"):
        parse("#" * (module.SIZE_MAX + 1), "known.supp")
    with pytest.raises(SuppressionError, match=r"^known\.supp:1002: more than 1,000 of them$"):
        parse("# one\n" + "leak:a\n" * 1001, "known.supp")
    assert len(parse("leak:a\n" * 1000, "known.supp")) == 1000


@given(st.text(st.sampled_from("leak:^$*#\n\r\t \0é\udcff"), max_size=60))
def test_a_file_is_read_or_refused(text: str) -> None:
    try:
        found = parse(text, "known.supp")
    except SuppressionError as error:
        assert "\n" not in str(error)
    else:
        assert all(0 < len(one.pattern) <= len(text) for one in found)
        Suppressions(found).match(STACK, [b"/a"])


# --- patterns ---


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        # somewhere in the name
        ("attach", "attach", True),
        ("attach", "do_attach_it", True),
        ("attach", "attac", False),
        ("Attach", "attach", False),
        # anything in between
        ("a*c", "xabbbcx", True),
        ("a*c", "ac", True),
        ("a*c", "ca", False),
        ("*", "attach", True),
        ("**a***c**", "xabcx", True),
        ("ab*ba", "aba", False),
        # the beginning
        ("^at", "attach", True),
        ("^ta", "attach", False),
        ("^*ta", "attach", True),
        ("a^t", "attach", False),
        ("a^t", "a^t", True),
        ("^^a", "^a", True),
        ("*^a", "b^a", True),
        ("*^a", "a", False),
        # the end
        ("ch$", "attach", True),
        ("tt$", "attach", False),
        ("a*$", "attach", True),
        ("foo$", "foofoo", True),
        ("a*foo$", "afoofoo", True),
        ("ab*ab$", "ab", False),
        # both
        ("^attach$", "attach", True),
        ("^attach$", "attach2", False),
        ("^attach$", "reattach", False),
        ("^a*h$", "attach", True),
        ("^a*a$", "a", False),
        ("^*$", "attach", True),
        # nothing is special but these
        (".tt", "attach", False),
        ("[a]ttac?", "attach", False),
        ("a\\*", "attach", False),
        ("(*Watcher).Add", "pkg.(*Watcher).Add", True),
        ("x*y", "x\ny", True),
    ],
)
def test_a_pattern_fits_as_leak_sanitizers_do(pattern: str, text: str, fits: bool) -> None:
    assert _matches(pattern, text) is fits


_few = st.text(st.sampled_from("ab^*."), min_size=1, max_size=7)


@given(st.booleans(), _few, st.booleans(), st.text(st.sampled_from("ab^*.\n"), min_size=1))
def test_a_pattern_is_a_regular_expression_of_three_signs(
    starts: bool, body: str, ends: bool, text: str
) -> None:
    if not starts and body.startswith("^"):
        starts, body = True, body[1:]
    expression = ".*".join(map(re.escape, body.split("*")))
    expected = re.search(
        rf"{'^' if starts else ''}{expression}{'$' if ends else ''}".replace("$", r"\Z"),
        text,
        re.DOTALL,
    )

    assert _matches(f"{'^' * starts}{body}{'$' * ends}", text) is (expected is not None)


@pytest.mark.parametrize(
    "pattern", ["a*" * 500 + "b", "a" * 500 + "b" + "a" * 500, "*".join(["a" * 50] * 20) + "b$"]
)
def test_a_hostile_name_takes_no_longer_than_it_is_long(pattern: str) -> None:
    began = time.process_time()

    assert not _matches(pattern, "a" * 2_000_000 + "c")
    assert time.process_time() - began < 5


# --- sites ---


@pytest.mark.parametrize(
    "pattern",
    [
        "^attach$",
        "^mount_volume$",
        "^inotify_add_watch$",
        "^/usr/bin/agent$",
        "/agent$",
        "libc.so",
        "^secrets.c$",
        "^/run/secrets/",
    ],
)
def test_any_frame_and_all_paths(pattern: str) -> None:
    """GIVEN a pattern of a function, a module, a source file or all paths THEN it is the site's."""
    paths = [b"/run/secrets/1", b"/run/secrets/2"]

    assert _file(f"leak:{pattern}").match(STACK, paths) == Suppression(pattern, 1)


@pytest.mark.parametrize("pattern", ["88", "0x", "detach", "^agent$", "complete", "None", "^$a"])
def test_nothing_else_of_a_site_is_compared(pattern: str) -> None:
    suppressions = Suppressions([Suppression(pattern, 1)])

    assert suppressions.match(STACK, [b"/run/secrets/1", None]) is None


@pytest.mark.parametrize(
    ("paths", "fits"),
    [
        ([b"/run/secrets/1"], True),
        ([b"/run/secrets/1", b"/run/secrets/2"], True),
        # one that is known must not hide the other
        ([b"/run/secrets/1", b"/etc/passwd"], False),
        # who knows
        ([b"/run/secrets/1", None], False),
        ([b"/run/secrets/1", b""], False),
        ([None], False),
        ([], False),
    ],
)
def test_a_pattern_of_paths_has_to_fit_them_all(paths: list[bytes | None], fits: bool) -> None:
    found = _file("leak:^/run/secrets/").match(_LOST, paths)

    assert (found is not None) is fits


def test_the_first_in_the_file_wins() -> None:
    suppressions = _file("leak:nothing\nleak:mount\nleak:attach\nleak:secrets\nleak:mount")

    assert suppressions.match(STACK, [b"/x"]) == Suppression("mount", 2)
    assert suppressions.match(_stack(WRAPPER, ATTACH), [b"/x"]) == Suppression("attach", 3)
    assert suppressions.match(_stack(WRAPPER), [b"/secrets"]) == Suppression("secrets", 4)
    assert suppressions.match(_stack(WRAPPER, START), [b"/x"]) is None


def test_bytes_that_are_not_utf8_are_themselves() -> None:
    suppressions = _file(b"leak:^/caf\xe9$\nleak:\xff.so".decode("utf-8", "surrogateescape"))

    assert suppressions.match(_LOST, [b"/caf\xe9"]) == Suppression("^/caf\udce9$", 1)
    assert suppressions.match(_LOST, [b"/caf\xc3\xa9"]) is None
    assert suppressions.match(_stack(ATTACH._replace(module=b"/\xff.so")), ()) is not None
    assert _file("leak:^/café$").match(_LOST, ["/café".encode()]) is not None


def test_code_in_no_file_is_of_an_unknown_module() -> None:
    nameless = _stack(Frame(None, None, 0x7F0000001000))

    assert _file("leak:<unknown module>").match(nameless, ()) is not None
    assert _file("leak:<unknown module>").match(_stack(ATTACH), ()) is None


# --- suggestions ---

_NAMELESS = ATTACH._replace(function=None, file=None, line=None)
_MAIN = ATTACH._replace(function="main")
_SCRIPT = Frame("watch", b"[anon:jit]", 0, "/srv/app.js", 7)


@pytest.mark.parametrize(
    ("frames", "line"),
    [
        ((WRAPPER, ATTACH, MOUNT, START), "leak:^attach$"),
        ((WRAPPER, ATTACH._replace(function="f(int*)")), "leak:^f(int*)$"),
        ((WRAPPER, ATTACH._replace(function="jq$add")), "leak:^jq*add$"),
        ((WRAPPER, ATTACH._replace(function="^#add")), "leak:^^#add$"),
        ((WRAPPER, ATTACH._replace(function="add\nleak:*")), "leak:^add*leak:*$"),
        ((WRAPPER, ATTACH._replace(function="add\x1b[31m \ud8ff ")), "leak:^add*[31m * $"),
        ((WRAPPER, ATTACH._replace(function="a" * 10_000)), f"leak:^{'a' * 500}*"),
        # what is left of such a name is in too many others
        ((WRAPPER, ATTACH._replace(function="t$")), "leak:^/usr/bin/agent$"),
        ((WRAPPER, ATTACH._replace(function="$$\n*")), "leak:^/usr/bin/agent$"),
        # every program has one of these
        ((WRAPPER, _MAIN, START), "leak:^/usr/bin/agent$"),
        ((WRAPPER, _NAMELESS, MOUNT, START), "leak:^/usr/bin/agent$"),
        ((WRAPPER, _NAMELESS, MOUNT._replace(module=b"/x")), "leak:^/usr/bin/agent$"),
        (
            (_NAMELESS._replace(module=b"/opt/caf\xe9 (deleted)"), MOUNT),
            "leak:^/opt/caf* (deleted)$",
        ),
        ((WRAPPER, _SCRIPT, _PYTHON), "leak:^watch$"),
        ((WRAPPER, _SCRIPT._replace(function="(anonymous)")), "leak:^/srv/app.js$"),
        ((WRAPPER, _SCRIPT._replace(function="<module>", module=None)), "leak:^/srv/app.js$"),
    ],
)
def test_the_programs_function_is_suggested_or_what_is_next_to_it(
    frames: tuple[Frame, ...], line: str
) -> None:
    assert suggestion(_stack(*frames), [b"/run/secrets/1"]) == line


@pytest.mark.parametrize(
    ("paths", "line"),
    [
        ([b"/run/secrets/1"], "leak:^/run/secrets/1$"),
        ([b"/run/secrets/1", b"/run/secrets/1"], "leak:^/run/secrets/1$"),
        ([b"/run/secrets/1", b"/run/secrets/12"], "leak:^/run/secrets/*"),
        ([b"/run/secrets", b"/run/secrets/1"], "leak:^/run/*"),
        ([b"/run/\xff$/1", b"/run/\xff$/2"], "leak:^/run/*/*"),
        ([b"/run/a", b"/etc/a"], None),
        ([b"/"], "leak:^/$"),
        ([b"/run/secrets/1", None], None),
        ([None], None),
        ([], None),
    ],
)
@pytest.mark.parametrize("stack", [_LOST, _stack(WRAPPER, START), _stack(WRAPPER, _PYTHON, START)])
def test_paths_are_suggested_where_no_frame_is_the_programs(
    stack: Stack, paths: list[bytes | None], line: str | None
) -> None:
    assert suggestion(stack, paths) == line


_hostile = st.text(
    st.characters(codec=None) | st.sampled_from("ab^$*#: \t\r\n\0\x1b\udcff\u202e"), max_size=40
)
_bytes = st.binary(max_size=20).map(lambda raw: b"/" + raw) | st.sampled_from(
    [WRAPPER.module, ATTACH.module, _PYTHON.module, _SCRIPT.module]
)
_frames = st.builds(
    Frame,
    st.none() | _hostile | st.sampled_from(["main", "attach", "runtime.goexit"]),
    st.none() | _bytes,
    st.integers(0, 2**40),
    st.none() | _hostile,
)
_sites = st.tuples(
    st.lists(_frames, max_size=5).map(lambda frames: Stack(tuple(frames), StackState.COMPLETE)),
    st.lists(st.none() | _bytes, max_size=4),
)


@given(_sites)
def test_what_is_suggested_suppresses_its_site(site: tuple[Stack, list[bytes | None]]) -> None:
    line = suggestion(*site)

    if line is not None:
        assert line.isprintable()
        (found,) = parse(line, "suggested")
        assert line == f"leak:{found.pattern}"
        assert Suppressions([found]).match(*site) == found


@given(_sites, _sites)
def test_what_is_suggested_for_another_function_leaves_the_site(
    site: tuple[Stack, list[bytes | None]], other: tuple[Stack, list[bytes | None]]
) -> None:
    """GIVEN a function whose name can be written WHEN no other site has it THEN none is hidden."""
    stack = Stack((ATTACH._replace(function="only_here"), *site[0].frames), StackState.COMPLETE)
    line = suggestion(stack, site[1])

    assert line == "leak:^only_here$"
    assert _file(line).match(*other) is None
