"""`python -m pmexp.integration`."""

import sys

from pmexp.command_line import importing

with importing("train"):
    from pmexp.integration.command import main

sys.exit(main())
