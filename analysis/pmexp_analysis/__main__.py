"""`python -m pmexp_analysis`."""

import gc
import sys

from pmexp.command_line import importing

with importing("report"):
    from pmexp_analysis.report import main

code = main()
gc.freeze()  # Python would search all that is left for cycles once more before it ends
sys.exit(code)
