"""Stacks that were laid out by hand are unwound as they were laid out, whatever is cut off."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.core.events import Process, StackCopy, WalkEnd
from tracer.core.wire import EXACT_PC, FRAMES_MAX
from tracer.stacks import unwinder
from tracer.stacks.cfi import CfaRule, Kind, Rule, Rules
from tracer.stacks.registers import AARCH64, X86_64, Registers
from tracer.stacks.row import NEEDS_REGISTERS, OUTERMOST, UNKNOWN, Flag, From, Row
from tracer.stacks.unwinder import Leaving, Point, StackMemory, TableRules, Unwinding, unwind

_WORD = (1 << 64) - 1
_BASE = 0x7FFC_0000_0000
_TEXT = 0x40_0000
_RBX, _RBP, _RSP, _RA = 3, 6, 7, 16
_PUSHED = Rule(Kind.OFFSET, -8)


class _Program:
    """Code of which it is known how to leave it, by pc."""

    def __init__(self, leaving: dict[int, Leaving]) -> None:
        self._leaving = leaving

    def leaving(self, point: Point, stack: StackMemory) -> Leaving | None:
        # what guesses by
        assert X86_64.sp in point.registers or AARCH64.sp in point.registers
        return self._leaving.get(point.pc)


@dataclass
class _Laid:
    """A stack: its words by address, registers at the call, and what it is made of."""

    words: dict[int, int] = field(default_factory=dict)
    registers: dict[int, int] = field(default_factory=dict)
    pcs: list[int] = field(default_factory=list)
    sps: list[int] = field(default_factory=list)
    fps: list[int] = field(default_factory=list)
    leaving: dict[int, Leaving] = field(default_factory=dict)
    rows: dict[int, Row] = field(default_factory=dict)

    def content(self, base: int) -> bytes:
        end = max([*self.words, self.sps[-1]]) + 8
        return b"".join(
            struct.pack("<Q", self.words.get(address, 0x2323)) for address in range(base, end, 8)
        )


def _table(cfa: CfaRule | bytes, rules: dict[int, Rule], pc: int) -> TableRules:
    return TableRules(Rules(cfa, {_RA: _PUSHED, **rules}, _RA, False), pc)


def _by_sp(words: int, pc: int) -> tuple[Leaving, Row]:
    row = Row(From.SP, 8 * words, From.CFA, -8)
    return row, row


def _by_sp_from_table(words: int, pc: int) -> tuple[Leaving, Row]:
    return _table(CfaRule(_RSP, 8 * words), {}, pc), Row(From.SP, 8 * words, From.CFA, -8)


def _by_fp(words: int, pc: int) -> tuple[Leaving, Row]:
    row = Row(From.FP, 16, From.CFA, -8, From.CFA, -16)
    return row, row


def _by_fp_from_table(words: int, pc: int) -> tuple[Leaving, Row]:
    return _table(CfaRule(_RBP, 16), {_RBP: Rule(Kind.OFFSET, -16)}, pc), _by_fp(words, pc)[1]


def _realigned(words: int, pc: int) -> tuple[Leaving, Row]:
    row = Row(From.FP, -8, From.CFA, -8, From.FP, 0, Flag.CFA_IN_MEMORY)
    return _table(b"\x76\x78\x06", {_RBP: Rule(Kind.EXPRESSION, b"\x76\x00")}, pc), row


def _by_rbx(words: int, pc: int) -> tuple[Leaving, Row]:
    return _table(CfaRule(_RBX, 16), {_RBX: Rule(Kind.OFFSET, -16)}, pc), NEEDS_REGISTERS


_KINDS = (_by_sp, _by_sp_from_table, _by_fp, _by_fp_from_table, _realigned, _by_rbx)
_Frames = list[tuple[int, int]]
frames = st.lists(
    st.tuples(st.integers(0, len(_KINDS) - 1), st.integers(4, 400)), min_size=1, max_size=20
)


def _laid(kinds: _Frames, offset: int = 0x10) -> _Laid:
    """Frames of (kind, words), innermost first; the last is called by nobody."""
    laid, sp = _Laid(), _BASE + offset
    cfas = []
    for at, (_, words) in enumerate(kinds):
        laid.pcs.append(_TEXT + 0x100 * at)
        laid.sps.append(sp)
        sp += 8 * words
        cfas.append(sp)
    registers = {_RBX: 0xB0B, _RBP: 0xF00}
    for at in reversed(range(len(kinds))):
        kind, words = kinds[at]
        cfa, pc = cfas[at], laid.pcs[at]
        laid.words[cfa - 8] = laid.pcs[at + 1] if at + 1 < len(kinds) else 0
        make = _KINDS[kind]
        if make in (_by_fp, _by_fp_from_table):
            laid.words[cfa - 16] = registers[_RBP]
            registers[_RBP] = cfa - 16
        elif make is _realigned:
            laid.words[cfa - 24] = registers[_RBP]
            laid.words[cfa - 32] = cfa
            registers[_RBP] = cfa - 24
        elif make is _by_rbx:
            laid.words[cfa - 16] = registers[_RBX]
            registers[_RBX] = cfa - 16
        laid.fps.insert(0, registers[_RBP])
        laid.leaving[pc], row = make(words, pc)
        laid.rows[pc if at else pc | EXACT_PC] = row
    laid.registers = {**registers, _RSP: laid.sps[0], _RA: laid.pcs[0]}
    return laid


def _copy(
    laid: _Laid,
    *,
    missed: int = 0,
    bytes_: int | None = None,
    is_cut: bool = False,
    from_call: bool = True,
) -> StackCopy:
    """From the call on, or from the page of the frame that the walk missed."""
    sp = laid.sps[0 if from_call else missed]
    base = sp
    return StackCopy(
        ts=1,
        process=Process(23, 29),
        exec_id=31,
        stack=0,
        tid=37,
        pc=laid.pcs[missed],
        is_exact=not missed,
        sp=laid.sps[missed],
        fp=laid.fps[missed],
        base=base,
        frames=missed,
        registers=tuple(laid.registers.get(number, 0x11 * number) for number in range(33)),
        content=laid.content(base)[:bytes_],
        is_cut=is_cut,
    )


def _unwound(laid: _Laid, copy: StackCopy) -> Unwinding:
    return unwind(copy, _Program(laid.leaving), X86_64)


# --- whole copies ---


@given(frames)
def test_frames_are_found_as_they_were_laid_out(kinds: _Frames) -> None:
    """GIVEN frames of all kinds WHEN the stack was copied from the call on THEN all are found."""
    laid = _laid(kinds)

    found = _unwound(laid, _copy(laid))
    assert found == Unwinding(0, tuple(laid.pcs), WalkEnd.OUTERMOST, False, laid.rows)


@given(frames, st.data())
def test_where_the_walk_missed_does_not_matter_if_the_call_was_copied(
    kinds: _Frames, data: st.DataObject
) -> None:
    laid = _laid(kinds)
    missed = data.draw(st.integers(0, len(kinds) - 1))

    assert _unwound(laid, _copy(laid, missed=missed)) == _unwound(laid, _copy(laid))


@given(frames, st.data())
def test_a_copy_that_begins_at_the_miss_goes_on_from_there(
    kinds: _Frames, data: st.DataObject
) -> None:
    """GIVEN a deep stack WHEN it was copied from a frame on THEN what the kernel has is kept."""
    laid = _laid([(0, 600), *kinds])
    missed = data.draw(st.integers(1, len(kinds)))
    by_rbx = [at for at, (kind, _) in enumerate(kinds, 1) if _KINDS[kind] is _by_rbx]
    found = _unwound(laid, _copy(laid, missed=missed, from_call=False))

    lost = next((at for at in by_rbx if at >= missed), None)
    assert found.kept == missed
    if lost is None:
        assert found.end is WalkEnd.OUTERMOST
        assert found.frames == tuple(laid.pcs[missed:])
    else:
        # only the registers that rows know are known in the middle of a stack
        assert found.end is WalkEnd.NOT_COPIED
        assert found.frames == tuple(laid.pcs[missed : lost + 1])
        assert found.rows[laid.pcs[lost]] == NEEDS_REGISTERS


@settings(max_examples=60)
@given(frames, st.data())
def test_a_copy_may_be_cut_anywhere(kinds: _Frames, data: st.DataObject) -> None:
    """GIVEN a copy that is cut THEN it has the first frames, and the end says which kind of cut."""
    laid = _laid(kinds)
    whole = _copy(laid).content
    cut = data.draw(st.integers(0, len(whole)))
    full = _unwound(laid, _copy(laid, bytes_=cut, is_cut=True))
    short = _unwound(laid, _copy(laid, bytes_=cut))

    assert full.frames == short.frames == tuple(laid.pcs[: len(full.frames)])
    if len(full.frames) < len(laid.pcs):
        assert (full.end, short.end) == (WalkEnd.NOT_COPIED, WalkEnd.UNREADABLE)
    assert {key: laid.rows[key] for key in full.rows} == full.rows


def test_after_64_frames_it_is_enough() -> None:
    """GIVEN 64 and 65 frames THEN the first stack is whole, and the second too deep."""
    for number, end in ((FRAMES_MAX, WalkEnd.OUTERMOST), (FRAMES_MAX + 1, WalkEnd.TOO_DEEP)):
        laid = _laid([(number % 2, 4)] * number)
        found = _unwound(laid, _copy(laid))
        assert (found.end, len(found.frames)) == (end, FRAMES_MAX)


def test_what_the_kernel_walked_counts() -> None:
    laid = _laid([(0, 600)] + [(0, 4)] * 70)
    found = _unwound(laid, _copy(laid, missed=10, from_call=False))

    assert (found.kept, len(found.frames), found.end) == (10, FRAMES_MAX - 10, WalkEnd.TOO_DEEP)


# --- ends ---


def _two(leaving: Leaving | None, **changed: int) -> tuple[WalkEnd, int]:
    """How a stack of two frames ends of which the second is left like that, and its length."""
    laid = _laid([(0, 4), (0, 4)])
    laid.registers.update({int(name[1:]): value for name, value in changed.items()})
    del laid.leaving[laid.pcs[1]]
    if leaving is not None:
        laid.leaving[laid.pcs[1]] = leaving
    found = _unwound(laid, _copy(laid))
    return found.end, len(found.frames)


@pytest.mark.parametrize(
    ("leaving", "end"),
    [
        (OUTERMOST, WalkEnd.OUTERMOST),
        (_table(CfaRule(_RSP, 8), {_RA: Rule(Kind.UNDEFINED)}, 0), WalkEnd.OUTERMOST),
        (None, WalkEnd.UNKNOWN),
        (UNKNOWN, WalkEnd.UNKNOWN),
        (Row(From.SP, 0, From.CFA, -8), WalkEnd.BACKWARD),
        (Row(From.SP, -8, From.CFA, 0), WalkEnd.BACKWARD),
        (_table(CfaRule(_RSP, 0), {}, 0), WalkEnd.BACKWARD),
        (_table(CfaRule(_RSP, _WORD - 7), {_RA: Rule(Kind.OFFSET, 8)}, 0), WalkEnd.BACKWARD),
        (Row(From.SP, 1 << 20, From.CFA, -8), WalkEnd.UNREADABLE),
        (Row(From.SP, -(1 << 20), From.CFA, -8), WalkEnd.UNREADABLE),
        (Row(From.FP, 16, From.CFA, -8), WalkEnd.UNREADABLE),
        (Row(From.SP, 1 << 20, From.CFA, -8, flags=Flag.CFA_IN_MEMORY), WalkEnd.UNREADABLE),
        (Row(From.SP, 32, From.CFA, -8, From.CFA, 1 << 20), WalkEnd.UNREADABLE),
        (_table(b"\x77\x80\x80\xc0\x00\x06", {}, 0), WalkEnd.UNREADABLE),
        (Row(From.SP, 1 << 20, From.CFA, -8, flags=Flag.OTHER_STACK), WalkEnd.NOT_COPIED),
        (_table(CfaRule(40, 8), {}, 0), WalkEnd.UNKNOWN),
        (_table(b"\xff", {}, 0), WalkEnd.UNKNOWN),
        (
            _table(CfaRule(_RSP, 8), {_RBX: Rule(Kind.VALUE_EXPRESSION, b"\xff")}, 0),
            WalkEnd.UNKNOWN,
        ),
    ],
    ids=range(18),
)
def test_why_there_are_no_more_frames(leaving: Leaving | None, end: WalkEnd) -> None:
    assert _two(leaving) == (end, 2)


@pytest.mark.parametrize(
    ("leaving", "end"),
    [
        # the kernel had it at the call; a copy that begins there would have it
        (_table(CfaRule(_RBX, 16), {}, 0), WalkEnd.NOT_COPIED),
        (
            _table(CfaRule(_RSP, 32), {_RA: Rule(Kind.REGISTER, _RBX)}, 0),
            WalkEnd.NOT_COPIED,
        ),
        # no copy would make sense of it
        (_table(b"\xff", {}, 0), WalkEnd.UNKNOWN),
        (
            _table(CfaRule(_RSP, 32), {_RBX: Rule(Kind.VALUE_EXPRESSION, b"\xff")}, 0),
            WalkEnd.UNKNOWN,
        ),
        (None, WalkEnd.UNKNOWN),
    ],
    ids=["cfa", "return address", "malformed cfa", "malformed register", "nothing"],
)
def test_what_a_copy_from_the_call_on_would_tell_was_not_copied(
    leaving: Leaving | None, end: WalkEnd
) -> None:
    """GIVEN a copy that begins at the miss WHEN that frame takes a register THEN it was lost."""
    laid = _laid([(0, 600), (0, 4), (0, 4)])
    del laid.leaving[laid.pcs[1]]
    if leaving is not None:
        laid.leaving[laid.pcs[1]] = leaving
    found = _unwound(laid, _copy(laid, missed=1, from_call=False))

    assert (found.kept, found.frames, found.end) == (1, (laid.pcs[1],), end)


def test_tables_that_take_long_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """GIVEN no time left after the first frame THEN what was found until then is all."""
    monkeypatch.setattr(unwinder, "_BUDGET_S", -1)
    laid = _laid([(1, 4)] * 3)
    found = _unwound(laid, _copy(laid))

    assert (found.frames, found.end) == ((laid.pcs[0],), WalkEnd.TOO_SLOW)


def test_what_is_unknown_is_remembered_as_unknown() -> None:
    """GIVEN code that nothing tells about THEN the kernel need not ask for it again."""
    laid = _laid([(0, 4), (0, 4)])
    del laid.leaving[laid.pcs[1]]

    assert _unwound(laid, _copy(laid)).rows[laid.pcs[1]] == UNKNOWN


def test_a_guess_marks_the_whole_stack() -> None:
    laid = _laid([(0, 4), (0, 4), (0, 4)])
    laid.leaving[laid.pcs[1]] = Row(From.SP, 32, From.CFA, -8, flags=Flag.GUESSED)

    assert _unwound(laid, _copy(laid)).guessed
    assert not _unwound(_laid([(0, 4)]), _copy(_laid([(0, 4)]))).guessed


# --- signals, and other stacks ---


def test_what_a_signal_interrupted_is_an_exact_place() -> None:
    """GIVEN a handler's frame, then the kernel's, then what it interrupted THEN that is exact."""
    laid = _laid([(0, 4), (0, 40), (0, 4), (0, 4)])
    frame = laid.sps[1]
    row = Row(From.SP, 64, From.SP, 72, From.SP, 80, Flag.CFA_IN_MEMORY | Flag.SIGNAL)
    laid.words.update({frame + 64: laid.sps[2], frame + 72: laid.pcs[2], frame + 80: 0xF1F1})
    laid.leaving[laid.pcs[1]] = row
    seen: list[Point] = []

    class _Seen(_Program):
        def leaving(self, point: Point, stack: StackMemory) -> Leaving | None:
            seen.append(point)
            return super().leaving(point, stack)

    found = unwind(_copy(laid), _Seen(laid.leaving), X86_64)
    assert (found.frames, found.end) == (tuple(laid.pcs), WalkEnd.OUTERMOST)
    assert [point.is_exact for point in seen] == [True, False, True, False]
    assert seen[2].registers[_RBP] == 0xF1F1
    assert laid.pcs[2] | EXACT_PC in found.rows and laid.pcs[2] not in found.rows


def test_rules_that_say_where_the_stack_pointer_is_are_obeyed() -> None:
    """GIVEN a rule for rsp itself, as longjmp of glibc has THEN it is that, not the CFA."""
    laid = _laid([(0, 4), (0, 40), (0, 4)])
    rules = {_RSP: Rule(Kind.VALUE_OFFSET, 8 * 20)}
    laid.leaving[laid.pcs[1]] = _table(
        CfaRule(_RSP, 8 * 20), {**rules, _RA: Rule(Kind.OFFSET, 8 * 19)}, 0
    )

    assert _unwound(laid, _copy(laid)).frames == tuple(laid.pcs)


def test_a_goroutine_is_on_another_stack() -> None:
    """GIVEN a frame whose caller lies below it, which the row allows THEN it is found."""
    laid = _laid([(0, 4), (2, 4), (0, 4)])
    lower = _laid([(0, 4), (2, 4), (0, 4)])
    laid.leaving[laid.pcs[0]] = Row(From.SP, 32, From.CFA, -8, flags=Flag.OTHER_STACK)

    assert _unwound(laid, _copy(laid)).frames == tuple(lower.pcs)


@pytest.mark.parametrize("flag", [Flag.OTHER_STACK, None], ids=["row", "signal frame"])
def test_after_another_stack_what_is_missing_was_not_copied(flag: Flag | None) -> None:
    """
    GIVEN a frame that may have left the copied stack, then one that has not
    WHEN the caller of that one is not in the copy THEN the stack is not said to be unreadable.
    """
    laid = _laid([(0, 4), (0, 4), (0, 4)])
    rules = Rules(CfaRule(_RSP, 32), {_RA: _PUSHED}, _RA, is_signal=True)
    first: Leaving = TableRules(rules, 0)
    if flag is not None:
        first = Row(From.SP, 32, From.CFA, -8, flags=flag)
    far = Row(From.SP, 1 << 20, From.CFA, -8)
    laid.leaving.update({laid.pcs[1]: first, laid.pcs[2]: far})
    found = _unwound(laid, _copy(laid))
    assert (found.frames, found.end) == (tuple(laid.pcs), WalkEnd.NOT_COPIED)

    laid.leaving[laid.pcs[1]] = Row(From.SP, 32, From.CFA, -8)
    found = _unwound(laid, _copy(laid))
    assert (found.frames, found.end) == (tuple(laid.pcs), WalkEnd.UNREADABLE)


def test_a_copy_of_another_stack_begins_at_its_frame() -> None:
    """GIVEN a call on another stack WHEN the copy is of the interrupted one THEN from there on."""
    laid = _laid([(0, 4), (0, 4), (0, 4)])
    copy = _copy(laid, missed=1)._replace(
        registers=tuple(0x7FFD_0000_0000 if one == _RSP else 0 for one in range(33))
    )

    found = _unwound(laid, copy)
    assert (found.kept, found.frames, found.end) == (1, tuple(laid.pcs[1:]), WalkEnd.OUTERMOST)


# --- aarch64 ---


def test_a_leaf_of_aarch64_is_left_by_its_link_register() -> None:
    """GIVEN a leaf, a frame record and the thread's start THEN signed addresses are stripped."""
    sp, caller, outermost = _BASE + 0x40, _TEXT + 0x100, _TEXT + 0x200
    signed = 0x5A << 56 | outermost
    words = {sp + 0x30: 0x29, sp + 0x38: signed}
    content = b"".join(struct.pack("<Q", words.get(sp + at, 0)) for at in range(0, 512, 8))
    registers = [0] * 33
    registers[AARCH64.sp], registers[30], registers[AARCH64.pc] = sp, caller | 0x11 << 56, _TEXT
    copy = StackCopy(
        1, Process(2, 3), 4, 5, _TEXT, True, sp, 0, sp, 0, 0, tuple(registers), content
    )
    framed = Row(From.SP, 0x40, From.CFA, -8, From.CFA, -16)
    code = _Program({_TEXT: Row(From.SP, 0, From.LINK), caller: framed, outermost: OUTERMOST})

    found = unwind(copy, code, AARCH64)
    assert (found.frames, found.end) == ((_TEXT, caller, outermost), WalkEnd.OUTERMOST)


