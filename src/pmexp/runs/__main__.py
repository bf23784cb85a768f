"""`python -m pmexp.runs`."""

import sys

from pmexp.runs.command import main

sys.exit(main())
