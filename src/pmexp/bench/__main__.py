"""`python -m pmexp.bench`."""

import sys

from pmexp.command_line import importing

with importing("train"):
    from pmexp.bench.command import main

sys.exit(main())
