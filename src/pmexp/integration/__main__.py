"""`python -m pmexp.integration`."""

import sys

from pmexp.integration.command import main

sys.exit(main())
