"""
Rust's names as the source has them, from the mangling "v0".

The format is that of the rustc book, "v0 Symbol Format" (RFC 2603); constants of other types than
integers are an extension that rustc-demangle reads. What is written follows its `{:#}`, which
leaves out the hashes of crates and the types of constants.

A name is a stranger's: one that is not valid, or that would become longer or deeper than any that
compilers make, is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

from tracer.stacks.rust_words import BASIC_TYPES, SIMPLE_CONSTANTS, Invalid, Mangled

# Back references make text that grows exponentially with the name.
_TEXT_MAX = 64 << 10
# Each step writes something as a rule; this bounds those that do not.
_STEPS_MAX = 64 << 10
# rustc-demangle allows 500, more than Python's stack has room for; rustc itself has names of 60.
_DEPTH_MAX = 200

_NAMESPACES = {"C": "closure", "S": "shim"}
_NAME = re.compile(r"_R([A-Z][\x21-\x7e]*)")
_LLVM_SUFFIX = re.compile(r"\.llvm\.[0-9A-F@]+")


def demangle(name: bytes) -> str | None:
    """
    The name as in the source, such as `<mycrate::Example as mycrate::Trait>::foo`.

    What the code generator appended (`.cold`) stays, except for `.llvm.` and digits. None if it is
    no name of this mangling.
    """
    found = _NAME.fullmatch(name.decode("latin-1"))
    if not found:
        return None
    reader = _Reader(found[1])
    try:
        return reader.symbol()
    # the caller may have left less of the stack than the greatest depth takes
    except (Invalid, RecursionError):
        return None


class _Reader:
    """Reads the text behind `_R` and writes as it goes."""

    def __init__(self, mangled: str) -> None:
        self._mangled = Mangled(mangled)
        self._depth = 0
        self._steps = 0
        self._lifetimes = 0
        self._is_silent = False
        self._written: list[str] = []
        self._size = 0

    def symbol(self) -> str:
        self._path(in_value=True)
        if self._mangled.peek().isupper():
            with self._silence():
                self._path(in_value=True)  # the crate that instantiated it
        suffix = self._mangled.rest()
        if suffix and suffix[0] not in ".$":
            raise Invalid
        return "".join(self._written) + _LLVM_SUFFIX.sub("", suffix)

    def _write(self, text: str) -> None:
        if self._is_silent:
            return
        self._written.append(text)
        self._size += len(text)
        if self._size > _TEXT_MAX:
            raise Invalid

    @contextmanager
    def _deeper(self) -> Iterator[None]:
        self._steps += 1
        self._depth += 1
        if self._depth > _DEPTH_MAX or self._steps > _STEPS_MAX:
            raise Invalid
        yield
        self._depth -= 1

    @contextmanager
    def _silence(self) -> Iterator[None]:
        before, self._is_silent = self._is_silent, True
        yield
        self._is_silent = before

    def _list(self, element: Callable[[], None], separator: str) -> int:
        """Elements up to an `E`, and how many."""
        number = 0
        while not self._mangled.eat("E"):
            if number:
                self._write(separator)
            element()
            number += 1
        return number

    def _back(self, element: Callable[[], None]) -> None:
        """What an earlier place of the name has, which a `B` refers to."""
        end = self._mangled.at - 1
        begin = self._mangled.base_62()
        if begin >= end:
            raise Invalid
        # it was read when it was passed: silent, nothing remains to be done
        if not self._is_silent:
            after, self._mangled.at = self._mangled.at, begin
            element()
            self._mangled.at = after

    # --- paths ---

    def _path(self, in_value: bool = False) -> None:
        with self._deeper():
            tag = self._mangled.next()
            if tag == "C":
                self._mangled.disambiguator()
                self._write(self._mangled.identifier())
            elif tag == "N":
                self._nested(in_value)
            elif tag in "MXY":
                self._implementation(tag)
            elif tag == "I":
                self._path(in_value)
                self._write("::<" if in_value else "<")
                self._list(self._generic_argument, ", ")
                self._write(">")
            elif tag == "B":
                self._back(lambda: self._path(in_value))
            else:
                raise Invalid

    def _nested(self, in_value: bool) -> None:
        namespace = self._mangled.next()
        if not namespace.isalpha():
            raise Invalid
        self._path(in_value)
        number = self._mangled.disambiguator()
        name = self._mangled.identifier()
        if namespace.isupper():
            kind = _NAMESPACES.get(namespace, namespace)
            self._write(f"::{{{kind}{':' if name else ''}{name}#{number}}}")
        elif name:
            self._write(f"::{name}")

    def _implementation(self, tag: str) -> None:
        """`<type>` or `<type as trait>`, not where the `impl` itself is."""
        if tag != "Y":
            with self._silence():
                self._mangled.disambiguator()
                self._path()
        self._write("<")
        self._type()
        if tag != "M":
            self._write(" as ")
            self._path()
        self._write(">")

    def _generic_argument(self) -> None:
        if self._mangled.eat("L"):
            self._lifetime(self._mangled.base_62())
        elif self._mangled.eat("K"):
            self._constant(in_value=False)
        else:
            self._type()

    # --- lifetimes ---

    def _lifetime(self, index: int) -> None:
        """The index counts from the innermost binder, names from the outermost."""
        level = self._lifetimes - index
        if level < 0:
            raise Invalid
        if not index:
            self._write("'_")
        else:
            self._write(f"'{chr(ord('a') + level)}" if level < 26 else f"'_{level}")

    @contextmanager
    def _binder(self) -> Iterator[None]:
        """`for<'a, 'b> ` before what the lifetimes are bound in."""
        number = self._mangled.optional_base_62("G")
        before = self._lifetimes
        if number and self._is_silent:
            self._lifetimes += number
        elif number:
            self._write("for<")
            for at in range(number):
                self._write(", " if at else "")
                self._lifetimes += 1
                self._lifetime(1)
            self._write("> ")
        yield
        self._lifetimes = before

    # --- types ---

    def _type(self) -> None:
        with self._deeper():
            tag = self._mangled.next()
            if tag in BASIC_TYPES:
                self._write(BASIC_TYPES[tag])
            elif tag in _COMPOUND_TYPES:
                _COMPOUND_TYPES[tag](self, tag)
            else:
                self._mangled.at -= 1
                self._path()

    def _reference(self, tag: str) -> None:
        self._write("&")
        if self._mangled.eat("L"):
            index = self._mangled.base_62()
            if index:
                self._lifetime(index)
                self._write(" ")
        self._write("mut " if tag == "Q" else "")
        self._type()

    def _pointer(self, tag: str) -> None:
        self._write("*mut " if tag == "O" else "*const ")
        self._type()

    def _array(self, tag: str) -> None:
        self._write("[")
        self._type()
        if tag == "A":
            self._write("; ")
            self._constant(in_value=True)
        self._write("]")

    def _tuple(self, _: str) -> None:
        self._write("(")
        number = self._list(self._type, ", ")
        self._write(",)" if number == 1 else ")")

    def _function(self, _: str) -> None:
        with self._binder():
            self._write("unsafe " if self._mangled.eat("U") else "")
            if self._mangled.eat("K"):
                abi = "C" if self._mangled.eat("C") else self._mangled.identifier()
                self._write(f'extern "{abi.replace("_", "-")}" ')
            self._write("fn(")
            self._list(self._type, ", ")
            self._write(")")
            if not self._mangled.eat("u"):
                self._write(" -> ")
                self._type()

    def _trait_object(self, _: str) -> None:
        self._write("dyn ")
        with self._binder():
            self._list(self._bound, " + ")
        if not self._mangled.eat("L"):
            raise Invalid
        index = self._mangled.base_62()
        if index:
            self._write(" + ")
            self._lifetime(index)

    def _bound(self) -> None:
        """A trait, and the associated types that it is bound to, among its arguments."""
        is_open = self._open_path()
        while self._mangled.eat("p"):
            self._write(", " if is_open else "<")
            is_open = True
            self._write(f"{self._mangled.identifier()} = ")
            if self._mangled.eat("K"):
                self._constant(in_value=False)
            else:
                self._type()
        self._write(">" if is_open else "")

    def _open_path(self) -> bool:
        """A path without the `>` of its arguments, and whether it has any."""
        is_open = False

        def again() -> None:
            nonlocal is_open
            is_open = self._open_path()

        with self._deeper():
            if self._mangled.eat("B"):
                self._back(again)
            elif self._mangled.eat("I"):
                self._path()
                self._write("<")
                self._list(self._generic_argument, ", ")
                is_open = True
            else:
                self._path()
        return is_open

    def _pattern_type(self, _: str) -> None:
        self._type()
        self._write(" is ")
        self._pattern()

    def _pattern(self) -> None:
        with self._deeper():
            tag = self._mangled.next()
            if tag == "R":
                self._constant(in_value=False)
                self._write("..=")
                self._constant(in_value=False)
            elif tag == "O":
                self._list(self._pattern, " | ")
            elif tag == "N":
                self._write("!null")
            else:
                raise Invalid

    # --- constants ---

    def _constant(self, in_value: bool = True) -> None:
        with self._deeper():
            tag = self._mangled.next()
            if tag == "p":
                self._write("_")
            elif tag == "B":
                self._back(lambda: self._constant(in_value))
            elif tag in SIMPLE_CONSTANTS:
                self._write(SIMPLE_CONSTANTS[tag](self._mangled))
            elif tag == "R" and self._mangled.eat("e"):
                self._write(self._mangled.string())
            elif in_value:
                self._compound_constant(tag)
            else:
                self._write("{")
                self._compound_constant(tag)
                self._write("}")

    def _compound_constant(self, tag: str) -> None:
        if tag == "e":
            self._write(f"*{self._mangled.string()}")
        elif tag in "RQ":
            self._write("&mut " if tag == "Q" else "&")
            self._constant()
        elif tag == "A":
            self._write("[")
            self._list(self._constant, ", ")
            self._write("]")
        elif tag == "T":
            self._constant_tuple()
        elif tag == "V":
            self._structure()
        else:
            raise Invalid

    def _constant_tuple(self) -> None:
        self._write("(")
        number = self._list(self._constant, ", ")
        self._write(",)" if number == 1 else ")")

    def _structure(self) -> None:
        self._path(in_value=True)
        kind = self._mangled.next()
        if kind == "T":
            self._write("(")
            self._list(self._constant, ", ")
            self._write(")")
        elif kind == "S":
            self._write(" { ")
            self._list(self._field, ", ")
            self._write(" }")
        elif kind != "U":
            raise Invalid

    def _field(self) -> None:
        self._mangled.disambiguator()
        self._write(f"{self._mangled.identifier()}: ")
        self._constant()


_COMPOUND_TYPES: dict[str, Callable[[_Reader, str], None]] = {
    "R": _Reader._reference,
    "Q": _Reader._reference,
    "P": _Reader._pointer,
    "O": _Reader._pointer,
    "A": _Reader._array,
    "S": _Reader._array,
    "T": _Reader._tuple,
    "F": _Reader._function,
    "D": _Reader._trait_object,
    "W": _Reader._pattern_type,
    "B": lambda reader, _: reader._back(reader._type),
}
