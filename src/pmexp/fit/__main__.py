"""`python -m pmexp.fit`."""

import sys

from pmexp.command_line import importing

with importing("train"):
    from pmexp.fit.command import main

sys.exit(main())
