"""`python -m easyphoto`."""

import sys

from easyphoto.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