def test_a_link_register_is_good_for_one_frame() -> None:
    """GIVEN two frames in a row that claim to be leaves THEN the second one has no caller."""
    registers = tuple(_TEXT if one == AARCH64.pc else _TEXT + 4 for one in range(33))
    copy = StackCopy(
        1, Process(2, 3), 4, 5, _TEXT, True, _TEXT + 4, 0, _TEXT + 4, 0, 0, registers, bytes(64)
    )
    leaf = Row(From.SP, 0, From.LINK)

    found = unwind(copy, _Program({_TEXT: leaf, _TEXT + 4: leaf}), AARCH64)
    assert (found.frames, found.end) == ((_TEXT, _TEXT + 4), WalkEnd.UNKNOWN)


# --- hostile ones ---

words = st.integers(0, _WORD)
near = st.integers(-64, 600) | st.integers(-(1 << 31), (1 << 31) - 1)
origins = st.sampled_from(From)
any_row = st.builds(Row, origins, near, origins, near, origins, near, st.integers(0, 15).map(Flag))
any_rule = st.one_of(
    st.builds(
        Rule,
        st.sampled_from([kind for kind in Kind if not kind.name.endswith("EXPRESSION")]),
        near | st.integers(0, 40),
    ),
    st.builds(
        Rule,
        st.sampled_from([Kind.EXPRESSION, Kind.VALUE_EXPRESSION]),
        st.binary(max_size=8) | st.sampled_from([b"\x77\x08", b"\x77\x00\x06", b"\x23\x08"]),
    ),
)
any_rules = st.builds(
    TableRules,
    st.builds(
        Rules,
        st.builds(CfaRule, st.sampled_from([3, 6, 7, 40]), near)
        | st.binary(max_size=8)
        | st.sampled_from([b"\x77\x08", b"\x77\x00\x06"]),
        st.dictionaries(st.sampled_from([3, 6, 7, 16, 30, 31]), any_rule),
        st.sampled_from([16, 30, 7, 99]),
        st.booleans(),
    ),
    words,
)


