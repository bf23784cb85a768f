"""`python -m pmexp.runs`."""

import sys

from pmexp.command_line import importing

with importing("train"):
    from pmexp.runs.command import main

sys.exit(main())
