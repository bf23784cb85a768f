"""`python -m pmexp.parity`."""

import sys

from pmexp.command_line import importing

with importing("train"):
    from pmexp.parity.command import main

sys.exit(main())
