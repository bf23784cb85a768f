"""`python -m pmexp.reproduce`."""

import sys

from pmexp.command_line import importing

with importing("train"):
    from pmexp.reproduce.command import main

if __name__ == "__main__":  # the processes of the runs import it too
    sys.exit(main())
