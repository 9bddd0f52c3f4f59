"""The decoder against the C header it mirrors, and against bytes that no kernel would send."""

from __future__ import annotations

import enum
import errno
import re
import shutil
import subprocess
from pathlib import Path
from struct import Struct

import pytest
from build import (
    FIRST,
    add,
    call_record,
    closed,
    closed_record,
    copy_record,
    gone,
    gone_record,
    last,
    last_record,
    rm,
)
from hypothesis import given
from hypothesis import strategies as st

from tracer.core.events import (
    NO_STACK,
    Caller,
    CallEvent,
    ClosedEvent,
    Exhausted,
    GoneEvent,
    Instance,
    LastEvent,
    Op,
    Process,
    RawStack,
    StackCopy,
    Tally,
    WalkEnd,
)
from tracer.core.wire import (
    ARRIVAL,
    CALL,
    CLOSED,
    COPY,
    GONE,
    HEAD,
    HOLDER,
    KEPT_COPY,
    KEPT_KEY,
    LAST,
    SPILL_KEY,
    SPILLED,
    SPILLED_STACK,
    TALLY_KEY,
    UNWIND_KEY,
    UNWIND_ROW,
    USER_ROW,
    WALK_CONTROL,
    WATCH_ROW,
    Arrival,
    Holder,
    Reading,
    UserRow,
    WalkControl,
    WatchRow,
    WireError,
    decode,
    decode_copy,
    decode_holders,
    decode_users,
)
from tracer.kernel.inodes import NAME_ROW, InodeState
from tracer.stacks.row import Flag, From

_HEADER = Path(__file__).resolve().parents[2] / "bpf" / "wire.h"
_HEAD_FIELDS = ("head.op", "head.tgid", "head.ts")

# What the decoder takes from each struct, in the order of its format; for the tail only `wd`.
_LAYOUTS: dict[str, tuple[Struct, tuple[str, ...]]] = {
    "record_head": (HEAD, ("op", "tgid", "ts")),
    "call_event": (
        CALL,
        (
            *_HEAD_FIELDS,
            *("ret", "arg", "stack_bytes", "path_bytes", "inode", "ino", "dev", "detail"),
            *(
                "group",
                "gen",
                "birth",
                "walk_end",
                "guessed",
                "exec_id",
                "tid",
                "uid",
                "fd",
                "comm",
            ),
        ),
    ),
    "last_event": (LAST, (*_HEAD_FIELDS, "group", "gen", "birth", "count", "truncated")),
    "gone_event": (GONE, (*_HEAD_FIELDS, "group", "gen", "wd", "trace_bytes")),
    "closed_event": (CLOSED, (*_HEAD_FIELDS, "group", "gen")),
    "holder": (HOLDER, Holder._fields),
    "watch_row": (WATCH_ROW, WatchRow._fields),
    "user_row": (USER_ROW, UserRow._fields),
    "walk_control": (WALK_CONTROL, ("pass", *WalkControl._fields[1:])),
    "arrival": (ARRIVAL, Arrival._fields),
    "stack_copy": (
        COPY,
        (
            *_HEAD_FIELDS,
            *(
                "birth",
                "exec_id",
                "tid",
                "pc",
                "sp",
                "fp",
                "base",
                "stack",
                "frames",
                "bytes",
                "present",
                "unused",
                "registers",
            ),
        ),
    ),
    "kept_key": (KEPT_KEY, ("ts", "tid", "unused")),
    "kept_copy": (KEPT_COPY, ("copy", "content")),
    "unwind_key": (UNWIND_KEY, ("pc", "birth", "tgid", "exec_id")),
    "unwind_row": (
        UNWIND_ROW,
        ("cfa_offset", "ra_offset", "fp_offset", "cfa_from", "ra_from", "fp_from", "flags"),
    ),
    "spill_key": (SPILL_KEY, ("group", "gen", "wd", "op")),
    "spilled": (SPILLED, ("event", "stack", "times", "path")),
    "tally_key": (TALLY_KEY, ("birth", "stack", "tgid", "tally", "ret", "op")),
    "spilled_stack": (SPILLED_STACK, ("frames",)),
    "name_row": (
        NAME_ROW,
        ("inode", "ino", "dentry", "parent", "generation", "bytes", "name"),
    ),
}
# neither signed nor unsigned
_BYTES = frozenset(
    {"comm", "event", "name", "path", "spilled_stack.frames", "registers", "copy", "content"}
)
# The last member, of which a record holds only a part.
_TAILS = {"last_event": "wd", "gone_event": "trace"}


# --- the layout ---


def _leaf_formats(layout: Struct) -> list[str]:
    """One format a field: ``=II16s`` gives I, I, 16s."""
    return re.findall(r"\d*[a-zA-Z]", layout.format.lstrip("="))


