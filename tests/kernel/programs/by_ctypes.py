"""Calls inotify_add_watch through ctypes from named functions."""

import ctypes
import sys

libc = ctypes.CDLL(None)
instance = libc.inotify_init()


def watch_here():
    return libc.inotify_add_watch(instance, b"/", 0x100)


def outer():
    wd = watch_here()
    assert wd > 0
    return wd


if __name__ == "__main__":
    print("ready", flush=True)
    for _ in sys.stdin:
        outer()
