"""Watches a folder with the Rust module of watchfiles, which does so in a thread of its own."""

import os
import sys

from watchfiles._rust_notify import RustNotify

kept = []

if __name__ == "__main__":
    print("ready", flush=True)
    for _ in sys.stdin:
        # paths, debug, force_polling, poll_delay_ms, recursive, ignore_permission_denied
        kept.append(RustNotify([sys.argv[1]], False, False, 300, False, False))
    os._exit(0)
