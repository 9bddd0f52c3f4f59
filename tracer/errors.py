"""The one error a user sees: a line that says what failed and what to do, and an exit code."""

from __future__ import annotations

EXIT_CLEAN = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INCONCLUSIVE = 3
EXIT_LEAK = 23


class InotraceError(Exception):
    """
    An expected failure, printed as ``inotrace: message`` without a traceback.

    `detail` is what only `--debug` shows, such as the compiler's own messages.
    """

    def __init__(self, message: str, *, exit_code: int = EXIT_ERROR, detail: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.detail = detail
