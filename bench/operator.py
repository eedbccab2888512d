"""Measures only the operator's tool (`python -m bench.operator`)."""

import sys

from bench.__main__ import main
from bench.plan import TOOL

if __name__ == "__main__":
    sys.exit(main(["--only", ",".join(TOOL), *sys.argv[1:]]))
