"""`python -m pmexp.bench`."""

import sys

from pmexp.bench.command import main

sys.exit(main())