def _expected(layout: Struct) -> list[tuple[int, int, bool]]:
    """Offset, size and sign of each field as the decoder reads it."""
    fields = []
    at = 0
    for format_ in _leaf_formats(layout):
        size = Struct("=" + format_).size
        fields.append((at, size, format_.islower() and not format_.endswith("s")))
        at += size
    return fields


def _program() -> str:
    lines = ["#include <stdio.h>", "#include <stddef.h>", '#include "wire.h"', "int main(void) {"]
    for name, (_, fields) in _LAYOUTS.items():
        lines.append(f'printf("size {name} %zu\\n", sizeof(struct {name}));')
        for field in fields:
            member = f"((struct {name} *)0)->{field}"
            signed = "0" if {field, f"{name}.{field}"} & _BYTES else f"(__typeof__({member}))-1 < 0"
            lines.append(
                f'printf("field {name} %zu %zu %d\\n", offsetof(struct {name}, {field}), '
                f"sizeof({member}), {signed});"
            )
    lines += [f'printf("op {op.name} %d\\n", OP_{op.name});' for op in Op]
    lines += [
        f'printf("tail {name} %zu\\n", offsetof(struct {name}, {tail}));'
        for name, tail in _TAILS.items()
    ]
    return "\n".join([*lines, "return 0; }"])