class _Anything:
    """Code that is left in one way, then in the next; the stack pointer is always known."""

    def __init__(self, answers: list[Leaving | None], sp: int) -> None:
        self._answers = answers
        self._asked = 0
        self._sp = sp

    def leaving(self, point: Point, stack: StackMemory) -> Leaving | None:
        assert 0 <= point.pc <= _WORD
        assert self._sp in point.registers, "guesses need it"
        stack.word(point.registers[self._sp])
        self._asked += 1
        return self._answers[self._asked % len(self._answers)]


@pytest.mark.parametrize("origin", [From.SP, From.FP])
def test_a_row_by_a_register_that_the_processor_lacks_is_no_error(origin: From) -> None:
    """GIVEN x86-64, where nothing is in a link register WHEN a row says so THEN that is the end."""
    assert _two(Row(origin, 32, From.LINK))[1] == 2


@pytest.mark.parametrize("kind", [Kind.UNDEFINED, Kind.SAME])
def test_the_stack_pointer_is_known_whatever_the_table_says(kind: Kind) -> None:
    """GIVEN a rule by which rsp cannot be had WHEN its caller is guessed THEN that has an rsp."""
    laid = _laid([(0, 4), (0, 4), (0, 4)])
    laid.leaving[laid.pcs[1]] = _table(CfaRule(_RSP, 32), {_RSP: Rule(kind)}, 0)

    assert _unwound(laid, _copy(laid)).frames[:3] == tuple(laid.pcs)


