"""`python -m pmexp.parity`."""

import sys

from pmexp.parity.command import main

sys.exit(main())