@pytest.fixture(scope="module")
def host_layout(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """What a compiler on this machine makes of the header, as words of lines."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("wire")
    (folder / "layout.c").write_text(_program())
    options = ["-Wall", "-Werror", "-Wno-type-limits", "-Wpadded", "-I", str(_HEADER.parent)]
    subprocess.run(
        [compiler, *options, "-o", str(folder / "layout"), str(folder / "layout.c")], check=True
    )
    printed = subprocess.run([folder / "layout"], check=True, capture_output=True, text=True)
    return [line.split() for line in printed.stdout.splitlines()]


@pytest.mark.parametrize("name", sorted(_LAYOUTS))
def test_the_decoder_reads_each_field_where_the_compiler_put_it(
    name: str, host_layout: list[list[str]]
) -> None:
    found = [words[2:] for words in host_layout if words[:2] == ["field", name]]

    assert [(int(at), int(size), sign == "1") for at, size, sign in found] == _expected(
        _LAYOUTS[name][0]
    )


@pytest.mark.parametrize("name", sorted(_LAYOUTS))
def test_records_are_as_long_as_the_decoder_thinks(name: str, host_layout: list[list[str]]) -> None:
    sizes = {words[1]: int(words[2]) for words in host_layout if words[0] in ("size", "tail")}

    # the later line wins: the tail follows what the format covers
    assert sizes[name] == _LAYOUTS[name][0].size


def test_no_field_of_the_header_is_missing_here() -> None:
    source = re.sub(r"/\*.*?\*/", "", _HEADER.read_text(), flags=re.DOTALL)
    structs = dict(re.findall(r"struct (\w+) \{(.*?)\n\};", source, re.DOTALL))
    members = {name: re.findall(r"(\w+)(?:\[\w+\])?;", body) for name, body in structs.items()}

    assert members.keys() == _LAYOUTS.keys()
    for name, (_, fields) in _LAYOUTS.items():
        own = [field for field in fields if not field.startswith("head.")]
        tail = [_TAILS[name]] if name in _TAILS else []
        head = ["head"] if len(own) < len(fields) else []
        assert members[name] == [*head, *own, *tail]


@pytest.mark.parametrize(
    ("prefix", "numbers"),
    [
        ("EXHAUSTED", Exhausted),
        ("READ", Reading),
        ("TALLY", Tally),
        ("INODE", InodeState),
        ("WALK", WalkEnd),
        ("FROM", From),
        ("UNWIND", Flag),
    ],
)
def test_enumerations_have_the_numbers_of_the_header(
    prefix: str, numbers: type[enum.IntEnum]
) -> None:
    found = dict(re.findall(rf"\b{prefix}_(\w+) = (\d+)", _HEADER.read_text()))

    # what is below 0 is not the kernel's, and no flag is none
    expected = {one.name: one.value for one in numbers if one.value >= 0 and one.name != "NONE"}

    assert {name: int(number) for name, number in found.items()} == expected


def test_operations_have_the_numbers_of_the_header(host_layout: list[list[str]]) -> None:
    source = _HEADER.read_text()

    assert {words[1]: int(words[2]) for words in host_layout if words[0] == "op"} == {
        op.name: op.value for op in Op
    }
    assert set(re.findall(r"\bOP_(\w+) =", source)) == {op.name for op in Op}


# --- calls ---

_U32 = st.integers(0, 2**32 - 1)
_S32 = st.integers(-(2**31), 2**31 - 1)
_U64 = st.integers(0, 2**64 - 1)

_stacks = st.one_of(
    st.just(NO_STACK),
    st.builds(
        RawStack,
        st.lists(st.binary(min_size=8, max_size=8), min_size=1, max_size=64).map(b"".join),
        st.sampled_from([int(end) for end in WalkEnd if end >= 0]),
        st.booleans(),
    ),
)
_callers = st.builds(
    Caller,
    op=st.sampled_from([op.value for op in (Op.INIT, Op.ADD, Op.RM)]),
    process=st.builds(Process, _U32, _U64),
    instance=st.builds(Instance, _U64, _U64),
    exec_id=_U32,
    tid=_U32,
    uid=_U32,
    fd=_S32,
    comm=st.binary(max_size=16).filter(lambda comm: b"\0" not in comm),
    stack=_stacks,
)
_calls = st.builds(
    CallEvent,
    ts=_U64,
    caller=_callers,
    ret=_S32,
    arg=_U32,
    path=st.none() | st.binary(max_size=199),
    inode=_U64,
    ino=_U64,
    dev=_U32,
    detail=_U32,
)
_lasts = st.builds(
    LastEvent, _U32, _U64, _U64, _U64, _U64, st.lists(_S32, max_size=23).map(tuple), st.booleans()
)


@given(_calls, st.integers(0, 23))
def test_a_call_survives_the_wire(event: CallEvent, padding: int) -> None:
    assert decode(call_record(event, padding)) == event


@given(_lasts, st.integers(0, 23))
def test_last_watches_survive_the_wire(event: LastEvent, padding: int) -> None:
    assert decode(last_record(event, padding)) == event


_gones = st.builds(GoneEvent, _U32, _U64, _U64, _U64, _S32, st.lists(_U64, max_size=16).map(tuple))
_closeds = st.builds(ClosedEvent, _U32, _U64, _U64, _U64)


@given(_gones, st.integers(0, 23))
def test_a_removal_survives_the_wire(event: GoneEvent, padding: int) -> None:
    assert decode(gone_record(event, padding)) == event


@given(_closeds, st.integers(0, 23))
def test_a_closing_survives_the_wire(event: ClosedEvent, padding: int) -> None:
    assert decode(closed_record(event, padding)) == event


def test_a_removal_whose_trace_could_not_be_read_is_still_a_removal() -> None:
    head = GONE.pack(Op.GONE, 4001, 17, *FIRST, 23, -errno.EFAULT)

    assert decode(head + bytes(128)) == gone(17, 23)


@given(_calls, st.data())
def test_a_shortened_call_is_an_error(event: CallEvent, data: st.DataObject) -> None:
    record = call_record(event)
    length = data.draw(st.integers(0, len(record) - 1))

    with pytest.raises(WireError):
        decode(record[:length])


@given(_lasts, st.data())
def test_shortened_last_watches_are_an_error(event: LastEvent, data: st.DataObject) -> None:
    record = last_record(event)
    length = data.draw(st.integers(0, len(record) - 1))

    with pytest.raises(WireError):
        decode(record[:length])


_kinds = st.sampled_from([op.value for op in Op]) | _U32
# tails whose two lengths are near what the record holds, or anything
_near = st.tuples(st.integers(-20, 90), st.integers(-20, 90)) | st.tuples(_S32, _S32)


@given(
    st.binary(max_size=300)
    | st.builds(lambda op, rest: op.to_bytes(4, "little") + rest, _kinds, st.binary(max_size=300))
    | st.builds(
        lambda op, lengths, tail: CALL.pack(op, 1, 2, 3, 4, *lengths, *range(13), b"agent") + tail,
        st.sampled_from([1, 2, 3]),
        _near,
        st.integers(0, 150).map(bytes),
    )
)
def test_any_bytes_decode_or_are_a_wire_error(record: bytes) -> None:
    try:
        event = decode(record)
    except WireError:
        return
    if isinstance(event, CallEvent):
        assert len(event.caller.stack.addresses()) * 8 == len(event.caller.stack.frames)


@given(st.binary(max_size=3 * HOLDER.size))
def test_any_bytes_are_holders_or_a_wire_error(rows: bytes) -> None:
    if len(rows) % HOLDER.size:
        with pytest.raises(WireError):
            decode_holders(rows)
    else:
        assert len(decode_holders(rows)) == len(rows) // HOLDER.size


def test_one_byte_less_is_an_error() -> None:
    records = (
        call_record(add(17, 5)),
        last_record(last(17, [5])),
        gone_record(gone(17, 5, trace=[0xFFFFFFFF81000000])),
        closed_record(closed(17)),
    )
    for record in records:
        decode(record)
        with pytest.raises(WireError):
            decode(record[:-1])


def test_half_a_frame_is_an_error() -> None:
    event = add(17, 5, stack=RawStack(b"\1" * 12, 0, False), path=b"/")

    with pytest.raises(WireError, match="12 bytes of frames"):
        decode(call_record(event))


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(WireError, match="unknown kind 23"):
        decode(HEAD.pack(23, 1173, 1) + bytes(200))


_copies = st.builds(
    StackCopy,
    ts=_U64,
    process=st.builds(Process, _U32, _U64),
    exec_id=_U32,
    tid=_U32,
    pc=st.integers(0, 2**63 - 1),
    is_exact=st.booleans(),
    sp=_U64,
    fp=_U64,
    base=_U64,
    stack=_U64,
    frames=_U32,
    registers=st.tuples(*[_U64] * 33),
    content=st.binary(max_size=199),
    present=_U32,
    is_cut=st.just(False),
)


@given(_copies, st.integers(0, 23))
def test_a_copy_of_a_stack_survives_the_wire(copy: StackCopy, padding: int) -> None:
    assert decode_copy(copy_record(copy, padding)) == copy


def test_a_copy_that_is_cut_is_an_error() -> None:
    copy = StackCopy(
        1, Process(2, 3), 4, 5, 6, True, 7, 8, 9, 10, 0, tuple(range(33)), b"x" * 23, 1
    )
    record = copy_record(copy)

    for length in (0, 23, len(record) - 1):
        with pytest.raises(WireError):
            decode_copy(record[:length])
    with pytest.raises(WireError, match="kind 2"):
        decode_copy(HEAD.pack(Op.ADD, 1173, 1) + record[HEAD.size :])


def test_an_unread_path_is_none_and_not_empty() -> None:
    unread = bytearray(call_record(add(17, 5)._replace(path=None)))
    # struct call_event in bpf/wire.h
    unread[28:32] = (-errno.EFAULT).to_bytes(4, "little", signed=True)

    assert decode(bytes(unread)).path is None  # type: ignore[union-attr]
    assert decode(call_record(add(17, 5)._replace(path=b""))).path == b""  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("comm", "decoded"),
    [(b"agent", b"agent"), (b"sixteen bytes!!!", b"sixteen bytes!!!"), (b"a\0left over", b"a")],
)
def test_comm_ends_at_its_nul_if_it_has_one(comm: bytes, decoded: bytes) -> None:
    assert decode(call_record(add(17, 5, comm=comm))).caller.comm == decoded  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "path", [b"/caf\xe9", b"/two\nlines", b"/\x1b[31m", b"relative", b"/" + b"x" * 4094]
)
def test_paths_stay_byte_exact(path: bytes) -> None:
    frames = bytes(range(64))
    event = add(17, 5, path=path, stack=RawStack(frames, 0, False))

    decoded = decode(call_record(event, padding=5))

    assert isinstance(decoded, CallEvent)
    assert (decoded.path, decoded.caller.stack.frames) == (path, frames)


def test_frames_are_innermost_first() -> None:
    frames = (0x401000).to_bytes(8, "little") + (0x402000).to_bytes(8, "little")

    assert RawStack(frames, 0, False).addresses() == (0x401000, 0x402000)


# --- what events say of themselves ---


def test_the_descriptor_of_an_add_is_its_result_and_of_a_removal_its_argument() -> None:
    assert add(1, 23).wd == 23
    assert rm(1, 23).wd == 23
    assert rm(1, -1).wd == -1
    assert rm(1, -(2**31)).wd == -(2**31)


def test_events_name_their_instance() -> None:
    assert last(1, [23]).instance == gone(1, 23).instance == closed(1).instance == FIRST


def test_the_same_caller_is_the_same_object() -> None:
    """GIVEN calls that differ in result and path only WHEN decoded THEN who called is shared."""
    one, other = (decode(call_record(add(ts, ts, path=b"/%d" % ts))) for ts in (1, 2))
    third = decode(call_record(add(3, 3, fd=4)))

    assert one.caller is other.caller  # type: ignore[union-attr]
    assert third.caller.fd == 4  # type: ignore[union-attr]


def test_holders_are_whole_rows() -> None:
    rows = [Holder(*range(100, 114)), Holder(*range(200, 214))]

    assert decode_holders(b"".join(HOLDER.pack(*row) for row in rows)) == rows


def test_users_are_whole_rows() -> None:
    rows = [UserRow(*range(100, 108)), UserRow(*range(200, 208))]
    content = b"".join(USER_ROW.pack(*row) for row in rows)

    assert decode_users(content) == rows
    with pytest.raises(WireError):
        decode_users(content[:-1])
