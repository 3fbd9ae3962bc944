"""`python -m multikernel` is `multikernel`."""

from __future__ import annotations

import sys

from multikernel.cli import main

if __name__ == "__main__":
    sys.exit(main())
