"""`python -m pmexp.zoo`."""

import sys

from pmexp.command_line import importing

with importing("train"):
    from pmexp.zoo.command import main

sys.exit(main())
