"""`python -m pmexp_analysis`."""

import sys

from pmexp_analysis.report import main

sys.exit(main())
