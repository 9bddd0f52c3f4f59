"""
Run by gdb, attached to a program that waits: the stack of its next inotify_add_watch, as JSON.

It writes "ready" when the program may be told to make the call, then one line with the frames when
the kernel is about to return from the call.
"""

import json
import sys

import gdb

_SETTINGS = (
    "set pagination off",
    "set confirm off",
    "set debuginfod enabled off",
    # it ends at main otherwise
    "set backtrace past-main on",
    "handle all nostop noprint pass",
    "set print thread-events off",
)


def _say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _frames():
    """Every frame, innermost first, as far as gdb gets."""
    frame = gdb.newest_frame()
    while frame is not None:
        # what jumped to its last call is gone, and known to gdb from debug information
        if frame.type() != gdb.TAILCALL_FRAME:
            yield {
                "address": frame.pc(),
                "names": list(filter(None, _names(frame))),
                "inlined": frame.type() == gdb.INLINE_FRAME,
            }
        try:
            frame = frame.older()
        except gdb.error:
            return


def _names(frame):
    yield frame.name()
    if frame.type() == gdb.SIGTRAMP_FRAME:
        yield "<signal handler called>"
    if frame.type() != gdb.INLINE_FRAME:
        # "name + 7 in section .text of file"; of the function that the others are inlined in
        symbol, found, _ = gdb.execute(f"info symbol {frame.pc()}", to_string=True).partition(
            " in section "
        )
        yield symbol.partition(" + ")[0] if found else None


def _maps():
    with open(f"/proc/{gdb.selected_inferior().pid}/maps", errors="surrogateescape") as file:
        return file.read()


def main():
    for setting in _SETTINGS:
        try:
            gdb.execute(setting, to_string=True)
        except gdb.error:
            # debuginfod is not known to every gdb
            continue
    gdb.execute("catch syscall inotify_add_watch", to_string=True)
    _say("ready")
    # to the entry of the call, then to its return
    gdb.execute("continue", to_string=True)
    gdb.execute("continue", to_string=True)
    stack = {"frames": list(_frames()), "maps": _maps()}
    gdb.execute("detach", to_string=True)
    _say("stack " + json.dumps(stack))


main()
