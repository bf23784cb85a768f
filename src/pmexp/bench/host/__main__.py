"""`python -m pmexp.bench.host`."""

import sys

from pmexp.bench.host.command import main

sys.exit(main())
