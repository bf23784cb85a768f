"""`python -m pmexp.fit`."""

import sys

from pmexp.fit.command import main

sys.exit(main())
