"""Where a report goes: standard output, or a file that appears whole or not at all."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Callable, TextIO, TypeVar

import click
from click.core import ParameterSource
from rich.text import Text

from tracer.errors import InotraceError
from tracer.views.text import rendered

_Function = TypeVar("_Function", bound=Callable[..., Any])
# a file and a pipe have no width of their own: nothing is shortened there
_PLAIN_WIDTH = 400


def output_options(*formats: str) -> Callable[[_Function], _Function]:
    """``-f``, ``-o`` and ``--force``; the first format is the default."""

    def decorate(function: _Function) -> _Function:
        options = (
            click.option(
                "-f",
                "--format",
                "format_",
                type=click.Choice(formats),
                default=formats[0],
                show_default=True,
                help="How to print it; else a table on a terminal, plain lines in a pipe.",
            ),
            click.option(
                "-o", "--output", type=click.Path(dir_okay=False), help="Write to FILE instead."
            ),
            click.option("--force", is_flag=True, help="Let -o overwrite an existing file."),
        )
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def chosen_format(context: click.Context, stream: TextIO | None = None) -> str:
    """
    The format asked for; without one, ``plain`` unless a terminal will show it.

    `stream` is what the command prints on if not to a file, by default standard output.
    """
    chosen: str = context.params["format_"]
    if context.get_parameter_source("format_") is not ParameterSource.DEFAULT:
        return chosen
    shown_on = None if context.params["output"] is not None else stream or sys.stdout
    return chosen if shown_on is not None and shown_on.isatty() else "plain"


class Output:
    """
    Opened before the work begins, so that a bad `-o` costs no trace.

    Without a path the text goes to `stream`, by default standard output. A device or a named pipe
    is written to, never replaced. Raises InotraceError if the file exists (unless `force`) or
    cannot be created, or if standard output is closed.
    """

    def __init__(self, path: str | None, force: bool = False, stream: TextIO | None = None) -> None:
        self.path = Path(path) if path is not None else None
        self.stream = stream if stream is not None else sys.stdout
        self._force = force
        self._draft: IO[str] | None = None
        self._target: Path | None = None
        if self.path is None:
            if self.stream is None:
                raise _closed()
            return
        if _is_stream(self.path):
            self._draft = _open_stream(self.path)
        else:
            # through a symbolic link, which would else be replaced itself
            self._target = Path(os.path.realpath(self.path))
            self._refuse_existing(self._target)
            self._draft = self._create_draft(self._target)

    def __enter__(self) -> Output:
        return self

    def __exit__(self, *_: object) -> None:
        self._discard()

    def write(self, text: str) -> None:
        """
        Print `text`, or make it the content of the file.

        Raises InotraceError if it cannot be written. What was meant for a file is then on
        standard output, because a trace cannot be repeated.
        """
        if self._draft is None:
            print_on(self.stream, text)
            return
        try:
            self.append(text)
            self.commit()
        except InotraceError as error:
            if sys.stdout is None:
                raise
            print_on(sys.stdout, text)
            raise InotraceError(f"{error}; it was printed on standard output instead") from error

    def write_lines(self, lines: Callable[[int], Iterable[Text]], format_: str) -> None:
        """
        The same with `lines`, which are asked for with the width to fit.

        Only a table that is shown at once has to fit, and has colours where they can be seen.
        """
        is_shown = format_ == "table" and self.path is None
        stream, width = (self.stream, None) if is_shown else (None, _PLAIN_WIDTH)
        self.write(rendered(lines, stream, width))

    def append(self, text: str) -> None:
        """Print `text`, or add it to what the file will hold. Raises InotraceError."""
        if self._draft is None:
            print_on(self.stream, text)
            return
        try:
            self._draft.write(text)
        except OSError as error:
            raise self._failed(error.strerror) from error

    def commit(self) -> None:
        """Let the file appear. Raises InotraceError."""
        if self._draft is None:
            return
        try:
            self._draft.flush()
            self._finish(self._draft)
            self._draft.close()
        except OSError as error:
            raise self._failed(error.strerror) from error
        except InotraceError:
            self._discard()
            raise
        self._draft = None

    def _failed(self, reason: str | None) -> InotraceError:
        self._discard()
        return InotraceError(f"cannot write {self.path}: {reason}")

    def _finish(self, draft: IO[str]) -> None:
        if self._target is not None:
            self._refuse_existing(self._target)
            os.fsync(draft.fileno())
            os.replace(draft.name, self._target)

    def _refuse_existing(self, target: Path) -> None:
        try:
            mode = target.stat().st_mode
        except FileNotFoundError:
            return
        except OSError as error:
            raise InotraceError(f"cannot write {self.path}: {error.strerror}") from error
        if not stat.S_ISREG(mode):
            raise InotraceError(f"{self.path} is not a file: choose another name")
        if not self._force:
            raise InotraceError(
                f"{self.path} exists: choose another name or overwrite it with --force"
            )

    def _create_draft(self, target: Path) -> IO[str]:
        try:
            draft = tempfile.NamedTemporaryFile(  # noqa: SIM115 (open until written)
                "w",
                dir=target.parent,
                prefix=".inotrace-",
                delete=False,
                encoding="utf-8",
                errors="surrogateescape",
            )
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(draft.fileno(), 0o666 & ~umask)
        except OSError as error:
            raise InotraceError(f"cannot write {self.path}: {error.strerror}") from error
        return draft

    def _discard(self) -> None:
        if self._draft is not None:
            with suppress(OSError):
                self._draft.close()
            if self._target is not None:
                with suppress(OSError):
                    os.unlink(self._draft.name)
            self._draft = None


def _is_stream(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _open_stream(path: Path) -> IO[str]:
    try:
        return open(path, "w", encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise InotraceError(f"cannot write {path}: {error.strerror}") from error


def _closed() -> InotraceError:
    return InotraceError("standard output is closed: name a file with -o")


def print_on(stream: TextIO | None, text: str) -> None:
    """At once. Raises InotraceError, and BrokenPipeError if nobody reads it any more."""
    if stream is None:
        raise _closed()
    try:
        stream.write(encodable(text, stream))
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # Python would try, and complain, again at shutdown
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise InotraceError(f"cannot write to standard output: {error.strerror}") from error


def encodable(text: str, stream: TextIO) -> str:
    r"""A terminal that is not UTF-8 gets ``\u2026`` for an ellipsis, not a traceback."""
    encoding = stream.encoding or "utf-8"
    try:
        text.encode(encoding, stream.errors or "strict")
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text
