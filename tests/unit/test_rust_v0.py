"""Rust's mangling v0: what the rustc book and rustc-demangle show, and what nobody may make."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.stacks.rust_v0 import demangle

# from the rustc book, "v0 Symbol Format", and from programs that rustc compiled
_KNOWN = {
    "_RNvCskwGfYPst2Cb_3foo16example_function": "foo::example_function",
    "_RNvC6_123foo3bar": "123foo::bar",
    "_RNvMs_Cs4Cv8Wi1oAIB_7mycrateNtB4_7Example3foo": "<mycrate::Example>::foo",
    "_RNvXCs15kBYyAo9fc_7mycrateNtB2_7ExampleNtB2_5Trait3foo": (
        "<mycrate::Example as mycrate::Trait>::foo"
    ),
    "_RNvYNtCs15kBYyAo9fc_7mycrate7ExampleNtB4_5Trait7exampleB4_": (
        "<mycrate::Example as mycrate::Trait>::example"
    ),
    "_RNCNvCsgStHSCytQ6I_7mycrate4mains_0B3_": "mycrate::main::{closure#1}",
    "_RNSNvC1a1bs0_6vtable": "a::b::{shim:vtable#2}",
    "_RINvCsgStHSCytQ6I_7mycrate7examplelKj1_EB2_": "mycrate::example::<i32, 1>",
    "_RNvNtNtCsgOH4LzxkuMq_7mycrateu8gdel_5qa6escher4bach": "mycrate::gödel::escher::bach",
    "_RINvCs7qp2U7fqm6G_7mycrate7exampleFG0_RL1_hRL0_tEuEB2_": (
        "mycrate::example::<for<'a, 'b> fn(&'a u8, &'b u16)>"
    ),
    "_RINvCs7qp2U7fqm6G_7mycrate7exampleKy12345678_EB2_": "mycrate::example::<305419896>",
    "_RNvNvMCsd9PVOYlP1UU_7mycrateINtB4_7ExamplepKpE3foo14EXAMPLE_STATIC": (
        "<mycrate::Example<_, _>>::foo::EXAMPLE_STATIC"
    ),
    "_RINvCs7qp2U7fqm6G_7mycrate7exampleAtj8_EB2_": "mycrate::example::<[u16; 8]>",
    "_RINvCs7qp2U7fqm6G_7mycrate7exampleNtB2_7ExampleBw_EB2_": (
        "mycrate::example::<mycrate::Example, mycrate::Example>"
    ),
    "_RINvMsY_NtCseXNvpPnDBDp_3std4pathNtB6_4Path3neweECs7qp2U7fqm6G_7mycrate": (
        "<std::path::Path>::new::<str>"
    ),
    "_RNvNvNvCs7qp2U7fqm6G_7mycrate7EXAMPLE7___getit5___KEY$tlv$init": (
        "mycrate::EXAMPLE::__getit::__KEY$tlv$init"
    ),
    "_RNvC3foo3bar.llvm.1824236727171634802.cold": "foo::bar.cold",
    "_RIC1aDNtC1b1cp3OutReEL_E": "a::<dyn b::c<Out = &str>>",
    "_RIC1aDG_INtC1b1cRL0_eENtC1d1eEL_E": "a::<dyn for<'a> b::c<&'a str> + d::e>",
    "_RIC1aFUKCPhOnvEzE": 'a::<unsafe extern "C" fn(*const u8, *mut i128, ...) -> !>',
    "_RIC1aFK5a_b_cEuE": 'a::<extern "a-b-c" fn()>',
    "_RIC1aTEThEThtESdQeE": "a::<(), (u8,), (u8, u16), [f64], &mut str>",
    "_RIC1aWmRm1_m5_WmORm1_m2_NEE": "a::<u32 is 1..=5, u32 is 1..=2 | !null>",
    "_RNvMs_C4demoINtB4_1BKb1_Kc27_Kxn5_Koffffffffffffffffffffffffffffffff_E1m": (
        "<demo::B<true, '\\'', -5, 0xffffffffffffffffffffffffffffffff>>::m"
    ),
    "_RIC1aKRe682269270ae288827f_E": 'a::<"h\\"i\'\\n∂\\u{7f}">',
    "_RIC1aKVNtNtC1b1E1CS1xln3_1yc7a_EE": "a::<{b::E::C { x: -3, y: 'z' }}>",
    "_RIC1aKVNtC1b1BTh3_b1_EKVNtC1b1AUE": "a::<{b::B(3, true)}, {b::A}>",
    "_RIC1aKRAh7_h8_EKTh1_EKe61_KQh1_E": 'a::<{&[7, 8]}, {(1,)}, {*"a"}, {&mut 1}>',
    "_RIC1aC4f128E": "a::<f128>",
}


@pytest.mark.parametrize(("mangled", "plain"), _KNOWN.items())
def test_names_are_those_of_the_source(mangled: str, plain: str) -> None:
    assert demangle(mangled.encode()) == plain


@pytest.mark.parametrize(
    "mangled",
    [
        "",
        "_R",
        "main",
        "_RNvC3foo",
        "_RNvC9999foo3bar",
        "_R1NvC3foo3bar",
        "_RNvC3foo3bar ",
        "_RNvC3foo3barx",
        "_RN1C3foo3bar",
        "_RB_",
        "_RNvB2_3foo",
        "_RNvCu3fo_3bar",
        "_RIC1aRL0_hE",
        "_RIC1aKb2_E",
        "_RIC1aKcd800_E",
        "_RIC1aKcffffffff_E",
        "_RIC1aKRe6_E",
        "_RIC1aKReff_E",
        "_RIC1aK",
        "_RIC1aDNtC1b1cEE",
        "_RIC1aDNtC1b1cEL0_E",
        "_RNvCszzzzzzzzzzzzzzzzzz_3foo3bar",
        "_RNvC3f\xf6o3bar",
    ],
)
def test_what_is_not_valid_is_not_read(mangled: str) -> None:
    assert demangle(mangled.encode("latin-1")) is None


def test_punycode_that_is_none_stays() -> None:
    assert demangle(b"_RNvC1au9abc_99999") == "a::punycode{abc-99999}"


@pytest.mark.parametrize(
    "mangled",
    [
        # 2**32 tuples; 100,000 lifetimes; and depths that no stack has
        "_RMC0"
        + "T" * 32
        + "p"
        + "".join(f"B{digit}_E" for digit in "yxwvutsrqponmlkjihgfedcba987654"),
        "_RIC1aFGzzzzzzzz_EuE",
        "_RIC1a" + "O" * 4000 + "hE",
        "_RIC1aK" + "R" * 4000 + "h1_E",
        "_R" + "Nv" * 2000 + "C1a" + "1b" * 2000,
        "_R" + "IC1a" * 1000,
        "_RIC1aW" + "O" * 4000,
    ],
)
def test_names_that_explode_are_not_read(mangled: str) -> None:
    """GIVEN names that take exponential time or any stack WHEN read THEN soon there is none."""
    before = perf_counter()

    assert demangle(mangled.encode()) is None
    assert perf_counter() - before < 5


def test_a_nearly_full_stack_is_no_error() -> None:
    mangled = b"_RIC1a" + b"O" * 150 + b"hE"

    def deeper(frames: int) -> str | None:
        return deeper(frames - 1) if frames else demangle(mangled)

    used = len(_frames())
    assert deeper(sys.getrecursionlimit() - used - 150) is None
    assert demangle(mangled) == "a::<" + "*mut " * 150 + "u8>"


def _frames() -> list[object]:
    frame, found = sys._getframe(), []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


@given(st.data())
@settings(max_examples=500)
def test_any_change_to_a_name_is_read_or_not(data: st.DataObject) -> None:
    mangled = bytearray(data.draw(st.sampled_from(list(_KNOWN))).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mangled) - 1))
        mangled[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.text("BCDEFGIKLMNORSTUVWXY_s0123456789ahpu", max_size=4)
        ).encode()
        mangled = mangled or bytearray(b"_R")

    plain = demangle(bytes(mangled))

    assert plain is None or 0 <= len(plain) <= 70_000
    if plain is not None:
        # no lone surrogates
        plain.encode()


@given(st.binary(max_size=99))
def test_any_bytes_are_read_or_not(content: bytes) -> None:
    for name in (content, b"_R" + content, b"_RNvC" + content):
        plain = demangle(name)
        assert plain is None or isinstance(plain, str)


_SOURCE = """
pub trait Watch<'a> { type Out; fn watch(&'a self) -> Self::Out; }
pub struct Places<T, const N: usize>([T; N]);
impl<'a, T: Clone + 'a, const N: usize> Watch<'a> for Places<T, N> {
    type Out = Option<T>;
    #[inline(never)] fn watch(&'a self) -> Option<T> { self.0.first().cloned() }
}
#[inline(never)] pub fn each<F: Fn(u8) -> u8>(f: F) -> u8 { f(3) }
fn main() { println!("{:?} {}", Places([1u8, 2, 3]).watch(), each(|x| x + 1)); }
"""


@pytest.mark.skipif(not shutil.which("rustc"), reason="no rustc")
def test_names_that_rustc_makes(tmp_path: Path) -> None:
    (tmp_path / "demo.rs").write_text(_SOURCE)
    flags = ["-C", "symbol-mangling-version=v0", "-o", tmp_path / "demo"]
    made = subprocess.run(["rustc", *flags, tmp_path / "demo.rs"], capture_output=True)
    if made.returncode:
        pytest.skip("rustc cannot compile")
    listing = subprocess.run(["nm", tmp_path / "demo"], check=True, capture_output=True).stdout
    names = {name for name in listing.split() if name.startswith(b"_R")}

    plain = {demangle(name) for name in names}

    assert None not in plain
    assert "<demo::Places<u8, 3> as demo::Watch>::watch" in plain
    assert "demo::each::<demo::main::{closure#0}>" in plain
