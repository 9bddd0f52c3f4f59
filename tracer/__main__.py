"""Entry point of ``python -m tracer`` and of the console script."""

from __future__ import annotations

import sys

from tracer.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