def test_a_return_address_is_not_that_of_another_frame() -> None:
    """GIVEN rules without a return address THEN it is not the one that led to the frame."""
    rules = Rules(CfaRule(_RSP, 32), {}, _RA, False)
    laid = _laid([(1, 4), (0, 4), (0, 4)])
    laid.leaving[laid.pcs[1]] = TableRules(rules, 0)

    assert _unwound(laid, _copy(laid)).frames == tuple(laid.pcs[:2])


@settings(max_examples=300)
@given(
    st.lists(any_row | any_rules | st.none(), min_size=1, max_size=4),
    st.lists(words | st.integers(_BASE, _BASE + 600), max_size=64),
    st.lists(words | st.integers(_BASE, _BASE + 600), min_size=33, max_size=33),
    st.tuples(words, st.booleans(), words, words, words, st.integers(0, 63)),
    st.sampled_from([X86_64, AARCH64]),
    st.booleans(),
)
def test_nothing_is_raised_whatever_is_there(
    answers: list[Leaving | None],
    stack: list[int],
    known: list[int],
    walk: tuple[int, bool, int, int, int, int],
    registers: Registers,
    is_from_call: bool,
) -> None:
    if is_from_call:
        known[registers.sp] = _BASE
    pc, is_exact, sp, fp, base, before = walk
    copy = StackCopy(
        ts=1,
        process=Process(2, 3),
        exec_id=4,
        stack=0,
        tid=5,
        pc=pc,
        is_exact=is_exact,
        sp=sp,
        fp=fp,
        base=_BASE if is_from_call else base,
        frames=before,
        registers=tuple(known),
        content=struct.pack(f"<{len(stack)}Q", *stack),
    )

    found = unwind(copy, _Anything(answers, registers.sp), registers)
    assert found.kept + len(found.frames) <= FRAMES_MAX
    assert found.frames
    assert found.end in WalkEnd
    for key, row in found.rows.items():
        assert 0 <= key <= _WORD
        assert len(row.packed()) == 16


def test_a_page_that_was_not_in_memory_is_not_taken_for_zeros() -> None:
    """GIVEN a copy with a page missing amid it WHEN a frame is in that THEN the walk ends there."""
    copy = StackCopy(1, Process(2, 3), 4, 5, 0, True, 0, 0, 0x1FF8, 0, 0, (), bytes(0x2008))
    stack = unwinder._Copy(copy._replace(present=0b101))

    assert (stack.word(0x1FF8), stack.word(0x2000), stack.word(0x3000)) == (0, None, 0)
    aligned = unwinder._Copy(copy._replace(base=0x2000, present=0b010))
    assert (aligned.word(0x2000), aligned.word(0x3000)) == (0, None)
