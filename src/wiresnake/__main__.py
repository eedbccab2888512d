"""`python -m wiresnake`: the operator's tool."""

import sys

from wiresnake.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
